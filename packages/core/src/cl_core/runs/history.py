"""``history.csv``: one row of figures per epoch."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from cl_core.errors import InputError
from cl_core.runs.atomic import write_atomic
from cl_core.tables.documents import read_text

__all__ = ["History"]


class History:
    """The figures of a training, a row per epoch, in a CSV file that spreadsheets open.

    A row is appended by one write, so a kill leaves at most one line without its end, which
    reading ignores. A figure that appears late gets a column of its own, empty above.

    Args:
        path: The file; made with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] | None = None

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch; ``row["epoch"]`` counts from 1.

        Raises:
            InputError: If the disk is full or the place cannot be written.
        """
        columns = self._header()
        new = [name for name in row if name not in columns]
        if new:
            self._rewrite([*columns, *new], [*self.rows(), dict(row)])
        else:
            try:
                with open(self.path, "a", encoding="utf-8", newline="", opener=_no_link) as file:
                    file.write(_line([_cell(row.get(name)) for name in columns]))
            except OSError as error:
                raise InputError(f"cannot write {self.path}: {error.strerror}") from error

    def rows(self) -> list[dict[str, float]]:
        """Every complete row, empty cells left out.

        Raises:
            InputError: If the file is damaged, naming the line.
        """
        columns, *lines = self._lines() or [[]]
        rows = []
        for number, line in enumerate(lines, start=2):
            try:
                row = {name: float(cell) for name, cell in zip(columns, line, strict=True) if cell}
                if not row["epoch"].is_integer():
                    raise ValueError
            except (KeyError, ValueError) as error:
                raise InputError(
                    f"{self.path} is damaged in line {number}: remove the line, or start the run "
                    "anew with --overwrite"
                ) from error
            rows.append(row)
        return rows

    def truncate(self, epoch: int) -> None:
        """Forget the epochs after ``epoch``, and a line that a kill left unfinished."""
        if self.path.exists():
            columns = self._header()
            self._rewrite(columns, [row for row in self.rows() if row["epoch"] <= epoch])

    def _header(self) -> list[str]:
        if self._columns is None:
            self._columns = next(iter(self._lines()), [])
        return self._columns

    def _lines(self) -> list[list[str]]:
        if not self.path.exists():
            return []
        text = read_text(self.path)
        complete = text[: text.rfind("\n") + 1]
        try:
            return list(csv.reader(io.StringIO(complete)))
        except csv.Error as error:
            raise InputError(f"{self.path} is damaged ({error}): restore it") from error

    def _rewrite(self, columns: list[str], rows: list[dict[str, float]]) -> None:
        with write_atomic(self.path) as temporary:
            lines = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
            temporary.write_text("".join(_line(line) for line in lines), "utf-8", newline="")
        self._columns = columns


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def _line(cells: list[str]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
