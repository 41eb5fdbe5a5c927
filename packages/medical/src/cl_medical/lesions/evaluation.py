"""What `evaluate` looks at: figures, curves, calibration, subgroups, mistakes, look-alikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cl_core.evaluation.calibration import ReliabilityBins, reliability_bins
from cl_core.images import ImageTable
from cl_medical.lesions.config import EvaluateConfig
from cl_medical.lesions.data import Lesions
from cl_medical.lesions.measure import Measured, headline_row, measure
from cl_medical.lesions.metrics import confusion
from cl_medical.lesions.model import Answers
from cl_medical.lesions.neighbours import BANK, every_nth
from cl_medical.lesions.saved import SavedRun, answers_of
from cl_medical.lesions.subgroups import default_subgroups, subgroup_rows

__all__ = ["Evaluation", "Mistakes", "evaluate_model", "find_mistakes", "look_alikes"]

SUBGROUP_RESAMPLES = 200
"""Resamples of a subgroup's intervals; there are many of them."""

ALIKE = 5
"""Look-alikes shown of an image."""


@dataclass(frozen=True)
class Mistakes:
    """Images that were called wrongly, by row of the table.

    Attributes:
        surest: Wrong with the highest probability of the wrong class.
        unlikeliest: Those whose true class was given the lowest probability.
        missed: Of the positive class, below the threshold, lowest first.
    """

    surest: list[int]
    unlikeliest: list[int]
    missed: list[int]


@dataclass(frozen=True)
class Evaluation:
    """Everything a report of `evaluate` shows.

    Attributes:
        table: The images.
        answers: What the model said.
        p: Calibrated probabilities.
        measured: Figures and intervals.
        counts: Confusion, truth in rows.
        reliability: Before and after calibration.
        subgroups: A row a subgroup.
        mistakes: Wrong answers.
        alike: For some images, rows of the most similar training images and their similarity.
        bank: The training images.
    """

    table: ImageTable
    answers: Answers
    p: Float[NDArray[np.float64], "n c"]
    measured: Measured
    counts: Int[NDArray[np.int64], "c c"]
    reliability: dict[str, ReliabilityBins]
    subgroups: list[dict[str, object]]
    mistakes: Mistakes
    alike: dict[int, list[tuple[int, float]]]
    bank: ImageTable | None


def evaluate_model(config: EvaluateConfig, saved: SavedRun, test: Lesions) -> Evaluation:
    """Measure a model on images.

    Args:
        config: Of the command.
        saved: The run.
        test: The images, labelled.

    Raises:
        InputError: If there is no label, or no column of a subgroup.
    """
    table, model = test.table, saved.model
    table.require_classes(1)
    answers = answers_of(model, test, batch_size=config.batch_size, workers=config.workers)
    y, classes, groups = table.labels, model.classes, test.groups
    positive = model.card.positive
    p = model.probabilities(answers.logits).numpy()
    measured = measure(
        y,
        p,
        groups,
        classes,
        positive=positive,
        threshold=saved.threshold,
        resamples=config.resamples,
        seed=config.seed,
    )

    def cells(rows: NDArray[np.int64], with_interval: bool) -> dict[str, object]:
        own = measure(
            y[rows],
            p[rows],
            [groups[row] for row in rows.tolist()],
            classes,
            positive=positive,
            threshold=saved.threshold,
            resamples=min(config.resamples, SUBGROUP_RESAMPLES) if with_interval else 0,
            seed=config.seed,
        )
        return headline_row(own, positive)

    columns = default_subgroups(table) if config.subgroups is None else config.subgroups
    mistakes = find_mistakes(
        y, p, classes, positive=positive, threshold=saved.threshold, count=config.pictures
    )
    bank, alike = _look_alikes(config, saved, answers, mistakes.surest[: config.pictures // 2])
    return Evaluation(
        table=table,
        answers=answers,
        p=p,
        measured=measured,
        counts=confusion(y, p, classes),
        reliability={
            "before calibration": reliability_bins(
                torch.softmax(answers.logits.double(), dim=1).numpy(), y
            ),
            f"after, temperature {model.card.temperature:.2f}": reliability_bins(p, y),
        },
        subgroups=subgroup_rows(table, columns, cells, fewest=config.fewest),
        mistakes=mistakes,
        alike=alike,
        bank=bank,
    )


def look_alikes(
    queries: Float[Tensor, "n d"], bank: Float[Tensor, "m d"], count: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Find the most similar rows of a bank: cosines, falling, and their places."""
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    best = similarity.topk(min(count, len(bank)), dim=1)
    return best.values, best.indices


def find_mistakes(
    y: NDArray[np.int64],
    p: NDArray[np.floating],
    classes: Sequence[str],
    *,
    positive: str | None,
    threshold: float | None,
    count: int,
) -> Mistakes:
    """Pick the wrong answers to look at; rows of the images."""
    answers, rows = p.argmax(axis=1), np.arange(len(y))
    wrong = rows[answers != y]
    surest = wrong[np.argsort(-p[wrong, answers[wrong]], kind="stable")]
    unlikeliest = wrong[np.argsort(p[wrong, y[wrong]], kind="stable")]
    missed = np.empty(0, dtype=np.int64)
    if positive is not None and threshold is not None:
        k = list(classes).index(positive)
        lost = rows[(y == k) & (p[:, k] < threshold)]
        missed = lost[np.argsort(p[lost, k], kind="stable")]
    return Mistakes(*(part[:count].tolist() for part in (surest, unlikeliest, missed)))


def _look_alikes(
    config: EvaluateConfig, saved: SavedRun, answers: Answers, rows: Sequence[int]
) -> tuple[ImageTable | None, dict[int, list[tuple[int, float]]]]:
    """For some images, the training images they resemble most."""
    if not rows or not (saved.path / "lesions.csv").is_file():
        return None, {}
    train = every_nth(saved.images("train"), BANK)
    bank = answers_of(saved.model, train, batch_size=config.batch_size, workers=config.workers)
    cosine, place = look_alikes(answers.features[list(rows)], bank.features, ALIKE)
    pairs = zip(rows, place.tolist(), cosine.tolist(), strict=True)
    return train.table, {row: list(zip(own, near, strict=True)) for row, own, near in pairs}
