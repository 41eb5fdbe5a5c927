r"""Weighted nearest neighbours: the classifier without training (Wu et al. 2018, Sec. 3.4).

A query is labelled by a vote of its $k$ most similar bank rows, row $i$ with weight
$e^{\cos(q, x_i) / T}$. Similarities are computed tile by tile, so memory does not grow with the
product of the two sets.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from cl_core.evaluation.labels import Array, as_labels, as_rows

__all__ = ["knn_accuracy", "knn_predict", "knn_votes"]

_ASPECT = 8  # a tile is block_size / 8 queries high and block_size * 8 bank rows wide


@torch.no_grad()
def knn_votes(
    queries: Array,
    bank: Array,
    bank_labels: Array,
    *,
    k: int = 200,
    temperature: float = 0.07,
    num_classes: int | None = None,
    leave_one_out: bool = False,
    block_size: int = 2048,
) -> Float[Tensor, "n c"]:
    """Share of the neighbours' weight that each class receives.

    Args:
        queries: Rows to classify ``(n, d)``, any length; computed in float32 or wider.
        bank: Labelled rows ``(m, d)`` on the same device.
        bank_labels: Their classes ``(m,)``, ``0 .. c-1``; rows labelled -1 or NaN are left out.
        k: Neighbours; with a smaller bank, all of it votes.
        temperature: $T > 0$; smaller trusts the nearest more.
        num_classes: Width of the result; by default the largest label plus one.
        leave_one_out: ``queries`` are the rows of ``bank`` and none votes for itself.
        block_size: A tile holds at most ``block_size**2`` similarities, or 8 if that is more.

    Returns:
        Votes, each row summing to one.

    Raises:
        ValueError: If shapes do not fit, the bank has no labelled row (but the query itself), or
            a value is not finite, or an option is out of range.
    """
    queries, bank = as_rows(queries, "queries"), as_rows(bank, "bank rows")
    bank_labels = as_labels(bank_labels, bank)
    if queries.shape[1] != bank.shape[1] or len(bank) != len(bank_labels):
        raise ValueError(
            f"need queries and bank of one width and a label a bank row, got "
            f"{tuple(queries.shape)}, {tuple(bank.shape)} and {len(bank_labels)} labels"
        )
    if leave_one_out and len(queries) != len(bank):
        raise ValueError(
            f"leave-one-out needs queries = bank, got {len(queries)}, {len(bank)} rows"
        )
    if k < 1 or block_size < 1:
        raise ValueError(f"k and block_size must be at least 1, got {k} and {block_size}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    labelled = (bank_labels >= 0).nonzero().squeeze(1)
    neighbours = min(k, len(labelled) - int(leave_one_out))
    if neighbours < 1:
        raise ValueError(f"the bank has {len(labelled)} labelled rows: no neighbour can vote")
    labels = bank_labels[labelled]
    classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if classes <= int(labels.max()):
        raise ValueError(f"num_classes is {classes}, but a label is {int(labels.max())}")
    dtype = torch.promote_types(queries.dtype, torch.float32)
    rows = F.normalize(bank[labelled].to(dtype), dim=1)
    votes: Tensor = queries.new_zeros(len(queries), classes, dtype=dtype)
    # Picking the k largest of one wide row is half the work of merging those of many narrow ones.
    height, width = max(1, block_size // _ASPECT), block_size * _ASPECT
    for start in range(0, len(queries), height):
        block = F.normalize(queries[start : start + height].to(dtype), dim=1)
        own = torch.arange(start, start + len(block), device=block.device)
        nearest, index = _nearest(
            block, rows, neighbours, width, labelled, own if leave_one_out else None
        )
        # A softmax is the vote of the module docstring, scaled so that no exponential overflows.
        weight = torch.softmax(nearest / temperature, dim=1)
        votes[start : start + len(block)].scatter_add_(1, labels[index], weight)
    return votes


def _nearest(
    block: Tensor, rows: Tensor, k: int, tile: int, ids: Tensor, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The k largest similarities of each row of a block, and where in ``rows`` they are."""
    best = block.new_empty(len(block), 0)
    where = torch.empty(len(block), 0, dtype=torch.int64, device=block.device)
    for start in range(0, len(rows), tile):
        s = block @ rows[start : start + tile].T
        if own is not None:
            s = s.masked_fill(ids[start : start + tile] == own[:, None], float("-inf"))
        top, here = s.topk(min(k, s.shape[1]), dim=1)
        candidates, places = torch.cat([best, top], dim=1), torch.cat([where, start + here], dim=1)
        best, picked = candidates.topk(min(k, candidates.shape[1]), dim=1)
        where = places.gather(1, picked)
    return best, where


def knn_predict(
    queries: Array,
    bank: Array,
    bank_labels: Array,
    *,
    k: int = 200,
    temperature: float = 0.07,
    block_size: int = 2048,
) -> Int[Tensor, " n"]:
    """Class with the largest vote for each query; arguments as in :func:`knn_votes`."""
    votes = knn_votes(
        queries, bank, bank_labels, k=k, temperature=temperature, block_size=block_size
    )
    return votes.argmax(dim=1)


def knn_accuracy(
    x: Array,
    y: Array,
    bank: Array | None = None,
    bank_labels: Array | None = None,
    *,
    k: int = 200,
    temperature: float = 0.07,
    block_size: int = 2048,
) -> float:
    """Share of rows, 0 to 1, that their neighbours label rightly.

    Args:
        x: Rows to classify.
        y: Their classes; rows labelled -1 or NaN are not counted.
        bank: Rows that vote. Without a bank, each row is labelled by the *other* rows of ``x``.
        bank_labels: Classes of the bank.
        k: As in :func:`knn_votes`.
        temperature: As in :func:`knn_votes`.
        block_size: As in :func:`knn_votes`.

    Raises:
        ValueError: If only one of ``bank`` and ``bank_labels`` is given, nothing is labelled, or
            as :func:`knn_votes` says.
    """
    if (bank is None) != (bank_labels is None):
        raise ValueError("give bank and bank_labels together, or neither for leave-one-out")
    x = as_rows(x)
    y = as_labels(y, x)
    if len(x) != len(y):
        raise ValueError(f"need one label a row, got {len(x)} rows and {len(y)} labels")
    counted = y >= 0
    if not bool(counted.any()):
        raise ValueError("no row is labelled: nothing to count")
    alone = bank is None
    votes = knn_votes(
        x,
        x if bank is None else bank,
        y if bank_labels is None else bank_labels,
        k=k,
        temperature=temperature,
        leave_one_out=alone,
        block_size=block_size,
    )
    return float((votes.argmax(dim=1) == y)[counted].to(torch.float64).mean())
