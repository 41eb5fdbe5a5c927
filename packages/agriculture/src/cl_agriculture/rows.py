"""Rows of plain values to CSV files of a run."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

from cl_core.runs import Run, write_atomic

__all__ = ["write_rows"]


def write_rows(run: Run, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a table into a run directory, UTF-8; what is not known is blank.

    Args:
        run: Where to.
        name: Of the file.
        rows: With the same keys in each, the columns; none write nothing.
    """
    if not rows:
        return
    path = run.output(name)
    with write_atomic(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(rows[0])
        for row in rows:
            table.writerow(_cell(value) for value in row.values())


def _cell(value: object) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
