r"""Whether a classifier's probabilities mean what they say (Guo et al. 2017, arXiv 1706.04599).

With $p_{ic}$ the probabilities of row $i$, its confidence is $\max_c p_{ic}$. Rows are put into
bins of equal width by confidence, bin $b$ of $B$ holding those in $((b - 1) / B, b / B]$.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cl_core.evaluation.labels import Array, as_array, is_labelled

__all__ = [
    "ReliabilityBins",
    "brier_score",
    "expected_calibration_error",
    "fit_temperature",
    "reliability_bins",
]

_LOG_RANGE = 3.0  # of the temperature


class ReliabilityBins(NamedTuple):
    """What a reliability diagram draws; means are NaN in empty bins.

    Attributes:
        edges: Borders of the bins ``(bins + 1,)``, from 0 to 1.
        confidence: Mean confidence of a bin's rows ``(bins,)``.
        accuracy: Share of them whose most probable class is theirs.
        size: How many they are.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    size: np.ndarray


def reliability_bins(p: Array, y: Array, bins: int = 15) -> ReliabilityBins:
    """Compare confidence with accuracy, bin by bin.

    Args:
        p: Probabilities ``(n, c)``, each row summing to 1.
        y: Classes ``(n,)``, ``0 .. c-1``; rows labelled -1 or NaN are left out.
        bins: Bins of equal width.

    Raises:
        ValueError: If shapes do not fit, a row is no distribution, a label is no class, or nothing
            is labelled.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    p, y = _probabilities(p, y)
    edges = np.linspace(0, 1, bins + 1)
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == y
    # The right border belongs to the bin; a confidence is never 0.
    place = (np.searchsorted(edges, confidence, side="left") - 1).clip(0, bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.where(count > 0, count, np.nan)
    return ReliabilityBins(
        edges,
        np.bincount(place, confidence, minlength=bins) / some,
        np.bincount(place, right, minlength=bins) / some,
        count,
    )


def expected_calibration_error(p: Array, y: Array, bins: int = 15) -> float:
    """Mean distance of accuracy and confidence of the bins, weighted by their rows (ECE).

    Arguments and errors are those of :func:`reliability_bins`. 0 is perfect, 1 the worst.
    """
    found = reliability_bins(p, y, bins)
    apart = np.abs(found.accuracy - found.confidence)
    return float(np.nansum(apart * found.size) / found.size.sum())


def brier_score(p: Array, y: Array) -> float:
    r"""Mean over the rows of $\sum_c (p_{ic} - [y_i = c])^2$, from 0 to 2 (Brier 1950).

    Arguments and errors are those of :func:`reliability_bins`. For two classes it is twice the
    mean of $(p - y)^2$ of the positive class.
    """
    p, y = _probabilities(p, y)
    return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1).mean())


def fit_temperature(logits: Array, y: Array) -> float:
    r"""Return the temperature $T$ by which to divide logits: the one of least cross-entropy.

    It is sought in $|\log T| \le 3$. Dividing changes no row's most probable class.

    Args:
        logits: Of rows not trained on, ``(n, c)``, any finite numbers.
        y: Classes ``(n,)``, ``0 .. c-1``; rows labelled -1 or NaN are left out.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, a label is no class, or nothing is
            labelled.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    rows, y = _labelled(logits, y, "logits")
    own = np.arange(len(y)), y
    apart = rows - rows[own][:, None]
    apart[own] = -np.inf

    def cross_entropy(log_t: float) -> float:
        beta = math.exp(-log_t)
        return float(np.logaddexp(0, logsumexp(beta * apart, axis=1)).mean())

    # Convex in 1 / T, so that there is one minimum in log T.
    found = minimize_scalar(
        cross_entropy,
        bounds=(-_LOG_RANGE, _LOG_RANGE),
        method="bounded",
        options={"xatol": 1e-9, "maxiter": 500},
    )
    return math.exp(float(found.x))


def _labelled(x: Array, y: Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = as_array(x).astype(np.float64), as_array(y)
    if rows.ndim != 2 or labels.shape != rows.shape[:1]:
        raise ValueError(
            f"need {name} (n, c) and one label each, got {rows.shape} and labels {labels.shape}"
        )
    known = is_labelled(labels)
    if not known.any():
        raise ValueError("no row is labelled: nothing to measure")
    rows, labels = rows[known], labels[known].astype(np.int64)
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if labels.min() < 0 or labels.max() >= rows.shape[1]:
        raise ValueError(
            f"labels must be classes 0 to {rows.shape[1] - 1}, got {labels.min()} to {labels.max()}"
        )
    return rows, labels


def _probabilities(p: Array, y: Array) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = _labelled(p, y, "probabilities")
    if rows.min() < 0 or np.abs(rows.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("probabilities must not be negative and each row must sum to 1")
    return rows, labels
