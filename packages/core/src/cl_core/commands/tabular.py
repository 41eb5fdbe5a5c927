"""Tables as lines of text that still know their cells: they fold, and notebooks show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

__all__ = ["TableLine", "folded", "tables_in", "text_table"]

Cells = tuple[tuple[str, ...], ...]


class TableLine(str):
    """A line of a table.

    Attributes:
        table: The cells of all lines, the headings first; the same object in each line.
    """

    table: Cells

    @classmethod
    def of(cls, text: str, table: Cells) -> TableLine:
        """A line with its table."""
        line = cls(text)
        line.table = table
        return line


def text_table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Align rows with the same keys into lines: the first column to the left, the others right."""
    if not rows:
        return []
    columns = list(rows[0])
    cells = [columns, *([str(row[name]) for name in columns] for row in rows)]
    table = tuple(map(tuple, cells))
    return [TableLine.of(line, table) for line in _aligned(table)]


def tables_in(lines: Iterable[str]) -> Iterator[tuple[Cells | None, list[str]]]:
    """The lines in groups: those of one table together with its cells, others with ``None``."""
    for _, group in groupby(lines, key=lambda line: id(getattr(line, "table", None))):
        own = list(group)
        yield getattr(own[0], "table", None), own


def folded(lines: Iterable[str], width: int) -> list[str]:
    """The lines, tables that are wider than ``width`` in several parts with the first column each.

    Args:
        lines: Text, and lines of tables.
        width: Columns of the terminal.
    """
    shown: list[str] = []
    for table, own in tables_in(lines):
        if table is None or max(map(len, own)) <= width:
            shown += own
            continue
        for number, part in enumerate(_parts(table, width)):
            shown += [*([""] if number else []), *_aligned(part)]
    return shown


def _parts(table: Cells, width: int) -> Iterator[Cells]:
    """As many columns at a time as there is room for, one at least, beside the first."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    columns, taken = [0], widths[0]
    for column in range(1, len(widths)):
        if len(columns) > 1 and taken + 2 + widths[column] > width:
            yield tuple(tuple(line[i] for i in columns) for line in table)
            columns, taken = [0], widths[0]
        columns.append(column)
        taken += 2 + widths[column]
    yield tuple(tuple(line[i] for i in columns) for line in table)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
