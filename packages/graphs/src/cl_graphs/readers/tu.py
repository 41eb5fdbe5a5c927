"""Collections of small labelled graphs in the text layout of TU Dortmund (Morris et al. 2020).

A folder holds ``NAME_A.txt`` (a line per edge, ``i, j``, nodes numbered from 1 over all graphs),
``NAME_graph_indicator.txt`` (the graph of each node, from 1), and optionally
``NAME_graph_labels.txt``, ``NAME_node_labels.txt`` and ``NAME_node_attributes.txt``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_graphs.graph import clean_edges
from cl_graphs.readers.arrays import existing_file, readable
from cl_graphs.readers.features import one_hot_degrees

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["COLLECTIONS", "collection_folder", "read_collection"]

COLLECTIONS = (
    "MUTAG",
    "PROTEINS",
    "NCI1",
    "DD",
    "ENZYMES",
    "COLLAB",
    "IMDB-BINARY",
    "IMDB-MULTI",
    "REDDIT-BINARY",
    "REDDIT-MULTI-5K",
)
"""Names that are known to be collections even before their files are found."""


def collection_folder(data: str, root: str | Path | None) -> Path | None:
    """Find the folder with ``*_A.txt`` that ``data`` means: itself, or below ``root``."""
    places = [Path(data), Path(data) / "raw"]
    if root is not None:
        places += [Path(root) / data / "raw", Path(root) / data]
        places += [Path(root) / data.upper() / "raw"]
    return next((place for place in places if any(place.glob("*_A.txt"))), None)


def read_collection(folder: Path) -> list[Data]:
    """Read all graphs of a folder.

    Node features are one-hot node labels; else the node attributes; else one-hot degrees. Graph
    labels are numbered in their order from 0.

    Args:
        folder: Holds the files of one collection.

    Returns:
        A PyG ``Data`` per graph: ``x`` float32 ``(n, d)``, ``edge_index`` with both directions, and
        ``y`` int64 ``(1,)`` if there are graph labels.

    Raises:
        InputError: If a file is missing or malformed, or numbers in it do not fit.
    """
    from cl_graphs.readers.pyg import Data

    files = sorted(folder.glob("*_A.txt"))
    if len(files) != 1:
        raise InputError(f"{folder} holds {len(files)} collections (*_A.txt); keep one")
    stem = files[0].name.removesuffix("_A.txt")
    edges = _table(files[0], np.int64) - 1
    indicator_file = existing_file(folder / f"{stem}_graph_indicator.txt")
    graph_of = _table(indicator_file, np.int64)[:, 0] - 1
    if graph_of[0] != 0 or not np.isin(np.diff(graph_of), (0, 1)).all():
        raise InputError(f"{indicator_file}: graphs must be numbered 1, 2, ... in order of nodes")
    sizes = np.bincount(graph_of)
    num_nodes, num_graphs = len(graph_of), len(sizes)
    if edges.shape[1] != 2:
        raise InputError(f"{files[0]} has {edges.shape[1]} columns; an edge list has two")
    outside = ((edges < 0) | (edges >= num_nodes)).any(axis=1)
    if outside.any():
        raise InputError(
            f"{files[0]}, line {int(outside.argmax()) + 1}: an edge leaves the {num_nodes} nodes "
            f"of {indicator_file.name}; lines with such edges: {int(outside.sum())}"
        )
    crossing = graph_of[edges[:, 0]] != graph_of[edges[:, 1]]
    if crossing.any():
        raise InputError(
            f"{files[0]}, line {int(crossing.argmax()) + 1}: an edge joins two different graphs"
        )
    edge_index, _ = clean_edges(edges[:, 0], edges[:, 1], num_nodes)
    x = _features(folder, stem, num_nodes)
    x = one_hot_degrees(edge_index, num_nodes) if x is None else x
    y = _graph_labels(folder / f"{stem}_graph_labels.txt", num_graphs)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    # Edges are sorted by row, and nodes by graph: the edges of a graph lie together.
    cuts = np.searchsorted(edge_index[0].numpy(), starts)
    return [
        Data(
            x=x[starts[k] : starts[k + 1]],
            edge_index=edge_index[:, cuts[k] : cuts[k + 1]] - int(starts[k]),
            y=None if y is None else y[k : k + 1],
        )
        for k in range(num_graphs)
    ]


def _features(folder: Path, stem: str, num_nodes: int) -> torch.Tensor | None:
    labels, attributes = (folder / f"{stem}_node_{kind}.txt" for kind in ("labels", "attributes"))
    if labels.is_file():
        table = _rows(labels, np.int64, num_nodes)
        table = table - table.min(axis=0)
        return torch.cat(
            [torch.nn.functional.one_hot(torch.from_numpy(c.copy())).float() for c in table.T],
            dim=1,
        )
    if attributes.is_file():
        table = _rows(attributes, np.float32, num_nodes)
        if not np.isfinite(table).all():
            raise InputError(f"{attributes} holds NaN or infinite values; replace them")
        return torch.from_numpy(table)
    return None


def _graph_labels(path: Path, num_graphs: int) -> torch.Tensor | None:
    if not path.is_file():
        return None
    _, y = np.unique(_rows(path, np.int64, num_graphs)[:, 0], return_inverse=True)
    return torch.from_numpy(y)


def _rows(path: Path, dtype: type, number: int) -> NDArray[Any]:
    table = _table(path, dtype)
    if len(table) != number:
        raise InputError(f"{path} has {len(table)} lines, expected {number}")
    return table


def _table(path: Path, dtype: type) -> NDArray[Any]:
    with readable(existing_file(path), "a table of numbers"):
        table: NDArray[Any] = np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2)
    return table
