r"""Graph encoders: the GCN of GRACE and ARIEL, its projection head, and the GIN of GraphCL.

The graph convolution differs from PyG's ``GCNConv`` where the official code does: the degree is the
*row* sum, which matters because a view with directed edge drops is asymmetric; initial weights
are uniform with the output width, not Glorot; one activation module serves all layers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_core.evaluation.features import eval_mode
from cl_core.matmul import matmul
from cl_graphs.methods.sparse import SparseMatrix

__all__ = [
    "GCN",
    "GIN",
    "Features",
    "GraphConvolution",
    "ProjectionHead",
    "activation_module",
    "eval_mode",
    "graph_head",
    "normalized_adjacency",
    "product",
]


@runtime_checkable
class Features(Protocol):
    """Node features: a tensor, a `SparseMatrix`, or whatever else multiplies a weight."""

    def __matmul__(self, weight: Tensor, /) -> Tensor: ...


def normalized_adjacency(
    edge_index: Int64[Tensor, "2 e"],
    num_nodes: int,
    edge_weight: Float[Tensor, " e"] | None = None,
    *,
    self_loops: bool = True,
    symmetric: bool = False,
    dtype: torch.dtype | None = None,
) -> SparseMatrix:
    r"""Normalise a graph for convolution: $\hat A_{ij} = r_i^{-1/2} (A + I)_{ij} r_j^{-1/2}$.

    $r_i = \sum_j (A + I)_{ij}$ is the row sum, also when $A$ is not symmetric, and $r^{-1/2} = 0$
    where $r = 0$.

    Args:
        edge_index: Rows and columns of $A$; repeated entries add up.
        num_nodes: ``n``.
        edge_weight: Entries of $A$; default all 1.
        self_loops: Add $I$ first.
        symmetric: The caller knows that $A$ is symmetric (saves sorting the transpose).
        dtype: Of the result; default that of ``edge_weight``, else torch's default.

    Returns:
        $\hat A$, sparse ``(n, n)``.
    """
    if edge_weight is None:
        edge_weight = torch.ones(edge_index.shape[1], dtype=dtype, device=edge_index.device)
    weight = edge_weight if dtype is None else edge_weight.to(dtype)
    if self_loops:
        diagonal = torch.arange(num_nodes, device=edge_index.device).expand(2, -1)
        edge_index = torch.cat([edge_index, diagonal], dim=1)
        weight = torch.cat([weight, weight.new_ones(num_nodes)])
    row, column = edge_index
    r = weight.new_zeros(num_nodes).index_add_(0, row, weight)
    p = r.pow(-0.5).masked_fill_(r == 0, 0)
    values = p[row] * weight * p[column]
    return SparseMatrix.from_entries(
        edge_index, values, (num_nodes, num_nodes), symmetric=symmetric
    )


def activation_module(name: str) -> nn.Module:
    """Make the activation called ``name``; PReLU starts with one slope of 0.25.

    Raises:
        ValueError: If the name is unknown.
    """
    modules: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "prelu": nn.PReLU, "rrelu": nn.RReLU}
    if name not in modules:
        raise ValueError(f"activation must be one of {', '.join(modules)}, got {name!r}")
    return modules[name]()


def product(x: Features, weight: Float[Tensor, "d m"]) -> Float[Tensor, "n m"]:
    """Multiply features of any kind with a weight, dense ones by the faster library."""
    return matmul(x, weight) if isinstance(x, Tensor) else x @ weight


class GraphConvolution(nn.Module):
    r"""$\hat A (X W) + b$, with $W$ and $b$ starting in $U(-1/\sqrt{m}, 1/\sqrt{m})$.

    Args:
        in_features: Width of $X$.
        out_features: $m$, width of the result.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = out_features**-0.5
        self.weight = nn.Parameter(torch.empty(in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound))

    def forward(self, x: Features, adjacency: SparseMatrix) -> Float[Tensor, "n m"]:
        return adjacency @ product(x, self.weight) + self.bias


