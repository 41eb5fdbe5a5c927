"""One-vs-rest logistic regression on frozen embeddings, as GRACE and ARIEL are measured by.

Zhu et al. 2020 (GRACE) and Feng et al. 2022 (ARIEL) report the accuracy of one-vs-rest logistic
regression on random splits, with $C$ chosen on the training part. This module follows their
released evaluation to the letter, quirks included, and solves the same convex problems to their
optimum instead of to liblinear's default tolerance, in about a tenth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cl_core.evaluation.labels import Array, as_array, is_labelled
from cl_core.evaluation.logistic import row_space, solve_logistic, threads_for

__all__ = [
    "C_GRID",
    "LogisticModel",
    "fit_logistic",
    "probe_rows",
    "random_splits",
]

#: The grid of the protocol, $2^{-10}, \\dots, 2^9$.
C_GRID: tuple[float, ...] = tuple(2.0**power for power in range(-10, 10))


@dataclass(frozen=True)
class LogisticModel:
    """One-vs-rest logistic regression, as :func:`fit_logistic` returns it.

    Args:
        weight: ``(k, d)``, a row a class.
        bias: ``(k,)``; infinite for a class that no (or every) training row had.
        classes: ``(k,)`` labels in ascending order.
        c: The inverse penalty chosen.
        normalize: Whether rows are scaled to unit length before they are classified.
    """

    weight: Tensor
    bias: Tensor
    classes: np.ndarray
    c: float
    normalize: bool

    def predict_proba(self, x: Array) -> np.ndarray:
        """Probability of each class against the rest, ``(n, k)``; rows need not sum to one."""
        rows = _rows(x, self.normalize)
        parts = [part.to(torch.float64) @ self.weight.T for part in torch.split(rows, 16_384)]
        return torch.sigmoid(torch.cat(parts) + self.bias).numpy()

    def predict(self, x: Array) -> np.ndarray:
        """Label of the most probable class, ``(n,)``; the first of equals."""
        return np.asarray(self.classes[self.predict_proba(x).argmax(axis=1)])


def fit_logistic(
    x: Array,
    y: Array,
    train: Array | None = None,
    *,
    cs: Sequence[float] = C_GRID,
    folds: int = 5,
    normalize: bool = True,
    selection: Literal["subset", "argmax"] = "subset",
) -> LogisticModel:
    r"""Fit one-vs-rest logistic regression, with $C$ chosen by cross-validation.

    Equals scikit-learn's ``GridSearchCV(OneVsRestClassifier(LogisticRegression(
    solver="liblinear")), cv=folds)`` on one-hot labels, solved to the optimum. With one-hot labels
    scikit-learn takes consecutive rows as folds, unshuffled, and counts a row as right only if
    *every* class is decided rightly, at probability 1/2 (``selection="subset"``, the published
    protocol). ``"argmax"`` counts the most probable class instead, which is what is reported in the
    end. Of equal $C$ the first is taken. A class that no training row has gets probability 0.

    Args:
        x: Embeddings ``(n, d)``.
        y: Labels ``(n,)``; rows labelled -1 or NaN are left out.
        train: Rows to fit on, as indices or a boolean mask; all by default. Their order decides
            the folds.
        cs: Values of $C$ to choose from; a single one is taken without cross-validation.
        folds: Number of folds; at most as many as training rows.
        normalize: Scale rows to unit length, here and whenever the model is applied.
        selection: What the folds count.

    Returns:
        The model, refitted on all training rows with the chosen $C$.

    Raises:
        ValueError: If ``x`` and ``y`` do not fit, hold fewer than two classes or non-finite rows,
            or if an option is out of range.
    """
    rows, labels = probe_rows(x, y, normalize=normalize)
    index = np.arange(len(labels)) if train is None else _indices(train, len(labels))
    index = index[is_labelled(labels[index])]
    return _fit(rows, labels, index, cs, folds, normalize=normalize, selection=selection)


def _fit(
    rows: Tensor,
    labels: np.ndarray,
    train: np.ndarray,
    cs: Sequence[float],
    folds: int,
    *,
    normalize: bool,
    selection: str,
) -> LogisticModel:
    if selection not in ("subset", "argmax"):
        raise ValueError(f'selection must be "subset" or "argmax", got {selection!r}')
    if not cs:
        raise ValueError("cs must hold at least one value")
    classes = np.unique(labels[is_labelled(labels)])  # of all rows, so that no class goes unnamed
    if len(train) < 2:
        raise ValueError(f"need at least 2 labelled training rows, got {len(train)}")
    x = rows[torch.from_numpy(train)].to(torch.float64)
    one_hot = torch.from_numpy(labels[train][:, None] == classes)
    with threads_for(one_hot.numel() * len(cs)):
        basis = row_space(x)  # once for all folds
        z = x if basis is None else x @ basis
        c = cs[0] if len(cs) == 1 else _choose_c(z, one_hot, cs, folds, selection)
        weight, bias = _solve(z, one_hot, [c])
        weight = weight[0] if basis is None else weight[0] @ basis.T
    return LogisticModel(weight, bias[0], classes, float(c), normalize)


def _choose_c(z: Tensor, one_hot: Tensor, cs: Sequence[float], folds: int, selection: str) -> float:
    """The C with the best mean score over consecutive folds; the first of equals."""
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    scores = []
    for held_out in torch.tensor_split(torch.arange(len(z)), min(folds, len(z))):
        fitted = torch.ones(len(z), dtype=torch.bool)
        fitted[held_out] = False
        weight, bias = _solve(z[fitted], one_hot[fitted], cs)
        margin = torch.einsum("nd,ckd->cnk", z[held_out], weight) + bias[:, None, :]
        truth = one_hot[held_out]
        if selection == "subset":
            right = ((margin > 0) == truth).all(dim=2)
        else:
            right = margin.argmax(dim=2) == truth.to(torch.int8).argmax(dim=1)
        scores.append(right.to(torch.float64).mean(dim=1))
    return float(cs[int(torch.stack(scores, dim=1).numpy().mean(axis=1).argmax())])


def _solve(z: Tensor, one_hot: Tensor, cs: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Weights ``(c, k, d)`` and biases ``(c, k)`` for every C and class."""
    count = one_hot.sum(dim=0)
    varies = (count > 0) & (count < len(one_hot))
    grid, k = torch.tensor(cs, dtype=torch.float64), int(varies.sum())
    weight = z.new_zeros(len(grid), one_hot.shape[1], z.shape[1])
    bias = torch.where(count > 0, torch.inf, -torch.inf).to(z.dtype).repeat(len(grid), 1)
    if k:
        targets = one_hot[:, varies].repeat(1, len(grid))
        w, b = solve_logistic(z, targets, grid.repeat_interleave(k))
        weight[:, varies], bias[:, varies] = w.T.reshape(len(grid), k, -1), b.reshape(-1, k)
    return weight, bias


