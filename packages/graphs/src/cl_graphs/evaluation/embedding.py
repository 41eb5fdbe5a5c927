"""Embeddings of nodes and of whole graphs by a trained encoder, without what training needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.matmul import matmul
from cl_graphs.methods.encoder import GCN, GIN, eval_mode, normalized_adjacency
from cl_graphs.methods.sparse import SparseMatrix

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["GraphBatch", "embed", "embed_graphs"]


@torch.no_grad()
def embed(
    encoder: GCN, x: Tensor, edge_index: Int64[Tensor, "2 e"], *, rows: int = 4096
) -> Float[Tensor, "n h"]:
    """Embed every node of a graph, in eval mode.

    Args:
        encoder: Trained encoder; its mode is restored.
        x: Features ``(n, d)`` of any number type: strided, ``torch.sparse_csr`` or sparse COO.
        edge_index: Both directions of every edge.
        rows: Rows of dense ``x`` that are converted to the encoder's type at once.

    Returns:
        Embeddings on the encoder's device; peak memory is about three times the first layer.
    """
    first = encoder.layers[0].weight
    with eval_mode(encoder):
        adjacency = normalized_adjacency(edge_index.to(first.device), x.shape[0], dtype=first.dtype)
        z: Tensor = encoder(_Features(x, rows), adjacency)
    return z


class GraphBatch(NamedTuple):
    """The disjoint union of some graphs."""

    x: Tensor
    edge_index: Tensor
    batch: Tensor
    num_graphs: int

    @classmethod
    def of(cls, data: Data) -> GraphBatch:
        """Read PyG's batch; nodes without features get a constant 1, and each node a self loop."""
        n = data.num_nodes
        edges = data.edge_index[:, data.edge_index[0] != data.edge_index[1]]
        loops = torch.arange(n, device=edges.device).expand(2, -1)
        x = torch.ones(n, 1, device=edges.device) if data.x is None else data.x
        return cls(x, torch.cat([edges, loops], 1), data.batch, data.num_graphs)

    @property
    def adjacency(self) -> SparseMatrix:
        weight = self.x.new_ones(self.edge_index.shape[1])
        n = len(self.x)
        return SparseMatrix.from_entries(self.edge_index, weight, (n, n))


@torch.no_grad()
def embed_graphs(encoder: GIN, data: Data) -> Float[Tensor, "g k"]:
    """Embed the graphs of a PyG ``Batch``, in eval mode.

    Args:
        encoder: Trained encoder; its mode is restored.
        data: The graphs, on the encoder's device.
    """
    graphs = GraphBatch.of(data)
    with eval_mode(encoder):
        z: Tensor = encoder(graphs.x, graphs.adjacency, graphs.batch, graphs.num_graphs)
    return z


class _Features:
    """Features of any layout and number type that multiply a weight a few rows at a time."""

    def __init__(self, x: Tensor, rows: int) -> None:
        self.x = x
        self.rows = rows

    def __matmul__(self, weight: Tensor) -> Tensor:
        if self.x.layout != torch.strided:
            product: Tensor = torch.sparse.mm(self.x.to(weight), weight)
            return product
        return torch.cat(
            [matmul(part.to(weight), weight) for part in torch.split(self.x, self.rows)]
        )
