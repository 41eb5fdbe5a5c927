"""How few labels suffice: the semi-supervised protocol (Chen et al. 2020, SimCLR, Sec. 6).

A classifier is trained on 1 % or 10 % of the labels, drawn from each class, and tested on the
whole test set. The small draws differ much, so several are taken and their spread is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cl_core.evaluation.labels import Array, as_array, is_labelled
from cl_core.evaluation.linear import logistic_accuracy

__all__ = ["FractionResult", "fraction_protocol", "fraction_rows", "logistic_fractions"]


@dataclass(frozen=True)
class FractionResult:
    """Test accuracy from a fraction of the labels; the spread is a population deviation.

    Args:
        fraction: Share of the labelled rows asked for.
        rows: How many were trained on; more than the share where classes are small.
        accuracy: Mean over the draws, 0 to 1.
        accuracy_std: Spread over the draws (and what else the seeds decide).
        accuracies: Of each seed.
    """

    fraction: float
    rows: int
    accuracy: float
    accuracy_std: float
    accuracies: tuple[float, ...]

    def metrics(self) -> dict[str, float]:
        """The figures as ``metrics.json`` names them, ``fraction_0.01/accuracy`` and so on."""
        names = ("accuracy", "accuracy_std", "rows")
        return {f"fraction_{self.fraction:g}/{name}": getattr(self, name) for name in names}


def fraction_rows(y: Array, fraction: float, *, seed: int) -> np.ndarray:
    """Draw a share of the rows of each class, at least one row of each.

    With the same seed a smaller fraction is part of a larger one.

    Args:
        y: Labels ``(n,)``; rows labelled -1 or NaN are never drawn.
        fraction: In (0, 1]; a class's share is rounded to the nearest row.
        seed: Of the draw.

    Returns:
        Row numbers in ascending order.

    Raises:
        ValueError: If the fraction is out of range or nothing is labelled.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction}")
    labels = as_array(y)
    labelled = is_labelled(labels)
    if not labelled.any():
        raise ValueError("no row is labelled: nothing to draw from")
    rng = np.random.default_rng(seed)
    drawn = []
    for name in np.unique(labels[labelled]):
        rows = rng.permutation(np.flatnonzero(labels == name))
        drawn.append(rows[: max(1, round(fraction * len(rows)))])
    return np.sort(np.concatenate(drawn))


def fraction_protocol(
    y: Array,
    measure: Callable[[np.ndarray, int], float],
    *,
    fractions: Sequence[float] = (0.01, 0.1),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
) -> list[FractionResult]:
    """Train on fractions of the labels, with several draws of each.

    Args:
        y: Labels of the training rows ``(n,)``.
        measure: Trains on the rows it is given, with the seed it is given, and returns the test
            accuracy, 0 to 1; for example by :func:`~cl_core.evaluation.fine_tune`.
        fractions: Of the labelled rows; see :func:`fraction_rows`.
        seeds: One draw each, the same for every encoder that is compared.

    Returns:
        A result a fraction.

    Raises:
        ValueError: As :func:`fraction_rows`, or if there is no seed.
    """
    if not seeds:
        raise ValueError("need at least one seed")
    results = []
    for fraction in fractions:
        draws = [fraction_rows(y, fraction, seed=seed) for seed in seeds]
        scores = [measure(rows, seed) for rows, seed in zip(draws, seeds, strict=True)]
        results.append(
            FractionResult(
                fraction=fraction,
                rows=len(draws[0]),
                accuracy=float(np.mean(scores)),
                accuracy_std=float(np.std(scores)),
                accuracies=tuple(scores),
            )
        )
    return results


def logistic_fractions(
    x: Array,
    y: Array,
    x_test: Array,
    y_test: Array,
    *,
    fractions: Sequence[float] = (0.01, 0.1),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    cs: Sequence[float] = (1.0,),
    normalize: bool = True,
) -> list[FractionResult]:
    """The protocol on frozen features, with logistic regression.

    Args:
        x: Training features ``(n, d)``.
        y: Their labels ``(n,)``.
        x_test: Test features ``(m, d)``.
        y_test: Their labels.
        fractions: As in :func:`fraction_protocol`.
        seeds: As in :func:`fraction_protocol`.
        cs: Values of $C$ to choose from by cross-validation on the fraction. The default chooses
            nothing: a row a class leaves nothing to validate on.
        normalize: Scale rows to unit length first.

    Raises:
        ValueError: As :func:`fraction_rows` and :func:`~cl_core.evaluation.logistic_accuracy`.
    """
    features, labels = as_array(x), as_array(y)

    def measure(rows: np.ndarray, seed: int) -> float:
        return logistic_accuracy(
            features[rows], labels[rows], x_test, y_test, cs=cs, normalize=normalize, seed=seed
        )

    return fraction_protocol(labels, measure, fractions=fractions, seeds=seeds)
