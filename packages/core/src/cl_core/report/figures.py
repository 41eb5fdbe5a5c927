"""Figures that every package draws alike: training curves and score tables.

Matplotlib figures come from :func:`new_figure`, whose black ink :class:`cl_core.report.Report`
turns into the page's text colour, so that they read on light and dark pages alike. Importing this
module does not import matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "MISSING",
    "PALETTE",
    "axis_title",
    "figure_rows",
    "metric_table",
    "new_figure",
    "overlaid_curves",
    "training_curves",
]

#: Colours of categories, told apart on light and dark pages and with colour-blind eyes (after
#: Okabe & Ito 2008 and Tol 2021).
PALETTE = (
    "#3b7dd8",
    "#e08214",
    "#2a9d78",
    "#c94f9d",
    "#d1495b",
    "#7a67c7",
    "#4aa9c9",
    "#a58a1f",
    "#8a6a57",
    "#7f8c99",
)
_GREY = "#8b93a1"

#: What a table shows where there is no value.
MISSING = "\N{EN DASH}"

# Shares, shown in per cent; other figures keep their own unit.
_SHARES = {
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "oa",
    "miou",
    "dice",
    "purity",
    "knn_accuracy",
    "linear_accuracy",
}
_ACRONYMS = {
    "ami": "AMI",
    "ari": "ARI",
    "auroc": "AUROC",
    "f1": "F1",
    "knn": "kNN",
    "miou": "mIoU",
    "nmi": "NMI",
    "oa": "OA",
}

Line = tuple[list[float], list[float]]


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = 7.2, height: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """Open a matplotlib figure in the suite's look, without touching global state or a display.

    Args:
        rows: Rows of panels.
        columns: Columns of panels.
        width: Inches.
        height: Inches.

    Returns:
        The figure and its panels in reading order.
    """
    from cycler import cycler
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_prop_cycle(cycler(color=PALETTE))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=_GREY, alpha=0.25, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9, length=3)
    return figure, panels


def training_curves(rows: Sequence[Mapping[str, object]], *, x: str = "epoch") -> Figure:
    """Draw the columns of ``history.csv`` over the epochs, a panel a quantity.

    Columns that differ only in a prefix with a slash share a panel (``train/loss``, ``val/loss``).
    Empty cells, text, NaN and infinities are skipped; so are the columns ``step`` and ``seconds``.

    Args:
        rows: A mapping an epoch; values may be numbers or their text, as ``csv.DictReader`` gives.
        x: Column of the horizontal axis; row numbers if there is none.

    Returns:
        The figure.

    Raises:
        ValueError: If no column holds a number.
    """
    panels: dict[str, dict[str, Line]] = {}
    for name, line in _lines(rows, x).items():
        quantity = name.rpartition("/")[2]
        panels.setdefault(quantity, {})[name.rpartition("/")[0] or quantity] = line
    if not panels:
        raise ValueError("the history holds no number to draw")
    return _curves(panels, x)


def overlaid_curves(
    histories: Mapping[str, Sequence[Mapping[str, object]]], *, x: str = "epoch"
) -> Figure:
    """Draw the columns of several histories over each other, a panel a column and a line a run.

    Args:
        histories: Rows of each run's history, as for :func:`training_curves`, by its name.
        x: Column of the horizontal axis.

    Returns:
        The figure.

    Raises:
        ValueError: If no column holds a number.
    """
    panels: dict[str, dict[str, Line]] = {}
    for run, rows in histories.items():
        for name, line in _lines(rows, x).items():
            panels.setdefault(name, {})[run] = line
    if not panels:
        raise ValueError("the histories hold no number to draw")
    return _curves(panels, x)


def _lines(rows: Sequence[Mapping[str, object]], x: str) -> dict[str, Line]:
    """The numbers of each column worth drawing, over ``x`` or the row's number."""
    lines: dict[str, Line] = {}
    for number, row in enumerate(rows):
        position = _number(row.get(x))
        for name, value in row.items():
            y = _number(value)
            if name not in (x, "step", "seconds") and y is not None:
                xs, ys = lines.setdefault(name, ([], []))
                xs.append(number if position is None else position)
                ys.append(y)
    return lines


def _curves(panels: Mapping[str, Mapping[str, Line]], x: str) -> Figure:
    from matplotlib.ticker import MaxNLocator

    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    count = math.ceil(len(panels) / columns)
    width = 4.6 if columns == 1 else 9.6
    figure, axes = new_figure(count, columns, width=width, height=2.4 * count)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    for panel, (quantity, lines) in zip(axes, panels.items(), strict=False):
        for label, (xs, ys) in lines.items():
            panel.plot(xs, ys, label=label, linewidth=1.7, marker="o" if len(xs) < 3 else "")
        panel.set_ylabel(axis_title(quantity), fontsize=9)
        panel.set_xlabel(x, fontsize=9)
        if all(position.is_integer() for xs, _ in lines.values() for position in map(float, xs)):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(lines) > 1:  # above the panel, where it hides no curve
            panel.legend(
                frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2,
                borderaxespad=0.2,
            )  # fmt: skip
    return figure


def axis_title(quantity: str) -> str:
    """What stands at an axis: the quantity in words, with its unit where it has one."""
    words = [_ACRONYMS.get(word, word) for word in quantity.replace("_", " ").split()]
    return " ".join(words)


def metric_table(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Format scores for :meth:`cl_core.report.Report.table`.

    ``accuracy`` and ``accuracy_std`` become one column, ``84.0 ± 0.9``. Shares such as accuracy are
    shown in per cent and say so in the heading, other figures with three decimals; text and whole
    numbers stay as they are.

    Args:
        rows: A mapping a method, metrics under their names in ``metrics.json``, prefixes allowed.

    Returns:
        Rows of text with the same columns in each.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if not _is_spread(name, names)]
    return [{_heading(name): _cell(row, name) for name in names} for row in rows]


def figure_rows(metrics: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, object]]:
    """Lay the figures of several runs side by side: a row a figure, a column a run.

    Spreads and intervals stand with their figure, ``84.0 ± 0.9`` or ``84.0 (82.1 to 85.7)``; shares
    are in per cent.

    Args:
        metrics: The figures in ``metrics.json`` of each run, by its name.
    """
    names = dict.fromkeys(name for figures in metrics.values() for name in figures)
    return [
        {"figure": _heading(name), **{run: _cell(row, name) for run, row in metrics.items()}}
        for name in names
        if not _is_spread(name, names)
    ]


def _is_spread(name: str, names: Collection[str]) -> bool:
    """Whether a figure says how sure another one is."""
    ends = ("_std", "_low", "_high")
    return any(name.endswith(end) and name.removesuffix(end) in names for end in ends)


def _heading(name: str) -> str:
    share = name.rpartition("/")[2] in _SHARES
    words = [_ACRONYMS.get(word, word) for word in name.replace("_", " ").split()]
    return " ".join(words) + (" (%)" if share else "")


def _cell(row: Mapping[str, object], name: str) -> str:
    value, spread = row.get(name), row.get(f"{name}_std")
    if value is None:
        return MISSING
    if not isinstance(value, float):
        return str(value)
    scale, digits = (100, 1) if name.rpartition("/")[2] in _SHARES else (1, 3)
    text = f"{scale * value:.{digits}f}"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if isinstance(low, float) and isinstance(high, float):
        return f"{text} ({scale * low:.{digits}f} to {scale * high:.{digits}f})"
    return text + (f" ± {scale * spread:.{digits}f}" if isinstance(spread, float) else "")


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
