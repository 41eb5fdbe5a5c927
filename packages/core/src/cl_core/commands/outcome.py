"""What a command hands back: its figures, and where the rest of it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Outcome", "text_table"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a command; printed, it is what the command line shows.

    Attributes:
        out: The run directory that was written.
        metrics: The figures of its ``metrics.json``.
        lines: What a person wants to read first: a table, a warning.
        files: What to open next, as paths inside ``out``.
    """

    out: Path
    metrics: Mapping[str, float]
    lines: Sequence[str] = ()
    files: Sequence[str] = field(default=("report.html",))

    def __str__(self) -> str:
        places = [str(self.out / name) for name in self.files if (self.out / name).exists()]
        return "\n".join([*self.lines, *places])


def text_table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Align rows with the same keys into lines: the first column to the left, the others right."""
    if not rows:
        return []
    columns = list(rows[0])
    cells = [columns, *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
