r"""What groups are worth beside labels: agreement, a table of them, and labels to look at again.

All figures of agreement compare group numbers with weak (or audited) labels of the images that have
one. With $n_{ck}$ images of label $c$ in group $k$ and $r_k(x)$ the responsibilities, the doubt
about the label $w$ of an image is $1 - \sum_k r_k(x)\, n_{wk} / \sum_c n_{ck}$.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from cl_core.evaluation.clustering import cluster_scores, hungarian_accuracy

__all__ = [
    "contingency",
    "group_rows",
    "label_doubt",
    "label_figures",
    "shape_figures",
]

_SAMPLE = 10_000  # images of which distances between all pairs are looked at


def contingency(
    labels: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"], c: int, k: int
) -> Int64[np.ndarray, "c k"]:
    """Count the images of each label in each group; those without a label do not count."""
    table = np.zeros((c, k), dtype=np.int64)
    known = labels >= 0
    np.add.at(table, (labels[known], groups[known]), 1)
    return table


def label_figures(
    labels: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> dict[str, float]:
    """Agreement of groups with labels.

    Args:
        labels: -1 for none.
        groups: Any numbers.

    Returns:
        ``nmi`` (over the arithmetic mean of the entropies), ``ami``, ``ari``, ``purity``,
        ``hungarian_accuracy``, ``homogeneity``, ``completeness``; nothing if no image has a label.
    """
    known = labels >= 0
    if not known.any():
        return {}
    from sklearn import metrics

    truth, found = labels[known], groups[known]
    return cluster_scores(truth, found) | {
        "hungarian_accuracy": hungarian_accuracy(truth, found),
        "homogeneity": float(metrics.homogeneity_score(truth, found)),
        "completeness": float(metrics.completeness_score(truth, found)),
    }


def shape_figures(
    scores: Float64[np.ndarray, "n d"], groups: Int64[np.ndarray, " n"], *, seed: int = 0
) -> dict[str, float]:
    """How compact and apart the groups lie, whatever the labels.

    Args:
        scores: On the principal components.
        groups: Any numbers.
        seed: Of the 10,000 images that stand for more.

    Returns:
        ``silhouette`` (Euclidean) and ``davies_bouldin``; nothing of fewer than two groups or of
        groups of one image each.
    """
    from sklearn import metrics

    if len(scores) > _SAMPLE:
        rows = np.random.default_rng(seed).choice(len(scores), _SAMPLE, replace=False)
        scores, groups = scores[rows], groups[rows]
    kinds = len(np.unique(groups))
    if not 2 <= kinds < len(scores):
        return {}
    return {
        "silhouette": float(metrics.silhouette_score(scores, groups)),
        "davies_bouldin": float(metrics.davies_bouldin_score(scores, groups)),
    }


def label_doubt(
    labels: Int64[np.ndarray, " n"],
    responsibilities: Float64[np.ndarray, "n k"],
    table: Int64[np.ndarray, "c k"],
) -> Float64[np.ndarray, " n"]:
    """How little the groups an image belongs to speak for its label: 0 none, 1 full doubt.

    Args:
        labels: -1 for none, whose doubt is NaN.
        responsibilities: Of each image.
        table: Training images of each label in each group.
    """
    share = table / np.maximum(table.sum(axis=0), 1)
    doubt = np.full(len(labels), np.nan)
    known = labels >= 0
    doubt[known] = 1 - (responsibilities[known] * share[labels[known]]).sum(axis=1)
    bounded: Float64[np.ndarray, " n"] = doubt.clip(0.0, 1.0)
    return bounded


def group_rows(
    names: Int64[np.ndarray, " k"],
    groups: Int64[np.ndarray, " n"],
    ll: Float64[np.ndarray, " n"],
    flagged: Bool[np.ndarray, " n"],
    labels: NDArray[np.int64],
    classes: Sequence[str],
) -> list[dict[str, object]]:
    """A row a group: size, how typical its images are, how many are odd, and its labels.

    Args:
        names: Numbers by which groups are called.
        groups: Component of each image.
        ll: Log-likelihoods.
        flagged: Odd images.
        labels: -1 for none; what depends on them is left out where nobody labelled.
        classes: Their names.
    """
    labelled = bool((labels >= 0).any())
    table = contingency(labels, groups, max(len(classes), 1), len(names))
    rows: list[dict[str, object]] = []
    for k, name in enumerate(names.tolist()):
        own = groups == k
        size = int(own.sum())
        row: dict[str, object] = {
            "cluster": name,
            "images": size,
            "mean ll": float(ll[own].mean()) if size else None,
            "flagged": float(flagged[own].mean()) if size else None,
        }
        if labelled:
            counts = table[:, k]
            total = int(counts.sum())
            p = counts[counts > 0] / max(total, 1)
            row |= {
                "majority label": classes[int(counts.argmax())] if total else None,
                "purity": float(counts.max() / total) if total else None,
                "label entropy": float(-(p * np.log(p)).sum()) if total else None,
            }
        rows.append(row)
    return rows
