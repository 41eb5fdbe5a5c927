"""What a user does with both halves of the package at once."""

from __future__ import annotations

from collections.abc import Mapping

from cl_core.commands.outcome import Outcome, text_table
from cl_core.report import Report
from cl_core.runs import Run
from cl_medical.config import DemoConfig

__all__ = ["demo"]

_SHOWN = {
    "macro F1 (%)": "macro_f1",
    "balanced accuracy (%)": "balanced_accuracy",
    "AUROC (%)": "auroc",
    "melanoma AUROC (%)": "melanoma/auroc",
    "melanoma AP (%)": "melanoma/average_precision",
}


def demo(config: DemoConfig) -> Outcome:
    """Classify drawn lesions, segment phantoms of joints, and write one page about both.

    Returns:
        The figures of both demos, under ``lesions/`` and ``segment/``.
    """
    from cl_medical.lesions import config as lesions
    from cl_medical.lesions import pipeline as of_lesions
    from cl_medical.lesions.pages import NOTICE
    from cl_medical.segmentation import config as segmentation
    from cl_medical.segmentation import pipeline as of_segmentation
    from cl_medical.segmentation.pages import score_rows
    from cl_medical.segmentation.summaries import read_case_scores

    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        run.begun()  # what follows are runs of their own
        seed, trainer = config.seed, config.trainer
        first = of_lesions.demo(
            lesions.DemoConfig(out=run.output("lesions"), seed=seed, trainer=trainer)
        )
        second = of_segmentation.demo(
            segmentation.DemoConfig(out=run.output("segment"), seed=seed, trainer=trainer)
        )
        rows = _method_rows(first.metrics)
        joints = score_rows(
            [
                score
                for part in ("train", "extend")
                for score in read_case_scores(second.out / part / "evaluate" / "cases.csv")
            ]
        )
        page = Report("Medical images", "Drawn lesions and phantoms of joints")
        page.section("Not for diagnosis").text(NOTICE)
        page.section("Lesions").table(
            rows, "Test pictures. They are drawn by code and show nothing of medicine."
        ).text(_places("lesions", first))
        page.section("Joints").table(
            joints, "Test cases of three joints, and of the fourth that was learned later."
        ).text(_places("segment", second))
        page.section("Options").configuration(run.config)
        page.save(run.output("report.html"))
        metrics = {f"lesions/{name}": value for name, value in first.metrics.items()}
        metrics |= {f"segment/{name}": value for name, value in second.metrics.items()}
        run.save_metrics(metrics)
    lines = [*text_table(rows), "", *second.lines, NOTICE]
    return Outcome(out=run.path, metrics=metrics, lines=lines)


def _method_rows(metrics: Mapping[str, float]) -> list[dict[str, object]]:
    methods = dict.fromkeys(name.partition("/")[0] for name in metrics)
    return [
        dict[str, object](method=method)
        | {head: f"{100 * metrics[f'{method}/{name}']:.1f}" for head, name in _SHOWN.items()}
        for method in methods
    ]


def _places(folder: str, found: Outcome) -> str:
    return "\n\n".join(f"{folder}/{name}" for name in found.files)
