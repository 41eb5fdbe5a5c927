"""The reports of `condense`, `assess` and `continual`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from cl_core.report import Report
from cl_core.report.figures import new_figure, training_curves
from cl_core.runs import Run, write_atomic
from cl_vision.condensation.condensed_set import CondensedSet
from cl_vision.condensation.pictures import figure_png, grid_figure, growth_figure
from cl_vision.data import Images

if TYPE_CHECKING:
    from cl_core.training import FitResult
    from cl_vision.condensation.comparison import Comparison
    from cl_vision.condensation.continual_study import Study

__all__ = ["SCOPE", "assess_page", "condense_page", "continual_page"]

_LOSS = (
    "The optimised distance, a sum over rows and, class by class, over classes; "
    "matching/averaged is the distance of the gradients averaged over classes, which can be "
    "compared between methods and before and after the warm-up."
)

SCOPE = (
    "A condensed set is learned with one kind of network and serves it best; other networks gain "
    "less, and with some, random real images may do better: cl-vision assess --architectures "
    "tells. DCC is not always better than DC at small budgets."
)


def condense_page(
    run: Run,
    found: CondensedSet,
    result: FitResult,
    metrics: Mapping[str, float],
    snapshots: Mapping[int, Tensor],
    plan: str,
    images: Images,
) -> None:
    """Write the report and ``grid.png`` of a condensation.

    Args:
        run: Where to.
        found: The set.
        result: Of the training.
        metrics: Figures.
        snapshots: The images after some outer iterations.
        plan: The estimate that was told.
        images: The data.
    """
    if not run.writes:
        return
    grid = grid_figure(found)
    with write_atomic(run.output("grid.png")) as beside:
        beside.write_bytes(figure_png(grid))
    page = Report(f"Condensed by {found.card.method}", images.table.source)
    page.metrics({**metrics, "seconds": round(result.seconds, 1)})
    page.section("The set").figure(grid, "Each class first and last, clipped to 8 bits.")
    page.figure(
        growth_figure(found, snapshots), "The first image of each class after outer iterations."
    )
    page.section("Matching").figure(training_curves(result.history), _LOSS)
    page.section("What it is good for").text(SCOPE)
    page.section("Data").text("\n\n".join([*images.summary(), plan]))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def assess_page(run: Run, found: Comparison) -> None:
    """Write the table of an assessment, as a page and as Markdown."""
    if not run.writes:
        return
    page = Report("Assessment", "test accuracy of networks trained from scratch, in per cent")
    page.section("Accuracy").table(
        found.rows, "Mean and spread over sets and networks; each column is a budget."
    )
    if found.notes:
        page.text("\n\n".join(found.notes))
    page.section("What it is good for").text(SCOPE)
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))
    names = list(found.rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in found.rows]
    with write_atomic(run.output("table.md")) as beside:
        beside.write_text("\n".join(lines) + "\n", "utf-8")


def continual_page(run: Run, found: Study) -> None:
    """Write the curves and the table of a continual study."""
    if not run.writes:
        return
    figure, (axes,) = new_figure()
    for memory, curve in found.curves.items():
        axes.plot(range(1, len(curve) + 1), [100 * v for v in curve], marker="o", label=memory)
    axes.set_xlabel("step")
    axes.set_ylabel("accuracy of all seen (%)")
    axes.legend()
    page = Report("Continual learning", "accuracy of everything seen so far")
    page.section("Accuracy after each step").figure(figure, "Mean over orders.")
    page.table(found.rows, "Mean and spread over orders, in per cent.")
    page.text("\n\n".join(found.notes))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))
