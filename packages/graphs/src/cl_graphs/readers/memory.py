"""Graphs that are in memory already: PyG's ``Data``, lists of them, arrays, the package's own.

The same checks and the same notes as for files; what is not used of an object is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from cl_core.checks import OptionError
from cl_core.errors import InputError
from cl_graphs.collection import GraphCollection
from cl_graphs.graph import AttributedGraph, clean_edges
from cl_graphs.readers.features import DEGREE
from cl_graphs.readers.named_arrays import edge_ends, graph_of_arrays, real_matrix

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["collection_of", "graph_of_object", "is_collection_object"]


def is_collection_object(data: object) -> bool:
    """Whether an object in memory holds many graphs: several PyG ``Data`` in a row."""
    if isinstance(data, GraphCollection):
        return True
    if isinstance(data, (str, bytes, Mapping, tuple)) or _is_graph(data):
        return False
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        return False
    many = cast("Sequence[Any]", data)
    return len(many) > 1 and _is_data(many[0])


def graph_of_object(
    data: object, features: str | None = None, *, normalize_features: bool = False
) -> AttributedGraph:
    """Make a graph of what a user of the field holds.

    Args:
        data: An `AttributedGraph`; PyG's ``Data``, or a data set of one; arrays ``(x, edge_index)``
            or ``(x, edge_index, y)``; or a mapping of them by these names.
        features: ``degree`` for one-hot degrees in place of the features.
        normalize_features: Divide each feature row by the sum of its absolute values.

    Raises:
        InputError: If it is none of these, or its parts do not fit.
    """
    if features not in (None, DEGREE):
        raise OptionError(f"features of a graph in memory can be {DEGREE!r} or its own")
    if not isinstance(data, (Mapping, tuple)) and not _is_graph(data) and _of_one(data):
        data = cast("Sequence[Any]", data)[0]
    if isinstance(data, AttributedGraph) and features is None and not normalize_features:
        return data
    name = "the graph in memory"
    if isinstance(data, AttributedGraph):
        name, arrays = data.name, _parts_of_graph(data)
    elif _is_data(data):
        arrays = dict(cast(Any, data).to_dict())
        arrays.setdefault("num_nodes", cast(Any, data).num_nodes)
    elif isinstance(data, tuple) and len(data) in (2, 3):
        arrays = dict(zip(("x", "edge_index", "y"), data, strict=False))
    elif isinstance(data, Mapping):
        arrays = {str(key): value for key, value in data.items()}
    else:
        raise OptionError(
            f"data: a {type(data).__name__} is no graph; give a path, a name, PyG's Data or a list "
            "of them, an AttributedGraph, or arrays (x, edge_index, y)"
        )
    return graph_of_arrays(name, arrays, features=features, normalize_features=normalize_features)


def collection_of(data: Any) -> GraphCollection:
    """Make a collection of a list, or a data set, of PyG ``Data`` with features.

    Raises:
        InputError: If a graph has no features or another number of them than the first.
    """
    if isinstance(data, GraphCollection):
        return data
    graphs = [_plain_data(data[k], k) for k in range(len(data))]
    width = graphs[0].x.shape[1]
    for k, graph in enumerate(graphs):
        if graph.x.shape[1] != width:
            raise InputError(
                f"graph {k} of the list has {graph.x.shape[1]} node features, the first has {width}"
            )
    ignored = sorted(
        {
            key
            for k in range(len(data))
            for key in data[k].to_dict()
            if key not in ("x", "edge_index", "y", "num_nodes")
        }
    )
    notes = (f"not used of the graphs: {', '.join(ignored)}",) if ignored else ()
    return GraphCollection("graphs in memory", graphs, features="given", notes=notes)


def _plain_data(data: Any, place: int) -> Data:
    from cl_graphs.readers.pyg import Data

    if data.x is None or data.edge_index is None:
        raise InputError(f"graph {place} of the list has no x or no edge_index; give both")
    x = torch.from_numpy(np.asarray(real_matrix(f"graph {place}", data.x), dtype=np.float32))
    source, target = edge_ends(f"graph {place}", data.edge_index)
    if len(source) and not 0 <= min(source.min(), target.min()) <= max(
        source.max(), target.max()
    ) < len(x):
        raise InputError(f"graph {place} of the list: an edge leaves its {len(x)} nodes")
    if not bool(x.isfinite().all()):
        raise InputError(f"graph {place} of the list: a feature is NaN or infinite")
    edge_index, _ = clean_edges(source, target, len(x))
    y = data.y
    if y is not None:
        y = torch.as_tensor(y).reshape(-1)
        if len(y) != 1 or bool((y != torch.floor(y))[torch.isfinite(y)].any()):
            raise InputError(
                f"graph {place} of the list: y must be one whole number, its class, got "
                f"{tuple(torch.as_tensor(data.y).shape)}"
            )
        y = torch.where(torch.isfinite(y), y, -1).to(torch.int64)
    return Data(x=x, edge_index=edge_index, y=y)


def _is_data(data: object) -> bool:
    """Whether an object is PyG's ``Data``, without importing PyG for what is none."""
    return any(
        kind.__module__.startswith("torch_geometric.data") for kind in type(data).__mro__
    ) and (hasattr(data, "edge_index") and hasattr(data, "to_dict") and hasattr(data, "num_nodes"))


def _is_graph(data: object) -> bool:
    return isinstance(data, AttributedGraph) or _is_data(data)


def _of_one(data: object) -> bool:
    """Whether an object is a data set, or a list, of a single graph."""
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        return False
    many = cast("Sequence[Any]", data)
    return len(many) == 1 and _is_graph(many[0])


def _parts_of_graph(graph: AttributedGraph) -> dict[str, Any]:
    splits = {f"idx_{part}": nodes for part, nodes in graph.splits.items()}
    return {
        "x": graph.x,
        "edge_index": graph.edge_index,
        "y": graph.y,
        "ids": graph.ids,
        "classes": graph.classes,
        "feature_names": graph.feature_names or None,
        **splits,
    }
