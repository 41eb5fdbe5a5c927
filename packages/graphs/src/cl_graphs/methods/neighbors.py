"""Mini-batches of nodes with sampled neighbours (Hamilton et al. 2017), over plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from cl_graphs.graph import AttributedGraph
from cl_graphs.methods.subsets import PassDataset, seeded
from cl_graphs.readers.features import csr_entries

__all__ = ["FANOUT", "NeighborDataset", "sample_neighbors", "sampled_nodes"]

FANOUT = (10, 10)
"""Neighbours sampled of each node, hop by hop."""

NEIGHBORS = 2
"""Sets the stream of a draw's neighbours apart from those of the order."""


def sample_neighbors(
    pointers: Int64[Tensor, " n_plus_1"],
    columns: Int64[Tensor, " e"],
    nodes: Int64[Tensor, " k"],
    fanout: int,
    generator: torch.Generator,
) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
    """Draw neighbours of each node without replacement.

    Every subset of ``min(fanout, degree)`` neighbours is equally likely, independently for each
    node: the neighbours with the smallest of as many uniform draws. The cost is that of all
    neighbours of ``nodes``.

    Args:
        pointers: Where each node's neighbours start in ``columns``, with the total at the end.
        columns: Neighbours, row after row.
        nodes: Whose neighbours are drawn.
        fanout: How many at most.
        generator: Source of the draws.

    Returns:
        The neighbours, node after node, and for each the index into ``nodes``.
    """
    entries, owner = csr_entries(pointers, nodes)
    # In float64, so that ties are rare and an owner's number does not swallow the draw.
    draws = torch.rand(len(entries), generator=generator, dtype=torch.float64)
    order = (owner + draws).argsort()
    lengths = torch.bincount(owner, minlength=len(nodes))
    first = lengths.cumsum(0) - lengths
    place = torch.arange(len(entries)) - first[owner]  # sorting has left each owner its range
    kept = order[place < fanout]
    return columns[entries[kept]], owner[kept]


def sampled_nodes(
    pointers: Int64[Tensor, " n_plus_1"],
    columns: Int64[Tensor, " e"],
    seeds: Int64[Tensor, " k"],
    fanouts: Sequence[int],
    generator: torch.Generator,
) -> Int64[Tensor, " m"]:
    """Reach out from ``seeds`` hop by hop; each hop starts at the nodes the last one found first.

    Returns:
        All nodes reached and the seeds, ascending.
    """
    reached = torch.zeros(len(pointers) - 1, dtype=torch.bool)
    reached[seeds] = True
    frontier = seeds
    for fanout in fanouts:
        found, _ = sample_neighbors(pointers, columns, frontier, fanout, generator)
        frontier = torch.unique(found[~reached[found]])
        reached[frontier] = True
    return reached.nonzero().squeeze(1)


class NeighborDataset(PassDataset):
    """Induced subgraphs of some nodes and neighbours sampled around them; item ``t`` is draw ``t``.

    A pass starts once from every node, in random order.

    Args:
        graph: Any graph.
        subgraph_size: Nodes a draw starts from, on average.
        seed: At least 0.
        fanouts: Neighbours sampled of each node, hop by hop.
    """

    def __init__(
        self,
        graph: AttributedGraph,
        *,
        subgraph_size: int,
        seed: int,
        fanouts: Sequence[int] = FANOUT,
    ) -> None:
        # A contrast needs two nodes in every draw.
        parts = max(1, min(-(-graph.num_nodes // subgraph_size), graph.num_nodes // 2))
        super().__init__(graph, subgraph_size=subgraph_size, seed=seed, parts=parts)
        self.fanouts = tuple(fanouts)

    def nodes_of(self, draw: int) -> Int64[Tensor, " k"]:
        order, place = self.order_of(draw, self.graph.num_nodes)
        seeds = torch.tensor_split(order, self.draws_per_pass)[place]
        generator = seeded(self.seed, draw, NEIGHBORS)
        return sampled_nodes(
            self.pointers, self.graph.edge_index[1], seeds, self.fanouts, generator
        )
