"""The verb ``compare``: runs side by side, whichever command wrote them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_core.commands.options import flat_options
from cl_core.commands.outcome import Outcome, text_table
from cl_core.commands.own import CompareConfig, Program
from cl_core.errors import InputError
from cl_core.report.figures import figure_rows, new_figure, overlaid_curves
from cl_core.report.page import Report
from cl_core.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compare"]

_CURVES = "Each figure of the trainings over the epochs, a line a run."
_SPREADS = (
    "Figures with their spread: one standard deviation, or the interval where a run tells one."
)

# What differs between any two runs and explains nothing.
_PLACES = ("out", "run")


def compare(program: Program, config: CompareConfig) -> Outcome:
    """Write one page of several runs, and show their figures.

    Args:
        program: Which was asked; the runs may be another's.
        config: The runs.

    Returns:
        The figures of each run behind its name.

    Raises:
        InputError: If a folder is no run, or none of them has figures yet.
    """
    runs = [Run.open(path) for path in config.runs]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise InputError("compare: the same run is given twice")
    named = dict(zip(_names([run.path for run in runs]), runs, strict=True))
    metrics = {name: _metrics(run) for name, run in named.items()}
    histories = {name: run.history.rows() for name, run in named.items()}
    if not any(metrics.values()) and not any(histories.values()):
        raise InputError("compare: no run has got as far as a figure; resume them")
    rows = figure_rows(metrics)
    with Run.create(config.out, config, overwrite=config.overwrite) as written:
        flat = {
            f"{name}/{figure}": float("nan") if value is None else value
            for name, figures in metrics.items()
            for figure, value in figures.items()
        }
        written.save_metrics(flat)
        page = Report("Comparison", ", ".join(named))
        page.links(
            {
                f"{name}: {run.path}": os.path.relpath(run.path / "report.html", written.path)
                for name, run in named.items()
                if (run.path / "report.html").is_file()
            }
        )
        if rows:
            page.section("Figures").table(rows, "As each run's metrics.json has them.")
            spreads = _spreads(metrics)
            if spreads is not None:
                page.figure(spreads, _SPREADS)
        if any(histories.values()):
            page.section("Training").figure(
                overlaid_curves({_short(n): h for n, h in histories.items()}), _CURVES
            )
        differing = _differing({name: run.config for name, run in named.items()})
        if differing:
            page.section("Options that differ").table(differing)
        page.save(written.output("report.html"))
    return Outcome(out=written.path, metrics=flat, lines=text_table(rows))


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names; with as much of the way to them as tells them apart."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _metrics(run: Run) -> dict[str, float | None]:
    if not (run.path / "metrics.json").is_file():
        return {}
    return run.metrics()


def _differing(options: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    """The options of which the runs have not all the same value."""
    flat = {name: flat_options(values) for name, values in options.items()}
    names = dict.fromkeys(name for values in flat.values() for name in values)
    rows: list[dict[str, object]] = []
    for option in names:
        shown = {name: str(values.get(option, "")) for name, values in flat.items()}
        if len(set(shown.values())) > 1 and option not in _PLACES:
            rows.append({"option": option, **shown})
    return rows


def _short(name: str, most: int = 22) -> str:
    """A name that leaves room for the figure beside it; its end, which tells runs apart."""
    return name if len(name) <= most else f"...{name[3 - most :]}"


def _spreads(metrics: Mapping[str, Mapping[str, float | None]], most: int = 12) -> Figure | None:
    """A panel a figure that has a spread, a point a run; the first ``most`` of them."""
    found = dict.fromkeys(
        name
        for figures in metrics.values()
        for name in figures
        if f"{name}_std" in figures or f"{name}_low" in figures
    )
    names = list(found)[:most]
    if not names:
        return None
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    height = (0.9 + 0.25 * len(metrics)) * lines
    figure, panels = new_figure(lines, columns, width=3.2 * columns, height=height)
    for panel, name in zip(panels, names, strict=False):
        for place, (run, figures) in enumerate(metrics.items()):
            value = figures.get(name)
            if value is None:
                continue
            std = figures.get(f"{name}_std") or 0.0
            low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
            left = std if low is None else max(0.0, value - low)
            right = std if high is None else max(0.0, high - value)
            panel.errorbar(
                [value], [place], xerr=[[left], [right]], marker="o", capsize=3, label=run
            )
        panel.set_yticks(range(len(metrics)), [_short(run) for run in metrics])
        panel.set_ylim(len(metrics) - 0.5, -0.5)
        panel.set_xlabel(name.replace("_", " "), fontsize=9)
        panel.grid(visible=False, axis="y")
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    return figure
