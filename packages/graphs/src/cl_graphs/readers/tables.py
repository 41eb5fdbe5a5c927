"""Edge lists, feature matrices and label columns as they lie on a user's disk.

Formats: ``.csv`` (comma or semicolon), ``.tsv``, ``.txt``, ``.parquet``, ``.npy``, ``.npz``; text
is UTF-8. Every fault is an `InputError` that names the file and the line.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_graphs.readers.arrays import csr_matrix, plain_array, plain_arrays, readable

__all__ = ["Column", "read_edges", "read_features", "read_labels"]

ENDS = ({"source", "src", "from", "u"}, {"target", "dst", "to", "v"})
"""Headers that name the two ends of an edge."""


@dataclass(frozen=True)
class Column:
    """Cells of one column and where each stands in its file.

    Attributes:
        cells: Stripped text, or whole numbers.
        places: Line number (text files) or row number from 1 of each cell.
        unit: What ``places`` counts: ``line`` or ``row``.
    """

    cells: Sequence[str] | NDArray[Any]
    places: Sequence[int]
    unit: str = "line"

    def place(self, index: int) -> str:
        """Say where a cell stands."""
        return f"{self.unit} {self.places[index]}"


def read_edges(path: Path) -> tuple[Column, Column, list[str]]:
    """Read the two ends of each edge, in the file's order, as the file spells them.

    Columns ``source`` and ``target`` (or ``src, dst``, ``from, to``, ``u, v``) are taken if there
    is a header with them, otherwise the first two. Lines that start with ``#`` or ``%`` are
    comments.

    Returns:
        Sources, targets, and a note if the file has columns that are not used.

    Raises:
        InputError: If the file cannot be read, has rows of unequal length or only one column.
    """
    if path.suffix.lower() == ".parquet":
        names, columns = _parquet(path)
        header: list[str] | None = names
        places: Sequence[int] = range(1, len(columns[0]) + 1 if columns else 1)
        width, unit = len(names), "row"
    else:
        rows, places = _cells(path, comments=True)
        header = rows[0] if _is_edge_header(rows) else None
        if header is not None:
            rows, places = rows[1:], places[1:]
        width, unit = len(header or rows[0]), "line"
        columns = [[row[k] for row in rows] for k in range(width)]
    if width < 2:
        raise InputError(f"{path} has one column; an edge list has two: source and target")
    first, second = _ends(header)
    others = [header[k] if header else str(k + 1) for k in range(width) if k not in (first, second)]
    notes = [f"not used of {path.name}: column {', '.join(others)}"] if others else []
    return Column(columns[first], places, unit), Column(columns[second], places, unit), notes


def read_features(path: Path) -> tuple[Any, list[str] | None]:
    """Read a feature matrix, a row per node.

    ``.npy`` and ``.npz`` (one array, or one named ``x`` or ``features``, or scipy's sparse layout)
    hold numbers only; ``.csv``, ``.tsv``, ``.txt`` and ``.parquet`` may have a column ``id``. A
    first line that is not all numbers, or counts ``0,1,2,...`` as pandas writes it, is a header.

    Returns:
        Numbers ``(n, d)``, a numpy array or scipy CSR, and the ids if there is such a column.

    Raises:
        InputError: If the file cannot be read, is not numeric, not two-dimensional or ragged.
    """
    suffix = path.suffix.lower()
    ids = None
    if suffix == ".npy":
        x = plain_array(path)
    elif suffix == ".npz":
        x = _npz_matrix(path)
    elif suffix == ".parquet":
        names, columns = _parquet(path)
        lower = [name.lower() for name in names]
        if "id" in lower:
            names.pop(lower.index("id"))
            ids = [str(cell) for cell in columns.pop(lower.index("id"))]
        for name, column in zip(names, columns, strict=True):
            if np.asarray(column).dtype.kind not in "iufb":
                raise InputError(
                    f"{path}: column {name!r} is text or has empty cells; encode or drop it"
                )
        x = np.column_stack(columns) if columns else np.empty((len(ids or []), 0))
    else:
        x, ids = _text_matrix(path)
    if x.dtype.kind not in "iufb":
        raise InputError(f"{path} holds {x.dtype}, features must be real numbers")
    if x.ndim != 2:
        raise InputError(
            f"{path} has {x.ndim} dimension(s), features need two: a row per node, a column each"
        )
    return x, ids


def read_labels(path: Path) -> tuple[Column, Column | None]:
    """Read a label per node.

    A table with columns ``id`` and ``label``, or two columns in that order, or one column; ``.txt``
    holds a label a line; ``.npy`` whole numbers or text.

    Returns:
        Labels as text (blank: none), and the ids they belong to if the file gives them.

    Raises:
        InputError: If the file cannot be read or has a different form.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        values = plain_array(path)
        if values.ndim != 1 or values.dtype.kind not in "iubUf":
            raise InputError(
                f"{path} is {values.dtype} of shape {values.shape}; labels are one row of "
                "whole numbers or text"
            )
        return Column(_label_text(path, values), range(1, len(values) + 1), "row"), None
    if suffix == ".parquet":
        header, columns = _parquet(path)
        places: Sequence[int] = range(1, len(columns[0]) + 1 if columns else 1)
        table = [_label_text(path, column) for column in columns]
        unit = "row"
    else:
        rows, places = _cells(path, split=suffix != ".txt")
        named = {"label", "class", "id"} & {cell.lower() for cell in rows[0]}
        header = rows[0] if named else []
        rows, places = (rows[1:], places[1:]) if named else (rows, places)
        table = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in header]
        unit = "line"
    lower = [name.lower() for name in header]
    label = next((lower.index(name) for name in ("label", "class") if name in lower), None)
    if label is None:
        if len(table) > 2:
            raise InputError(f"{path} has {len(table)} columns; name two of them id and label")
        label = len(table) - 1
    which = lower.index("id") if "id" in lower else (0 if not header and len(table) == 2 else None)
    if which == label:
        raise InputError(f"{path} has no column named label")
    owner = None if which is None else Column(table[which], places, unit)
    return Column(table[label], places, unit), owner


