"""The reports of the commands: what each page shows, in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cl_core.report import Report
from cl_core.report.explorer.plane import scatter_2d
from cl_core.report.figures import MISSING, training_curves
from cl_core.runs import Run, write_atomic
from cl_medical.segmentation.embedding import DomainPoints
from cl_medical.segmentation.overlays import Picture, draw_overlays, picked
from cl_medical.segmentation.prediction import Predicted
from cl_medical.segmentation.scoring import CaseScores
from cl_medical.segmentation.summaries import summary_rows

__all__ = [
    "benchmark_page",
    "demo_page",
    "embedding_page",
    "evaluation_page",
    "prediction_page",
    "score_rows",
    "training_page",
]

_OVERLAYS = (
    "Truth dashed, mask in full, a colour a structure; of each case the slice that shows most."
)


def training_page(
    run: Run,
    title: str,
    metrics: Mapping[str, float],
    history: Sequence[Mapping[str, float]],
    scores: Sequence[CaseScores],
    points: DomainPoints | None,
    names: Sequence[str],
    notes: Sequence[str],
) -> None:
    """Write what a training did: figures, curves a domain, scores, overlays, the embedding."""
    page = Report(title, str(run.config["data"]))
    page.metrics(_first(metrics))
    if history:
        page.section("Training").figure(
            training_curves(history),
            "Losses a domain, and Dice a structure of the validation cases on the network's grid; "
            "the epoch of the best mean over domains is kept.",
        )
    _scores(page, scores, "Validation")
    _embedding(page, points, names)
    if notes:
        page.section("Notes").text("\n\n".join(notes))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def evaluation_page(
    run: Run,
    what: str,
    metrics: Mapping[str, float],
    scores: Sequence[CaseScores],
    tests: Sequence[Mapping[str, object]],
    failures: Sequence[str] = (),
) -> None:
    """Write how good a model is: a structure, a case, and what the best and the worst look like."""
    page = Report("Evaluation", what)
    page.metrics(_first(metrics))
    _scores(page, scores, "Structures")
    _save_pictures(run, scores)
    if tests:
        page.section("Comparison").table(
            tests, "Dice of this run minus the other's, case by case; Wilcoxon, two-sided."
        )
    if failures:
        page.section("Not scored").text("\n\n".join(failures))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def prediction_page(run: Run, results: Sequence[Predicted], failures: Sequence[str]) -> None:
    """Write what was segmented: pictures, and the volume of each structure in ml."""
    page = Report("Masks", str(run.config["data"]))
    if results:
        page.section("Volumes").table(volume_rows(results), "ml of each structure.")
        shown = [(f"{one.domain}: {one.job.name}", one.picture) for one in results[:12]]
        page.section("Pictures").figure(draw_overlays(shown), "Of each case the fullest slice.")
    if failures:
        page.section("Not segmented").text("\n\n".join(failures))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def embedding_page(
    run: Run,
    metrics: Mapping[str, float],
    points: DomainPoints,
    names: Sequence[str],
    failures: Sequence[str],
) -> None:
    """Write the plane of the embeddings."""
    page = Report("Embedding", str(run.config["run"]))
    page.metrics({name: value for name, value in metrics.items() if not math.isnan(value)})
    _embedding(page, points, names)
    if failures:
        page.section("Not embedded").text("\n\n".join(failures))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def benchmark_page(
    run: Run, rows: Sequence[Mapping[str, object]], tests: Sequence[Mapping[str, object]]
) -> None:
    """Write the table of the modes, and their paired tests."""
    page = Report("Modes of training", str(run.config["data"]))
    page.section("Dice").table(
        rows, "Test cases; mean over structures, mean and spread over seeds."
    )
    if tests:
        page.section("Paired tests").table(
            tests,
            "Dice of a mode minus that of the reference, a pair a case, structure and seed; "
            "Wilcoxon, two-sided. Seeds of one case are not independent: read p with that in mind.",
        )
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def demo_page(run: Run, scores: Sequence[CaseScores], rows: Sequence[Mapping[str, object]]) -> None:
    """Write what a demo did."""
    page = Report("Three joints, then a fourth", "Phantoms")
    page.section("Scores").table(rows, "Test cases. Phantoms are easy; real joints are not.")
    _pictures(page, scores)
    parts = ("train", "train/evaluate", "extend", "extend/evaluate", "masks")
    page.section("Reports").text("\n\n".join(f"{part}/report.html" for part in parts))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def score_rows(scores: Sequence[CaseScores]) -> list[dict[str, object]]:
    """A row for each structure, with spread, failures and volumes."""
    rows: list[dict[str, object]] = []
    for row in summary_rows(scores):
        rows.append(
            {
                "domain": row["domain"],
                "structure": row["structure"],
                "n": row["n"],
                "failed": row["n_failed"],
                "Dice (%)": _spread(row, "dice", 100, 1),
                "HD95 mm": _spread(row, "hd95", 1, 2),
                "ASSD mm": _spread(row, "assd", 1, 2),
                "volume ml": _spread(row, "volume_ml", 1, 2),
                "true ml": _spread(row, "true_volume_ml", 1, 2),
            }
        )
    return rows


def volume_rows(results: Sequence[Predicted]) -> list[dict[str, object]]:
    """A row for each case: its domain and the ml of its structures."""
    rows: list[dict[str, object]] = []
    for one in results:
        own = {name: f"{ml:.3f}" for name, ml in one.volumes.items()}
        rows.append({"case": one.job.name, "domain": one.domain, **own})
    return rows


def _spread(row: Mapping[str, object], figure: str, scale: float, digits: int) -> str:
    mean, std = row[figure], row[f"{figure}_std"]
    assert isinstance(mean, float)
    assert isinstance(std, float)
    if math.isnan(mean):
        return MISSING
    text = f"{scale * mean:.{digits}f}"
    return text if math.isnan(std) else f"{text} ± {scale * std:.{digits}f}"


def _first(metrics: Mapping[str, float]) -> dict[str, object]:
    shown = {
        name: value
        for name, value in metrics.items()
        if name in ("dice", "domain_silhouette", "trained_share")
        or (name.endswith("/dice") and name.count("/") == 1)
    }
    return {name: value for name, value in shown.items() if not math.isnan(value)}


def _scores(page: Report, scores: Sequence[CaseScores], title: str) -> None:
    if not scores:
        return
    page.section(title).table(
        score_rows(scores),
        "Native grid, mean and spread over cases where the figure is finite; failed: one of the "
        "masks alone is empty.",
    )
    _pictures(page, scores)


def _pictures(page: Report, scores: Sequence[CaseScores]) -> None:
    if shown := _shown(scores):
        page.section("Best, median, worst").figure(draw_overlays(shown), _OVERLAYS)


def _save_pictures(run: Run, scores: Sequence[CaseScores]) -> None:
    """The same as a file, for slides and papers."""
    if shown := _shown(scores):
        with write_atomic(run.output("overlays.png")) as beside:
            draw_overlays(shown).savefig(beside, dpi=150, bbox_inches="tight")


def _shown(scores: Sequence[CaseScores]) -> list[tuple[str, Picture]]:
    return [
        (f"{one.domain} {word}: {one.case}, Dice {one.dice:.2f}", one.picture)
        for word, one in picked(scores)
        if one.picture is not None
    ]


def _embedding(page: Report, points: DomainPoints | None, names: Sequence[str]) -> None:
    if points is None or len(points.points) < 2:
        return
    from cl_core.evaluation.projection import project_2d

    plane: Any = project_2d(points.points)
    silhouette = points.silhouette()
    told = "" if math.isnan(silhouette) else f" Silhouette of the domains {silhouette:.2f}."
    page.section("Embedding").block(
        scatter_2d(plane, points.domains, list(names), list(points.cases)),
        f"Patches in the shared representation at the bottleneck, by domain (PCA).{told}",
    )
