"""The gradients of matching, a few images at a time: the same numbers in little memory and time.

Gradients of real images are sums over images, so they are taken in chunks that stay in the cache.
The gradient of a distance with respect to the synthetic images is exact in chunks as well. With G
the gradient of all synthetic images, taken without a graph, and V the derivative of the distance at
G, that of a chunk's images is the gradient of the inner product of V with the chunk's share of G:
one graph of one chunk at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from cl_vision.condensation.convnet import ConvNet
from cl_vision.condensation.gradient_distance import Metric, gradient_distance

__all__ = [
    "Matched",
    "class_weights",
    "default_chunk",
    "forward_numbers",
    "match",
    "match_classes",
    "real_gradient",
]

_ALIVE = 2**23  # numbers of a forward pass: measured, more are slower and fewer gain nothing


class Matched(NamedTuple):
    """What a matching step found.

    Attributes:
        loss: The optimised distance, detached.
        averaged: The distance of the gradients averaged over classes, which compares methods.
        gradient: Of the loss with respect to the synthetic images.
    """

    loss: Float[Tensor, ""]
    averaged: Float[Tensor, ""]
    gradient: Float[Tensor, "n c h w"]


def default_chunk(network: nn.Module, x: Float[Tensor, "1 c h w"]) -> int:
    """Images at a time on a CPU: as many as stay near its caches.

    Args:
        network: Images to logits.
        x: One image.
    """
    return max(1, _ALIVE // forward_numbers(network, x))


@torch.no_grad()
def forward_numbers(network: nn.Module, x: Float[Tensor, "1 c h w"]) -> int:
    """How many numbers the layers of a network give for one image."""
    total = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel()

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    network(x)
    for hook in hooks:
        hook.remove()
    return total


def class_weights(
    labels: Int[Tensor, " n"], num_classes: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, " n"]:
    """Weights that make a sum over images the mean over classes of their means."""
    counts = torch.bincount(labels, minlength=num_classes)
    return 1.0 / (num_classes * counts[labels].to(dtype))


def real_gradient(
    network: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    weights: Float[Tensor, " n"],
    *,
    chunk: int | None = None,
) -> list[Tensor]:
    """The gradient of a weighted sum of cross-entropies, without a graph.

    Args:
        network: Images to logits.
        x: Images.
        y: Their classes.
        weights: Of each image in the sum.
        chunk: Images at a time, by default all.
    """
    parameters = list(network.parameters())
    forward: Callable[[Tensor], Tensor] = network
    if isinstance(network, ConvNet):
        forward = network.forward_once
    total: list[Tensor] = []
    for part, labels, share in _parts(x, y, weights, chunk):
        loss = (F.cross_entropy(forward(part), labels, reduction="none") * share).sum()
        gradient = list(torch.autograd.grad(loss, parameters))
        if total:
            torch._foreach_add_(total, gradient)
        else:
            total = [g.detach() for g in gradient]
    return total


def match(
    network: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    weights: Float[Tensor, " n"],
    target: Sequence[Tensor],
    *,
    metric: Metric = "ours",
    chunk: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n c h w"], list[Tensor]]:
    """Compare the gradient of synthetic images with a target, and differentiate by the images.

    Args:
        network: Images to logits.
        x: Synthetic images.
        y: Their classes.
        weights: Of each image in the sum of cross-entropies.
        target: The real gradient.
        metric: Of the distance.
        chunk: Images at a time, by default all.

    Returns:
        The distance, its gradient with respect to ``x``, and the gradient of the images; detached.
    """
    parameters = list(network.parameters())
    x = x.detach()
    if chunk is None or chunk >= len(x):
        leaf = x.requires_grad_()
        own = _differentiable(network, leaf, y, weights, parameters)
        distance = gradient_distance(own, target, metric=metric)
        (slope,) = torch.autograd.grad(distance, leaf)
        return distance.detach(), slope, [g.detach() for g in own]
    own = [g.requires_grad_() for g in real_gradient(network, x, y, weights, chunk=chunk)]
    distance = gradient_distance(own, target, metric=metric)
    slopes = torch.autograd.grad(distance, own, allow_unused=True)
    parts = []
    for part, labels, share in _parts(x, y, weights, chunk):
        leaf = part.detach().requires_grad_()
        shares = _differentiable(network, leaf, labels, share, parameters)
        along = [(g * v).sum() for g, v in zip(shares, slopes, strict=True) if v is not None]
        parts.append(torch.autograd.grad(torch.stack(along).sum(), leaf)[0])
    return distance.detach(), torch.cat(parts), [g.detach() for g in own]


def match_classes(
    network: nn.Module,
    real: Sequence[Tensor],
    synthetic: Sequence[Tensor],
    *,
    contrast: bool,
    metric: Metric = "ours",
    real_chunk: int | None = None,
    syn_chunk: int | None = None,
) -> Matched:
    """One matching step: the loss of DC or of DCC and its gradient.

    Class by class the graph of one class is alive at a time, so memory does not grow with their
    number; all at once, that of one chunk.

    Args:
        network: Images to logits.
        real: Real images of each class, already augmented.
        synthetic: Synthetic images of each class, already augmented.
        contrast: Match all classes at once.
        metric: Of the distance.
        real_chunk: Real images at a time, by default all of a class.
        syn_chunk: Synthetic images at a time, by default all that are matched together.
    """
    number = len(real)
    device = real[0].device
    dtype = next(network.parameters()).dtype
    if contrast:
        y = _labels(real)
        weights = class_weights(y, number, dtype)
        target: list[Tensor] = []
        # Class by class also here: the classes together would be a second copy of the batch.
        start = 0
        for x in real:
            here = slice(start, start + len(x))
            part = real_gradient(network, x, y[here], weights[here], chunk=real_chunk)
            target = _sum(target, part)
            start += len(x)
        y = _labels(synthetic)
        weights = class_weights(y, number, dtype)
        loss, slope, _ = match(
            network, torch.cat(list(synthetic)), y, weights, target, metric=metric, chunk=syn_chunk
        )
        return Matched(loss, loss, slope)
    losses, slopes = [], []
    all_real: list[Tensor] = []
    all_own: list[Tensor] = []
    for label, (t, s) in enumerate(zip(real, synthetic, strict=True)):
        y, weights = _one_class(label, len(t), device, dtype)
        target = real_gradient(network, t, y, weights, chunk=real_chunk)
        y, weights = _one_class(label, len(s), device, dtype)
        loss, slope, own = match(network, s, y, weights, target, metric=metric, chunk=syn_chunk)
        losses.append(loss)
        slopes.append(slope)
        all_real = _sum(all_real, target)
        all_own = _sum(all_own, own)
    averaged = gradient_distance(
        [g / number for g in all_own], [g / number for g in all_real], metric=metric
    )
    return Matched(torch.stack(losses).sum(), averaged, torch.cat(slopes))


def _differentiable(
    network: nn.Module, x: Tensor, y: Tensor, weights: Tensor, parameters: Sequence[Tensor]
) -> list[Tensor]:
    loss = (F.cross_entropy(network(x), y, reduction="none") * weights).sum()
    return list(torch.autograd.grad(loss, parameters, create_graph=True))


def _parts(
    x: Tensor, y: Tensor, weights: Tensor, chunk: int | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    size = chunk or len(x)
    return zip(torch.split(x, size), torch.split(y, size), torch.split(weights, size), strict=True)


def _sum(total: list[Tensor], part: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(total, part, strict=True)] if total else part


def _labels(images: Sequence[Tensor]) -> Tensor:
    counts = torch.tensor([len(x) for x in images], device=images[0].device)
    return torch.arange(len(images), device=counts.device).repeat_interleave(counts)


def _one_class(
    label: int, n: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    return (
        torch.full((n,), label, device=device),
        torch.full((n,), 1 / n, device=device, dtype=dtype),
    )
