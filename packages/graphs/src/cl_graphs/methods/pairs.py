"""Pairs of nodes: which are edges, how the loss changes with each, and how to visit them all.

A pair ``i < j`` of a graph with ``n`` nodes is the number ``i * n + j``, its key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.matmul import inner
from cl_graphs.methods.projection import BudgetProjection

__all__ = [
    "CandidateGradient",
    "PairGradient",
    "SimpleGraph",
    "pair_keys",
    "row_blocks",
    "structure_step",
]

BLOCK_ENTRIES = 2**20
"""Entries of one block of pairs: 4 MiB in float32."""

Block = tuple[int, int, int]
"""Rows ``start`` to ``stop`` of the pairs, at columns ``start`` to ``end``."""


@dataclass(frozen=True, eq=False)
class SimpleGraph:
    """A simple undirected graph as the attack needs it: edges as ascending keys i * n + j."""

    num_nodes: int
    keys: Tensor  # pairs i < j

    @classmethod
    def of(cls, edge_index: Tensor, num_nodes: int) -> SimpleGraph:
        row, column = edge_index
        forward = (row * num_nodes + column)[row < column].sort().values
        backward = (column * num_nodes + row)[column < row].sort().values
        if 2 * len(forward) != edge_index.shape[1] or not torch.equal(forward, backward):
            raise ValueError(
                "the attack needs an undirected graph without self loops: "
                "edge_index must hold both directions of every edge"
            )
        if len(forward) > 1 and bool((forward[1:] == forward[:-1]).any()):
            raise ValueError("the attack needs a simple graph: edge_index repeats an edge")
        return cls(num_nodes, forward)

    def pairs(self, keys: Tensor) -> Tensor:
        return torch.stack([keys // self.num_nodes, keys % self.num_nodes])

    def contains(self, keys: Tensor) -> Tensor:
        if len(self.keys) == 0:
            return torch.zeros_like(keys, dtype=torch.bool)
        place = torch.searchsorted(self.keys, keys.contiguous()).clamp_(max=len(self.keys) - 1)
        return self.keys[place] == keys

    def weighted(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Entries of A + (S + S') o C; an attenuated edge appears twice, as 1 and as -S."""
        signed = torch.where(self.contains(keys), -values, values)
        pairs = self.pairs(torch.cat([self.keys, keys]))
        weight = torch.cat([values.new_ones(len(self.keys)), signed])
        return torch.cat([pairs, pairs.flip(0)], dim=1), torch.cat([weight, weight])

    def flipped(self, keys: Tensor) -> Tensor:
        removed = torch.isin(self.keys, keys, assume_unique=True)
        added = keys[~self.contains(keys)]
        pairs = self.pairs(torch.cat([self.keys[~removed], added]))
        return torch.cat([pairs, pairs.flip(0)], dim=1)


@dataclass(frozen=True, eq=False)
class PairGradient:
    """g_S up to the sign C: entry (i, j) is left_i . right_j + left_j . right_i."""

    left: Tensor
    right: Tensor

    def rows(self, start: int, stop: int, end: int) -> Tensor:
        """Entries of rows start..stop at columns start..end; 0 on and below the diagonal."""
        left, right, size = self.left[start:stop], self.right[start:stop], stop - start
        block = left.new_empty(size, end - start)
        half = inner(left, right)
        torch.add(half, half.T, out=block[:, :size])
        block[:, :size].triu_(1)
        if stop < end:
            ahead = inner(left, self.right[stop:end])
            torch.add(ahead, inner(right, self.left[stop:end]), out=block[:, size:])
        return block

    def at(self, pairs: Tensor) -> Tensor:
        chunk = max(1, BLOCK_ENTRIES // self.left.shape[1])
        parts = [
            (self.left[rows] * self.right[columns] + self.left[columns] * self.right[rows]).sum(1)
            for rows, columns in zip(*(torch.split(ends, chunk) for ends in pairs), strict=True)
        ]
        return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class CandidateGradient:
    """g_S up to the sign C at some pairs only, in the order of their keys."""

    values: Tensor

    def at(self, pairs: Tensor) -> Tensor:
        assert pairs.shape[1] == len(self.values)
        return self.values


def structure_step(
    graph: SimpleGraph,
    gradient: PairGradient | CandidateGradient,
    keys: Int64[Tensor, " s"],
    values: Float[Tensor, " s"],
    projection: BudgetProjection,
    *,
    allowed: Int64[Tensor, " c"] | None = None,
    blocks: Iterable[Block] | None = None,
) -> tuple[Int64[Tensor, " t"], Float[Tensor, " t"]]:
    """Move S along its gradient and project it onto the budget.

    Args:
        graph: Clean edges: the gradient changes sign there.
        gradient: The gradient, times the step size; at the pairs ``allowed``, or at all.
        keys: Where S is not 0, ascending.
        values: S there.
        projection: A fresh projection onto the budget.
        allowed: Keys of the only pairs that may flip, ascending.
        blocks: Blocks of the only pairs that may flip, when ``allowed`` is not given; default
            all pairs, in the blocks of `row_blocks`.

    Returns:
        Keys and values of the new S.
    """
    if allowed is not None:
        moved = gradient.at(graph.pairs(allowed))
        moved = torch.where(graph.contains(allowed), -moved, moved)
        moved[torch.searchsorted(allowed, keys)] += values
        projection.add(moved, lambda places: allowed[places])
        return projection.finish()
    assert isinstance(gradient, PairGradient)
    n = graph.num_nodes
    for start, stop, end in row_blocks(n) if blocks is None else blocks:
        block = gradient.rows(start, stop, end).view(-1)
        place, key_of = _block_places(n, start, end - start)
        edges = place(_between(graph.keys, start * n, stop * n)[0])
        block[edges] = -block[edges]
        here, first = _between(keys, start * n, stop * n)
        block[place(here)] += values[first : first + len(here)]
        projection.add(block, key_of)
    return projection.finish()


def row_blocks(num_nodes: int, rows: int | None = None) -> Iterator[Block]:
    """Cut the upper triangle into blocks of rows.

    Args:
        num_nodes: ``n``.
        rows: Rows of a block; default as many as make about a million pairs.
    """
    start = 0
    while start < num_nodes:
        stop = min(start + (rows or max(1, BLOCK_ENTRIES // (num_nodes - start))), num_nodes)
        yield start, stop, num_nodes
        start = stop


Places = Callable[[Tensor], Tensor]


def _block_places(n: int, start: int, span: int) -> tuple[Places, Places]:
    """Return how keys map to places in a block that starts at the diagonal, and back.

    Args:
        n: Nodes of the graph.
        start: First row and first column of the block.
        span: Columns of the block.
    """

    def place(keys: Tensor) -> Tensor:
        return (keys // n - start) * span + keys % n - start

    def key_of(places: Tensor) -> Tensor:
        return (places // span + start) * n + places % span + start

    return place, key_of


def _between(keys: Tensor, low: int, high: int) -> tuple[Tensor, int]:
    """Take the ascending keys in [low, high), and how many come before them."""
    bounds = torch.tensor([low, high], device=keys.device)
    first, last = torch.searchsorted(keys, bounds).tolist()
    return keys[first:last], int(first)


def pair_keys(pairs: Tensor, num_nodes: int) -> Tensor:
    """Number pairs of nodes: ``(2, c)`` with row < column gives ascending, distinct keys."""
    row, column = pairs
    if bool((row >= column).any()):
        raise ValueError("candidates must be pairs with row < column")
    keys: Tensor = torch.unique(row * num_nodes + column)
    return keys
