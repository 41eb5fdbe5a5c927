"""Edge lists, feature matrices and labels of nodes, out of the one reader of tables.

What stands in a table beside numbers says whose row it is: `cl_core.tables.ids` finds that column,
and rows with owners are never attached by position. Every fault is an `InputError` with its line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.arrays import read_array
from cl_core.tables.files import Column, Table, is_number, read_table
from cl_core.tables.ids import OWNERS, Owner, counts_rows, find_owner
from cl_graphs.readers.arrays import feature_array

__all__ = [
    "EdgeTable",
    "FeatureTable",
    "LabelTable",
    "read_edges",
    "read_features",
    "read_labels",
]

ENDS = (
    ("source", "src", "from", "u", "from_node", "fromnodeid", "node_1", "node1", "id_1"),
    ("target", "dst", "to", "v", "to_node", "tonodeid", "node_2", "node2", "id_2"),
)
"""Headers that name the two ends of an edge, in any case."""

LABELS = ("label", "labels", "class", "y", "target", "category", "community")
"""Headers that name the class of a node."""

SPLIT = "split"
"""Header that names the part of the published split that a node is in."""


@dataclass(frozen=True, eq=False)
class EdgeTable:
    """The two ends of each edge, in the file's order, as the file spells them.

    Attributes:
        ends: Sources and targets.
        notes: What was left out, a line each.
    """

    ends: tuple[Column, Column]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """A feature matrix, a row per node.

    Attributes:
        x: Numbers ``(n, d)``, a numpy array or scipy CSR.
        ids: What the file calls each row's node; None where it does not say.
        names: Of the columns; empty where they have none.
        notes: What was taken for what, a line each.
    """

    x: Any
    ids: list[str] | None = None
    names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Labels of nodes.

    Attributes:
        labels: As the file spells them; of ``.npy`` the array.
        owners: The nodes they belong to; None for one label a node in the order of the nodes.
        splits: What the file says of each row's part of the split; None where it does not.
        notes: What was taken for what, a line each.
    """

    labels: Column | NDArray[Any]
    owners: Column | None = None
    splits: Column | None = None
    notes: list[str] = field(default_factory=list)


def read_edges(path: Path) -> EdgeTable:
    """Read an edge list.

    Columns ``source`` and ``target`` (or other names of `ENDS`) are taken if there is a header with
    them, otherwise the first two. A nameless first column, as a data frame writes its index, is no
    end. Lines that start with ``#`` or ``%`` are comments.

    Raises:
        InputError: If the file cannot be read, has rows of unequal length or only one column.
    """
    table = read_table(path, known=[*ENDS[0], *ENDS[1]], comments=True)
    notes = []
    if table.names is None and table.columns[0].text[0] == "":  # a data frame of unnamed columns
        table = read_table(path, header="yes", comments=True)
    if table.names is not None and table.lower[0] in ("", "unnamed: 0"):
        notes.append(f"not used of {path.name}: the nameless first column, an index")
        table = table.without(0)
    width = len(table.columns)
    if width < 2:
        raise InputError(f"{path} has one column; an edge list has two: source and target")
    counted = [str(k) for k in range(width)]
    if table.names is None and [column.text[0] for column in table.columns] == counted:
        if width > 2:  # an edge 0, 1 of weight 2 is less likely than the header of a data frame
            table = read_table(path, header="yes", comments=True)
            notes.append(f"{path.name}: the first line, {','.join(counted)}, is read as a header")
        else:
            notes.append(_may_be_header(path, counted))
    elif table.names is None and counts_rows([column.text[0] for column in table.columns], 1):
        notes.append(_may_be_header(path, [column.text[0] for column in table.columns]))
    places = [table.index(*names) for names in ENDS]
    if None in places or places[0] == places[1]:
        places = [0, 1]
        _refuse_counter(table)
    others = [k for k in range(width) if k not in places]
    if others:
        named = [table.names[k] if table.names else str(k + 1) for k in others]
        notes.append(f"not used of {path.name}: column {', '.join(named)}")
    first, second = (table.columns[place] for place in places if place is not None)
    return EdgeTable((first, second), notes)


def _may_be_header(path: Path, cells: Sequence[str]) -> str:
    return (
        f"{path.name}: the first line, {','.join(cells)}, is read as an edge; if it is a header, "
        "write source,target"
    )


def _refuse_counter(table: Table) -> None:
    """Refuse a first column that may number the edges and not be an end of them."""
    if len(table.columns) < 3 or len(table) < 3:
        return
    first, _, third = (column.text for column in table.columns[:3])
    if not any(counts_rows(first, start) for start in (0, 1)):
        return
    if all(cell.isdecimal() for cell in third) or not all(map(is_number, third)):
        raise InputError(
            f"{table.path}: the first column counts the rows, so it may number the edges; head the "
            "two ends of an edge source and target"
        )


