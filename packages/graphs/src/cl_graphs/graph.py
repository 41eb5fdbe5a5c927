"""One graph in memory: features, undirected simple edges, labels and the owner's node names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from cl_core.errors import InputError
from cl_graphs.readers.features import feature_matrix

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = [
    "AttributedGraph",
    "clean_edges",
    "make_graph",
    "require_classes",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class AttributedGraph:
    """A simple undirected graph with a feature row per node.

    Attributes:
        name: The built-in name, or the file the graph came from.
        x: Features, float32 ``(n, d)``; dense, or ``torch.sparse_csr`` when a dense matrix would
            pass 256 MiB and less than a tenth of it is filled. ``x @ w`` works for both.
        edge_index: int64 ``(2, e)``, both directions of every edge, no loops, no repeats, sorted
            by row, then column.
        y: Class per node, int64 ``(n,)``, -1 where a node is unlabelled; or tasks ``(n, t)`` of 0,
            1 and -1; None without labels.
        ids: What the owner calls each node: row numbers or strings, in row order.
        classes: Name of each class; ``y == k`` means ``classes[k]``.
        notes: What was cleaned or assumed on the way in, a line each, for the user to read.
        splits: Node indices published with the graph, such as ``train``, ``val`` and ``test``.
        feature_names: What the columns of ``x`` are called; empty where nobody says.
    """

    name: str
    x: Tensor
    edge_index: Tensor
    y: Tensor | None = None
    ids: Sequence[int] | Sequence[str]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    splits: Mapping[str, Tensor] = field(default_factory=dict)
    feature_names: tuple[str, ...] = ()

    @property
    def num_nodes(self) -> int:
        return self.x.shape[0]

    @property
    def num_features(self) -> int:
        return self.x.shape[1]

    @property
    def num_edges(self) -> int:
        """Undirected edges: each pair counts once."""
        return self.edge_index.shape[1] // 2

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def summary(self) -> str:
        """Return the graph's size in one line."""
        if self.y is None:
            labels = "no labels"
        elif self.y.ndim == 2:
            labels = f"{self.y.shape[1]} tasks"
        else:
            labels = f"{self.num_classes} classes"
        return (
            f"{self.name}: {self.num_nodes:,} nodes, {self.num_edges:,} edges, "
            f"{self.num_features:,} features, {labels}"
        )

    def homophily(self) -> tuple[float, float] | None:
        """Return how often edges join equal classes, and how often they would by chance.

        Of the edges between labelled nodes; by chance is the sum over classes of the squared share
        of edge ends. None without such edges or without classes.
        """
        if self.y is None or self.y.ndim != 1:
            return None
        row, column = self.y[self.edge_index]
        known = (row >= 0) & (column >= 0)
        if not bool(known.any()):
            return None
        row, column = row[known], column[known]
        ends = torch.bincount(torch.cat([row, column])).double()
        shares = ends / ends.sum()
        return float((row == column).double().mean()), float(shares.square().sum())

    def to_data(self) -> Data:
        """Return the whole graph as PyG's ``Data`` with dense ``x`` and node numbers ``n_id``."""
        from cl_graphs.readers.pyg import Data

        nodes = torch.arange(self.num_nodes)
        x = self.x if self.x.layout == torch.strided else self.x.to_dense()
        return Data(x=x, edge_index=self.edge_index, y=self.y, n_id=nodes)


