r"""Where k-means starts: k-means++ (Arthur & Vassilvitskii 2007) or random rows.

k-means++ draws each next centroid with probability proportional to $D(x)^2$, the squared distance
to the nearest one so far: $k$ passes over the data. Here a batch of candidates is drawn from the
weights $w = D^2$ of an earlier moment and visited in turn; each is accepted with probability
$D_\text{now}^2 / w$. As $D$ only falls, this is rejection sampling: accepted rows follow exactly
the law of k-means++, but the data are visited once per batch, by matrix products, for the price of
about one Lloyd iteration in all.

Small problems are seeded greedily: each next centroid is the best of $2 + \lfloor \log k \rfloor$
candidates, the one that leaves the least $\sum D^2$ (as scikit-learn has it). That costs as much as
several Lloyd iterations (some 0.2 s at the limit, on one thread), and saves restarts. Larger
problems would wait longer for their seeds than for their clusters.

Randomness comes from a generator on the processor that all ranks seed alike; rows are numbered
through all ranks, so that shards in order give what one process gives.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cl_core.kmeans._assign import min_distances
from cl_core.kmeans._shards import Shards

__all__ = ["greedy_plus_plus", "is_small", "plus_plus", "random_rows"]

_SMALL = 2**25  # rows x clusters x features that are seeded greedily
_ELEMENTS = 2**20  # differences at a time
_BATCH = 512  # candidates at a time, at most


def is_small(shards: Shards, k: int) -> bool:
    """Return whether the rows of all ranks are few enough for greedy seeds."""
    return shards.total * k * shards.x.shape[1] <= _SMALL


def random_rows(shards: Shards, k: int, generator: torch.Generator) -> Float[Tensor, "k d"]:
    """Return ``k`` different rows, all equally likely."""
    return shards.rows_at(torch.randperm(shards.total, generator=generator)[:k])


@torch.no_grad()
def plus_plus(
    shards: Shards, k: int, generator: torch.Generator, *, block_size: int | None = None
) -> Float[Tensor, "k d"]:
    """Return ``k`` rows drawn by k-means++; where all rows are taken already, random ones."""
    x = shards.x
    chosen = [shards.rows_at(torch.randint(shards.total, (1,), generator=generator))]
    count = 1
    weights = min_distances(x, chosen[0], block_size=block_size).to(torch.float64)
    while count < k:
        size = min(_BATCH, max(8, count))
        where, chance = torch.rand(2, size, generator=generator, dtype=torch.float64)
        drawn = _draw(shards, weights, where)
        if drawn is None:  # fewer than k different rows
            chosen.append(random_rows(shards, k - count, generator))
            break
        accepted = _accept(*drawn, chance)[: k - count]
        rows = drawn[0][accepted.to(x.device)]
        chosen.append(rows)
        count += len(rows)
        if len(rows):
            closer = min_distances(x, rows, block_size=block_size).to(torch.float64)
            torch.minimum(weights, closer, out=weights)
    return torch.cat(chosen)


@torch.no_grad()
def greedy_plus_plus(shards: Shards, k: int, generator: torch.Generator) -> Float[Tensor, "k d"]:
    """Return ``k`` rows drawn by greedy k-means++; where all rows are taken, random ones."""
    trials = 2 + int(math.log(k))
    chosen = [shards.rows_at(torch.randint(shards.total, (1,), generator=generator))]
    weights = _squares(shards.x, chosen[0])[:, 0]
    while len(chosen) < k:
        where = torch.rand(trials, generator=generator, dtype=torch.float64)
        drawn = _draw(shards, weights, where)
        if drawn is None:  # fewer than k different rows
            return torch.cat([*chosen, random_rows(shards, k - len(chosen), generator)])
        left = torch.minimum(weights[:, None], _squares(shards.x, drawn[0]))
        best = int(shards.sum(left.sum(0)).argmin())
        weights = left[:, best]
        chosen.append(drawn[0][best : best + 1])
    return torch.cat(chosen)


def _squares(x: Tensor, rows: Tensor) -> Tensor:
    """Return the squared distances of all to a few rows, exact where they are 0."""
    step = max(1, _ELEMENTS // max(1, rows.numel()))
    parts = [
        (part.to(rows.dtype)[:, None] - rows).square_().sum(2)
        for part in (x[start : start + step] for start in range(0, max(len(x), 1), step))
    ]
    return torch.cat(parts).to(torch.float64)


def _draw(shards: Shards, weights: Tensor, where: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return rows at these quantiles of the weights of all ranks, with their weights."""
    cumulative = weights.cumsum(0)
    mass = cumulative[-1] if len(weights) else weights.new_zeros(())
    masses = shards.parts(mass)
    if not masses.sum() > 0:
        return None
    ends = masses.cumsum(0)
    target = where.to(weights.device) * ends[-1]
    owner = torch.searchsorted(ends, target, right=True).clamp_(max=len(ends) - 1)
    mine = owner == shards.rank
    start = ends[shards.rank] - masses[shards.rank]
    index = torch.searchsorted(cumulative, target - start, right=True)
    index = index.clamp_(0, max(len(weights) - 1, 0))
    drawn = weights.new_zeros(len(where))
    drawn[mine] = weights[index[mine]]
    return shards.rows(index, mine), shards.sum(drawn)


def _accept(rows: Tensor, weights: Tensor, chance: Tensor) -> Tensor:
    """Return which candidates survive, visited in turn: probability D² now over D² when drawn."""
    between = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    between = between.to("cpu", torch.float64)
    drawn = weights.to("cpu")
    threshold = chance * drawn
    now = drawn.clone()
    accepted = []
    for i in range(len(rows)):
        if now[i] > threshold[i]:
            accepted.append(i)
            torch.minimum(now, between[i], out=now)
    return torch.tensor(accepted, dtype=torch.int64)
