r"""Lloyd's k-means, with every cluster kept alive.

$$\min_{c_1..c_k} \sum_i \min_j \lVert x_i - c_j \rVert^2$$

by turns: each row to its nearest centroid, each centroid to the mean of its rows (spherical: to
the direction of that mean). A cluster without rows takes, as its new centroid, the row farthest
from its own; several such clusters do so in turn, each seeing the centroids placed before. Neither
step can raise the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cl_core.kmeans._assign import check_values, compute_dtype, magnitude, nearest
from cl_core.kmeans._seed import greedy_plus_plus, is_small, plus_plus, random_rows
from cl_core.kmeans._shards import Shards

__all__ = ["Clustering", "kmeans"]

_ROWS = 8192  # rows summed or compared at once


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """What ``kmeans`` found.

    Args:
        centroids: In float32 or wider, on the device of the rows; the same on every rank.
        assignment: Index of the nearest centroid of each of this rank's rows.
        counts: Rows of each cluster, over all ranks.
        inertia: Sum of squared distances of all rows to their centroids.
        history: Inertia before each update of the centroids and at the end; it never rises.
        converged: Whether a further iteration would change nothing.
    """

    centroids: Float[Tensor, "k d"]
    assignment: Int[Tensor, " n"]
    counts: Int[Tensor, " k"]
    inertia: float
    history: tuple[float, ...]
    converged: bool


@torch.no_grad()
def kmeans(
    x: Float[Tensor, "n d"],
    k: int,
    *,
    iterations: int = 20,
    restarts: int = 1,
    init: Literal["k-means++", "random"] | Float[Tensor, "k d"] = "k-means++",
    spherical: bool = False,
    seed: int = 0,
    gather: bool = False,
    block_size: int | None = None,
) -> Clustering:
    """Cluster rows by k-means.

    Every cluster has a row as long as ``k`` rows differ. Beyond that some centroids coincide, and
    rows go to the first of them. Memory beyond ``x`` is a few numbers per row plus one tile.

    Args:
        x: Rows, computed in float32 or wider.
        k: Clusters, at most as many as rows.
        iterations: Updates of the centroids at most; it ends early where nothing changes any more.
        restarts: Runs from different starts, of which the one of least inertia is kept.
        init: How to start: by k-means++, by random rows, or from these centroids.
        spherical: Cluster directions: rows and centroids are scaled to unit length, which makes
            the nearest centroid the one of greatest cosine.
        seed: The result is a function of the rows, their order and this number.
        gather: Cluster the rows of all ranks together: each brings its shard, of any length, and
            the result is that of one process with the shards in the order of the ranks.
        block_size: Rows compared with the centroids at once; changes speed and memory only.

    Returns:
        The clustering of least inertia.

    Raises:
        ValueError: If there are fewer rows than clusters, on NaN or infinite values or values too
            large to square, on a row of zeros where ``spherical``, or if options contradict.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> kmeans(x, 2).centroids.sort(0).values.flatten().tolist()
        [0.5, 10.5]
    """
    shards = Shards(_checked(x, spherical=spherical, gather=gather), gather=gather)
    if not 1 <= k <= shards.total:
        raise ValueError(f"k must be from 1 to the number of rows, got k={k}, {shards.total} rows")
    if iterations < 1 or restarts < 1:
        raise ValueError(
            f"iterations and restarts must be at least 1, got {iterations} and {restarts}"
        )
    given = isinstance(init, Tensor)
    if isinstance(init, Tensor):
        if init.shape != (k, x.shape[1]):
            raise ValueError(
                f"init must hold the centroids as ({k}, {x.shape[1]}), got {tuple(init.shape)}"
            )
        check_values("centroids of init", magnitude(init), init)
        if restarts > 1:
            raise ValueError("restarts from given centroids would all be the same: use restarts=1")
    elif init not in ("k-means++", "random"):
        raise ValueError(f"init must be 'k-means++', 'random' or centroids, got {init!r}")

    generator = torch.Generator().manual_seed(seed)
    best: Clustering | None = None
    for _ in range(restarts):
        if isinstance(init, Tensor):
            start = init.to(x.device, compute_dtype(x), copy=True)
        elif init == "random":
            start = random_rows(shards, k, generator)
        elif is_small(shards, k):
            start = greedy_plus_plus(shards, k, generator)
        else:
            start = plus_plus(shards, k, generator, block_size=block_size)
        if spherical and given:
            start = F.normalize(start, dim=1)
        found = _lloyd(shards, start, iterations, spherical, block_size)
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None
    return best


def _checked(x: Tensor, *, spherical: bool, gather: bool) -> Tensor:
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"rows must be floating point (n, d), got {x.dtype} {tuple(x.shape)}")
    joint = Shards(x, gather=gather)
    check_values("rows", joint.parts(magnitude(x)).max(), x)
    if not spherical:
        return x
    if joint.any((x == 0).all(1).any()):
        raise ValueError("spherical k-means clusters directions, and a row of zeros has none")
    return F.normalize(x.to(compute_dtype(x)), dim=1, eps=0.0)


def _lloyd(
    shards: Shards, centroids: Tensor, iterations: int, spherical: bool, block_size: int | None
) -> Clustering:
    k = len(centroids)
    history: list[float] = []
    before: Tensor | None = None
    converged = False
    while True:
        assignment, squares = nearest(shards.x, centroids, block_size=block_size)
        history.append(float(shards.sum(squares.to(torch.float64).sum())))
        counts = shards.sum(torch.bincount(assignment, minlength=k))
        empty = counts == 0
        if before is not None and not shards.any((assignment != before).any()):
            converged = True
        updates = len(history) - 1
        stalled = updates > 0 and history[-1] >= history[-2]
        # Past the last iteration only clusters without rows are moved, as long as that helps.
        if converged or (updates >= iterations and (stalled or not empty.any())):
            break
        if updates < iterations:
            centroids = _means(shards, centroids, assignment, counts, spherical)
        if empty.any():
            centroids = _revive(shards, centroids, assignment, empty)
            before = None
        else:
            before = assignment
    exact = _squares(shards.x, centroids, assignment).to(torch.float64)
    inertia = float(shards.sum(exact.sum()))
    return Clustering(
        centroids=centroids,
        assignment=assignment,
        counts=counts,
        inertia=inertia,
        history=tuple(history),
        converged=converged,
    )


def _means(
    shards: Shards, centroids: Tensor, assignment: Tensor, counts: Tensor, spherical: bool
) -> Tensor:
    """Return the clusters' means (or their directions); where there is none, the centroid as is."""
    sums = torch.zeros_like(centroids, dtype=torch.float64)
    for rows, index in _pieces(shards.x, assignment):
        if sums.device.type == "cpu":
            sums.index_add_(0, index, rows.to(sums.dtype))
        else:  # sorts first, so that the order of additions is the same every time
            sums.index_put_((index,), rows.to(sums.dtype), accumulate=True)
    sums = shards.sum(sums)
    if spherical:
        lengths = sums.norm(dim=1, keepdim=True)
        means, known = sums / lengths, lengths.squeeze(1) > 1e-6
    else:
        means, known = sums / counts[:, None], counts > 0
    return torch.where(known[:, None], means.to(centroids.dtype), centroids)