def read_features(path: Path, known: Callable[[], Collection[str]]) -> FeatureTable:
    """Read a feature matrix.

    ``.npy`` and ``.npz`` (one array, or one named ``x`` or ``features``, or scipy's sparse layout)
    hold numbers only. In tables a first line that is not all numbers, or counts ``0,1,2,...`` as
    a data frame writes it, is a header; a column called ``id``, ``node``, ``name``, ... says whose
    row it is, and so does a nameless first column.

    Args:
        path: The file.
        known: Gives what the edge list calls nodes.

    Raises:
        InputError: If the file cannot be read, is not numeric, not two-dimensional or ragged, or
            if it is not clear whose rows they are.
    """
    if path.suffix.lower() in (".npy", ".npz"):
        return FeatureTable(feature_array(path))
    table = read_table(path, known=OWNERS)
    if table.names is None:
        first = [column.text[0] for column in table.columns]
        if first[0] == "" or (len(first) > 1 and first == [str(k) for k in range(len(first))]):
            table = read_table(path, header="yes")
    owner, notes = _owner_of_features(table, known())
    ids = None
    if owner is not None:
        ids = table.columns[owner.column].text
        notes += [owner.told] if owner.told else []
        table = table.without(owner.column)
    return FeatureTable(_numbers(path, table), ids, table.names or (), notes)


def _owner_of_features(table: Table, known: Collection[str]) -> tuple[Owner | None, list[str]]:
    """The column that names the nodes; a first column without such a name must name them all."""
    owner = find_owner(table)
    cells = table.columns[0].text
    if owner is not None or len(table.columns) < 2 or not set(known) <= set(cells):
        return owner, []
    if len(set(cells)) < len(cells):
        return None, []
    if table.names is None:
        told = f"{table.path.name}: the first column holds ids and says whose row it is"
        return Owner(0, told), []
    name = table.names[0]
    if cells != [str(k) for k in range(len(cells))]:
        raise InputError(
            f"{table.path}: the first column, {name!r}, holds names of nodes; head it id if it "
            "says whose row it is, or move it to the end if it is a feature"
        )
    return None, [
        f"{table.path.name}: the first column, {name!r}, counts the rows and is kept as a feature; "
        "head it id if it names the nodes"
    ]


def read_labels(path: Path, known: Sequence[str]) -> LabelTable:
    """Read labels of nodes.

    One column is a label per node. Of several, one says whose label it is: by its name (``id``,
    ``node``, ...), as a first column whose cells are the nodes' names, or as the first of two
    without a header. ``.txt`` and ``.tsv`` may hold ``id label`` a line. A column ``split`` says
    ``train``, ``val`` or ``test``. ``.npy`` holds what `cl_graphs.readers.labels.array_labels`
    takes.

    Args:
        path: The file.
        known: What the nodes are called.

    Raises:
        InputError: If the file cannot be read or it is not clear which column is which.
    """
    if path.suffix.lower() == ".npy":
        return LabelTable(read_array(path))
    table = _label_cells(path, known)
    split = table.index(SPLIT)
    splits = None if split is None else table.columns[split]
    table = table if split is None else table.without(split)
    width = len(table.columns)
    owner = find_owner(table, known)
    if owner is None and table.names is None and width == 2:
        owner = Owner(0, "")
    if width == 1 and owner is not None and table.index(*LABELS) is None:
        # A single column called id, name, ...: still the labels, unless they are the ids.
        if set(table.columns[0].text) <= set(known):
            raise InputError(f"{path} has no column named label")
        owner = None
    others = [k for k in range(width) if owner is None or k != owner.column]
    label = table.without(*(k for k in range(width) if k not in others)).index(*LABELS)
    if label is not None:
        label = others[label]
    elif len(others) == 1:
        (label,) = others
    else:
        raise InputError(f"{path} has {width} columns; name two of them id and label")
    if owner is None and width > 1:
        raise InputError(
            f"{path} has {width} columns, and none says whose label it is; name two of them id "
            "and label"
        )
    notes = [owner.told] if owner is not None and owner.told else []
    unused = [k for k in others if k != label]
    if unused:
        named = [table.names[k] if table.names else str(k + 1) for k in unused]
        notes.append(f"not used of {path.name}: column {', '.join(named)}")
    owners = None if owner is None else table.columns[owner.column]
    return LabelTable(table.columns[label], owners, splits, notes)


def _label_cells(path: Path, known: Sequence[str]) -> Table:
    """The table of labels; a ``.txt`` whose lines are no rows is a label a line."""
    names = [*LABELS, *OWNERS, SPLIT]
    if not path.name.lower().endswith((".txt", ".txt.gz")):
        table = read_table(path, known=names)
        nameless = table.names is None and table.columns[0].text[0] == ""
        return read_table(path, header="yes") if nameless else table
    lines = read_table(path, known=names, split=False)
    try:
        table = read_table(path, known=names)
    except InputError:  # such as names of classes of one and of two words
        return lines
    if table.names is None and len(table.columns) == 2 and len(lines) == len(known):
        first, second = (set(column.text) for column in table.columns)
        if first & set(known):
            return table
        if second <= set(known):
            raise InputError(f"{path}: its lines hold a label and then an id; turn them round")
        return lines  # classes of two words each
    return table


def _numbers(path: Path, table: Table) -> NDArray[Any]:
    """The columns as one matrix of numbers."""
    matrix = np.empty((len(table), len(table.columns)), dtype=np.float32)
    for k, column in enumerate(table.columns):
        try:
            with np.errstate(over="ignore"):  # beyond float32 becomes infinite: refused later
                matrix[:, k] = column.cells
        except (TypeError, ValueError):
            row = next(i for i, cell in enumerate(column.text) if not is_number(cell))
            name = f"column {table.names[k]!r}, " if table.names else ""
            raise InputError(
                f"{path}, {name}{column.place(row)}: {column.text[row]!r} is not a number; "
                "encode or drop it, and head a column of node names id"
            ) from None
    return matrix
