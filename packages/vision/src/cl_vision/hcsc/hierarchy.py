r"""k-means of the centroids of k-means: a tree from fine to coarse (HCSC, Guo et al. 2022).

Level 0 clusters the rows; level $l+1$ clusters the centroids of level $l$ scaled to unit length,
its prototypes. With $\pi^l$ the parent map and $a^l(i)$ the cluster of row $i$,
$a^{l+1}(i) = \pi^l(a^l(i))$. Nearness is Euclidean to the centroids as k-means left them; only
prototypes have unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cl_core.kmeans import assign, kmeans

__all__ = ["Hierarchy", "build_hierarchy", "hierarchical_kmeans"]


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """A tree of clusters, from the finest level to the coarsest; tuples have an entry a level.

    Args:
        centroids: Raw centroids ``(k_l, d)``.
        prototypes: The same, scaled to unit length.
        assignments: Cluster of each of this rank's rows ``(n,)``, int64; at level 0 its nearest,
            above the parent of its cluster below.
        parents: For each cluster its cluster one level up ``(k_l,)``, int64; one entry less.
    """

    centroids: tuple[Tensor, ...]
    prototypes: tuple[Tensor, ...]
    assignments: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]


@torch.no_grad()
def build_hierarchy(x: Float[Tensor, "n d"], centroids: Sequence[Tensor]) -> Hierarchy:
    """Connect rows and raw centroids of every level to a tree.

    Args:
        x: Rows.
        centroids: Raw centroids ``(k_l, d)`` of each level, finest first.

    Raises:
        ValueError: If no level is given or shapes do not fit.
    """
    if not centroids:
        raise ValueError("a hierarchy needs the centroids of at least one level, got none")
    prototypes = tuple(F.normalize(c, dim=1) for c in centroids)
    parents = tuple(
        assign(fine, coarse) for fine, coarse in zip(prototypes[:-1], centroids[1:], strict=True)
    )
    return Hierarchy(
        centroids=tuple(centroids),
        prototypes=prototypes,
        assignments=_ancestors(assign(x, centroids[0]), parents),
        parents=parents,
    )


@torch.no_grad()
def hierarchical_kmeans(
    x: Float[Tensor, "n d"],
    levels: Sequence[int] = (3000, 2000, 1000),
    *,
    iterations: int = 20,
    restarts: int = 5,
    init: Literal["k-means++", "random"] = "k-means++",
    seed: int = 0,
    gather: bool = False,
    block_size: int | None = None,
) -> Hierarchy:
    """Cluster rows, then prototypes, level by level.

    Args:
        x: Rows; for HCSC features of unit length.
        levels: Clusters of each level, finest first, none larger than the one before.
        iterations: Updates of the centroids at most, per run.
        restarts: Runs per level, of which the one of least inertia is kept.
        init: How each run starts; the released code of HCSC starts from random rows.
        seed: Level ``l`` uses ``seed + l``.
        gather: ``x`` is this rank's shard of the rows; the levels above are computed alike on every
            rank.
        block_size: Rows compared with the centroids at once; changes speed and memory only.

    Returns:
        The tree.

    Raises:
        ValueError: If the levels grow, or for what ``kmeans`` refuses.
    """
    if not levels or any(fine < coarse for fine, coarse in pairwise(levels)):
        raise ValueError(f"levels must go from fine to coarse, such as (30, 10), got {levels}")
    centroids: list[Tensor] = []
    parents: list[Tensor] = []
    rows = x
    for level, k in enumerate(levels):
        found = kmeans(
            rows,
            k,
            iterations=iterations,
            restarts=restarts,
            init=init,
            seed=seed + level,
            gather=gather and level == 0,
            block_size=block_size,
        )
        centroids.append(found.centroids)
        parents.append(found.assignment)
        rows = F.normalize(found.centroids, dim=1)
    return Hierarchy(
        centroids=tuple(centroids),
        prototypes=tuple(F.normalize(c, dim=1) for c in centroids),
        assignments=_ancestors(parents[0], parents[1:]),
        parents=tuple(parents[1:]),
    )


def _ancestors(first: Int[Tensor, " n"], parents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    assignments = [first]
    for parent in parents:
        assignments.append(parent[assignments[-1]])
    return tuple(assignments)
