"""Embeddings of nodes and of whole graphs by a trained encoder, without what training needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_core.evaluation.features import device_of, frozen
from cl_core.matmul import matmul
from cl_graphs.evaluation.layerwise import ROWS, embed_by_layer
from cl_graphs.methods.closed_form import layers_known
from cl_graphs.methods.encode import encode
from cl_graphs.methods.encoder import GCN, normalized_adjacency
from cl_graphs.methods.graph_batch import GraphBatch, encode_graphs

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["embed", "embed_graphs"]


def embed(
    encoder: nn.Module, x: Tensor, edge_index: Int64[Tensor, "2 e"], *, rows: int = 4096
) -> Float[Tensor, "n h"]:
    """Embed every node of a graph, in eval mode.

    Args:
        encoder: Trained encoder, a `GCN` or one of a convention of `encode`; its modes are
            restored.
        x: Features ``(n, d)`` of any number type: strided, ``torch.sparse_csr`` or sparse COO.
        edge_index: Both directions of every edge.
        rows: Rows of dense ``x`` that are converted to the encoder's type at once.

    Returns:
        Embeddings on the encoder's device. A `GCN` on the CPU embeds more than `layerwise.ROWS`
        nodes layer by layer, which is exact; otherwise it is one pass over the whole graph.
    """
    device = device_of(encoder)
    with frozen(encoder):
        if isinstance(encoder, GCN) and layers_known(encoder):
            if device.type == "cpu" and x.shape[0] > ROWS:
                return embed_by_layer(encoder, x, edge_index)
            first = encoder.layers[0].weight
            adjacency = normalized_adjacency(edge_index.to(device), x.shape[0], dtype=first.dtype)
            z: Tensor = encoder(_Features(x, rows), adjacency)
            return z
        dense = x if x.layout == torch.strided else x.to_dense()
        kind = next((p.dtype for p in encoder.parameters()), torch.float32)
        return encode(encoder, dense.to(device, kind), edge_index.to(device))


def embed_graphs(encoder: nn.Module, data: Data) -> Float[Tensor, "g k"]:
    """Embed the graphs of a PyG ``Batch``, in eval mode.

    Args:
        encoder: Trained encoder, a `GIN` or one of a convention of `graph_batch`; its modes are
            restored.
        data: The graphs, on the encoder's device.
    """
    with frozen(encoder):
        return encode_graphs(encoder, GraphBatch.of(data))


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
