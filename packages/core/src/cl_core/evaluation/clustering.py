"""How well clusters agree with classes."""

from __future__ import annotations

import numpy as np

from cl_core.evaluation.labels import Array, as_array, as_rows, is_labelled

__all__ = ["cluster_scores", "hungarian_accuracy", "kmeans_scores", "purity"]


def cluster_scores(y_true: Array, y_pred: Array) -> dict[str, float]:
    """Agreement of a clustering with classes; permuting either's names changes nothing.

    Args:
        y_true: Classes ``(n,)``; rows labelled -1 or NaN are left out.
        y_pred: Clusters ``(n,)``. A cluster named -1 (noise) counts as a cluster.

    Returns:
        ``nmi`` and ``ami``, mutual information over the arithmetic mean of the entropies, the
        second adjusted for chance (Vinh et al. 2010); ``ari``, the adjusted Rand index (Hubert &
        Arabie 1985); ``homogeneity``, whether a cluster holds one class, ``completeness``, whether
        a class lies in one cluster, and ``v_measure``, their harmonic mean (Rosenberg & Hirschberg
        2007; the same number as ``nmi``); ``purity``; ``hungarian_accuracy``, the share of rows
        whose cluster is matched with their class, each with at most one, in the best way. All are
        1 for equal partitions; ``ari`` and ``ami`` are about 0 for unrelated ones and may fall
        below.

    Raises:
        ValueError: If the lengths differ or nothing is labelled.
    """
    from sklearn import metrics

    truth, clusters = _pair(y_true, y_pred)
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(
        truth, clusters
    )
    return {
        "nmi": float(metrics.normalized_mutual_info_score(truth, clusters)),
        "ari": float(metrics.adjusted_rand_score(truth, clusters)),
        "ami": float(metrics.adjusted_mutual_info_score(truth, clusters)),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(v_measure),
        "purity": purity(truth, clusters),
        "hungarian_accuracy": hungarian_accuracy(truth, clusters),
    }


def purity(y_true: Array, y_pred: Array) -> float:
    """Share of rows in the majority class of their cluster; 1 if every row is its own cluster."""
    table = _contingency(*_pair(y_true, y_pred))
    return float(table.max(axis=1).sum() / table.sum())


def hungarian_accuracy(y_true: Array, y_pred: Array) -> float:
    """Share of rows rightly named if each cluster is named after one class, and no class twice.

    The best such naming is found by the Hungarian algorithm; with more clusters than classes some
    have no name, and all their rows count as wrong. Arguments as of :func:`cluster_scores`.
    """
    from scipy.optimize import linear_sum_assignment

    table = _contingency(*_pair(y_true, y_pred))
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())


def kmeans_scores(
    x: Array,
    y: Array,
    num_clusters: int | None = None,
    seed: int = 0,
    *,
    normalize: bool = True,
    restarts: int = 10,
) -> dict[str, float]:
    """Cluster embeddings by k-means and score the clusters against classes.

    Args:
        x: Embeddings ``(n, d)``. All rows are clustered, unlabelled ones too.
        y: Classes ``(n,)``; rows labelled -1 or NaN are not scored.
        num_clusters: $k$; the number of classes by default.
        seed: Seed of the k-means++ starts.
        normalize: Scale rows to unit length first.
        restarts: Starts, of which the one with the least inertia is scored.

    Returns:
        As :func:`cluster_scores`.

    Raises:
        ValueError: If the lengths differ, nothing is labelled, or ``num_clusters`` is not between
            1 and ``n``.
    """
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize as unit_rows

    rows, labels = as_array(as_rows(x)), as_array(y)
    if labels.shape != rows.shape[:1]:
        raise ValueError(
            f"need rows (n, d) and one label each, got {rows.shape} and labels {labels.shape}"
        )
    k = len(np.unique(labels[is_labelled(labels)])) if num_clusters is None else num_clusters
    if not 1 <= k <= len(rows):
        raise ValueError(f"num_clusters must be between 1 and the {len(rows)} rows, got {k}")
    rows = unit_rows(rows) if normalize else rows
    clusters = KMeans(k, n_init=restarts, random_state=seed).fit_predict(rows)
    return cluster_scores(labels, clusters)


def _pair(y_true: Array, y_pred: Array) -> tuple[np.ndarray, np.ndarray]:
    truth, clusters = as_array(y_true), as_array(y_pred)
    if truth.shape != clusters.shape or truth.ndim != 1:
        raise ValueError(
            f"need a class and a cluster for each row, got {truth.shape} and {clusters.shape}"
        )
    labelled = is_labelled(truth)
    if not labelled.any():
        raise ValueError("no row is labelled: nothing to score")
    return truth[labelled], clusters[labelled]


def _contingency(truth: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Rows of each class (columns) in each cluster (rows)."""
    _, row = np.unique(clusters, return_inverse=True)
    _, column = np.unique(truth, return_inverse=True)
    table = np.zeros((row.max() + 1, column.max() + 1), dtype=np.int64)
    np.add.at(table, (row, column), 1)
    return table
