"""How far a figure may be off: intervals by resampling whole groups (Efron 1979)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np

from cl_core.evaluation.labels import Array, as_array

__all__ = ["bootstrap_interval", "bootstrap_intervals"]


def bootstrap_intervals(
    statistic: Callable[[np.ndarray], Mapping[str, float]],
    groups: Array,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of several figures, resampling groups and not rows.

    Rows of one group (a patient, a lesion, a field) are not independent: drawing them one by one
    would give intervals that are too narrow. A resample draws as many groups as there are, with
    replacement, and takes all rows of each as often as it was drawn.

    Args:
        statistic: Maps row numbers of a resample (int64, with repeats) to figures by name. One
            that is NaN or missing in a resample, say for lack of a class, is left out of the
            percentiles.
        groups: Group of each row ``(n,)``, numbers or text.
        resamples: How many are drawn.
        level: Share of the resamples inside the interval.
        seed: Of the draws.

    Returns:
        Lower and upper end of each figure, in the order of first appearance; NaN where no
        resample had the figure.

    Raises:
        ValueError: If there are no rows, or an option is out of range.
    """
    names = as_array(groups)
    if names.ndim != 1 or not len(names):
        raise ValueError(f"need a group for each row, got groups of shape {names.shape}")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"resamples must be at least 1 and level between 0 and 1, got {resamples} and {level}"
        )
    unique, number = np.unique(names, return_inverse=True)
    order = np.argsort(number, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(number))[:-1])
    generator = np.random.default_rng(seed)
    seen: dict[str, list[float]] = {}
    for _ in range(resamples):
        drawn = generator.integers(len(unique), size=len(unique))
        rows = np.concatenate([rows_of[g] for g in drawn]).astype(np.int64)
        for name, value in statistic(rows).items():
            seen.setdefault(name, []).append(float(value))
    tails = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for name, values in seen.items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
            low, high = np.nanquantile(values, tails)
        intervals[name] = (float(low), float(high))
    return intervals


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    groups: Array,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of one figure; arguments and errors as :func:`bootstrap_intervals`."""
    found = bootstrap_intervals(
        lambda rows: {"it": statistic(rows)}, groups, resamples=resamples, level=level, seed=seed
    )
    return found["it"]
