"""Real images that stand for a class: at random, by herding, by k-means, nearest to the mean."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl_core.kmeans import kmeans

__all__ = ["Selection", "herding", "nearest_to_centroids", "nearest_to_mean", "select"]

Selection = Literal["random", "herding", "kmeans", "nearest"]


def select(
    how: Selection,
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    ipc: int,
    generator: torch.Generator,
) -> Int[Tensor, " m"]:
    """Choose ``ipc`` rows of each class, class 0 first.

    Args:
        how: ``random``, ``herding``, ``kmeans`` or ``nearest`` (to the mean of the class).
        features: What rows are compared by; any floats for ``random``.
        labels: Class of each row, every class with at least ``ipc`` rows.
        ipc: Rows a class.
        generator: Of ``random`` and of the start of ``kmeans``, on the CPU.

    Raises:
        ValueError: If the way is unknown or a class has too few rows.
    """
    if how not in get_args(Selection):
        raise ValueError(f"how must be one of {', '.join(get_args(Selection))}, got {how!r}")
    chosen = []
    for label in range(int(labels.max()) + 1):
        rows = (labels == label).nonzero().flatten()
        if len(rows) < ipc:
            raise ValueError(f"class {label} has {len(rows)} rows, fewer than {ipc}")
        if how == "random":
            chosen.append(rows[torch.randperm(len(rows), generator=generator)[:ipc]])
            continue
        x = features[rows]
        if how == "herding":
            places = herding(x, ipc)
        elif how == "nearest":
            places = nearest_to_mean(x, ipc)
        else:
            seed = int(torch.randint(2**31, (1,), generator=generator))
            places = nearest_to_centroids(x, ipc, seed)
        chosen.append(rows[places])
    return torch.cat(chosen)


def herding(x: Float[Tensor, "n d"], m: int) -> Int[Tensor, " m"]:
    """Choose rows one by one so that the mean of those chosen is nearest to the mean of all.

    Welling, "Herding Dynamical Weights to Learn", ICML 2009, as used for rehearsal by Rebuffi et
    al., "iCaRL", CVPR 2017. No row is chosen twice.
    """
    mean, total = x.mean(0), torch.zeros_like(x[0])
    free = torch.ones(len(x), dtype=torch.bool, device=x.device)
    chosen: list[int] = []
    for k in range(1, m + 1):
        distance = ((total + x) / k - mean).square().sum(1).masked_fill(~free, float("inf"))
        best = int(distance.argmin())
        free[best] = False
        total = total + x[best]
        chosen.append(best)
    return torch.tensor(chosen)


def nearest_to_mean(x: Float[Tensor, "n d"], m: int) -> Int[Tensor, " m"]:
    """The ``m`` rows nearest to the mean of all, nearest first."""
    return (x - x.mean(0)).square().sum(1).argsort(stable=True)[:m].cpu()


def nearest_to_centroids(x: Float[Tensor, "n d"], m: int, seed: int) -> Int[Tensor, " m"]:
    """The row nearest to each of ``m`` centroids of k-means, each row once."""
    centroids = kmeans(x, m, seed=seed).centroids
    distance = torch.cdist(centroids.to(x.dtype), x)
    chosen = []
    for row in distance:
        best = int(row.argmin())
        distance[:, best] = float("inf")
        chosen.append(best)
    return torch.tensor(chosen)
