"""How much a linear classifier reads off frozen embeddings: the protocol of GRACE and ARIEL.

Rows at unit length, random splits with a tenth of the rows to learn from, one-vs-rest logistic
regression whose penalty is chosen on the training part alone (Zhu et al. 2020, arXiv 2006.04131).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cl_core.evaluation.labels import Array
from cl_core.evaluation.probe import C_GRID, fit_logistic, probe_rows, random_splits

__all__ = ["ProbeResult", "logistic_probe"]


@dataclass(frozen=True)
class ProbeResult:
    """Scores over the random splits; spreads are population standard deviations.

    The spread is that of the splits only. It says nothing about training seeds.

    Args:
        accuracy: Mean share of test rows classified correctly, 0 to 1.
        accuracy_std: Its spread over the splits.
        accuracies: Accuracy of each split.
        macro_f1: Mean over splits of the F1 averaged over classes.
        macro_f1_std: Its spread over the splits.
        cs: The $C$ chosen in each split.
    """

    accuracy: float
    accuracy_std: float
    accuracies: tuple[float, ...]
    macro_f1: float
    macro_f1_std: float
    cs: tuple[float, ...]

    def metrics(self) -> dict[str, float]:
        """The figures under the names that ``metrics.json`` uses everywhere."""
        names = ("accuracy", "accuracy_std", "macro_f1", "macro_f1_std")
        return {name: getattr(self, name) for name in names}


def logistic_probe(
    x: Array,
    y: Array,
    *,
    splits: int = 20,
    train_fraction: float = 0.1,
    seed: int = 0,
    stratified: bool = False,
    cs: Sequence[float] = C_GRID,
    folds: int = 5,
    normalize: bool = True,
    selection: Literal["subset", "argmax"] = "subset",
) -> ProbeResult:
    """Measure embeddings by logistic regression on random splits.

    Split ``i`` is the same for every ``x`` with the same labels and seed, whatever ``splits`` is,
    so that two encoders are compared on the same rows.

    Args:
        x: Embeddings ``(n, d)``, array or tensor on any device.
        y: Labels ``(n,)``; rows labelled -1 or NaN are left out.
        splits: Number of random splits.
        train_fraction: Share of the rows a split trains on, in (0, 1); rounded down.
        seed: Seed of the splits.
        stratified: Draw the share from every class (at least one row) instead of from all rows.
        cs: Values of $C$ to choose from, on the training part alone.
        folds: Folds of that choice.
        normalize: Scale rows to unit length first, as the protocol does.
        selection: What the folds count, see :func:`fit_logistic`.

    Returns:
        Mean, spread and single scores.

    Raises:
        ValueError: If ``x`` and ``y`` do not fit, hold fewer than two classes or non-finite rows,
            or if an option is out of range.
    """
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}")
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction must lie between 0 and 1, got {train_fraction}")
    rows, labels = probe_rows(x, y, normalize=normalize)
    accuracies, f1s, chosen = [], [], []
    for train, test in random_splits(
        labels, splits=splits, train_fraction=train_fraction, seed=seed, stratified=stratified
    ):
        model = fit_logistic(
            rows, labels, train, cs=cs, folds=folds, normalize=False, selection=selection
        )
        predicted = model.predict(rows[test])
        accuracies.append(float((predicted == labels[test]).mean()))
        f1s.append(_macro_f1(labels[test], predicted))
        chosen.append(model.c)
    return ProbeResult(
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        accuracies=tuple(accuracies),
        macro_f1=float(np.mean(f1s)),
        macro_f1_std=float(np.std(f1s)),
        cs=tuple(chosen),
    )


def _macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """F1 averaged over the classes that occur in either; 0 where a class is never hit."""
    names = np.union1d(truth, predicted)
    hit = [np.sum((truth == name) & (predicted == name)) for name in names]
    size = [np.sum(truth == name) + np.sum(predicted == name) for name in names]
    return float(np.mean(2 * np.array(hit) / np.array(size)))
