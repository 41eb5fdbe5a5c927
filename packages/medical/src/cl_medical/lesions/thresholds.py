r"""Where to call an image positive: chosen on validation images, applied to others unchanged.

An image is positive if its score is at least the threshold.

- ``youden``: the largest $\mathrm{TPR} - \mathrm{FPR}$; of equals the highest threshold;
- ``f1``: the largest F1 over the scores there are; of equals the lowest;
- ``sensitivity``: the highest threshold at which at least a given share of positives is found.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

__all__ = ["OperatingPoint", "choose_threshold", "rates_at"]

OperatingPoint = Literal["youden", "f1", "sensitivity"]


def choose_threshold(
    positive: Bool[NDArray[np.bool_], " n"],
    score: Float[NDArray[np.floating], " n"],
    rule: OperatingPoint,
    *,
    sensitivity: float = 0.9,
) -> float:
    """Choose a threshold by one of the rules of the module.

    Args:
        positive: Which images are of the class.
        score: Of the class, larger for more likely.
        rule: See the module.
        sensitivity: In (0, 1], for the rule of that name.

    Returns:
        One of the scores.

    Raises:
        ValueError: If there are only positives or only negatives, or an option is out of range.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    if not positive.any() or positive.all():
        raise ValueError("a threshold needs images of the class and others to be chosen on")
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity must lie in (0, 1], got {sensitivity}")
    if rule == "f1":
        precision, recall, thresholds = precision_recall_curve(positive, score)
        # The last pair is the curve's end, of no threshold; thresholds rise, so ties go low.
        both = precision[:-1] + recall[:-1]
        f1 = np.divide(
            2 * precision[:-1] * recall[:-1], both, out=np.zeros_like(both), where=both > 0
        )
        return float(thresholds[_first_best(f1)])
    # Thresholds fall here, and the first is infinite: nothing is positive.
    fpr, tpr, thresholds = roc_curve(positive, score, drop_intermediate=False)
    if rule == "youden":
        return float(thresholds[1:][_first_best((tpr - fpr)[1:])])
    if rule == "sensitivity":
        return float(thresholds[np.flatnonzero(tpr >= sensitivity)[0]])
    raise ValueError(f"rule must be youden, f1 or sensitivity, got {rule!r}")


def _first_best(values: Float[NDArray[np.floating], " n"]) -> int:
    """The first place of the largest value; equal shares may differ in their last digit."""
    return int(np.flatnonzero(values >= values.max() - 1e-12)[0])


def rates_at(
    positive: Bool[NDArray[np.bool_], " n"],
    score: Float[NDArray[np.floating], " n"],
    threshold: float,
) -> dict[str, float]:
    """Count what a threshold does: sensitivity, specificity, precision and F1, 0 where undefined.

    Args:
        positive: Which images are of the class.
        score: Of the class.
        threshold: A score that reaches it is positive.
    """
    from sklearn.metrics import precision_recall_fscore_support, recall_score

    called = score >= threshold
    precision, recall, f1, _ = precision_recall_fscore_support(
        positive, called, average="binary", zero_division=0
    )
    return {
        "sensitivity": float(recall),
        "specificity": float(recall_score(~positive, ~called, zero_division=0)),
        "precision": float(precision),
        "f1": float(f1),
    }
