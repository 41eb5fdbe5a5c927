"""Subgraphs of a large graph that a step trains on: which nodes, and the edges between them.

Draw number ``t`` is a pure function of ``(seed, t)``, so a resumed run meets the subgraphs an
uninterrupted one would have met, whatever the number of workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset

from cl_graphs.graph import AttributedGraph
from cl_graphs.readers.features import csr_entries, dense_rows

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["PassDataset", "SubgraphDataset", "induced_edges", "random_nodes", "seeded"]

ORDER = 1
"""Sets the stream of a pass's order apart from those of its draws."""

FOREVER = 2**31
"""Length of an endless dataset: the sampler, not the dataset, ends an epoch."""


def random_nodes(num_nodes: int, size: int, *, seed: int, draw: int) -> Int64[Tensor, " k"]:
    """Draw a node subset: the first ``size`` of a permutation, in ascending order.

    Every node is eligible, isolated ones too (the official code cannot draw those).

    Args:
        num_nodes: ``n``.
        size: Nodes wanted; all of them if ``size >= n``.
        seed: Seed of the run, at least 0.
        draw: Number of the draw, at least 0; equal ``(seed, draw)`` give equal subsets.

    Returns:
        ``min(size, n)`` node numbers.
    """
    if size >= num_nodes:
        return torch.arange(num_nodes)
    return torch.randperm(num_nodes, generator=seeded(seed, draw))[:size].sort().values


def seeded(*keys: int) -> torch.Generator:
    """Make a generator whose stream is unrelated to that of neighbouring keys."""
    state = np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def induced_edges(
    pointers: Int64[Tensor, " n_plus_1"], columns: Int64[Tensor, " e"], nodes: Int64[Tensor, " k"]
) -> Int64[Tensor, "2 m"]:
    """Keep the edges with both ends in ``nodes``, renumbered by position in ``nodes``.

    Only the rows of ``nodes`` are read, so the cost is that of their degrees, not of all edges.

    Args:
        pointers: Where each node's neighbours start in ``columns``, with the total at the end.
        columns: Neighbours, row after row.
        nodes: Distinct node numbers; ``nodes[i]`` becomes ``i``.

    Returns:
        Both directions of each kept edge, sorted by row.
    """
    position = torch.full((len(pointers) - 1,), -1)
    position[nodes] = torch.arange(len(nodes))
    entries, owner = csr_entries(pointers, nodes)
    ends = position[columns[entries]]
    return torch.stack([owner[ends >= 0], ends[ends >= 0]])


class SubgraphDataset(Dataset["Data"]):
    """Random induced subgraphs of one graph, numbered without end; item ``t`` is draw ``t``.

    An item is a PyG ``Data`` with dense float32 ``x``, ``edge_index`` numbered like the rows of
    ``x``, ``y`` if the graph has labels, and ``n_id``, the rows' node numbers in the whole graph.

    Args:
        graph: Any graph.
        subgraph_size: Nodes per item; the whole graph if it has no more.
        seed: At least 0.

    Raises:
        ValueError: If ``subgraph_size < 2`` or ``seed < 0``.
    """

    draws_per_pass: int | None = None
    """Draws in which every node is seen once; None if draws are independent."""

    def __init__(self, graph: AttributedGraph, *, subgraph_size: int, seed: int) -> None:
        if subgraph_size < 2:
            raise ValueError(f"subgraph_size must be at least 2, got {subgraph_size}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.graph = graph
        self.subgraph_size = subgraph_size
        self.seed = seed
        degrees = torch.bincount(graph.edge_index[0], minlength=graph.num_nodes)
        self.pointers = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])

    def __len__(self) -> int:
        return FOREVER

    def nodes_of(self, draw: int) -> Int64[Tensor, " k"]:
        """Return the nodes of a draw, ascending."""
        return random_nodes(self.graph.num_nodes, self.subgraph_size, seed=self.seed, draw=draw)

    def __getitem__(self, draw: int) -> Data:
        from cl_graphs.readers.pyg import Data

        graph, nodes = self.graph, self.nodes_of(draw)
        return Data(
            x=dense_rows(graph.x, nodes),
            edge_index=induced_edges(self.pointers, graph.edge_index[1], nodes),
            y=None if graph.y is None else graph.y[nodes],
            n_id=nodes,
        )


class PassDataset(SubgraphDataset):
    """Subgraphs that together see every node once a pass, in an order drawn for each pass.

    Args:
        graph: Any graph.
        subgraph_size: About how many nodes an item starts from.
        seed: At least 0.
        parts: Items of a pass.
    """

    def __init__(
        self, graph: AttributedGraph, *, subgraph_size: int, seed: int, parts: int
    ) -> None:
        super().__init__(graph, subgraph_size=subgraph_size, seed=seed)
        self.draws_per_pass: int = parts
        self._order = -1, torch.empty(0, dtype=torch.int64)

    def order_of(self, draw: int, size: int) -> tuple[Int64[Tensor, " n"], int]:
        """Return the permutation of ``size`` things for the pass of a draw, and its place in it."""
        number, place = divmod(draw, self.draws_per_pass)
        if self._order[0] != number:  # the draws of a pass come one after the other
            generator = seeded(self.seed, number, ORDER)
            self._order = number, torch.randperm(size, generator=generator)
        return self._order[1], place
