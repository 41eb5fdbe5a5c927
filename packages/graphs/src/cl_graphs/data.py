"""Names, files and objects in, graphs out: the entrance to everything a user can bring.

What each kind of file looks like is told where it is read: `datasets` (named graphs), `files` (own
graphs as tables), `networks` (GraphML, GEXF, GML), `memory` (arrays and objects), `poisoned`
(attacked graphs), `tu` (collections of small graphs).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl_core.checks import near
from cl_core.errors import InputError
from cl_core.tables.arrays import existing_file, read_arrays
from cl_core.tables.files import TABLE_SUFFIXES
from cl_graphs.collection import FeatureKind, GraphCollection
from cl_graphs.graph import AttributedGraph, require_classes
from cl_graphs.readers.datasets import NAMED_GRAPHS, fetch, load_named
from cl_graphs.readers.features import DEGREE
from cl_graphs.readers.files import load_edge_list
from cl_graphs.readers.memory import collection_of, graph_of_object, is_collection_object
from cl_graphs.readers.named_arrays import graph_of_arrays
from cl_graphs.readers.networks import NETWORK_SUFFIXES, load_network
from cl_graphs.readers.poisoned import load_poisoned, poisoned_of
from cl_graphs.readers.tu import COLLECTIONS, collection_folder, read_collection

__all__ = [
    "GRAPH_NAMES",
    "AttributedGraph",
    "GraphCollection",
    "data_rows",
    "is_graph_collection",
    "is_named",
    "load_graph",
    "load_graphs",
    "load_poisoned",
    "require_classes",
]

GRAPH_NAMES = ("digits", *NAMED_GRAPHS)
"""Names `load_graph` knows, in any case; ``digits`` needs no files."""


def data_rows() -> list[dict[str, str]]:
    """Every built-in data set by name, and the files it is read from: what ``list data`` shows."""
    first = {"data": "digits", "kind": "one graph", "files": "none: it comes with scikit-learn"}
    graphs = [
        {
            "data": name,
            "kind": "one graph",
            "files": f"{graph.folder}/raw/{graph.files[0]}"
            + (f" and {len(graph.files) - 1} more" if len(graph.files) > 1 else ""),
        }
        for name, graph in NAMED_GRAPHS.items()
    ]
    sets = [
        {"data": name, "kind": "many graphs", "files": f"{name}/raw/{name}_A.txt and others"}
        for name in COLLECTIONS
    ]
    return [first, *graphs, *sets]


def load_graph(
    data: Any,
    *,
    root: str | Path | None = None,
    features: str | Path | None = None,
    labels: str | Path | None = None,
    normalize_features: bool = False,
    download: bool = False,
) -> AttributedGraph:
    """Load one attributed graph.

    Args:
        data: A name of `GRAPH_NAMES` (any case); or a file: an edge list (``.csv``, ``.tsv``,
            ``.txt``, each also ``.gz``, ``.parquet``), ``.graphml``, ``.gexf``, ``.gml``, or
            ``.npz`` with ``x``, ``edge_index``, ``y`` or a poisoned graph (its clean version is
            taken); or an object in memory (see `cl_graphs.readers.memory.graph_of_object`).
        root: Folder in which a named graph lies as ``<name>/raw/...``; never written to unless
            ``download``.
        features: Feature file of an edge list, or ``degree``.
        labels: Label file of an edge list; for GraphML, GEXF and GML also the name of a node
            attribute.
        normalize_features: Divide each feature row by its sum; off, as the published results are.
        download: Let PyG fetch a named graph that is not below ``root``.

    Returns:
        The graph; ``notes`` tells what was cleaned.

    Raises:
        InputError: If the name is unknown, or a file is missing, malformed or unfit.
    """
    if not isinstance(data, (str, os.PathLike)):
        if labels is not None:
            raise InputError("data in memory bring their own labels; drop labels")
        return graph_of_object(
            data,
            None if features is None else str(features),
            normalize_features=normalize_features,
        )
    by_lower = {name.lower(): name for name in GRAPH_NAMES}
    text = os.fspath(data)
    known = by_lower.get(text.lower())
    suffix = Path(text).suffix.lower()
    if known is not None and not (features is None and labels is None):
        raise InputError(f"{text} brings its own features and labels; drop --features, --labels")
    if known is not None:
        return load_named(known, root, normalize_features=normalize_features, download=download)
    if is_graph_collection(text, root):
        raise InputError(f"{text} is a collection of graphs, and one graph is expected here")
    if text.lower().endswith(TABLE_SUFFIXES):
        return load_edge_list(text, features, labels, normalize_features=normalize_features)
    if suffix in NETWORK_SUFFIXES:
        return load_network(text, features, labels, normalize_features=normalize_features)
    if suffix == ".npz":
        return _load_npz(text, features, labels, normalize_features)
    raise _unknown(text)


def load_graphs(
    data: Any,
    root: str | Path | None = None,
    *,
    download: bool = False,
    features: FeatureKind | None = None,
    vocabulary: Sequence[Sequence[int]] | None = None,
) -> GraphCollection:
    """Load a collection of small graphs (a TU data set such as MUTAG or PROTEINS).

    Args:
        data: Its name, or the folder with its ``*_A.txt``; or a list of PyG ``Data``.
        root: Folder in which a named collection lies as ``<name>/raw/...``.
        download: Let PyG fetch a collection that is not below ``root``.
        features: What node features are to be, as in the collection a model learnt from.
        vocabulary: The node labels of that collection's one-hot columns.

    Returns:
        A sequence of PyG ``Data``, see `cl_graphs.readers.tu.read_collection`.

    Raises:
        InputError: If it is not there, or its files are malformed.
    """
    if not isinstance(data, (str, os.PathLike)):
        return collection_of(data)
    text = os.fspath(data)
    folder = collection_folder(text, root)
    if folder is None:
        if not is_graph_collection(text, root):
            raise _unknown(text)
        name = text.upper()
        if root is None:
            raise InputError(
                f"{name} is read from files: give --root DIR, the folder that holds "
                f"{name}/raw/{name}_A.txt"
            )
        if not download:
            raise InputError(
                f"{name} is not in {root}: expected {name}/raw/{name}_A.txt there; "
                "correct --root, or add --download true to fetch it"
            )
        folder = fetch("TUDataset", name, Path(root))
    return read_collection(folder, features=features, vocabulary=vocabulary)


def is_graph_collection(data: Any, root: str | Path | None = None) -> bool:
    """Tell a collection of graphs (graph-level task) from one graph (node-level task).

    Args:
        data: What `load_graph` or `load_graphs` would be given.
        root: Where named sets lie.
    """
    if not isinstance(data, (str, os.PathLike)):
        return is_collection_object(data)
    text = os.fspath(data)
    if is_named(text) or Path(text).is_file():
        return False
    return text.upper() in COLLECTIONS or collection_folder(text, root) is not None


def is_named(data: Any) -> bool:
    """Whether ``data`` is a name of `GRAPH_NAMES`, in any case."""
    return isinstance(data, str) and data.lower() in {name.lower() for name in GRAPH_NAMES}


def _load_npz(
    text: str, features: str | Path | None, labels: str | Path | None, normalize: bool
) -> AttributedGraph:
    if labels is not None or features not in (None, DEGREE):
        raise InputError(f"{text} brings its own features and labels; drop --features, --labels")
    path = existing_file(text)
    arrays = read_arrays(path)
    if any(key.startswith("edges_") for key in arrays):
        return poisoned_of(path, arrays, normalize_features=normalize)[0.0]
    return graph_of_arrays(
        path.name,
        arrays,
        features=None if features is None else str(features),
        normalize_features=normalize,
    )


def _unknown(text: str) -> InputError:
    """Explain what ``data`` could have been."""
    path = Path(text)
    kinds = ", ".join((*TABLE_SUFFIXES, *NETWORK_SUFFIXES, ".npz"))
    if path.is_dir():
        return InputError(f"{text} is a folder without a graph collection (*_A.txt); give a file")
    if path.is_file():
        return InputError(f"{text}: not a known kind of graph file; known are {kinds}")
    if path.parent != Path():
        return InputError(f"{text} does not exist; correct the path")
    names = (*GRAPH_NAMES, *COLLECTIONS)
    offer = near(text, names).strip() or f"known names: {', '.join(names)}"
    return InputError(f"no graph is called {text!r}; {offer} (or give a file: {kinds})")
