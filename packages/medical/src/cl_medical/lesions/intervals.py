"""How sure a figure is: the bootstrap over patients or lesions, never over single images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap_intervals"]


def bootstrap_intervals(
    statistic: Callable[[NDArray[np.int64]], Mapping[str, float]],
    groups: Sequence[str],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Resample whole groups with replacement and take percentiles of each figure.

    Args:
        statistic: Figures of some rows, which may repeat; NaN for one that is undefined there.
        groups: The group of each row.
        resamples: How many.
        level: Of the interval.
        seed: Of the draws.

    Returns:
        The lowest and highest of each figure; a figure undefined in more than half of the
        resamples has none.

    Raises:
        ValueError: If there is no row, or an option is out of range.
    """
    if not len(groups) or resamples < 2 or not 0 < level < 1:
        raise ValueError(
            f"need rows, 2 resamples and a level in (0, 1), got {len(groups)}, {resamples}, {level}"
        )
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(number, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    generator = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(resamples):
        drawn = generator.integers(len(members), size=len(members))
        for name, value in statistic(np.concatenate([members[k] for k in drawn])).items():
            found.setdefault(name, []).append(value)
    tails = (100 * (1 - level) / 2, 100 * (1 + level) / 2)
    intervals = {}
    for name, values in found.items():
        finite = np.asarray(values)[np.isfinite(values)]
        if 2 * len(finite) > resamples:
            low, high = np.percentile(finite, tails)
            intervals[name] = (float(low), float(high))
    return intervals
