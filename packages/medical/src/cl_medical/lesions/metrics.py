"""How good probabilities are: figures of classes, by scikit-learn's functions.

``macro`` is the plain mean over classes. A class without images on one side has no AUROC and no
average precision: its figure is NaN, and the mean is over the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

__all__ = ["class_scores", "confusion", "ranking_scores", "scores"]

Labels = Int[NDArray[np.int64], " n"]
Probabilities = Float[NDArray[np.floating], "n c"]


def scores(
    y: NDArray[np.int64], p: NDArray[np.floating], classes: Sequence[str]
) -> dict[str, float]:
    """Give all figures of a set of images.

    Args:
        y: Class of each image, none of them -1.
        p: Probability of each class.
        classes: Names; of two classes the second is the positive one.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``weighted_f1``, ``auroc``,
        ``average_precision``, and ``<class>/precision``, ``recall``, ``f1``, ``auroc``,
        ``average_precision``. ``auroc`` and ``average_precision`` are macro one-vs-rest, and of two
        classes those of the positive one.

    Raises:
        ValueError: If shapes do not fit or an image has no class.
    """
    _check(y, p, classes)
    return class_scores(y, p, classes) | ranking_scores(y, p, classes)


def class_scores(y: Labels, p: Probabilities, classes: Sequence[str]) -> dict[str, float]:
    """Give the figures of the most probable class: shares, precision, recall, F1.

    ``macro_f1`` is over the classes that occur in the truth or among the answers,
    ``balanced_accuracy`` the mean recall over those in the truth.
    """
    from sklearn.metrics import precision_recall_fscore_support

    answers = p.argmax(axis=1)
    names = np.arange(len(classes))
    with _quick():
        precision, recall, f1, support = precision_recall_fscore_support(
            y, answers, labels=names, zero_division=0
        )
    seen = (support > 0) | np.isin(names, answers)
    figures = {
        "accuracy": float((answers == y).mean()),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_f1": float(f1[seen].mean()),
        "weighted_f1": float((f1 * support).sum() / support.sum()),
    }
    for k, name in enumerate(classes):
        figures |= {
            f"{name}/precision": float(precision[k]),
            f"{name}/recall": float(recall[k]),
            f"{name}/f1": float(f1[k]),
        }
    return figures


def ranking_scores(y: Labels, p: Probabilities, classes: Sequence[str]) -> dict[str, float]:
    """Give the figures of the order of the probabilities: AUROC and average precision."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    auroc, precision = np.full((2, len(classes)), np.nan)
    with _quick():
        for k in range(len(classes)):
            positive = y == k
            if positive.any() and not positive.all():
                auroc[k] = roc_auc_score(positive, p[:, k])
                precision[k] = average_precision_score(positive, p[:, k])
    ranked = slice(1, 2) if len(classes) == 2 else slice(None)
    figures = {"auroc": _mean(auroc[ranked]), "average_precision": _mean(precision[ranked])}
    for k, name in enumerate(classes):
        figures |= {
            f"{name}/auroc": float(auroc[k]),
            f"{name}/average_precision": float(precision[k]),
        }
    return figures


def confusion(y: Labels, p: Probabilities, classes: Sequence[str]) -> Int[NDArray[np.int64], "c c"]:
    """Count truths (rows) against most probable classes (columns)."""
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(y, p.argmax(axis=1), labels=np.arange(len(classes))))


def _check(y: NDArray[Any], p: NDArray[Any], classes: Sequence[str]) -> None:
    if p.ndim != 2 or p.shape != (len(y), len(classes)) or not len(y):
        raise ValueError(
            f"need a class and {len(classes)} probabilities an image, got {y.shape} and {p.shape}"
        )
    if y.min() < 0 or y.max() >= len(classes):
        raise ValueError(f"classes must lie in 0 to {len(classes) - 1}, got {y.min()} to {y.max()}")
    if not np.isfinite(p).all():
        raise ValueError("probabilities must be finite, got NaN or infinity")


def _mean(values: NDArray[np.floating]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


@contextmanager
def _quick() -> Iterator[None]:
    """Checked once, not in each of a thousand resamples."""
    import sklearn

    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        yield
