"""The page of the demo: ten learned digits beside ten real ones."""

from __future__ import annotations

from pathlib import Path

from cl_core.commands.outcome import text_table
from cl_core.config import TrainerConfig
from cl_core.report import Report
from cl_core.runs import Run
from cl_vision.condensation.comparison import compare
from cl_vision.condensation.condensed_set import load_condensed
from cl_vision.condensation.config import AssessConfig, CondenseConfig
from cl_vision.condensation.pages import SCOPE
from cl_vision.condensation.pictures import grid_figure
from cl_vision.condensation.pipeline import condense

__all__ = ["condensation_demo"]

_ABOUT = (
    "On the left ten real digits, drawn at random; on the right what became of them when they were "
    "moved, pixel by pixel, so that the gradients they give fresh networks are those of all digits "
    "(DSAC: all classes matched at once, with siamese augmentation). They are no pictures anybody "
    "wrote, but they teach more.",
    "Networks are trained from scratch on one image a class and tested on digits never seen: the "
    "condensed set, its 8-bit pictures, real digits at random, chosen by herding and by k-means, "
    "and the nearest to the mean of each class.",
)


def condensation_demo(
    out: Path, *, epochs: int, seed: int, overwrite: bool, trainer: TrainerConfig
) -> tuple[dict[str, float], list[str]]:
    """Condense the digits to one image a class and write ``out/condensation/report.html``.

    Args:
        out: Folder of the demo.
        epochs: A third as many networks are matched, and ten times as many epochs assessed.
        seed: Of everything.
        overwrite: Replace an earlier demo.
        trainer: Devices, checkpoints.

    Returns:
        Figures as of `assess`, and the table as text.
    """
    options = CondenseConfig(
        data="digits",
        out=out / "condensed",
        method="dsac",
        preset="cpu-smoke",
        outer_loop=max(1, epochs // 3),
        seed=seed,
        overwrite=overwrite,
        trainer=trainer,
    )
    condense(options)
    trial = AssessConfig(
        run=options.out,
        out=out / "condensation",
        networks=2,
        sets=2,
        epochs=10 * epochs,
        augmented_epochs=10 * epochs,
        full=False,
        seed=seed,
        overwrite=overwrite,
    )
    with Run.create(out / "condensation", trial, overwrite=overwrite) as run:
        found = compare(trial)
        page = Report("Ten digits in place of all", "condensed beside real images")
        page.section("The pictures").text("\n\n".join(_ABOUT))
        page.figure(grid_figure(load_condensed(options.out)), "Each class first and last.")
        page.section("Test accuracy").table(found.rows, "In per cent; mean ± spread.")
        page.text("\n\n".join([*found.notes, SCOPE]))
        page.section("Options").configuration(Run.open(options.out).config)
        page.save(run.output("report.html"))
        run.save_metrics(found.metrics)
    return found.metrics, text_table(found.rows)
