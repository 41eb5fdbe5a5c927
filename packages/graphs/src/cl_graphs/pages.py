"""The reports of the commands: what each page shows, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cl_core.evaluation import project_2d
from cl_core.report import Report
from cl_core.report.explorer.plane import scatter_2d
from cl_core.report.figures import new_figure, training_curves
from cl_core.runs import Run
from cl_graphs.evaluation.robustness import Measured
from cl_graphs.tasks import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cl_core.training import FitResult

__all__ = ["comparison_page", "robustness_figure", "robustness_page", "training_page"]

POINTS = 4000
"""Points of a scatter plot; more are a cloud, and a slow page."""


CURVES = (
    "Loss terms, and the gauges of collapse: an effective rank that falls towards 1 or a feature "
    "spread that falls towards 0 means that the embedding has collapsed."
)


def training_page(
    run: Run, task: Task, result: FitResult, vectors: Tensor, metrics: Mapping[str, float]
) -> None:
    """Write what a training did: figures, curves, and the embedding on a plane."""
    options = run.config
    page = Report(options["method"].upper(), task.name)
    page.metrics({**metrics, "epochs": result.epochs, "seconds": round(result.seconds, 1)})
    page.section("Data").text("\n\n".join(task.summary()))
    page.section("Training").figure(training_curves(result.history), CURVES)
    _add_plane(page, task, vectors)
    page.section("Options").configuration(options)
    page.save(run.output("report.html"))


def comparison_page(
    run: Run,
    task: Task,
    rows: Sequence[Mapping[str, object]],
    protocol: str,
    embedded: Mapping[str, Tensor],
    histories: Mapping[str, Sequence[Mapping[str, float]]],
) -> None:
    """Write how good embeddings are: the table of scores, then each model's plane and curves."""
    page = Report("Accuracy", task.name)
    page.section("Scores").table(rows, protocol)
    page.section("Data").text("\n\n".join(task.summary()))
    for name, vectors in embedded.items():
        _add_plane(page, task, vectors, name)
    for name, history in histories.items():
        page.section(f"Training {name}").figure(training_curves(history), CURVES)
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def robustness_page(
    run: Run, task: Task, points: Sequence[Measured], rows: Sequence[Mapping[str, object]]
) -> None:
    """Write how accuracy falls under perturbation: a plot a perturbation, and the table."""
    page = Report("Robustness", task.name)
    page.section("Accuracy under perturbation").figure(
        robustness_figure(points),
        "Classifiers learnt on the clean graph meet perturbed ones. Budgets are shares of the "
        "edges there are, radii the largest change of a feature value; bars are one standard "
        "deviation over the splits. Gradient attacks are made for each model anew.",
    )
    page.table(rows)
    page.section("Data").text("\n\n".join(task.summary()))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def robustness_figure(points: Sequence[Measured]) -> Figure:
    """Draw accuracy over strength, a panel a perturbation and a line a model."""
    clean = {point.model: point for point in points if point.perturbation == "clean"}
    others = [point for point in points if point.perturbation != "clean"]
    names = list(dict.fromkeys(point.perturbation for point in others))
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure, panels = new_figure(lines, columns, width=2.6 * columns, height=2.2 * lines)
    for panel, name in zip(panels, names, strict=False):
        for model, curve in groupby(others, key=lambda point: point.model):
            shown = [clean[model], *(point for point in curve if point.perturbation == name)]
            panel.errorbar(
                [point.strength for point in shown],
                [100 * point.accuracy for point in shown],
                [100 * point.accuracy_std for point in shown],
                marker="o",
                markersize=3,
                label=model,
            )
        panel.set_title(name)
        panel.set_ylim(0, 100)
        panel.set_ylabel("accuracy (%)")
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    panels[0].legend()
    return figure


def _add_plane(page: Report, task: Task, vectors: Tensor, name: str = "") -> None:
    rows = torch.arange(len(vectors))
    if len(rows) > POINTS:
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:POINTS]
    y = task.y if task.y is None or task.y.ndim == 1 else None  # tasks have no colour
    page.section(f"Embedding {name}".strip()).block(
        scatter_2d(
            project_2d(vectors[rows]),
            None if y is None else y[rows],
            names=list(task.classes),
            hover_ids=[task.ids[row] for row in rows.tolist()],
        ),
        f"The two directions of largest variance of {len(rows):,} {task.unit}s"
        + ("." if y is None else ", coloured by class; training never saw the classes."),
    )
