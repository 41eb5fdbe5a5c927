"""Tables on a user's disk: CSV, TSV, text and Parquet, also gzipped; every fault names its line."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.arrays import existing_file, readable
from cl_core.tables.documents import read_text

__all__ = ["LARGEST_TABLE", "TABLE_SUFFIXES", "Column", "Table", "is_number", "read_table"]

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz", ".tsv.gz", ".txt.gz")
"""Endings of the files that :func:`read_table` reads."""

LARGEST_TABLE = 2 * 2**30
"""Bytes of text that one table may hold, unpacked."""


@dataclass(frozen=True, eq=False)
class Column:
    """The cells of one column, and where each stands in its file.

    Attributes:
        cells: Stripped text; of Parquet's numeric columns an array.
        places: Line number (text) or row number from 1 (Parquet) of each cell.
        unit: What ``places`` counts: ``line`` or ``row``.
    """

    cells: Sequence[str] | NDArray[Any]
    places: Sequence[int]
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.cells)

    def place(self, index: int) -> str:
        """Say where a cell stands, as in ``line 7``."""
        return f"{self.unit} {self.places[index]}"

    @property
    def text(self) -> list[str]:
        """The cells as text; what is missing in Parquet becomes blank, whole floats whole."""
        if not isinstance(self.cells, np.ndarray):
            return [_spell(cell) for cell in self.cells]
        return [_spell(cell) for cell in self.cells.tolist()]


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it lies in its file.

    Attributes:
        path: The file.
        names: Of the columns, as the file spells them; ``None`` where it has no header.
        columns: All of the same length.
    """

    path: Path
    names: tuple[str, ...] | None
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    @property
    def lower(self) -> tuple[str, ...]:
        """The names in lower case; none where there is no header."""
        return tuple(name.strip().lower() for name in self.names or ())

    def index(self, *names: str) -> int | None:
        """The place of the first column that is called by one of ``names``, in any case."""
        lower = self.lower
        return next((lower.index(name) for name in names if name in lower), None)

    def column(self, *names: str) -> Column | None:
        """The first column that is called by one of ``names``, in any case."""
        index = self.index(*names)
        return None if index is None else self.columns[index]

    def without(self, *indices: int) -> Table:
        """The table without some columns, by their places."""
        kept = [k for k in range(len(self.columns)) if k not in indices]
        names = None if self.names is None else tuple(self.names[k] for k in kept)
        return Table(self.path, names, tuple(self.columns[k] for k in kept))


def read_table(
    path: Path | str,
    *,
    header: Literal["auto", "yes", "no"] = "auto",
    known: Collection[str] = (),
    split: bool = True,
    comments: bool = False,
) -> Table:
    """Read a table.

    Cells are separated by the tab, comma or semicolon of which the first line has most; in a
    ``.txt`` without any of them by blanks. Text is UTF-8, cells are stripped, quotes may hold
    separators and line ends, blank lines do not count.

    Args:
        path: ``.csv``, ``.tsv``, ``.txt`` (each also ``.gz``) or ``.parquet``.
        header: Whether the first line names the columns. ``auto``: if one of its cells is in
            ``known`` in any case, or if none of its cells is a number where the next line has one.
        known: Names that make a header.
        split: ``False`` takes every line as one cell.
        comments: Leave out lines that start with ``#`` or ``%``.

    Raises:
        InputError: If the file cannot be read, has no rows, two columns of one name, or rows of
            unequal length.
    """
    path = existing_file(path)
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    rows, places = _rows(path, split=split, comments=comments)
    names: tuple[str, ...] | None = None
    if header == "yes" or (header == "auto" and _is_header(rows, known)):
        names, rows, places = tuple(rows[0]), rows[1:], places[1:]
        if not rows:
            raise InputError(f"{path} has a header and no rows; give a file with data")
        _refuse_twins(path, names)
    width = len(rows[0])
    columns = tuple(Column([row[k] for row in rows], places) for k in range(width))
    return Table(path, names, columns)


def is_number(cell: str) -> bool:
    """Whether a cell is a number, ``nan`` and ``inf`` included."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _rows(path: Path, *, split: bool, comments: bool) -> tuple[list[list[str]], list[int]]:
    text = _unpacked(path) if path.suffix.lower() == ".gz" else read_text(path, most=LARGEST_TABLE)
    numbers: list[int] = []

    def lines() -> Iterator[str]:
        for number, line in enumerate(io.StringIO(text, newline=None), start=1):
            if line.strip() and not (comments and line.lstrip()[0] in "#%"):
                numbers.append(number)
                yield line

    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    rows: list[list[str]] = []
    places: list[int] = []
    kept = lines()
    first = next(kept, None)
    if first is None:
        raise InputError(f"{path} has no rows; give a file with data")
    mark = max("\t,;", key=first.count) if split else "\n"
    by_blanks = split and first.count(mark) == 0 and bare.suffix.lower() == ".txt"
    try:
        chained = _chain(first, kept)
        if not split or by_blanks:
            source: Any = ([line.strip()] if not split else line.split() for line in chained)
        else:
            source = csv.reader(chained, delimiter=mark)
        for row in source:
            cells = [cell.strip() for cell in row]
            if rows and len(cells) != len(rows[0]):
                raise InputError(
                    f"{path}, line {numbers[-1]}: {len(cells)} cells where line {places[0]} has "
                    f"{len(rows[0])}; make all rows equally long, and quote cells that hold a "
                    "separator"
                )
            if any(cells):
                rows.append(cells)
                places.append(numbers[-1])
    except csv.Error as error:
        raise InputError(f"{path}, line {numbers[-1]}: {error}; correct the line") from error
    if not rows:
        raise InputError(f"{path} has no rows; give a file with data")
    return rows, places


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _unpacked(path: Path) -> str:
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST_TABLE + 1)
        if len(data) > LARGEST_TABLE:
            raise InputError(
                f"{path} unpacks to more than the {LARGEST_TABLE:,} bytes that are read"
            )
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked ({error}): copy it again") from error


def _too_large(path: Path) -> InputError:
    return InputError(f"{path} unpacks to more than the {LARGEST_TABLE:,} bytes that are read")


def _is_header(rows: Sequence[Sequence[str]], known: Collection[str]) -> bool:
    if {cell.lower() for cell in rows[0]} & {name.lower() for name in known}:
        return True
    following = rows[1] if len(rows) > 1 else ()
    return any(map(is_number, following)) and not any(map(is_number, rows[0]))


def _refuse_twins(path: Path, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: two columns are called {twice!r}; rename one")


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet as pq
        import pyarrow.types as kinds
    except ImportError as error:
        raise InputError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from error
    with readable(path, "Parquet"):
        file = pq.ParquetFile(path)
        size = sum(
            file.metadata.row_group(k).total_byte_size for k in range(file.metadata.num_row_groups)
        )
        if size > LARGEST_TABLE:
            raise InputError(
                f"{path} unpacks to more than the {LARGEST_TABLE:,} bytes that are read"
            )
        table = file.read()
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows; give a file with data")
    names = tuple(str(name) for name in table.column_names)
    _refuse_twins(path, names)
    places = range(1, table.num_rows + 1)
    columns = []
    for column in table.columns:
        whole = kinds.is_integer(column.type) or kinds.is_boolean(column.type)
        numeric = kinds.is_floating(column.type) or (whole and not column.null_count)
        cells = column.to_numpy() if numeric else [_spell(value) for value in column.to_pylist()]
        columns.append(Column(cells, places, "row"))
    return Table(path, names, tuple(columns))


def _spell(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # class numbers become floats when a table has gaps
    return str(value).strip()
