"""Collections of small labelled graphs in the text layout of TU Dortmund (Morris et al. 2020).

A folder holds ``NAME_A.txt`` (a line per edge, ``i, j``, nodes numbered from 1 over all graphs),
``NAME_graph_indicator.txt`` (the graph of each node, from 1), and optionally
``NAME_graph_labels.txt``, ``NAME_node_labels.txt`` and ``NAME_node_attributes.txt``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.arrays import existing_file, readable
from cl_graphs.collection import FeatureKind, GraphCollection
from cl_graphs.graph import clean_edges
from cl_graphs.readers.features import one_hot_degrees

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

FILE_OF: dict[FeatureKind, str] = {"labels": "node_labels", "attributes": "node_attributes"}

WIDEST = 4096
"""One-hot columns that node labels may make."""

LARGEST = 2**28
"""Values of one-hot columns: 1 GiB."""


def collection_folder(data: str, root: str | Path | None) -> Path | None:
    """Find the folder with ``*_A.txt`` that ``data`` means: itself, or below ``root``."""
    places = [Path(data), Path(data) / "raw"]
    if root is not None:
        places += [Path(root) / data / "raw", Path(root) / data]
        places += [Path(root) / data.upper() / "raw"]
    return next((place for place in places if any(place.glob("*_A.txt"))), None)


def read_collection(
    folder: Path,
    *,
    features: FeatureKind | None = None,
    vocabulary: Sequence[Sequence[int]] | None = None,
) -> GraphCollection:
    """Read all graphs of a folder.

    Node features are one-hot node labels; else the node attributes; else one-hot degrees. Graph
    labels are numbered in their order from 0.

    Args:
        folder: Holds the files of one collection.
        features: What the features are to be, as in the collection that a model learnt from.
        vocabulary: The node labels of the one-hot columns of that collection.

    Returns:
        The graphs, and the labels their one-hot columns stand for: every whole number from the
        smallest label to the largest.

    Raises:
        InputError: If a file is missing or malformed, numbers in it do not fit, a node label is not
            in the vocabulary, or one-hot columns would take more than is stated here.
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
    kind = features if features not in (None, "given") else _best_kind(folder, stem)
    x, words = _features(folder, stem, kind, vocabulary, edge_index, num_nodes)
    y = _graph_labels(folder / f"{stem}_graph_labels.txt", num_graphs)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    # Edges are sorted by row, and nodes by graph: the edges of a graph lie together.
    cuts = np.searchsorted(edge_index[0].numpy(), starts)
    graphs = [
        Data(
            x=x[starts[k] : starts[k + 1]],
            edge_index=edge_index[:, cuts[k] : cuts[k + 1]] - int(starts[k]),
            y=None if y is None else y[k : k + 1],
        )
        for k in range(num_graphs)
    ]
    used = {"A", "graph_indicator", "graph_labels", FILE_OF.get(kind, "")}
    others = [file.stem.removeprefix(f"{stem}_") for file in sorted(folder.glob(f"{stem}_*.txt"))]
    ignored = [name for name in others if name not in used and name != "readme"]
    notes = [f"not used of {stem}: {', '.join(ignored)}"] if ignored else []
    return GraphCollection(stem, graphs, kind, words, tuple(notes))


def _best_kind(folder: Path, stem: str) -> FeatureKind:
    kinds: tuple[FeatureKind, ...] = ("labels", "attributes")
    return next((k for k in kinds if (folder / f"{stem}_{FILE_OF[k]}.txt").is_file()), "degrees")


def _features(
    folder: Path,
    stem: str,
    kind: FeatureKind,
    vocabulary: Sequence[Sequence[int]] | None,
    edge_index: torch.Tensor,
    num_nodes: int,
) -> tuple[torch.Tensor, tuple[tuple[int, ...], ...]]:
    if kind == "degrees":
        return one_hot_degrees(edge_index, num_nodes), ()
    path = folder / f"{stem}_{FILE_OF[kind]}.txt"
    if not path.is_file():
        raise InputError(f"{path} does not exist, and the model learnt from node {kind}")
    if kind == "attributes":
        table = _rows(path, np.float32, num_nodes)
        if not np.isfinite(table).all():
            raise InputError(f"{path} holds NaN or infinite values; replace them")
        return torch.from_numpy(table), ()
    table = _rows(path, np.int64, num_nodes)
    if vocabulary:
        words = tuple(tuple(column) for column in vocabulary)
        if len(words) != table.shape[1]:
            raise InputError(
                f"{path} has {table.shape[1]} columns of labels, the model learnt from {len(words)}"
            )
    else:
        bounds = [(int(c.min()), int(c.max())) for c in table.T]
        _refuse_wide(path, sum(last - first + 1 for first, last in bounds), num_nodes)
        words = tuple(tuple(range(first, last + 1)) for first, last in bounds)
    return torch.cat([_one_hot(path, *pair) for pair in zip(table.T, words, strict=True)], 1), words


def _refuse_wide(path: Path, width: int, num_nodes: int) -> None:
    if width > WIDEST or width * num_nodes > LARGEST:
        raise InputError(
            f"{path}: its labels would make {width:,} one-hot columns of {num_nodes:,} nodes; at "
            f"most {WIDEST:,} columns and {LARGEST:,} values are made: number the labels from 0 "
            "without gaps, or save them as node attributes"
        )


def _one_hot(path: Path, labels: NDArray[Any], words: Sequence[int]) -> torch.Tensor:
    """A column for each word; what is no word is refused with its line."""
    order = np.argsort(words)
    place = np.searchsorted(words, labels, sorter=order).clip(max=len(words) - 1)
    column = order[place]
    strange = np.flatnonzero(np.asarray(words)[column] != labels)
    if len(strange):
        known = f"{min(words)} to {max(words)}" if len(words) > 8 else ", ".join(map(str, words))
        raise InputError(
            f"{path}, line {strange[0] + 1}: the model has not learnt from node label "
            f"{labels[strange[0]]}, only from {known}; lines with such labels: {len(strange):,}"
        )
    x = torch.zeros(len(labels), len(words))
    x[torch.arange(len(labels)), torch.from_numpy(column)] = 1
    return x


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
    with readable(existing_file(path), "a table of numbers"), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a file of blanks and comments
        table: NDArray[Any] = np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2)
    return table