def random_splits(
    labels: Array,
    *,
    splits: int,
    train_fraction: float,
    seed: int,
    stratified: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows that :func:`logistic_probe` trains and tests on.

    Args:
        labels: ``(n,)``; rows labelled -1 or NaN are in neither part.
        splits: Number of random splits.
        train_fraction: Share of the labelled rows that is trained on, rounded down.
        seed: Seed of the splits.
        stratified: Draw the share from every class, at least one row of each.

    Raises:
        ValueError: If a part would be empty, or the training part a single row.

    Yields:
        Row numbers of the two parts, each in random order: folds are taken in that order.
    """
    labels = as_array(labels)
    labelled = np.flatnonzero(is_labelled(labels))
    n = len(labelled)
    if not stratified:
        from sklearn.model_selection import ShuffleSplit

        if n - math.ceil((1 - train_fraction) * n) < 2:
            raise ValueError(
                f"train_fraction {train_fraction} of {n} labelled rows is less than 2 training "
                "rows; raise it or label more"
            )
        draw = ShuffleSplit(splits, test_size=1 - train_fraction, random_state=seed)
        for train, test in draw.split(labelled):
            yield labelled[train], labelled[test]
        return
    rng = np.random.RandomState(seed)
    groups = [np.flatnonzero(labels == name) for name in np.unique(labels[labelled])]
    for _ in range(splits):
        members = [rng.permutation(rows) for rows in groups]
        sizes = [max(1, int(train_fraction * len(rows))) for rows in members]
        if sum(sizes) == n:
            raise ValueError("every class has a single row: a stratified split has no test part")
        parts = [np.split(rows, [size]) for rows, size in zip(members, sizes, strict=True)]
        train, test = (rng.permutation(np.concatenate(side)) for side in zip(*parts, strict=True))
        yield train, test


def _rows(x: Array, normalize: bool) -> Tensor:
    rows = torch.as_tensor(x).detach().cpu()
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.to(torch.float32)
    if rows.ndim != 2:
        raise ValueError(f"embeddings must be rows of a matrix (n, d), got {tuple(rows.shape)}")
    return F.normalize(rows, dim=1) if normalize else rows


def _indices(train: Array, n: int) -> np.ndarray:
    index = as_array(train)
    return np.flatnonzero(index) if index.dtype == bool and len(index) == n else index


def probe_rows(x: Array, y: Array, *, normalize: bool) -> tuple[Tensor, np.ndarray]:
    """Rows and labels a probe can be fitted to, on the CPU.

    Args:
        x: Embeddings ``(n, d)``, array or tensor on any device.
        y: Labels ``(n,)``; rows labelled -1 or NaN count as unlabelled.
        normalize: Scale rows to unit length.

    Returns:
        The rows as float32 or float64, and the labels.

    Raises:
        ValueError: If the two do not fit, hold fewer than two classes or non-finite rows.
    """
    rows, labels = _rows(x, normalize), as_array(y)
    if labels.shape != (len(rows),):
        raise ValueError(f"need one label a row, got {len(rows)} rows and labels {labels.shape}")
    if not bool(torch.isfinite(rows).all()):
        bad = int((~torch.isfinite(rows).all(dim=1)).nonzero()[0])
        raise ValueError(f"embeddings must be finite; row {bad} is the first that is not")
    classes = np.unique(labels[is_labelled(labels)])
    if len(classes) < 2:
        raise ValueError(
            f"a probe needs at least 2 classes among the labelled rows, got {classes.tolist()}"
        )
    return rows, labels
