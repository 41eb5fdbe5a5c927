r"""Where k-means starts: k-means++ (Arthur & Vassilvitskii 2007) or random rows.

k-means++ draws each next centroid with probability proportional to $D(x)^2$, the squared distance
to the nearest one so far: $k$ passes over the data. Here a batch of candidates is drawn from the
weights $w = D^2$ of an earlier moment and visited in turn; each is accepted with probability
$D_\text{now}^2 / w$. As $D$ only falls, this is rejection sampling: accepted rows follow exactly
the law of k-means++, but the data are visited once per batch, by matrix products, for the price of
about one Lloyd iteration in all.

Randomness comes from a generator on the processor that all ranks seed alike; rows are numbered
through all ranks, so that shards in order give what one process gives.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cl_core.kmeans._assign import min_distances
from cl_core.kmeans._shards import Shards

__all__ = ["plus_plus", "random_rows"]

_BATCH = 512  # candidates at a time, at most


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
