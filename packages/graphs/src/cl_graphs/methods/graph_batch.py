"""A batch of whole graphs as one disjoint union, and encoders of graphs of both conventions.

As for nodes (`encode`), the second argument of ``forward`` tells what an encoder expects:

- ``forward(x, edge_index, batch[, edge_weight])``, PyG's: edges without self loops;
- ``forward(x, adjacency, batch, num_graphs)``, the package's: $A$ with self loops, not normalised.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_core.checks import OptionError
from cl_graphs.methods.encode import takes_adjacency, takes_weights
from cl_graphs.methods.sparse import SparseMatrix, WeightedMatrix
from cl_graphs.methods.weighing import PairWeights, weighing

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["GraphBatch", "encode_graphs", "encode_weighted_graphs", "graph_width"]


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


def encode_graphs(encoder: nn.Module, graphs: GraphBatch) -> Float[Tensor, "g k"]:
    """Embed the graphs of a batch with an encoder of either convention.

    Raises:
        ValueError: If the encoder does not return one row of numbers a graph.
    """
    if takes_adjacency(encoder):
        z = encoder(graphs.x, graphs.adjacency, graphs.batch, graphs.num_graphs)
    else:
        edges = graphs.edge_index[:, graphs.edge_index[0] != graphs.edge_index[1]]
        z = _of_edges(encoder, graphs.x, edges.flip(0), graphs.batch)
    return _checked(encoder, z, graphs.num_graphs)


def encode_weighted_graphs(
    encoder: nn.Module,
    graphs: GraphBatch,
    x: Float[Tensor, "n d"],
    keys: Int64[Tensor, " p"],
    weight: Float[Tensor, " p"],
) -> Float[Tensor, "g k"]:
    """Embed undirected graphs whose edges have weights, differentiably.

    Args:
        encoder: Of either convention.
        graphs: The clean graphs; of their edges the self loops stay.
        x: Features of all nodes.
        keys: ``i * n + j`` of each pair ``i < j`` that may have an edge, ascending.
        weight: Of each pair; 0 is no edge.
    """
    n = len(x)
    low, high = keys // n, keys % n
    both = torch.stack([torch.cat([low, high]), torch.cat([high, low])])
    weights = torch.cat([weight, weight])
    with weighing(encoder, PairWeights(keys, weight, n)):
        if takes_adjacency(encoder):
            loops = graphs.edge_index[:, graphs.edge_index[0] == graphs.edge_index[1]]
            index = torch.cat([both, loops], 1)
            order = (index[0] * n + index[1]).argsort()
            values = torch.cat([weights, weights.new_ones(loops.shape[1])])[order]
            matrix = WeightedMatrix.symmetric(index[:, order], values, n)
            z = encoder(x, matrix, graphs.batch, graphs.num_graphs)
        elif takes_weights(encoder):
            z = _of_edges(encoder, x, both, graphs.batch, edge_weight=weights)
        else:
            z = _of_edges(encoder, x, both, graphs.batch)
    return _checked(encoder, z, graphs.num_graphs)


def graph_width(encoder: nn.Module, in_features: int) -> int:
    """Find how wide an encoder's rows are, by two graphs of three nodes; its modes stay.

    Raises:
        ValueError: If the encoder cannot be called with ``in_features`` features.
    """
    from cl_core.evaluation.features import device_of, frozen

    device = device_of(encoder)
    edges = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 5], [1, 0, 2, 1, 4, 3, 5, 4]], device=device)
    batch = torch.tensor([0, 0, 0, 1, 1, 1], device=device)
    x = torch.zeros(6, in_features, device=device)
    try:
        with frozen(encoder):
            return encode_graphs(encoder, GraphBatch(x, edges, batch, 2)).shape[1]
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise OptionError(
            f"{type(encoder).__name__} cannot embed graphs with {in_features} features: {reason}"
        ) from error


def _of_edges(
    encoder: nn.Module, x: Tensor, edge_index: Tensor, batch: Tensor, **weight: Tensor
) -> object:
    """Call an encoder of PyG's convention, whose third argument need not be the batch."""
    if "batch" in inspect.signature(encoder.forward).parameters:
        return encoder(x, edge_index, batch=batch, **weight)
    return encoder(x, edge_index, batch, **weight)


def _checked(encoder: nn.Module, z: object, num_graphs: int) -> Tensor:
    if isinstance(z, Tensor) and z.ndim == 2 and len(z) == num_graphs and z.is_floating_point():
        return z
    what = f"a tensor {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
    raise OptionError(
        f"{type(encoder).__name__} must return one row of numbers a graph, ({num_graphs}, width), "
        f"got {what}: pool its nodes, as by global_add_pool(x, batch)"
    )
