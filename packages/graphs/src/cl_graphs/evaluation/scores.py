"""How good frozen embeddings are: the protocols of the graph literature.

Nodes: one-vs-rest logistic regression on random splits (Zhu et al. 2020; Feng et al. 2022). Whole
graphs: a support vector machine in stratified ten-fold cross-validation (You et al. 2020).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cl_graphs.evaluation.probe import ProbeResult, logistic_probe

__all__ = ["FOLDS", "node_scores", "whole_graph_scores"]

FOLDS = 10
SVM_COSTS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)


def node_scores(
    x: Tensor,
    y: Tensor,
    *,
    splits: int,
    train_fraction: float,
    seed: int,
    selection: Literal["argmax", "subset"] = "argmax",
) -> dict[str, float]:
    """Score one row per node.

    Args:
        x: Embeddings or features ``(n, d)``, dense or sparse.
        y: Classes ``(n,)``, -1 where a node is unlabelled.
        splits: Random splits.
        train_fraction: Share of the labelled nodes that the classifier learns from.
        seed: Seed of the splits.
        selection: What chooses the penalty, see `cl_core.evaluation.fit_logistic`.

    Returns:
        ``accuracy`` and ``macro_f1`` with their spreads over the splits as ``..._std``.
    """
    rows = x if x.layout == torch.strided else x.to_dense()
    result: ProbeResult = logistic_probe(
        rows,
        y,
        splits=splits,
        train_fraction=train_fraction,
        seed=seed,
        selection=selection,
    )
    return result.metrics()


def whole_graph_scores(x: Any, y: Any, *, repeats: int, seed: int) -> dict[str, float]:
    """Score one row per graph by ten-fold cross-validation of a support vector machine.

    The cost is chosen by five-fold search inside each training part.

    Args:
        x: Embeddings ``(n, d)``.
        y: Classes ``(n,)``.
        repeats: Times the folds are drawn.
        seed: Seed of the folds.

    Returns:
        ``accuracy`` (mean over all folds) with its spread over the repeats as ``accuracy_std``,
        and ``macro_f1`` likewise.

    Raises:
        ValueError: If a class has fewer members than there are folds.
    """
    from sklearn.metrics import f1_score
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    x, y = np.asarray(x), np.asarray(y)
    smallest = int(np.unique(y, return_counts=True)[1].min())
    if smallest < FOLDS:
        raise ValueError(f"{FOLDS} folds need as many members in every class, one has {smallest}")
    accuracies, f1s = [], []
    for repeat in range(repeats):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        predicted = np.empty_like(y)
        for train, test in folds.split(x, y):
            search = GridSearchCV(
                make_pipeline(StandardScaler(), SVC()), {"svc__C": SVM_COSTS}, cv=5
            )
            predicted[test] = search.fit(x[train], y[train]).predict(x[test])
        accuracies.append(float((predicted == y).mean()))
        f1s.append(float(f1_score(y, predicted, average="macro")))
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_std": float(np.std(accuracies)),
        "macro_f1": float(np.mean(f1s)),
        "macro_f1_std": float(np.std(f1s)),
    }
