"""Cluster scores against the formulas on small tables."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cl_core.evaluation import cluster_scores, kmeans_scores, purity


def slow_nmi(truth, clusters):
    """Mutual information over the mean entropy, with loops."""
    n = len(truth)

    def entropy(names):
        return -sum(q * math.log(q) for q in (names.count(a) / n for a in set(names)))

    joint = entropy(list(zip(truth, clusters, strict=True)))
    h, g = entropy(truth), entropy(clusters)
    return (h + g - joint) / ((h + g) / 2)


def test_nmi_and_ari_equal_the_formulas():
    truth, clusters = [0, 0, 0, 1, 1, 2, 2, 2], [1, 1, 0, 0, 0, 2, 2, 0]
    scores = cluster_scores(truth, clusters)
    assert scores["nmi"] == pytest.approx(slow_nmi(truth, clusters), rel=1e-12)
    pairs = [(i, j) for i in range(8) for j in range(i)]
    a = [truth[i] == truth[j] for i, j in pairs]
    b = [clusters[i] == clusters[j] for i, j in pairs]
    both, chance = sum(np.logical_and(a, b)), sum(a) * sum(b) / len(pairs)
    expected = (both - chance) / ((sum(a) + sum(b)) / 2 - chance)
    assert scores["ari"] == pytest.approx(expected, rel=1e-12)


def test_purity_counts_the_majority_of_each_cluster():
    assert purity([0, 0, 1, 1, 1, 2], [5, 5, 5, 7, 7, 7]) == pytest.approx(4 / 6)
    assert purity([0, 1, 2], [0, 0, 0]) == pytest.approx(1 / 3)
    assert purity([0, 0, 0], [4, 5, 6]) == 1.0  # many clusters are never impure


def test_renaming_clusters_changes_nothing_and_equal_partitions_score_one():
    rng = np.random.default_rng(0)
    truth, clusters = rng.integers(4, size=60), rng.integers(5, size=60)
    renamed = np.array([9, 2, 7, 0, 3])[clusters]
    assert cluster_scores(truth, clusters) == pytest.approx(cluster_scores(truth, renamed))
    perfect = cluster_scores(truth, truth + 10)
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0))


def test_chance_agreement_is_taken_out_of_ami_but_not_of_nmi():
    rng = np.random.default_rng(1)
    scores = cluster_scores(rng.integers(10, size=200), rng.integers(40, size=200))
    assert scores["nmi"] > 0.2
    assert abs(scores["ami"]) < 0.05


def test_rows_without_label_are_left_out():
    expected = cluster_scores([0, 0, 1], [3, 3, 4])
    assert cluster_scores(torch.tensor([0, -1, 0, 1]), [3, 4, 3, 4]) == expected
    assert cluster_scores([0.0, float("nan"), 0.0, 1.0], [3, 4, 3, 4]) == expected


def test_kmeans_finds_separate_groups_whatever_the_length_of_rows():
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1, 2], 30)
    x = np.eye(3)[y] + 0.05 * rng.normal(size=(90, 3))
    x *= rng.uniform(0.5, 20, size=(90, 1))
    assert kmeans_scores(torch.tensor(x), y, seed=0)["ari"] == pytest.approx(1.0)
    assert kmeans_scores(x, y, seed=0, normalize=False)["ari"] < 0.99
    assert kmeans_scores(x, y, num_clusters=1)["purity"] == pytest.approx(1 / 3)
    assert kmeans_scores(x, y, seed=3) == kmeans_scores(x, y, seed=3)


def test_wrong_lengths_and_missing_labels_are_refused():
    with pytest.raises(ValueError, match="a class and a cluster for each row"):
        cluster_scores([0, 1], [0, 1, 2])
    with pytest.raises(ValueError, match="no row is labelled"):
        cluster_scores([-1, -1], [0, 1])
    with pytest.raises(ValueError, match="between 1 and the 2 rows, got 3"):
        kmeans_scores(np.eye(2), [0, 1], num_clusters=3)


def test_every_score_equals_the_golden_one():
    golden = np.load(Path(__file__).parents[1] / "golden" / "claws.npz", allow_pickle=False)
    names = {
        "nmi": "nmi_arith",
        "ami": "ami",
        "ari": "ari",
        "purity": "purity",
        "hungarian_accuracy": "hung_acc",
        "homogeneity": "homog",
        "completeness": "compl",
        "v_measure": "vmeas",
    }
    scores = cluster_scores(golden["k_true"], golden["k_clust"])
    assert scores == pytest.approx({n: float(golden[f"k_{k}"]) for n, k in names.items()})
    assert cluster_scores(golden["k_true"], 0 * golden["k_clust"])["nmi"] == golden["k_single_nmi"]


def test_hungarian_accuracy_matches_clusters_with_classes_one_to_one():
    # Both clusters have most rows of class 0: only one of them can be it.
    truth, clusters = [0, 0, 0, 0, 1, 0, 0, 1], [5, 5, 5, 5, 5, 6, 6, 6]
    scores = cluster_scores(truth, clusters)
    assert scores["purity"] == 6 / 8
    assert scores["hungarian_accuracy"] == 5 / 8
