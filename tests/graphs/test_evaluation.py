from __future__ import annotations

import numpy as np
import pytest
import torch

from cl_graphs.evaluation.scores import node_scores, whole_graph_scores


def blobs(n, gap, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    return gap * (2 * y[:, None] - 1) + torch.randn(n, 4, generator=generator), y


def test_node_scores_see_what_separates_classes_and_only_that():
    options = {"splits": 5, "train_fraction": 0.2, "seed": 0}
    good = node_scores(*blobs(200, 3.0), **options)
    none = node_scores(*blobs(200, 0.0), **options)
    assert good["accuracy"] > 0.95
    assert 0.3 < none["accuracy"] < 0.7
    assert set(good) == {"accuracy", "accuracy_std", "macro_f1", "macro_f1_std"}


def test_node_scores_are_the_same_for_sparse_features():
    x, y = blobs(100, 1.0)
    x = x * (x > 0)
    options = {"splits": 3, "train_fraction": 0.2, "seed": 0}
    assert node_scores(x.to_sparse(), y, **options) == node_scores(x, y, **options)


def test_the_penalty_can_be_chosen_by_what_is_reported():
    x, y = blobs(200, 0.6)
    y = y + 2 * (x[:, 3] > 0.5)
    options = {"splits": 5, "train_fraction": 0.2, "seed": 0}
    literal, sound = (node_scores(x, y, selection=s, **options) for s in ("subset", "argmax"))
    assert literal != sound


def test_unlabelled_nodes_are_left_out():
    x, y = blobs(200, 3.0)
    y[100:] = -1
    x[100:] = -x[100:]  # would spoil the classifier
    assert node_scores(x, y, splits=5, train_fraction=0.2, seed=0)["accuracy"] > 0.95


def test_whole_graph_scores_repeat_ten_folds_with_fresh_draws():
    x, y = blobs(60, 0.7)
    once = whole_graph_scores(x, y, repeats=1, seed=0)
    twice = whole_graph_scores(x, y, repeats=2, seed=0)
    other = whole_graph_scores(x, y, repeats=1, seed=1)
    assert 0.7 < once["accuracy"] <= 1
    assert once["accuracy_std"] == 0
    assert twice["accuracy"] == pytest.approx(np.mean([once["accuracy"], other["accuracy"]]))


def test_whole_graph_scores_refuse_classes_smaller_than_the_folds():
    x, y = blobs(18, 1.0)
    with pytest.raises(ValueError, match="10 folds need as many members in every class, one has 9"):
        whole_graph_scores(x, y, repeats=1, seed=0)