def _label_text(path: Path, values: Sequence[Any] | NDArray[Any]) -> list[str]:
    """Spell labels as text; what is missing (None, NaN) becomes blank."""
    cells = []
    for value in values.tolist() if isinstance(values, np.ndarray) else values:
        if isinstance(value, float) and value == value and not value.is_integer():
            raise InputError(f"{path} holds the fraction {value}; labels are whole numbers or text")
        missing = value is None or value != value
        cells.append("" if missing else str(int(value) if isinstance(value, float) else value))
    return cells


def _cells(
    path: Path, *, comments: bool = False, split: bool = True
) -> tuple[list[list[str]], list[int]]:
    """Split a text file into rows of equally many stripped cells, with their line numbers."""
    with readable(path, "UTF-8 text"):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    kept = [
        (number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not (comments and line.lstrip()[0] in "#%")
    ]
    if not kept:
        raise InputError(f"{path} has no rows; give a file with data")
    first = kept[0][1]
    present = [mark for mark in "\t,;" if mark in first] if split else []
    if present:
        mark = present[0]
        with readable(path, "a table"):
            rows = [
                next(csv.reader([line], delimiter=mark)) if '"' in line else line.split(mark)
                for _, line in kept
            ]
    elif split and path.suffix.lower() == ".txt":
        rows = [line.split() for _, line in kept]
    else:
        rows = [[line] for _, line in kept]
    for (number, _), row in zip(kept, rows, strict=True):
        if len(row) != len(rows[0]):
            raise InputError(
                f"{path}, line {number}: {len(row)} cells where line {kept[0][0]} has "
                f"{len(rows[0])}; make all rows equally long"
            )
    return [[cell.strip() for cell in row] for row in rows], [number for number, _ in kept]


def _text_matrix(path: Path) -> tuple[NDArray[Any], list[str] | None]:
    rows, places = _cells(path)
    numbered = len(rows[0]) > 1 and rows[0] == [str(k) for k in range(len(rows[0]))]
    header = rows[0] if numbered or not all(map(_is_number, rows[0])) else None
    lower = [name.lower() for name in header or []]
    which = lower.index("id") if "id" in lower else None
    if "" in lower:
        raise InputError(
            f"{path}: column {lower.index('') + 1} has no name; head it id, or drop it if it is "
            "only a row count"
        )
    if header is not None:
        rows, places = rows[1:], places[1:]
    ids = None if which is None else [row.pop(which) for row in rows]
    matrix = np.empty((len(rows), len(rows[0]) if rows else 0), dtype=np.float32)
    for k, row in enumerate(rows):
        try:
            matrix[k] = row
        except ValueError:
            bad = next(cell for cell in row if not _is_number(cell))
            raise InputError(
                f"{path}, line {places[k]}: {bad!r} is not a number; "
                "a column of node names must be headed id"
            ) from None
    return matrix, ids


def _npz_matrix(path: Path) -> Any:
    arrays = plain_arrays(path)
    if {"format", "shape", "data"} <= set(arrays):
        import scipy.sparse as sp

        with readable(path, "a scipy sparse matrix"):
            if arrays["format"].item() == b"csr":
                return csr_matrix(arrays, "")
            matrix = sp.load_npz(path).tocoo()  # tells its indices' range, which is checked
            return sp.csr_matrix((matrix.data, (matrix.row, matrix.col)), matrix.shape)
    for key in ("x", "features", *arrays):
        if key in arrays and (key in ("x", "features") or len(arrays) == 1):
            return arrays[key]
    raise InputError(
        f"{path} holds {', '.join(arrays) or 'nothing'}; name the feature matrix x or features"
    )


def _parquet(path: Path) -> tuple[list[str], list[Any]]:
    """Read a Parquet file; numeric columns come as arrays, others as lists."""
    import pyarrow.parquet as pq
    import pyarrow.types as kinds

    with readable(path, "Parquet"):
        table = pq.read_table(path)
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows; give a file with data")
    columns: list[Any] = []
    for column in table.columns:
        whole = kinds.is_integer(column.type) or kinds.is_boolean(column.type)
        numeric = kinds.is_floating(column.type) or (whole and not column.null_count)
        columns.append(column.to_numpy() if numeric else column.to_pylist())
    return list(table.column_names), columns


def _is_edge_header(rows: list[list[str]]) -> bool:
    names = {cell.lower() for cell in rows[0]}
    if all(end & names for end in ENDS):
        return True
    first, second = (rows[0][:2], rows[1][:2]) if len(rows) > 1 else ([], [])
    return bool(second) and all(map(_is_number, second)) and not any(map(_is_number, first))


def _ends(header: list[str] | None) -> tuple[int, int]:
    lower = [name.lower() for name in header or []]
    found = [next((k for k, name in enumerate(lower) if name in end), None) for end in ENDS]
    return (0, 1) if None in found else (found[0], found[1])  # type: ignore[return-value]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
