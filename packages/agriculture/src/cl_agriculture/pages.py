"""The reports of the commands: what each page shows, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cl_agriculture.data import Plants
from cl_agriculture.figures import TILE, fraction_figure, pictures, some_rows
from cl_core.evaluation.projection import project_2d
from cl_core.images import ImageTable
from cl_core.report import Report
from cl_core.report.explorer.contact_sheet import contact_sheet
from cl_core.report.explorer.plane import scatter_2d
from cl_core.report.figures import training_curves
from cl_core.runs import Run

if TYPE_CHECKING:
    from cl_core.training import FitResult

__all__ = ["mask_page", "prepare_page", "training_page"]


CURVES = (
    "Loss terms, and the gauges of collapse: an effective rank that falls towards 1, or a "
    "similarity of different images (other_similarity) that rises towards 1, means that all images "
    "have become one point."
)


def prepare_page(
    run: Run, table: ImageTable, rows: Sequence[Mapping[str, object]], notes: Sequence[str]
) -> None:
    """Write what was found among the images: labels, and what needs a look."""
    page = Report("Images", table.source)
    page.metrics({"images": len(table), "labels": len(np.unique(table.labels[table.labels >= 0]))})
    page.section("Findings").text("\n\n".join(notes))
    page.section("Weak labels").table(rows)
    page.section("Images").block(contact_sheet(table, per_group=8, seed=0))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def mask_page(
    run: Run,
    plants: Plants,
    rows: Sequence[int],
    notes: Sequence[str],
    metrics: Mapping[str, float],
) -> None:
    """Write what the masks are like: cover, the images under them, and those without a use.

    Args:
        run: Where to.
        plants: With masks.
        rows: Images shown.
        notes: In words.
        metrics: Figures.
    """
    store = plants.store
    assert store is not None
    records = [store.record(file) for file in plants.table.files]
    page = Report("Masks", plants.table.source)
    page.metrics(metrics)
    page.section("Masks").text("\n\n".join(notes))
    used = [record.fraction for record in records if not record.reason]
    page.figure(fraction_figure(used), "Of the images whose mask is used.")
    page.section("Images and masks").block(
        contact_sheet(
            pictures(plants, rows),
            captions=[f"{plants.table.name(row)}, {records[row].fraction:.1%}" for row in rows],
            size=TILE,
            columns=5,
            per_group=len(rows),
        ),
        "On the right of each image what the encoder sees; the rest, dark here, has one colour "
        "there.",
    )
    fallen = [row for row, record in enumerate(records) if record.reason]
    if fallen:
        shown = fallen[:24]
        page.section("Used whole").block(
            contact_sheet(
                pictures(plants, shown),
                captions=[plants.table.name(row) for row in shown],
                groups=[records[row].reason for row in shown],
                size=TILE,
                columns=5,
            ),
            f"{len(fallen):,} images whose mask is too small, too large or missing.",
        )
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def training_page(
    run: Run,
    name: str,
    plants: Plants,
    result: FitResult,
    h: Float[Tensor, "n d"],
    metrics: Mapping[str, float],
    *,
    notes: Sequence[str],
) -> None:
    """Write what a training did: figures, curves, the images on a plane.

    Args:
        run: Where to.
        name: Of the method.
        plants: Those on the plane.
        result: Of the training.
        h: Their representations.
        metrics: Figures.
        notes: What the user should know.
    """
    page = Report(name, plants.table.source)
    page.metrics({**metrics, "epochs": result.epochs, "seconds": round(result.seconds, 1)})
    page.section("Data").text("\n\n".join(notes))
    page.section("Training").figure(training_curves(result.history), CURVES)
    rows = some_rows(len(h))
    y = plants.labels[rows]
    page.section("Representation").block(
        scatter_2d(
            project_2d(h[rows]),
            y if bool((y >= 0).any()) else None,
            names=list(plants.table.classes),
            hover_ids=[plants.table.name(row) for row in rows.tolist()],
        ),
        f"The two directions of largest variance of {len(rows):,} images.",
    )
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))
