"""How good the representation of stage 1 is while it trains: the nearest neighbours' answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from cl_core.evaluation.knn import knn_predict
from cl_core.training.online import OnlineEvaluation
from cl_medical.lesions.data import Lesions

__all__ = ["BANK", "KNN", "every_nth", "watch_neighbours"]

BANK = 20_000
"""Training images that vote, or among which look-alikes are searched; more change little."""

KNN = "val/knn_macro_f1"


def watch_neighbours(
    bank: DataLoader[Any],
    val: DataLoader[Any],
    *,
    num_classes: int,
    neighbours: int,
    every: int,
) -> OnlineEvaluation:
    """Measure macro F1 of the validation images by their nearest training images.

    Args:
        bank: Training images that vote.
        val: Validation images.
        num_classes: Of both.
        neighbours: That vote on an image.
        every: Epochs between two figures.
    """
    from torchmetrics.functional.classification import multiclass_f1_score

    def macro_f1(x: Tensor, y: Tensor, x_test: Tensor | None, y_test: Tensor | None) -> float:
        assert x_test is not None
        assert y_test is not None
        answers = knn_predict(x_test, x, y, k=neighbours)
        return float(multiclass_f1_score(answers, y_test, num_classes=num_classes, average="macro"))

    return OnlineEvaluation(bank, val, measures={KNN: macro_f1}, every=every)


def every_nth(lesions: Lesions, most: int) -> Lesions:
    """Give at most so many images, evenly spaced in their table."""
    rows = np.arange(len(lesions.table))[:: max(1, -(-len(lesions.table) // most))]
    return replace(lesions, table=lesions.table.select(rows))
