"""Graphs changed without gradients: random edges, DICE, and noise on the features.

All take the budget as a share of the undirected edges there are, and draw from a generator.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["add_random_edges", "dice", "sign_noise"]


def add_random_edges(
    edge_index: Int64[Tensor, "2 e"], num_nodes: int, budget: float, generator: torch.Generator
) -> Int64[Tensor, "2 m"]:
    """Add edges between random pairs that have none.

    Args:
        edge_index: Simple and undirected, both directions.
        num_nodes: ``n``.
        budget: Edges to add, as a share of those there are.
        generator: Source of the draws.

    Returns:
        Both directions of all edges; fewer are added where the graph has too few free pairs.
    """
    return _with_added(edge_index, num_nodes, _count(edge_index, budget), generator)


def dice(
    edge_index: Int64[Tensor, "2 e"],
    y: Int64[Tensor, " n"],
    budget: float,
    generator: torch.Generator,
) -> Int64[Tensor, "2 m"]:
    """Delete edges inside classes, connect nodes across classes (DICE; Waniek et al. 2018).

    Half of the budget is spent on each. Unlabelled nodes (-1) are left alone.

    Args:
        edge_index: Simple and undirected, both directions.
        y: Classes.
        budget: Edges to delete or add, as a share of those there are.
        generator: Source of the draws.

    Returns:
        Both directions of the remaining and the new edges.
    """
    change = _count(edge_index, budget)
    row, column = edge_index[:, edge_index[0] < edge_index[1]]
    inside = torch.nonzero((y[row] == y[column]) & (y[row] >= 0)).squeeze(1)
    order = torch.randperm(len(inside), generator=generator)
    kept = torch.ones(len(row), dtype=torch.bool)
    kept[inside[order[: change // 2]]] = False
    pairs = torch.stack([row[kept], column[kept]])
    remaining = torch.cat([pairs, pairs.flip(0)], 1)
    return _with_added(remaining, len(y), change - change // 2, generator, across=y)


def sign_noise(
    x: Float[Tensor, "n d"], radius: float, generator: torch.Generator
) -> Float[Tensor, "n d"]:
    """Move every feature value up or down by ``radius`` at random: the null of the attack."""
    signs = torch.randint(0, 2, x.shape, generator=generator, dtype=torch.int8)
    return x + radius * (2 * signs - 1).to(x.dtype)


def _count(edge_index: Tensor, budget: float) -> int:
    return round(budget * edge_index.shape[1] / 2)


def _with_added(
    edge_index: Tensor,
    num_nodes: int,
    count: int,
    generator: torch.Generator,
    across: Tensor | None = None,
) -> Tensor:
    """Add ``count`` new pairs, between different labelled classes if ``across`` is given."""
    keys = edge_index[0] * num_nodes + edge_index[1]
    new = keys[:0]
    for _ in range(100):  # a nearly complete graph may have no room
        wanted = count - len(new)
        if wanted <= 0:
            break
        row, column = torch.randint(0, num_nodes, (2, 2 * wanted + 8), generator=generator)
        fits = row < column
        if across is not None:
            fits &= (across[row] != across[column]) & (across[row] >= 0) & (across[column] >= 0)
        drawn = torch.unique(row[fits] * num_nodes + column[fits])
        drawn = drawn[~torch.isin(drawn, torch.cat([keys, new]))]
        order = torch.randperm(len(drawn), generator=generator)  # unique() has sorted them
        new = torch.cat([new, drawn[order[:wanted]]])
    pairs = torch.stack([new // num_nodes, new % num_nodes])
    return torch.cat([edge_index, pairs, pairs.flip(0)], 1)
