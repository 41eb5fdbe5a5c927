r"""What a set does to the network that learns from it: kernel velocity, and shares of gradients.

The *tangent kernel* of a network on probe images is $K = J J^\top$, $J$ the derivative of all
logits by all parameters. Its distance to a later one is
$1 - \langle K, K' \rangle_F / (\lVert K \rVert_F \lVert K' \rVert_F)$, and its velocity that
distance by the time between. The form is that of the literature on tangent kernels; the
condensation paper reports such a velocity, its exact form could not be verified.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from cl_vision.condensation.convnet import fresh
from cl_vision.condensation.gradient_distance import row_distances
from cl_vision.condensation.matching import class_gradients

__all__ = [
    "feature_cosines",
    "gradient_share",
    "kernel_distance",
    "kernel_velocity",
    "tangent_kernel",
]

_PROBE = 64


def tangent_kernel(network: nn.Module, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "m m"]:
    """The kernel on probe images; rows are images first, then logits.

    Args:
        network: Images to logits.
        x: At most 64 images.

    Raises:
        ValueError: If there are more: the kernel has (images x logits) squared numbers.
    """
    if len(x) > _PROBE:
        raise ValueError(f"at most {_PROBE} probe images, got {len(x)}")
    parameters = list(network.parameters())
    rows = []
    for logit in network(x).flatten():
        parts = torch.autograd.grad(logit, parameters, retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T


def kernel_distance(k: Float[Tensor, "m m"], later: Float[Tensor, "m m"]) -> float:
    """One minus the cosine of two kernels."""
    return float(1 - (k * later).sum() / (k.norm() * later.norm()))


def kernel_velocity(
    build: Callable[[], nn.Module],
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    probe: Float[Tensor, "p c h w"],
    *,
    epochs: int,
    every: int,
    generator: torch.Generator,
    lr: float = 0.01,
    momentum: float = 0.9,
) -> list[float]:
    """Train a fresh network on a set and tell the kernel's velocity on the way.

    Args:
        build: Makes the network.
        images: The set, taken as one batch.
        labels: Their classes.
        probe: Images the kernel is taken on.
        epochs: Steps of the training.
        every: Steps between two looks.
        generator: Of the weights.
        lr: Learning rate.
        momentum: Of SGD.

    Returns:
        The distance a step, for each interval.
    """
    network = fresh(build, generator)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum)
    kernel, found = tangent_kernel(network, probe), []
    for step in range(1, epochs + 1):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % every == 0:
            later = tangent_kernel(network, probe)
            found.append(kernel_distance(kernel, later) / every)
            kernel = later
    return found


def gradient_share(
    network: nn.Module, synthetic: Float[Tensor, "m c h w"], real: Sequence[Tensor]
) -> Float[Tensor, " k"]:
    """How much of class 0's synthetic gradient lies along each real class's; sums to 1.

    Args:
        network: Images to logits.
        synthetic: Synthetic images of class 0.
        real: Real images of each class.
    """
    (own,) = class_gradients(network, [synthetic])
    shares = [
        sum(
            (a.flatten(1) * b.flatten(1)).sum(1).abs().sum()
            for a, b in zip(own, gradient, strict=True)
            if a.ndim > 1
        )
        for gradient in class_gradients(network, real)
    ]
    total = torch.stack([torch.as_tensor(share) for share in shares])
    return total / total.sum()


@torch.no_grad()
def feature_cosines(
    embed: Callable[[Tensor], Tensor],
    synthetic: Float[Tensor, "m c h w"],
    real: Sequence[Tensor],
) -> Float[Tensor, " k"]:
    """The cosine of the mean feature of class 0's synthetic images and each real class's."""
    own = embed(synthetic).mean(0)[None]
    return torch.cat([1 - row_distances(own, embed(x).mean(0)[None]) for x in real])
