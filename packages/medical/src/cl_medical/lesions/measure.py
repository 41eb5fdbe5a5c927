"""How good a classifier is on some images: figures, intervals, operating point, subgroups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl_core.evaluation.bootstrap import bootstrap_intervals
from cl_core.evaluation.calibration import brier_score, expected_calibration_error
from cl_core.report.figures import MISSING
from cl_medical.lesions.metrics import class_scores, ranking_scores, scores
from cl_medical.lesions.thresholds import rates_at

__all__ = ["HEADLINE", "Measured", "headline_row", "measure", "spelled"]

HEADLINE = ("macro_f1", "balanced_accuracy", "auroc", "average_precision", "ece")
"""The figures that are told first."""


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        figures: Under the names of ``metrics.json``; NaN for what is undefined.
        intervals: Of some of them, lowest and highest.
    """

    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    def metrics(self) -> dict[str, float]:
        """The figures with their intervals as ``_low`` and ``_high``."""
        flat: dict[str, float] = {}
        for name, value in self.figures.items():
            flat[name] = value
            if name in self.intervals:
                flat[f"{name}_low"], flat[f"{name}_high"] = self.intervals[name]
        return flat


def measure(
    y: NDArray[np.int64],
    p: NDArray[np.floating],
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    positive: str | None = None,
    threshold: float | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> Measured:
    """Measure calibrated probabilities against the truth.

    Args:
        y: Class of each image.
        p: Calibrated probabilities.
        groups: Patient or lesion of each image, resampled as a whole.
        classes: Names; of two the second is the positive one.
        positive: The class of the operating point, if there is one.
        threshold: Of that.
        resamples: For the intervals; 0 for none.
        seed: Of the resamples.
    """
    figures = scores(y, p, classes)
    figures |= {
        "ece": expected_calibration_error(p, y),
        "brier": brier_score(p, y),
    }
    if positive is not None:
        k = list(classes).index(positive)
        for place, at in (("at_0.5", 0.5), ("at_threshold", threshold)):
            if at is not None:
                rates = rates_at(y == k, p[:, k], at)
                figures |= {f"{positive}/{place}/{name}": rate for name, rate in rates.items()}
    intervals: dict[str, tuple[float, float]] = {}
    if resamples:

        def resampled(rows: NDArray[np.int64]) -> dict[str, float]:
            drawn = y[rows], p[rows], classes
            found = class_scores(*drawn) | ranking_scores(*drawn)
            found |= {"ece": expected_calibration_error(p[rows], y[rows])}
            if positive is not None and threshold is not None:
                rates = rates_at(y[rows] == k, p[rows, k], threshold)
                found |= {f"{positive}/at_threshold/{n}": rate for n, rate in rates.items()}
            return found

        intervals = bootstrap_intervals(resampled, groups, resamples=resamples, seed=seed)
    return Measured(figures, intervals)


def spelled(measured: Measured, name: str, *, percent: bool = True, interval: bool = True) -> str:
    """Spell a figure with its interval, as ``53.4 (48.1 to 58.8)``."""
    value = measured.figures.get(name, float("nan"))
    if not np.isfinite(value):
        return MISSING
    scale, digits = (100, 1) if percent else (1, 3)
    text = f"{scale * value:.{digits}f}"
    if interval and name in measured.intervals:
        low, high = measured.intervals[name]
        text += f" ({scale * low:.{digits}f} to {scale * high:.{digits}f})"
    return text


def headline_row(
    measured: Measured, positive: str | None = None, *, interval: bool = True
) -> dict[str, object]:
    """Give the cells of a row of a table: the headline figures, and those of the positive class."""
    names = {
        "macro F1 (%)": "macro_f1",
        "balanced accuracy (%)": "balanced_accuracy",
        "AUROC (%)": "auroc",
        "average precision (%)": "average_precision",
        "ECE (%)": "ece",
    }
    if positive is not None:
        names |= {
            f"{positive} AUROC (%)": f"{positive}/auroc",
            f"{positive} AP (%)": f"{positive}/average_precision",
        }
    return {heading: spelled(measured, name, interval=interval) for heading, name in names.items()}
