"""What a command hands back: its figures, and where the rest of it lies."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote

from cl_core.commands.tabular import folded, tables_in, text_table
from cl_core.errors import InputError
from cl_core.runs.loading import load_saved

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
        return "\n".join([*self.lines, *map(str, self.places)])

    @property
    def places(self) -> list[Path]:
        """The paths of the files that are there."""
        return [self.out / name for name in self.files if (self.out / name).exists()]

    def shown(self) -> str:
        """What the command line prints: on a narrow terminal wide tables are folded."""
        if not sys.stdout.isatty():
            return str(self)
        width = shutil.get_terminal_size().columns
        return "\n".join([*folded(self.lines, width), *map(str, self.places)])

    def frame(self) -> Any:
        """The figures as a pandas table: a row a model, class or domain, a column a figure.

        A figure called ``grace/accuracy`` stands in the row ``grace``; what has no prefix in the
        row called by the name of the run directory. Undefined figures are ``NaN``.

        Raises:
            InputError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise InputError(
                "frame() needs pandas, which is not installed: pip install pandas, or use .metrics"
            ) from error
        rows: dict[str, dict[str, float]] = {}
        for name, value in self.metrics.items():
            owner, _, figure = name.rpartition("/")
            rows.setdefault(owner or self.out.name, {})[figure] = value
        return pd.DataFrame.from_dict(rows, orient="index").astype(float)

    @property
    def model(self) -> Any:
        """The model that the command saved, ready to use: what the package's ``load`` gives.

        Raises:
            InputError: If the command saved none.
        """
        return load_saved(self.out)

    def _repr_html_(self) -> str:
        """Tables and links, for a notebook."""
        parts = []
        for table, lines in tables_in(self.lines):
            if table is None:
                parts += [f"<p>{escape(line)}</p>" for line in lines if line]
                continue
            head, *rows = (
                "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
                for cells, tag in zip(table, ["th", *["td"] * (len(table) - 1)], strict=True)
            )
            body = "".join(f"<tr>{row}</tr>" for row in rows)
            parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        links = (
            f'<a href="{quote(os.path.relpath(place))}" target="_blank">{escape(str(place))}</a>'
            for place in self.places
        )
        return "\n".join([*parts, f"<p>{'<br>'.join(links)}</p>"])


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