def clean_edges(
    source: NDArray[Any], target: NDArray[Any], num_nodes: int
) -> tuple[Tensor, list[str]]:
    """Make any list of node pairs a simple undirected graph, and tell what that changed.

    Args:
        source: Integer node numbers ``(m,)`` in ``[0, num_nodes)``; pairs with ``target``.
        target: The other end of each pair.
        num_nodes: ``n``.

    Returns:
        ``edge_index`` int64 ``(2, e)`` with both directions, sorted by row, then column, and a
        line for each thing that was done: loops dropped, repeats merged, directions added.
    """
    source, target = source.astype(np.int64), target.astype(np.int64)
    notes = []
    loops = int((source == target).sum())
    if loops:
        notes.append(f"{_count(loops, 'self loop')} dropped")
        source, target = source[source != target], target[source != target]
    directed = np.unique(source * num_nodes + target)
    repeats = len(source) - len(directed)
    if repeats:
        notes.append(f"{_count(repeats, 'repeated edge')} merged")
    row, column = directed // num_nodes, directed % num_nodes
    both = np.union1d(directed, column * num_nodes + row)
    one_way = len(both) - len(directed)
    if one_way:
        notes.append(f"{_count(one_way, 'edge')} given in one direction only: read as undirected")
    edge_index = torch.from_numpy(np.stack([both // num_nodes, both % num_nodes]))
    lonely = num_nodes - len(np.unique(edge_index[0].numpy()))
    if lonely:
        notes.append(f"{_count(lonely, 'isolated node')} kept")
    return edge_index, notes


def make_graph(
    name: str,
    x: Any,
    source: NDArray[Any],
    target: NDArray[Any],
    *,
    y: NDArray[Any] | None = None,
    ids: Sequence[int] | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    splits: Mapping[str, Tensor] | None = None,
    feature_names: Sequence[str] = (),
    features_file: str | Path | None = None,
    normalize_features: bool = False,
) -> AttributedGraph:
    """Check and clean arrays, whatever file they came from, into an `AttributedGraph`.

    Args:
        name: What messages call the graph.
        x: Features ``(n, d)``: a numpy array or a scipy sparse matrix of numbers.
        source: Node numbers in ``[0, n)``, one end of each edge; repeats and loops are allowed.
        target: The other end.
        y: Class per node in ``[0, len(classes))``, -1 for none; or None.
        ids: The owner's names of the nodes; default the row numbers.
        classes: Names of the classes; default the numbers up to the largest in ``y``.
        notes: Lines that go before the notes made here.
        splits: Node indices published with the graph.
        feature_names: What the columns of ``x`` are called.
        features_file: Where the features come from, for messages; default ``name``.
        normalize_features: Divide each row by the sum of its absolute values.

    Raises:
        InputError: If there are no nodes, no features or no edges, or a feature is not finite.
    """
    num_nodes, num_features = x.shape
    where = features_file or name
    if num_nodes == 0:
        raise InputError(f"{name}: the graph has no nodes; give at least two nodes and an edge")
    if num_features == 0:
        raise InputError(f"{where}: the nodes have no features; give at least one column")
    if y is not None and len(y) != num_nodes:
        raise InputError(f"{name}: {len(y)} labels for {num_nodes} nodes; give one per node")
    ends = np.concatenate([source, target])
    if len(ends) and not 0 <= ends.min() <= ends.max() < num_nodes:
        raise InputError(f"{name}: an edge leaves the {num_nodes} nodes; number them from 0")
    edge_index, cleaned = clean_edges(source, target, num_nodes)
    if edge_index.shape[1] == 0:
        raise InputError(f"{name}: the graph has no edges between different nodes; check the edges")
    if y is not None and y.ndim == 1 and (y < 0).any():
        notes = [*notes, f"nodes without a label: {int((y < 0).sum()):,}"]
    if y is not None and classes is None:
        classes = [str(k) for k in range(int(y.max(initial=-1)) + 1)]
    return AttributedGraph(
        name=name,
        x=feature_matrix(str(where), x, normalize=normalize_features),
        edge_index=edge_index,
        y=None if y is None else torch.from_numpy(y.astype(np.int64)),
        ids=range(num_nodes) if ids is None else ids,
        classes=tuple(classes or ()),
        notes=(*notes, *cleaned),
        splits=splits or {},
        feature_names=tuple(feature_names),
    )


def require_classes(graph: AttributedGraph, *, minimum: int = 2) -> Int64[Tensor, "*labels"]:
    """Return the labels of a graph that is about to be evaluated.

    Args:
        graph: Any graph.
        minimum: Classes that must occur among the labelled nodes.

    Returns:
        ``graph.y``, with -1 where a node is unlabelled; tasks of 0 and 1 as they are.

    Raises:
        InputError: If the graph has no labels or fewer than ``minimum`` different ones.
    """
    if graph.y is None:
        raise InputError(f"{graph.name}: no labels, and evaluation needs them; give --labels FILE")
    present = torch.unique(graph.y[graph.y >= 0])
    if graph.y.ndim == 2:
        if len(present) < 2:
            raise InputError(f"{graph.name}: no task has both a 0 and a 1 to tell apart")
        return graph.y
    if len(present) < minimum:
        names = ", ".join(repr(graph.classes[k]) for k in present.tolist()) or "none"
        raise InputError(
            f"{graph.name}: evaluation needs at least {minimum} classes, "
            f"the labels hold {len(present)} ({names})"
        )
    return graph.y


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