def _revive(shards: Shards, centroids: Tensor, assignment: Tensor, empty: Tensor) -> Tensor:
    """Put each centroid without rows on the row that is then farthest from all that own rows."""
    x = shards.x
    squares = _squares(x, centroids, assignment)
    centroids = centroids.clone()
    for j in empty.nonzero().flatten().tolist():
        farthest = squares.argmax() if len(x) else torch.tensor(0, device=x.device)
        value = squares[farthest] if len(x) else squares.new_tensor(-1.0)
        values = shards.parts(value)
        if not values.max() > 0:  # no more different rows
            break
        mine = (values.argmax() == shards.rank).reshape(1)
        row = shards.rows(farthest.reshape(1), mine)
        centroids[j] = row[0]
        squares = torch.minimum(squares, _squares(x, row, torch.zeros_like(assignment)))
    return centroids


def _squares(x: Tensor, centroids: Tensor, assignment: Tensor) -> Tensor:
    """Return the squared distance of each row to its centroid, exact where it is 0."""
    parts = [
        (rows.to(centroids.dtype) - centroids[index]).square().sum(1)
        for rows, index in _pieces(x, assignment)
    ]
    return torch.cat(parts)


def _pieces(x: Tensor, assignment: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, max(len(x), 1), _ROWS):
        yield x[start : start + _ROWS], assignment[start : start + _ROWS]
