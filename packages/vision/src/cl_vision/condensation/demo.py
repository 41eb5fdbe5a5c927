"""The page of the demo: ten learned digits beside ten real ones."""

from __future__ import annotations

from pathlib import Path

from cl_core.commands.outcome import text_table
from cl_core.report import Report
from cl_core.runs import Run
from cl_vision.condensation.comparison import compare
from cl_vision.condensation.condensed_set import load_condensed
from cl_vision.condensation.config import AssessConfig, CondenseConfig
from cl_vision.condensation.pages import SCOPE
from cl_vision.condensation.pictures import grid_figure
from cl_vision.config import DemoConfig

__all__ = ["demo_options", "write_demo"]

_ABOUT = (
    "On the left ten real digits, drawn at random; on the right what became of them when they were "
    "moved, pixel by pixel, so that the gradients they give fresh networks are those of all digits "
    "(DSAC: all classes matched at once, with siamese augmentation). They are no pictures anybody "
    "wrote, but they teach more.",
    "Networks are trained from scratch on one image a class and tested on digits never seen: the "
    "condensed set, its 8-bit pictures, real digits at random, chosen by herding and by k-means, "
    "and the nearest to the mean of each class.",
)


def demo_options(demo: DemoConfig) -> tuple[CondenseConfig, AssessConfig]:
    """Give the options of the condensation and of its assessment.

    A third as many networks are matched as the demo has epochs, and those assessed are trained for
    ten times as many.
    """
    options = CondenseConfig(
        data="digits",
        out=demo.out / "condensed",
        method="dsac",
        preset="cpu-smoke",
        outer_loop=max(1, demo.epochs // 3),
        seed=demo.seed,
        overwrite=demo.overwrite,
        trainer=demo.trainer,
    )
    trial = AssessConfig(
        run=options.out,
        out=demo.out / "condensation",
        networks=2,
        sets=2,
        epochs=10 * demo.epochs,
        augmented_epochs=10 * demo.epochs,
        full=False,
        seed=demo.seed,
        overwrite=demo.overwrite,
    )
    return options, trial


def write_demo(
    run: Run, condensed: Path, trial: AssessConfig
) -> tuple[dict[str, float], list[str]]:
    """Assess the set and write the page.

    Args:
        run: Where to.
        condensed: Run of the set.
        trial: Of the assessment.

    Returns:
        Figures as of `assess`, and the table as text.
    """
    found = compare(trial)
    page = Report("Ten digits in place of all", "condensed beside real images")
    page.section("The pictures").text("\n\n".join(_ABOUT))
    page.figure(grid_figure(load_condensed(condensed)), "Each class first and last.")
    page.section("Test accuracy").table(found.rows, "In per cent; mean ± spread.")
    page.text("\n\n".join([*found.notes, SCOPE]))
    page.section("Options").configuration(Run.open(condensed).config)
    page.save(run.output("report.html"))
    return found.metrics, text_table(found.rows)
