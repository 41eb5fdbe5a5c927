"""How good frozen embeddings are: the protocols of the graph literature.

Nodes: a linear probe on random splits (Zhu et al. 2020; Feng et al. 2022), or on the split that was
published with the graph. Whole graphs: a support vector machine in stratified ten-fold
cross-validation (You et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from torch import Tensor

from cl_core.evaluation.probe import random_splits
from cl_graphs.evaluation.solvers import Probe, Solver, area_under_curve, unit_rows
from cl_graphs.progress import silent

__all__ = ["FOLDS", "node_scores", "node_splits", "whole_graph_scores"]

FOLDS = 10
SVM_COSTS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)

Split = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Rows to train on, to test on, and to choose the penalty on if there are some for that."""


def node_splits(
    y: Tensor,
    *,
    splits: int,
    train_fraction: float,
    seed: int,
    published: Mapping[str, Tensor] | None = None,
) -> Iterator[Split]:
    """Yield the splits a probe is measured on.

    Args:
        y: Classes ``(n,)`` or tasks ``(n, t)``, -1 for none.
        splits: Random splits.
        train_fraction: Share of the labelled nodes that the probe learns from.
        seed: Seed of the splits.
        published: Nodes of ``train``, ``test`` and perhaps ``val``, in place of random splits.
    """
    labelled = (y >= 0).reshape(len(y), -1).any(1).numpy()
    if published is not None:
        parts = {name: nodes.numpy() for name, nodes in published.items()}
        parts = {name: nodes[labelled[nodes]] for name, nodes in parts.items()}
        yield parts["train"], parts["test"], parts.get("val")
        return
    known = y.numpy() if y.ndim == 1 else np.where(labelled, 0, -1)
    for train, test in random_splits(
        known, splits=splits, train_fraction=train_fraction, seed=seed
    ):
        yield train, test, None


def node_scores(
    x: Tensor,
    y: Tensor,
    *,
    splits: int,
    train_fraction: float,
    seed: int,
    selection: Literal["argmax", "subset"] = "argmax",
    solver: Solver = "exact",
    published: Mapping[str, Tensor] | None = None,
    tell: Callable[[str], None] = silent,
) -> dict[str, float]:
    """Score one row per node.

    Args:
        x: Embeddings or features ``(n, d)``, dense or sparse.
        y: Classes ``(n,)``, -1 where a node is unlabelled; or tasks ``(n, t)`` of 0, 1 and -1.
        splits: Random splits.
        train_fraction: Share of the labelled nodes that the classifier learns from.
        seed: Seed of the splits.
        selection: What chooses the penalty, see `cl_core.evaluation.fit_logistic`.
        solver: See `probes.Probe.fit`.
        published: See `node_splits`.
        tell: Is called after each split.

    Returns:
        ``accuracy`` and ``macro_f1`` with their spreads over the splits as ``..._std``, and of two
        classes ``roc_auc`` too; of tasks ``roc_auc`` alone, the mean over the tasks.
    """
    rows, truth = unit_rows(x), y.numpy()
    figures: dict[str, list[float]] = {}
    for number, (train, test, validation) in enumerate(
        node_splits(y, splits=splits, train_fraction=train_fraction, seed=seed, published=published)
    ):
        probe = Probe.fit(
            rows,
            y,
            train,
            solver=solver,
            selection=selection,
            validation=validation,
            seed=seed + number,
        )
        for name, value in _figures(truth[test], probe.scores(rows[test]), probe.classes).items():
            figures.setdefault(name, []).append(value)
        tell("")
    return _means(figures)


def _means(figures: Mapping[str, list[float]]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, values in figures.items():
        scores |= {name: float(np.mean(values)), f"{name}_std": float(np.std(values))}
    return scores


def _figures(truth: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    if truth.ndim == 2:
        return {"roc_auc": area_under_curve(truth, scores)}
    from sklearn.metrics import f1_score

    predicted = classes[scores.argmax(axis=1)]
    found = {
        "accuracy": float((predicted == truth).mean()),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
    }
    if len(classes) == 2:
        found["roc_auc"] = area_under_curve((truth == classes[1]).astype(np.int64), scores[:, 1])
    return found


def whole_graph_scores(
    x: Any, y: Any, *, repeats: int, seed: int, tell: Callable[[str], None] = silent
) -> dict[str, float]:
    """Score one row per graph by ten-fold cross-validation of a support vector machine.

    The cost is chosen by five-fold search inside each training part.

    Args:
        x: Embeddings ``(n, d)``.
        y: Classes ``(n,)``.
        repeats: Times the folds are drawn.
        seed: Seed of the folds.
        tell: Is called after each repeat.

    Returns:
        ``accuracy`` (mean over all folds) with its spread over the repeats as ``accuracy_std``,
        ``macro_f1`` likewise, and of two classes ``roc_auc``.

    Raises:
        ValueError: If a class has fewer members than there are folds.
    """
    from sklearn.metrics import f1_score
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    x, y = np.asarray(x), np.asarray(y)
    names, counts = np.unique(y, return_counts=True)
    if counts.min() < FOLDS:
        raise ValueError(
            f"{FOLDS} folds need as many members in every class, one has {counts.min()}"
        )
    figures: dict[str, list[float]] = {}
    for repeat in range(repeats):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        predicted, margin = np.empty_like(y), np.empty(len(y))
        for train, test in folds.split(x, y):
            search = GridSearchCV(
                make_pipeline(StandardScaler(), SVC()), {"svc__C": SVM_COSTS}, cv=5
            )
            predicted[test] = search.fit(x[train], y[train]).predict(x[test])
            if len(names) == 2:
                margin[test] = search.decision_function(x[test])
        found = {
            "accuracy": float((predicted == y).mean()),
            "macro_f1": float(f1_score(y, predicted, average="macro")),
        }
        if len(names) == 2:
            found["roc_auc"] = area_under_curve((y == names[1]).astype(np.int64), margin)
        for name, value in found.items():
            figures.setdefault(name, []).append(value)
        tell("")
    return _means(figures)