class GCN(nn.Module):
    r"""Two or more graph convolutions, each followed by the same activation module.

    $Z = \sigma(\hat A\, \sigma(\hat A X W_1 + b_1) W_2 + b_2)$; all layers but the last are
    twice as wide as the embedding (Zhu et al. 2020; Feng et al. 2022).

    Args:
        in_features: Width of $X$.
        hidden: Width of $Z$.
        activation: ``relu``, ``prelu`` or ``rrelu``.
        num_layers: At least 2.

    Raises:
        ValueError: If ``num_layers < 2`` or the activation is unknown.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        *,
        activation: str = "relu",
        num_layers: int = 2,
    ) -> None:
        super().__init__()
        if num_layers < 2:
            raise ValueError(f"num_layers must be at least 2, got {num_layers}")
        widths = [in_features, *[2 * hidden] * (num_layers - 1), hidden]
        self.conv = nn.ModuleList(GraphConvolution(a, b) for a, b in pairwise(widths))
        self.activation = activation_module(activation)

    @property
    def out_features(self) -> int:
        return self.layers[-1].bias.numel()

    @property
    def layers(self) -> list[GraphConvolution]:
        return [layer for layer in self.conv if isinstance(layer, GraphConvolution)]

    def forward(self, x: Features, adjacency: SparseMatrix) -> Float[Tensor, "n h"]:
        r"""Embed nodes.

        Args:
            x: Features, dense or sparse.
            adjacency: $\hat A$ of `normalized_adjacency`.
        """
        return self.trace(x, adjacency)[0]

    def trace(
        self, x: Features, adjacency: SparseMatrix
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        r"""Embed nodes and keep what each layer sends over the edges and what arrives.

        Returns:
            $Z$; $U_l = H_{l-1} W_l$ of every layer; $O_l = \hat A U_l$ of every layer.
        """
        return self.trace_sent(product(x, self.layers[0].weight), adjacency)

    def trace_sent(
        self, first: Float[Tensor, "n m"], adjacency: SparseMatrix
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """As `trace`, from what the first layer sends."""
        sent = [first]
        arrived = [adjacency @ first]
        h = self.activation(arrived[0] + self.layers[0].bias)
        for layer in self.layers[1:]:
            sent.append(product(h, layer.weight))
            arrived.append(adjacency @ sent[-1])
            h = self.activation(arrived[-1] + layer.bias)
        return h, sent, arrived


class ProjectionHead(nn.Module):
    r"""$h = W_2\, \mathrm{ELU}(W_1 z + b_1) + b_2$: lives inside the losses only.

    Args:
        in_features: Width of $z$ and of $h$.
        projection: Width between.
    """

    def __init__(self, in_features: int, projection: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, projection)
        self.fc2 = nn.Linear(projection, in_features)

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        h = F.elu(matmul(z, self.fc1.weight.T) + self.fc1.bias)
        return matmul(h, self.fc2.weight.T) + self.fc2.bias


def xavier_linear(in_features: int, out_features: int) -> nn.Linear:
    """Make a linear layer with Xavier weights and a zero bias, as GraphCL starts."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def graph_head(width: int) -> nn.Sequential:
    """Make the projection head of GraphCL: two layers, both as wide as the embedding."""
    return nn.Sequential(xavier_linear(width, width), nn.ReLU(), xavier_linear(width, width))


class GINLayer(nn.Module):
    r"""$\mathrm{MLP}(A X + X)$ with an MLP of two linear layers (Xu et al. 2019).

    PyG's ``GINConv`` takes no edge weights, and the attack needs them.

    Args:
        in_features: Width of $X$.
        out_features: Width of the result and of the hidden layer.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.nn = nn.Sequential(
            xavier_linear(in_features, out_features),
            nn.ReLU(),
            xavier_linear(out_features, out_features),
        )


class GIN(nn.Module):
    r"""Encoder of whole graphs, as in GraphCL (You et al. 2020).

    Each layer is $X \leftarrow \mathrm{BN}(\mathrm{ReLU}(\mathrm{MLP}(A X + X)))$; the embedding of
    a graph is the sum over its nodes of every layer's output, side by side.

    Args:
        in_features: Width of the node features.
        hidden: Width of each layer.
        layers: Number of layers, at least 1.
    """

    def __init__(self, in_features: int, hidden: int, *, layers: int = 3) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        widths = [in_features, *[hidden] * layers]
        self.convs = nn.ModuleList(GINLayer(a, b) for a, b in pairwise(widths))
        self.bns = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(layers))
        self.out_features = hidden * layers

    def forward(
        self,
        x: Float[Tensor, "n d"],
        adjacency: SparseMatrix,
        batch: Int64[Tensor, " n"],
        num_graphs: int,
    ) -> Float[Tensor, "g k"]:
        """Embed the graphs of a batch.

        Args:
            x: Node features of all graphs.
            adjacency: $A$ of their disjoint union, not normalised.
            batch: The graph each node belongs to.
            num_graphs: ``g``.
        """
        return self.trace(x, adjacency, batch, num_graphs)[0]

    def trace(
        self,
        x: Float[Tensor, "n d"],
        adjacency: SparseMatrix,
        batch: Int64[Tensor, " n"],
        num_graphs: int,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Embed graphs and keep what each layer sends over the edges and what arrives.

        Returns:
            The embeddings; $X_l$ that enters every layer; $A X_l$ of every layer.
        """
        sent, arrived, pooled = [], [], []
        for conv, norm in zip(self.convs, self.bns, strict=True):
            sent.append(x)
            arrived.append(adjacency @ x)
            assert isinstance(conv, GINLayer)
            x = norm(F.relu(conv.nn(arrived[-1] + x)))
            pooled.append(x.new_zeros(num_graphs, x.shape[1]).index_add(0, batch, x))
        return torch.cat(pooled, 1), sent, arrived
