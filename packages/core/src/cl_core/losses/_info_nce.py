"""InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) in the batch or against a bank."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cl_core.distributed import gather_rows, rank, sum_over_ranks, world_size
from cl_core.losses._log_sums import cross_log_sums, log_sums
from cl_core.losses._rows import (
    check_temperature,
    is_bounded,
    one_positive,
    scaled_pair,
    scaled_rows,
    similarities,
)

__all__ = ["info_nce"]


def info_nce(
    query: Float[Tensor, "n d"],
    keys: Float[Tensor, "n d"],
    temperature: float | Tensor = 0.1,
    *,
    negatives: Float[Tensor, "q d"] | None = None,
    in_batch: bool | None = None,
    symmetric: bool = False,
    gather: bool = False,
    block_size: int | None = None,
) -> Float[Tensor, ""]:
    r"""Find each query's key among others (InfoNCE; MoCo, He et al. 2020, Eq. 1).

    With unit-length queries $q$ and keys $k$, $s(x, y) = x^\top y / \tau$ and $N_i$ the negatives
    of query $i$,

    $$\ell = \frac1n \sum_i \Bigl[ \log \Bigl( e^{s(q_i, k_i)} + \sum_{x \in N_i} e^{s(q_i, x)}
      \Bigr) - s(q_i, k_i) \Bigr].$$

    $N_i$ holds the keys of the other queries (``in_batch``), the rows of ``negatives``, or both.

    Args:
        query: Embeddings of any length.
        keys: Row ``i`` is the positive of query ``i``. Gradients flow into the keys too; detach
            them where they come from a momentum encoder.
        temperature: $\tau > 0$; a tensor of one element gets its gradient.
        negatives: A bank of further negatives for every query, such as MoCo's queue.
        in_batch: Whether the other queries' keys are negatives. By default they are if and only if
            no bank is given: ``negatives=queue`` alone is MoCo's loss.
        symmetric: Return the mean of this loss and of that with queries and keys exchanged (as
            CLIP does); in the batch only.
        gather: Take keys as negatives from all ranks. Each rank asks its own queries; the value,
            the same on every rank, and the gradient after DDP's averaging are those of the joint
            batch in one process. Every rank needs the same ``n`` and, if any, the same bank.
        block_size: Rows of a tile of the similarity matrix; changes speed and memory, not the loss.

    Returns:
        Mean over the queries, in nats, in float32 or wider.

    Raises:
        ValueError: If shapes do not fit, if there is no negative, if ``symmetric`` is asked of a
            bank, or if ``temperature <= 0``.

    Example:
        >>> round(info_nce(torch.eye(3), torch.eye(3), temperature=1.0).item(), 4)
        0.5514
    """
    check_temperature(temperature)
    if query.ndim != 2 or query.shape != keys.shape:
        raise ValueError(
            "queries and keys must pair row by row as (n, d), "
            f"got {tuple(query.shape)} and {tuple(keys.shape)}"
        )
    if negatives is not None and (negatives.ndim != 2 or negatives.shape[1] != query.shape[1]):
        raise ValueError(
            f"negatives must be (q, {query.shape[1]}), as wide as the queries, "
            f"got {tuple(negatives.shape)}"
        )
    if in_batch is None:
        in_batch = negatives is None
    if symmetric and (negatives is not None or not in_batch):
        raise ValueError(
            "symmetric exchanges queries and keys, a bank holds keys only: use one of the two"
        )
    n = len(query)
    world = world_size() if gather else 1
    others = (n * world - 1 if in_batch else 0) + (0 if negatives is None else len(negatives))
    if n == 0 or others < 1:
        raise ValueError(
            f"info_nce needs queries and at least 1 negative each, got {n} queries and {others} "
            "negatives: enlarge the batch or pass negatives"
        )
    bounded = is_bounded(temperature)
    queries, positives = scaled_pair(query, keys, temperature)
    q, k = queries[0], positives[0]
    s = similarities(queries, positives, temperature)
    first = rank() * n if world > 1 else 0
    if symmetric and world == 1:
        log_q, log_k = cross_log_sums(q, k, bounded=bounded, block_size=block_size)
        return ((one_positive(log_q, s) + one_positive(log_k, s)).mean() / 2).to(q.dtype)

    def log_rest(a: Tensor, b: Tensor) -> Tensor:
        others = gather_rows(b) if world > 1 else b
        return log_sums(a, others, diagonals=(first,), bounded=bounded, block_size=block_size)

    rests = [log_rest(q, k)] if in_batch else []
    if negatives is not None:
        bank, _ = scaled_rows(negatives, temperature)
        rests.append(log_sums(q, bank, bounded=bounded, block_size=block_size))
    loss = one_positive(torch.logaddexp(*rests) if len(rests) > 1 else rests[0], s).mean()
    if symmetric:
        loss = (loss + one_positive(log_rest(k, q), s).mean()) / 2
    loss = loss if world == 1 else sum_over_ranks(loss / world)
    return loss.to(q.dtype)
