r"""Whether probabilities mean what they say, and the one number that mends them.

- Temperature scaling (Guo et al. 2017, arXiv 1706.04599): $p = \mathrm{softmax}(u / T)$ with the
  $T > 0$ of least negative log-likelihood on validation images. No answer changes, and of two
  classes no order either.
- Expected calibration error: over $M$ bins $(l, h]$ of the largest probability,
  $\sum_b \frac{n_b}{n} |\mathrm{accuracy}_b - \mathrm{confidence}_b|$.
- Brier score: the mean of $\sum_c (p_c - [y = c])^2$.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Reliability",
    "brier_score",
    "expected_calibration_error",
    "fit_temperature",
    "reliability_bins",
]

_LOG_RANGE = 3.0  # |log T| of the search
_STEPS = 60  # of the golden section: the range shrinks to 1e-12 of it


class Reliability(NamedTuple):
    """What happened in each bin of the largest probability.

    Attributes:
        confidence: Mean probability; NaN in an empty bin.
        accuracy: Share that was right; NaN in an empty bin.
        images: How many.
    """

    confidence: Float[NDArray[np.float64], " m"]
    accuracy: Float[NDArray[np.float64], " m"]
    images: Int[NDArray[np.int64], " m"]


def fit_temperature(logits: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> float:
    r"""Find the temperature of least negative log-likelihood, $\log T$ in [-3, 3].

    The likelihood has one minimum in $1 / T$, so a golden-section search finds it.

    Raises:
        ValueError: If there is no image.
    """
    if not len(y):
        raise ValueError("a temperature needs images to be fitted on")
    wide = logits.detach().double()

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(wide / float(np.exp(log_t)), y))

    ratio = (5**0.5 - 1) / 2
    low, high = -_LOG_RANGE, _LOG_RANGE
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    f_left, f_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if f_left <= f_right:
            high, right, f_right = right, left, f_left
            left = high - ratio * (high - low)
            f_left = loss(left)
        else:
            low, left, f_left = left, right, f_right
            right = low + ratio * (high - low)
            f_right = loss(right)
    return float(np.exp((low + high) / 2))


def reliability_bins(
    p: Float[NDArray[np.floating], "n c"], y: Int[NDArray[np.int64], " n"], *, bins: int = 15
) -> Reliability:
    """Sort images into equal-width bins ``(low, high]`` of their largest probability.

    Args:
        p: Probabilities.
        y: Classes.
        bins: $M$.
    """
    top = p.max(axis=1)
    right = (p.argmax(axis=1) == y).astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, top, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, weights=top, minlength=bins) / count
        accuracy = np.bincount(place, weights=right, minlength=bins) / count
    return Reliability(confidence, accuracy, count)


def expected_calibration_error(
    p: Float[NDArray[np.floating], "n c"], y: Int[NDArray[np.int64], " n"], *, bins: int = 15
) -> float:
    """Average the gap between confidence and accuracy over the bins, by their images."""
    found = reliability_bins(p, y, bins=bins)
    held = found.images > 0
    gap = np.abs(found.accuracy[held] - found.confidence[held])
    return float((gap * found.images[held]).sum() / found.images.sum())


def brier_score(p: Float[NDArray[np.floating], "n c"], y: Int[NDArray[np.int64], " n"]) -> float:
    """Average the squared distance of the probabilities from the truth; 0 to 2."""
    truth = np.eye(p.shape[1])[y]
    return float(((p - truth) ** 2).sum(axis=1).mean())
