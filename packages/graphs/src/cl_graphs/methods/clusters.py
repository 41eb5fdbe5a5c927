"""Mini-batches of densely joined nodes (Chiang et al. 2019): the parts of METIS.

Karypis, Kumar: "A Fast and High Quality Multilevel Scheme for Partitioning Irregular Graphs", SIAM
J. Sci. Comput. 1998, as the library pymetis.
"""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from cl_core.errors import InputError
from cl_graphs.graph import AttributedGraph
from cl_graphs.methods.subsets import PassDataset

__all__ = ["ClusterDataset", "partition"]


def partition(
    pointers: Int64[Tensor, " n_plus_1"], columns: Int64[Tensor, " e"], parts: int
) -> Int64[Tensor, " n"]:
    """Cut a graph into parts of about equal size with few edges between them.

    Args:
        pointers: Where each node's neighbours start in ``columns``, with the total at the end.
        columns: Neighbours, row after row; both directions of every edge.
        parts: How many.

    Returns:
        The part of each node, from 0; the same at every call. Some may be empty where a graph falls
        into many pieces.

    Raises:
        InputError: If pymetis is not installed.
    """
    if parts == 1:
        return torch.zeros(len(pointers) - 1, dtype=torch.int64)
    try:
        import pymetis
    except ImportError as error:
        raise InputError(
            "--sampler cluster needs pymetis, which has no wheels for this system: install it, or "
            "use --sampler neighbor or random"
        ) from error
    graph = pymetis.CSRAdjacency(pointers.numpy(), columns.numpy())
    _, part = pymetis.part_graph(parts, graph, options=pymetis.Options(seed=0))
    return torch.tensor(part)


class ClusterDataset(PassDataset):
    """Induced subgraphs of the parts of a graph; a pass visits every part, in random order.

    Args:
        graph: Any graph.
        subgraph_size: Mean nodes of a part.
        seed: At least 0; the parts do not depend on it.
    """

    def __init__(self, graph: AttributedGraph, *, subgraph_size: int, seed: int) -> None:
        super().__init__(graph, subgraph_size=subgraph_size, seed=seed, parts=1)
        wanted = max(1, -(-graph.num_nodes // subgraph_size))
        part = partition(self.pointers, graph.edge_index[1], wanted)
        sizes = torch.bincount(part, minlength=wanted)
        clusters = torch.split(part.argsort(stable=True), sizes.tolist())
        # A contrast needs two nodes: what is smaller joins the next part.
        self.clusters: list[Tensor] = []
        left = part[:0]
        for cluster in clusters:
            nodes = torch.cat([left, cluster])
            left = nodes if len(nodes) < 2 else part[:0]
            if len(nodes) >= 2:
                self.clusters.append(nodes.sort().values)
        if len(left):
            self.clusters[-1] = torch.cat([self.clusters[-1], left]).sort().values
        self.draws_per_pass = len(self.clusters)

    def nodes_of(self, draw: int) -> Int64[Tensor, " k"]:
        order, place = self.order_of(draw, self.draws_per_pass)
        return self.clusters[int(order[place])]
