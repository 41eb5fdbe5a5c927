"""What a command hands back: its figures, and where the rest of it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from cl_core.errors import InputError

__all__ = ["Outcome", "flat_scores", "out_of", "slug", "text_table"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a command; printed, it is what the command line shows.

    Attributes:
        out: The run directory that was written.
        metrics: The figures of its ``metrics.json``.
        lines: What a person wants to read first: a table, a warning.
        files: What to open next, as paths inside ``out``.
        code: The exit code of the command: 1 where a part of the work failed and the rest was
            done, 2 where the user's data have faults that were told.
    """

    out: Path
    metrics: Mapping[str, float]
    lines: Sequence[str] = ()
    files: Sequence[str] = field(default=("report.html",))
    code: int = 0

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


@runtime_checkable
class UsesRun(Protocol):
    """The options of a command that works on an earlier run."""

    @property
    def run(self) -> Path: ...
    @property
    def out(self) -> Path | None: ...


def out_of(config: UsesRun, verb: str) -> Path:
    """Where a command writes that works on an earlier run: by default into it, under its verb.

    Raises:
        InputError: If that place in the run is a link, which may lead anywhere.
    """
    if config.out is not None:
        return config.out
    place = config.run / verb
    if place.is_symlink():
        raise InputError(f"{place} is a link: remove it or give --out")
    return place


def slug(name: str) -> str:
    """The name of a model, method or class as the prefix of its figures in ``metrics.json``."""
    return name.lower().replace(" ", "_").replace("(", "").replace(")", "")


def flat_scores(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The first one's figures as they are, those of the others under their names."""
    (_, own), *others = scores.items()
    return dict(own) | {
        f"{slug(name)}/{figure}": value
        for name, figures in others
        for figure, value in figures.items()
    }
