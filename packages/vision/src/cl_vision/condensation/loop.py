r"""The condensation loop: match gradients, step the images, train the network, and again.

As in the released code of DC, DSA and DCC. One outer iteration takes a fresh network. No gradient
flows through the network's training. :func:`condense_images` is the whole loop in memory; a run
that is checkpointed is :mod:`~cl_vision.condensation.condense`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from cl_vision.condensation import siamese
from cl_vision.condensation.chunks import match_classes
from cl_vision.condensation.convnet import ConvNet, fresh
from cl_vision.condensation.gradient_distance import Metric
from cl_vision.condensation.matching import uses_contrast

__all__ = ["Loop", "condense_images", "outer_iteration", "train_network"]

_NORM_IMAGES = 16  # real images a class that set the statistics of batch norm

RealBatches = Callable[[], Sequence[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The numbers of the loop; the defaults are the published ones of one image a class.

    Attributes:
        outer_loop: Networks.
        inner_loop: Matching steps on each.
        network_epochs: Of training on the set between two steps.
        contrast: Match all classes at once after the warm-up (DCC, DSAC).
        outer_warmup: Outer iterations of the warm-up.
        inner_warmup: Steps of the warm-up in each of these.
        strategy: Of siamese augmentation; empty for none.
        metric: Of the gradient distance.
        image_lr: Step size of the images.
        image_momentum: Of the images.
        network_lr: Step size of the networks.
        real_batch: Real images a class and step.
        train_batch: Images of the set a step of a network.
        real_chunk: Real images at a time, by default all of a class.
        syn_chunk: Synthetic images at a time, by default all that are matched together.
        clamp: Keep pixels in the range of pictures.
    """

    outer_loop: int = 1000
    inner_loop: int = 10
    network_epochs: int = 5
    contrast: bool = True
    outer_warmup: int = 250
    inner_warmup: int = 10
    strategy: str = ""
    metric: Metric = "ours"
    image_lr: float = 0.1
    image_momentum: float = 0.5
    network_lr: float = 0.01
    real_batch: int = 256
    train_batch: int = 256
    real_chunk: int | None = None
    syn_chunk: int | None = None
    clamp: bool = False


def outer_iteration(
    images: Tensor,
    labels: Int[Tensor, " n"],
    network: nn.Module,
    optimizer: Any,
    loop: Loop,
    *,
    outer: int,
    real_batches: RealBatches,
    generator: torch.Generator,
    bounds: tuple[Tensor, Tensor] | None = None,
) -> list[tuple[Tensor, Tensor, bool]]:
    """One outer iteration: match, step the images, train the network, and again.

    Args:
        images: The synthetic images ``(n, c, h, w)``, grouped by class; their ``grad`` is set.
        labels: Their classes, as many of each.
        network: Freshly initialised; trained on the way.
        optimizer: Of the images.
        loop: The numbers.
        outer: Index of the iteration, from 0.
        real_batches: Draws real images of each class, class 0 first.
        generator: Of augmentation and shuffling, on the CPU.
        bounds: Least and greatest value of a pixel, by channel, if images are clamped.

    Returns:
        Of each step the optimised distance, that of averaged gradients, and whether it was
        contrastive.
    """
    steps = []
    ipc = int((labels == labels[0]).sum())
    for il in range(loop.inner_loop):
        real = list(real_batches())
        _set_batch_norms(network, real)
        views = list(torch.split(images, ipc))
        if loop.strategy:
            draws = [
                siamese.augment(loop.strategy, 1, (images.shape[2], images.shape[3]), generator)
                for _ in views
            ]
            real = [siamese.apply(x, *d) for x, d in zip(real, draws, strict=True)]
            views = [siamese.apply(x, *d) for x, d in zip(views, draws, strict=True)]
        contrast = uses_contrast(
            outer,
            il,
            outer_warmup=loop.outer_warmup,
            inner_warmup=loop.inner_warmup,
            contrast=loop.contrast,
        )
        matched = match_classes(
            network,
            real,
            [view.detach() for view in views],
            contrast=contrast,
            metric=loop.metric,
            real_chunk=loop.real_chunk,
            syn_chunk=loop.syn_chunk,
        )
        optimizer.zero_grad()
        torch.autograd.backward(torch.cat(views), matched.gradient)
        optimizer.step()
        if bounds is not None:
            with torch.no_grad():
                images.clamp_(*bounds)
        steps.append((matched.loss, matched.averaged, contrast))
        if il < loop.inner_loop - 1:  # the last network is thrown away
            train_network(
                network,
                images.detach(),
                labels,
                epochs=loop.network_epochs,
                batch=loop.train_batch,
                lr=loop.network_lr,
                strategy=loop.strategy,
                generator=generator,
            )
    return steps


def train_network(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    *,
    epochs: int,
    batch: int,
    lr: float,
    strategy: str,
    generator: torch.Generator,
) -> None:
    """Train a network on the set by plain SGD.

    Args:
        network: Trained in place.
        images: The set.
        labels: Their classes.
        epochs: Passes.
        batch: Images a step.
        lr: Step size.
        strategy: An operation a mini-batch, with parameters of its own for each image.
        generator: Of order and operations.
    """
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    forward = network.forward_once if isinstance(network, ConvNet) else network
    for _ in range(epochs):
        whole = len(images) <= batch  # in one step the order does not matter
        order = None if whole else torch.randperm(len(images), generator=generator)
        for rows in [None] if order is None else torch.split(order, batch):
            x, y = (images, labels) if rows is None else (images[rows], labels[rows])
            if strategy:
                size = (x.shape[2], x.shape[3])
                x = siamese.apply(x, *siamese.augment(strategy, len(x), size, generator))
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(forward(x), y))
            optimizer.step()


def _set_batch_norms(network: nn.Module, real: Sequence[Tensor]) -> None:
    """Let batch norms see real images once, and freeze them for the matching."""
    network.train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        with torch.no_grad():
            network(torch.cat([x[:_NORM_IMAGES] for x in real]))
        for norm in norms:
            norm.eval()


def condense_images(
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    start: Float[Tensor, "m c h w"],
    build: Callable[[], nn.Module],
    loop: Loop,
    generator: torch.Generator,
) -> Float[Tensor, "m c h w"]:
    """Condense images in memory, without a run.

    Args:
        x: Real images, normalised.
        y: Their classes, from 0 without gaps.
        start: Where the synthetic ones start, as many of each class, class 0 first.
        build: Makes a network of any weights.
        loop: The numbers.
        generator: Of every draw, on the CPU.

    Returns:
        The synthetic images, grouped as ``start``.
    """
    number = int(y.max()) + 1
    rows = [(y == label).nonzero().flatten() for label in range(number)]
    images = start.detach().clone().requires_grad_()
    labels = torch.arange(number).repeat_interleave(len(start) // number)
    optimizer = torch.optim.SGD([images], lr=loop.image_lr, momentum=loop.image_momentum)

    def draw() -> list[Tensor]:
        return [
            x[own[torch.randperm(len(own), generator=generator)[: loop.real_batch]]] for own in rows
        ]

    for outer in range(loop.outer_loop):
        outer_iteration(
            images,
            labels,
            fresh(build, generator),
            optimizer,
            loop,
            outer=outer,
            real_batches=draw,
            generator=generator,
        )
    return images.detach()
