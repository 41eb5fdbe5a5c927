"""A user's own graph: edges, features, labels from files; all checked, nothing guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables import labels as label_rule
from cl_core.tables.labels import class_names
from cl_graphs.graph import AttributedGraph, clean_edges, make_graph
from cl_graphs.readers.arrays import existing_file
from cl_graphs.readers.features import one_hot_degrees
from cl_graphs.readers.tables import Column, read_edges, read_features, read_labels

__all__ = [
    "DEGREE",
    "assemble",
    "encode_labels",
    "load_edge_list",
    "with_degrees",
    "with_features",
]

DEGREE = "degree"
"""The value of ``features`` that asks for one-hot degrees."""


def load_edge_list(
    edges: str | Path,
    features: str | Path | None,
    labels: str | Path | None = None,
    *,
    normalize_features: bool = False,
) -> AttributedGraph:
    """Build a graph from a table of edges, a table of features and, optionally, of labels.

    Nodes are named in the edge list by their row in the feature file, from 0, unless that file has
    a column ``id``. Weights are not used, directions are dropped, loops and repeats are cleaned;
    the graph's ``notes`` tell what was done.

    Args:
        edges: ``.csv``, ``.tsv``, ``.txt`` or ``.parquet`` with columns source and target.
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
    source, target, notes = read_edges(edges)
    if str(features) == DEGREE:
        return with_degrees(edges, (source, target), None, labels, notes, normalize_features)
    return with_features(edges, (source, target), features, labels, notes, normalize_features)


def encode_labels(cells: Sequence[str]) -> tuple[NDArray[Any], list[str]]:
    """Number the classes by the rule of `cl_core.tables.labels`.

    Args:
        cells: A label per node.

    Returns:
        Class per node, int64, -1 for none, and the names of the classes.

    Example:
        >>> y, classes = encode_labels(["pear", "", "apple", "pear"])
        >>> y.tolist(), classes
        ([1, -1, 0, 1], ['apple', 'pear'])
    """
    names = class_names(cells)
    return label_rule.encode_labels(cells, names), list(names)


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
    x, names = read_features(features)
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise InputError(f"{features}: id {repeated[0]!r} stands in several rows; keep one")
    return assemble(file, ends, x, names, features, labels, notes, normalize)


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
    if names is None:
        names = list({str(cell) for end in ends for cell in end.cells})
        names.sort(key=int if all(name.isdecimal() for name in names) else None)
    source, target = _node_numbers(file, ends, names, len(names), file)
    edge_index, _ = clean_edges(source, target, len(names))
    x = one_hot_degrees(edge_index, len(names)).numpy()
    told = [*notes, "features: one-hot node degrees"]
    return assemble(file, ends, x, names, file, labels, told, normalize)


def assemble(
    file: Path,
    ends: tuple[Column, ...],
    x: Any,
    names: list[str] | None,
    nodes_from: Path,
    labels: Column | str | Path | None,
    notes: list[str],
    normalize: bool,
) -> AttributedGraph:
    """Put nodes, edges and labels on one numbering: the rows of ``x``.

    Args:
        file: Where the edges come from.
        ends: Sources and targets, as ``file`` names them.
        x: A feature row per node.
        names: What the files call each row; None if its number.
        nodes_from: Where ``x`` comes from, for messages.
        labels: A label per row, a file of labels, or None.
        notes: Lines to tell first.
        normalize: Divide each feature row by the sum of its absolute values.

    Raises:
        InputError: If an edge or a label belongs to no row.
    """
    source, target = _node_numbers(file, ends, names, x.shape[0], nodes_from)
    y, classes = None, None
    if labels is not None:
        y, classes = _labels(labels, names, x.shape[0], nodes_from)
        unlabelled = int((y < 0).sum())
        if unlabelled:
            notes = [*notes, f"nodes without a label: {unlabelled:,}"]
    ids: Sequence[int] | Sequence[str] | None = names
    if names is not None and all(name.isdecimal() and str(int(name)) == name for name in names):
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
        features_file=nodes_from,
        normalize_features=normalize,
    )


def _labels(
    labels: Column | str | Path, names: list[str] | None, num_nodes: int, nodes_from: Path
) -> tuple[NDArray[Any], list[str]]:
    """Bring labels into row order, blank where there is none."""
    if isinstance(labels, Column):
        return encode_labels([str(cell) for cell in labels.cells])
    path = existing_file(labels)
    column, owners = read_labels(path)
    cells = [str(cell) for cell in column.cells]
    if owners is None:
        if len(cells) != num_nodes:
            raise InputError(
                f"{path} has {len(cells):,} labels, {nodes_from.name} has {num_nodes:,} nodes; "
                "give a label per node in the same order under no header or 'label', "
                "or columns id and label"
            )
        return encode_labels(cells)
    (rows,) = _node_numbers(path, (owners,), names, num_nodes, nodes_from)
    _, first = np.unique(rows, return_index=True)
    if len(first) < len(rows):
        again = int(np.setdiff1d(np.arange(len(rows)), first)[0])
        raise InputError(
            f"{path}, {owners.place(again)}: node {owners.cells[again]} has a label already"
        )
    placed = [""] * num_nodes
    for row, cell in zip(rows.tolist(), cells, strict=True):
        placed[row] = cell
    return encode_labels(placed)


def _node_numbers(
    file: Path,
    columns: tuple[Column, ...],
    names: list[str] | None,
    num_nodes: int,
    nodes_from: Path,
) -> list[NDArray[Any]]:
    """Translate what a file calls its nodes into rows; refuse what is no node, with its place."""
    if names is None:
        numbers = [_whole_numbers(file, column, nodes_from) for column in columns]
        known = f"one of the {num_nodes:,} rows of {nodes_from.name} (ids count from 0)"
    else:
        rank = {name: k for k, name in enumerate(names)}
        numbers = [
            np.array([rank.get(str(cell), -1) for cell in column.cells], dtype=np.int64)
            for column in columns
        ]
        known = f"an id of {nodes_from.name}"
    bad = np.any([(column < 0) | (column >= num_nodes) for column in numbers], axis=0)
    if bad.any():
        row = int(bad.argmax())
        which = next(k for k, c in enumerate(numbers) if not 0 <= c[row] < num_nodes)
        cell = columns[which].cells[row]
        fault = "is negative, not" if names is None and numbers[which][row] < 0 else "is not"
        raise InputError(
            f"{file}, {columns[which].place(row)}: node {cell} {fault} {known}; "
            f"rows with such nodes: {int(bad.sum()):,}"
        )
    return numbers


def _whole_numbers(file: Path, column: Column, nodes_from: Path) -> NDArray[Any]:
    """Read row numbers; what is too large for one stays too large."""
    cells = column.cells
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iu":
        return cells.astype(np.int64)
    numbers = np.empty(len(cells), dtype=np.int64)
    for k, cell in enumerate(cells):
        try:
            number = int(cell)
            if isinstance(cell, float) and number != cell:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"{file}, {column.place(k)}: {cell!r} is not a row number of {nodes_from.name}; "
                "to use names, give that file a column id"
            ) from None
        numbers[k] = min(max(number, -1), 2**62)
    return numbers
