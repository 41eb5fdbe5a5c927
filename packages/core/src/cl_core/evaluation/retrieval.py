r"""Whether the rows most similar to a row are of its class.

Rows are ranked by cosine for each query, which is not ranked itself. With $R$ the number of other
rows of the query's class, $h_i$ whether rank $i$ is one of them and $P_i = \frac1i \sum_{j \le i}
h_j$,

- recall@k is 1 if any $h_i$, $i \le k$, is (Jégou et al. 2011; the sense of metric learning),
- map@k is $\frac{1}{\min(k, R)} \sum_{i \le k} h_i P_i$,
- R-precision is $P_R$, and map@r is $\frac1R \sum_{i \le R} h_i P_i$ (Musgrave et al. 2020, Eq. 4).

Each is the mean over the queries with $R > 0$.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from cl_core.evaluation.labels import Array, as_labels, as_rows

__all__ = ["retrieval_scores"]


@torch.no_grad()
def retrieval_scores(
    x: Array,
    y: Array,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    block_size: int = 256,
) -> dict[str, float]:
    """Score a ranking by cosine; the module's docstring defines the figures.

    Args:
        x: Queries, any length; computed in float32 or wider, on their device.
        y: Their classes; rows labelled -1 are neither queries nor found.
        gallery: Rows to find. Without it, each query finds the *other* rows of ``x``.
        gallery_labels: Classes of the gallery.
        ks: Cut-offs of recall@k and map@k; one beyond the gallery means all of it.
        block_size: Queries ranked at once; memory grows with ``block_size * m``.

    Returns:
        ``recall@k`` and ``map@k`` for each k, ``r_precision``, ``map@r``, all 0 to 1, and
        ``queries``, how many were counted. Of equally similar rows any may come first.

    Raises:
        ValueError: If shapes do not fit, only one of gallery and labels is given, an option is out
            of range, a value is not finite, or no query has a row of its class to find.
    """
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("give gallery and gallery_labels together, or neither for leave-one-out")
    if not ks or min(ks) < 1 or block_size < 1:
        raise ValueError(
            f"every k and block_size must be at least 1, got {list(ks)} and {block_size}"
        )
    queries, labels = _labelled(x, y)
    rows, names = queries, labels
    if gallery is not None and gallery_labels is not None:
        rows, names = _labelled(gallery, gallery_labels)
    alone = gallery is None
    if rows.shape[1] != queries.shape[1]:
        raise ValueError(
            f"queries and gallery differ in width: {queries.shape[1]} and {rows.shape[1]}"
        )
    relevant = _relevant(labels, names) - int(alone)
    asked = (relevant > 0).nonzero().squeeze(1)
    if not len(asked):
        raise ValueError("no query has another row of its class: nothing can be found")
    depth = min(len(rows) - int(alone), max(*ks, int(relevant.max())))
    totals: dict[str, float] = {}
    for block in torch.split(asked, block_size):
        s = queries[block] @ rows.T
        if alone:
            s.scatter_(1, block[:, None], float("-inf"))
        hits = names[s.topk(depth, dim=1).indices] == labels[block, None]
        for name, values in _figures(hits, relevant[block], ks).items():
            totals[name] = totals.get(name, 0.0) + float(values.sum())
    scores = {name: total / len(asked) for name, total in totals.items()}
    return scores | {"queries": float(len(asked))}


def _figures(
    hits: Bool[Tensor, "b r"], relevant: Int[Tensor, " b"], ks: Sequence[int]
) -> dict[str, Tensor]:
    """The figures of each query, from its ranking and $R$."""
    rank = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    h = hits.to(torch.float32 if hits.device.type == "mps" else torch.float64)
    gain = h * h.cumsum(dim=1) / rank  # h_i P_i
    figures = {}
    for k in ks:
        figures[f"recall@{k}"] = hits[:, :k].any(dim=1)
        figures[f"map@{k}"] = gain[:, :k].sum(dim=1) / relevant.clamp(max=k)
    within = rank <= relevant[:, None]
    figures["r_precision"] = (h * within).sum(dim=1) / relevant
    figures["map@r"] = (gain * within).sum(dim=1) / relevant
    return figures


def _relevant(labels: Tensor, names: Tensor) -> Tensor:
    """How many gallery rows have each query's class."""
    classes, counts = torch.unique(names, return_counts=True)
    place = torch.searchsorted(classes, labels).clamp(max=len(classes) - 1)
    return torch.where(classes[place] == labels, counts[place], 0)


def _labelled(x: Array, y: Array) -> tuple[Tensor, Tensor]:
    rows = as_rows(x)
    labels = as_labels(y, rows)
    if labels.shape != rows.shape[:1]:
        raise ValueError(
            f"need rows (n, d) and one label each, got {tuple(rows.shape)} "
            f"and labels {tuple(labels.shape)}"
        )
    rows, labels = rows[labels >= 0], labels[labels >= 0]
    if not len(rows):
        raise ValueError("no row is labelled: nothing to rank")
    return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1), labels
