"""A user's own graph: edges, features, labels from files; all checked, nothing guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cl_core.errors import InputError
from cl_core.tables.arrays import existing_file
from cl_core.tables.files import Column
from cl_graphs.graph import AttributedGraph, clean_edges, make_graph
from cl_graphs.readers.features import DEGREE, degree_names, one_hot_degrees
from cl_graphs.readers.labels import encode_labels, placed_labels
from cl_graphs.readers.node_names import node_numbers
from cl_graphs.readers.tables import FeatureTable, read_edges, read_features, read_labels

__all__ = ["assemble", "encode_labels", "load_edge_list", "with_degrees", "with_features"]


def load_edge_list(
    edges: str | Path,
    features: str | Path | None,
    labels: str | Path | None = None,
    *,
    normalize_features: bool = False,
) -> AttributedGraph:
    """Build a graph from a table of edges, a table of features and, optionally, of labels.

    Nodes are named in the edge list by their row in the feature file, from 0, unless that file says
    by a column whose row each is. Weights are not used, directions are dropped, loops and repeats
    are cleaned; the graph's ``notes`` tell what was done.

    Args:
        edges: ``.csv``, ``.tsv``, ``.txt`` (also ``.gz``) or ``.parquet``, a row per edge.
        features: A row per node (see `cl_graphs.readers.tables.read_features`); or ``degree`` for
            the one-hot degree, when nothing is known about the nodes but their edges.
        labels: A label per node, or rows of ``id, label`` for some of them.
        normalize_features: Divide each feature row by the sum of its absolute values.

    Raises:
        InputError: If a file is missing, malformed or does not fit the others.
    """
    edges = existing_file(edges)
    if features is None:
        raise InputError(
            f"{edges.name} has edges only, and an encoder needs node features: give --features "
            f"FILE, or --features {DEGREE} for one-hot node degrees"
        )
    table = read_edges(edges)
    if str(features) == DEGREE:
        return with_degrees(edges, table.ends, None, labels, table.notes, normalize_features)
    return with_features(edges, table.ends, features, labels, table.notes, normalize_features)


def with_features(
    file: Path,
    ends: tuple[Column, ...],
    features: str | Path,
    labels: str | Path | None,
    notes: list[str],
    normalize: bool,
) -> AttributedGraph:
    """Let the rows of a feature file be the nodes; arguments as in `assemble`."""
    features = existing_file(features)
    table = read_features(features, lambda: {cell for end in ends for cell in end.text})
    repeated = [name for name, times in Counter(table.ids).items() if times > 1]
    if repeated:
        raise InputError(f"{features}: id {repeated[0]!r} stands in several rows; keep one")
    return assemble(file, ends, table, features, labels, notes, normalize)


def with_degrees(
    file: Path,
    ends: tuple[Column, ...],
    names: list[str] | None,
    labels: Column | str | Path | None,
    notes: list[str],
    normalize: bool,
) -> AttributedGraph:
    """Use one-hot degrees; arguments as in `assemble`.

    Without ``names`` the nodes are those that have an edge, in the order of their numbers or names.
    """
    from_edges = names is None
    if names is None:
        names = list({cell for end in ends for cell in end.text})
        names.sort(key=_value if all(name.isdecimal() for name in names) else None)
    source, target = node_numbers(file, ends, names, len(names), file)
    edge_index, _ = clean_edges(source, target, len(names))
    x = one_hot_degrees(edge_index, len(names)).numpy()
    table = FeatureTable(x, names, degree_names(x.shape[1]), ["features: one-hot node degrees"])
    return assemble(
        file, ends, table, file, labels, notes, normalize, only_known_labels=not from_edges
    )


def assemble(
    file: Path,
    ends: tuple[Column, ...],
    table: FeatureTable,
    nodes_from: Path,
    labels: Column | str | Path | None,
    notes: list[str],
    normalize: bool,
    *,
    only_known_labels: bool = True,
) -> AttributedGraph:
    """Put nodes, edges and labels on one numbering: the rows of the feature table.

    Args:
        file: Where the edges come from.
        ends: Sources and targets, as ``file`` names them.
        table: A feature row per node.
        nodes_from: Where it comes from, for messages.
        labels: A label per row, a file of labels, or None.
        notes: Lines to tell first.
        normalize: Divide each feature row by the sum of its absolute values.
        only_known_labels: Refuse the label of what is no node; otherwise it is left out and told.

    Raises:
        InputError: If an edge or a label belongs to no row.
    """
    x, names = table.x, table.ids
    notes = [*notes, *table.notes]
    source, target = node_numbers(file, ends, names, x.shape[0], nodes_from)
    y, classes, splits = None, None, None
    if isinstance(labels, Column):
        y, classes = encode_labels(labels.text)
    elif labels is not None:
        path = existing_file(labels)
        known = [str(k) for k in range(x.shape[0])] if names is None else names
        found = read_labels(path, known)
        y, classes, splits, told = placed_labels(
            path, found, names, x.shape[0], nodes_from, only_known_labels
        )
        notes += [*found.notes, *told]
    ids: Sequence[int] | Sequence[str] | None = names
    if names is not None and all(map(_is_row_number, names)):
        ids = [int(name) for name in names]
    return make_graph(
        file.name,
        x,
        source,
        target,
        y=y,
        ids=ids,
        classes=classes,
        notes=notes,
        splits=splits,
        feature_names=table.names,
        features_file=nodes_from,
        normalize_features=normalize,
    )


def _value(name: str) -> tuple[int, str]:
    """Orders decimal numbers as numbers, however long they are."""
    digits = name.lstrip("0")
    return len(digits), digits


def _is_row_number(name: str) -> bool:
    return name.isdecimal() and len(name) <= 18 and str(int(name)) == name
