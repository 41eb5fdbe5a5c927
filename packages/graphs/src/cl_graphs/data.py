"""Names and files in, graphs out: the entrance to everything a user can bring.

What each kind of file looks like is told where it is read: `datasets` (named graphs), `files` (own
graphs), `poisoned` (attacked graphs), `tu` (collections of small graphs).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from cl_core.errors import InputError
from cl_graphs.graph import AttributedGraph, require_classes
from cl_graphs.readers.datasets import NAMED_GRAPHS, fetch, load_named
from cl_graphs.readers.files import load_edge_list
from cl_graphs.readers.graphml import load_graphml
from cl_graphs.readers.poisoned import load_poisoned
from cl_graphs.readers.tu import COLLECTIONS, collection_folder, read_collection

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = [
    "GRAPH_NAMES",
    "AttributedGraph",
    "is_graph_collection",
    "load_graph",
    "load_graphs",
    "load_poisoned",
    "require_classes",
]

GRAPH_NAMES = ("digits", *NAMED_GRAPHS)
"""Names `load_graph` knows, in any case; ``digits`` needs no files."""

EDGE_LISTS = (".csv", ".tsv", ".txt", ".parquet")


def load_graph(
    data: str | Path,
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
            ``.txt``, ``.parquet``), ``.graphml``, or a poisoned graph's ``.npz`` (its clean
            version is taken).
        root: Folder in which a named graph lies as ``<name>/raw/...``; never written to unless
            ``download``.
        features: Feature file of an edge list, or ``degree``.
        labels: Label file of an edge list; for GraphML also the name of a node attribute.
        normalize_features: Divide each feature row by its sum; off, as the published results are.
        download: Let PyG fetch a named graph that is not below ``root``.

    Returns:
        The graph; ``notes`` tells what was cleaned.

    Raises:
        InputError: If the name is unknown, or a file is missing, malformed or unfit.
    """
    by_lower = {name.lower(): name for name in GRAPH_NAMES}
    text = str(data)
    known = by_lower.get(text.lower())
    suffix = Path(text).suffix.lower()
    own = known is not None or suffix == ".npz"
    if own and not (features is None and labels is None):
        raise InputError(f"{text} brings its own features and labels; drop --features, --labels")
    if known is not None:
        return load_named(known, root, normalize_features=normalize_features, download=download)
    if is_graph_collection(text, root):
        raise InputError(f"{text} is a collection of graphs, and one graph is expected here")
    if suffix in EDGE_LISTS:
        return load_edge_list(text, features, labels, normalize_features=normalize_features)
    if suffix == ".graphml":
        return load_graphml(text, features, labels, normalize_features=normalize_features)
    if suffix == ".npz":
        return load_poisoned(text, normalize_features=normalize_features)[0.0]
    raise _unknown(text)


def load_graphs(
    data: str | Path, root: str | Path | None = None, *, download: bool = False
) -> list[Data]:
    """Load a collection of small graphs (a TU data set such as MUTAG or PROTEINS).

    Args:
        data: Its name, or the folder with its ``*_A.txt``.
        root: Folder in which a named collection lies as ``<name>/raw/...``.
        download: Let PyG fetch a collection that is not below ``root``.

    Returns:
        A PyG ``Data`` per graph, see `cl_graphs.readers.tu.read_collection`.

    Raises:
        InputError: If it is not there, or its files are malformed.
    """
    text = str(data)
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
    return read_collection(folder)


def is_graph_collection(data: str | Path, root: str | Path | None = None) -> bool:
    """Tell a collection of graphs (graph-level task) from one graph (node-level task).

    Args:
        data: What `load_graph` or `load_graphs` would be given.
        root: Where named sets lie.
    """
    text = str(data)
    if text.lower() in {name.lower() for name in GRAPH_NAMES} or Path(text).is_file():
        return False
    return text.upper() in COLLECTIONS or collection_folder(text, root) is not None


def _unknown(text: str) -> InputError:
    """Explain what ``data`` could have been."""
    path = Path(text)
    kinds = ", ".join((*EDGE_LISTS, ".graphml", ".npz"))
    if path.is_dir():
        return InputError(f"{text} is a folder without a graph collection (*_A.txt); give a file")
    if path.is_file():
        return InputError(f"{text}: not a known kind of graph file; known are {kinds}")
    if path.parent != Path():
        return InputError(f"{text} does not exist; correct the path")
    names = {name.lower(): name for name in (*GRAPH_NAMES, *COLLECTIONS)}
    near = difflib.get_close_matches(text.lower(), names, n=3, cutoff=0.5)
    offer = (
        f"did you mean {' or '.join(names[name] for name in near)}?"
        if near
        else (f"known names: {', '.join(names.values())}")
    )
    return InputError(f"no graph is called {text!r}; {offer} (or give a file: {kinds})")
