"""What a training or an evaluation leaves: tables, figures, a report."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from cl_core.runs import Run, write_atomic
from cl_medical.segmentation import pages
from cl_medical.segmentation.manifest import Manifest
from cl_medical.segmentation.scoring import CaseScores
from cl_medical.segmentation.single import Trained
from cl_medical.segmentation.summaries import summary_rows, write_cases, write_summary

__all__ = ["finish_training", "shown_rows", "write_tables"]


def finish_training(run: Run, trained: Trained, title: str, manifest: Manifest) -> None:
    """Write the tables, the figures and the report of a training."""
    metrics = trained.metrics()
    if run.writes:
        write_tables(run, trained.scores)
        pages.training_page(
            run,
            title,
            metrics,
            trained.history,
            trained.scores,
            trained.points,
            manifest.names
            if trained.model is None
            else [domain.name for domain in trained.model.card.domains],
            trained.notes,
        )
    run.save_metrics(metrics, seconds=trained.seconds)


def write_tables(run: Run, scores: Sequence[CaseScores]) -> None:
    """A row a case and structure; a row a structure, as table and as JSON."""
    write_cases(run.output("cases.csv"), scores)
    rows = summary_rows(scores)
    write_summary(run.output("summary.csv"), rows)
    plain = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    with write_atomic(run.output("summary.json")) as beside:
        beside.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", "utf-8")


def shown_rows(scores: Sequence[CaseScores]) -> list[dict[str, object]]:
    """The rows of a table for the terminal."""
    return pages.score_rows(scores) if scores else []
