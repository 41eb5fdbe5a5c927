"""Clusters of all images for HCSC: features of every rank's share, then k-means level by level.

An estimate is a function of the features and the seed alone, so a resumed run repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl_core.distributed import gather_rows, rank
from cl_vision.hcsc.equations import concentrations, member_distances
from cl_vision.hcsc.hierarchy import Hierarchy, hierarchical_kmeans

__all__ = ["Encoded", "Estimate", "encode_shard", "estimate"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """This rank's share of all images, in the order of their rows.

    Args:
        rows: Which images; over all ranks each is mine once, others' copies are not ``mine``.
        features: Of unit length.
        labels: Classes, -1 for none.
        mine: Whether this rank answers for the image: samplers repeat images to give every rank
            equally many.
    """

    rows: Int[Tensor, " m"]
    features: Float[Tensor, "m d"]
    labels: Int[Tensor, " m"]
    mine: Tensor


def encode_shard(loader: Iterable[Any], encode: Callable[[Any], Tensor]) -> Encoded:
    """Encode what a loader gives this rank.

    Args:
        loader: All images, once, under the evaluation's transform; each rank may get a share (as
            many images on each), or all of them.
        encode: Gives unit-length features of a batch, where k-means is to run.

    Raises:
        ValueError: If the loader is empty, or the ranks get different numbers of images.
    """
    rows, features, labels = [], [], []
    for batch in loader:
        z = encode(batch)
        features.append(z)
        rows.append(batch.row.to(z.device))
        labels.append(batch.label.to(z.device))
    if not rows:
        raise ValueError("the loader for the clusters gives no batch")
    row = torch.cat(rows)
    order = row.argsort(stable=True)
    row = row[order]
    return Encoded(
        rows=row,
        features=torch.cat(features)[order],
        labels=torch.cat(labels)[order],
        mine=_first_of_all_ranks(row),
    )


def _first_of_all_ranks(rows: Tensor) -> Tensor:
    """Return which of this rank's rows no earlier place of any rank holds."""
    of_all = gather_rows(rows, grad=False)
    values, order = of_all.sort(stable=True)
    first = torch.ones_like(of_all, dtype=torch.bool)
    first[order[1:]] = values[1:] != values[:-1]
    return first[rank() * len(rows) :][: len(rows)]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A hierarchy of clusters over the images of all ranks.

    Args:
        hierarchy: Its assignments are those of this rank's own images.
        phi: Concentrations ``(k_l,)`` of each level, finest first.
    """

    hierarchy: Hierarchy
    phi: tuple[Tensor, ...]


@torch.no_grad()
def estimate(
    features: Float[Tensor, "n d"],
    clusters: Sequence[int],
    *,
    temperature: float,
    iterations: int = 20,
    restarts: int = 5,
    seed: int = 0,
) -> Estimate:
    """Cluster features level by level and measure how concentrated each cluster is.

    As the released code, k-means starts from random rows and level ``l`` from ``seed + l``.

    Args:
        features: This rank's own images, of unit length.
        clusters: Clusters of each level, finest first.
        temperature: Mean concentration of every level.
        iterations: Updates of the centroids at most.
        restarts: Runs per level, of which the best is kept.
        seed: With the features, all that the result depends on.
    """
    hierarchy = hierarchical_kmeans(
        features,
        clusters,
        iterations=iterations,
        restarts=restarts,
        init="random",
        seed=seed,
        gather=True,
    )
    return Estimate(hierarchy=hierarchy, phi=_phi(features, hierarchy, temperature))


def _phi(features: Tensor, tree: Hierarchy, temperature: float) -> tuple[Tensor, ...]:
    """Members are images at the finest level, the prototypes of the level below elsewhere."""
    members = (features, *tree.prototypes[:-1])
    assigned = (tree.assignments[0], *tree.parents)
    return tuple(
        concentrations(*member_distances(x, centroids, index, gather=level == 0), temperature).to(
            features.dtype
        )
        for level, (x, centroids, index) in enumerate(
            zip(members, tree.centroids, assigned, strict=True)
        )
    )
