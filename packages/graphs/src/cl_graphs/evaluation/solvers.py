"""Which linear probe reads frozen rows: the published one, or one that scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cl_core.evaluation.probe import C_GRID, LogisticModel, fit_logistic
from cl_graphs.evaluation.softmax import SoftmaxModel, fit_softmax

__all__ = ["SOFTMAX_FROM", "Probe", "Solver", "area_under_curve", "solver_for"]

SOFTMAX_FROM = 2**17
"""Training rows times classes above which the softmax regression takes over by default."""

Solver = Literal["exact", "softmax"]


def solver_for(choice: Literal["auto", "exact", "softmax"], y: Tensor, trained: int) -> Solver:
    """Choose the solver.

    Args:
        choice: What the user wants; ``auto`` goes by size.
        y: Classes ``(n,)``, or tasks ``(n, t)``, which only the softmax solver knows.
        trained: Training rows of a split.
    """
    if y.ndim == 2:
        return "softmax"
    if choice != "auto":
        return choice
    classes = len(torch.unique(y[y >= 0]))
    return "softmax" if trained * classes > SOFTMAX_FROM else "exact"


@dataclass(frozen=True)
class Probe:
    """A linear classifier of rows of unit length.

    Attributes:
        model: What was fitted.
        classes: The class numbers of its scores.
    """

    model: LogisticModel | SoftmaxModel
    classes: np.ndarray

    @classmethod
    def fit(
        cls,
        rows: Tensor,
        y: Tensor,
        train: np.ndarray,
        *,
        solver: Solver,
        selection: Literal["argmax", "subset"] = "argmax",
        validation: np.ndarray | None = None,
        seed: int = 0,
    ) -> Probe:
        """Fit a probe.

        Args:
            rows: Rows of unit length, float32.
            y: Classes ``(n,)`` or tasks ``(n, t)``, -1 for none.
            train: Labelled rows to learn from.
            solver: ``exact``: one-vs-rest logistic regression, its penalty by five-fold search, as
                published; ``softmax``: see `softmax`.
            selection: What the exact solver's search counts.
            validation: Labelled rows to choose the penalty on, where there is a published part.
            seed: Of the rows that ``softmax`` holds out.
        """
        if solver == "exact":
            return cls._exact(rows, y, train, selection, validation)
        tasks = y.ndim == 2
        classes = np.arange(y.shape[1]) if tasks else torch.unique(y[y >= 0]).numpy()
        numbers = y if tasks else torch.from_numpy(np.searchsorted(classes, y.clamp_min(0).numpy()))
        model = fit_softmax(
            rows,
            numbers,
            torch.from_numpy(train),
            classes=len(classes),
            score=_area if tasks else _accuracy,
            validation=None if validation is None else torch.from_numpy(validation),
            seed=seed,
        )
        return cls(model, classes)

    @classmethod
    def _exact(
        cls,
        rows: Tensor,
        y: Tensor,
        train: np.ndarray,
        selection: Literal["argmax", "subset"],
        validation: np.ndarray | None,
    ) -> Probe:
        if validation is None:
            model = fit_logistic(rows, y, train, normalize=False, selection=selection)
            return cls(model, model.classes)
        truth = y.numpy()[validation]
        best, chosen = -1.0, None
        for c in C_GRID:
            model = fit_logistic(rows, y, train, cs=[c], normalize=False)
            right = float((model.predict(rows[validation]) == truth).mean())
            if right > best:
                best, chosen = right, model
        assert chosen is not None
        return cls(chosen, chosen.classes)

    def scores(self, rows: Tensor) -> np.ndarray:
        """Return the score of each class or task for each row."""
        if isinstance(self.model, LogisticModel):
            return self.model.predict_proba(rows)
        scores: np.ndarray = self.model.scores(rows).numpy()
        return scores

    def predict(self, rows: Tensor) -> np.ndarray:
        """Return the class of each row."""
        return np.asarray(self.classes[self.scores(rows).argmax(axis=1)])


def unit_rows(x: Tensor) -> Tensor:
    """Scale rows, dense or sparse, to unit length, as the protocol does; dense and float32."""
    dense = x if x.layout == torch.strided else x.to_dense()
    return F.normalize(dense.float(), dim=1)


def area_under_curve(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean over tasks of the area under the ROC curve.

    Args:
        truth: 0, 1 and -1 for unknown, ``(n,)`` or ``(n, tasks)``.
        scores: Larger where a 1 is more likely; of the same shape.

    Returns:
        NaN where no task has both a 0 and a 1.
    """
    from sklearn.metrics import roc_auc_score

    columns = (truth[:, None], scores[:, None]) if truth.ndim == 1 else (truth, scores)
    areas = []
    for t, s in zip(columns[0].T, columns[1].T, strict=True):
        known = t >= 0
        if len(np.unique(t[known])) == 2:
            areas.append(float(roc_auc_score(t[known], s[known])))
    return float(np.mean(areas)) if areas else float("nan")


def _accuracy(scores: Tensor, y: Tensor) -> float:
    return float((scores.argmax(1) == y).double().mean())


def _area(scores: Tensor, y: Tensor) -> float:
    area = area_under_curve(y.numpy(), scores.numpy())
    return area if area == area else 0.0
