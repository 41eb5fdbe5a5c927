"""Every measure takes arrays, tensors and lists, and refuses rows that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cl_core.evaluation import (
    SGDSettings,
    effective_rank,
    feature_std,
    kmeans_scores,
    knn_accuracy,
    knn_predict,
    linear_probe,
    logistic_accuracy,
    project_2d,
    retrieval_scores,
    singular_values,
)
from cl_core.evaluation.sgd import train_classifier

X = np.random.default_rng(0).normal(size=(40, 5))
Y = np.arange(40) % 3
RECIPE = SGDSettings(epochs=2, learning_rate=0.1)
MEASURES = {
    "knn_accuracy": lambda x, y: knn_accuracy(x, y, k=5),
    "knn_accuracy of a bank": lambda x, y: knn_accuracy(x, y, x, y, k=5),
    "knn_predict": lambda x, y: knn_predict(x, x, y, k=5).tolist(),
    "retrieval_scores": lambda x, y: retrieval_scores(x, y),
    "effective_rank": lambda x, y: effective_rank(x),
    "effective_rank of raw rows": lambda x, y: effective_rank(x, normalize=False),
    "feature_std": lambda x, y: feature_std(x),
    "singular_values": lambda x, y: singular_values(x).tolist(),
    "kmeans_scores": lambda x, y: kmeans_scores(x, y, restarts=1),
    "project_2d": lambda x, y: project_2d(x).tolist(),
    "linear_probe": lambda x, y: linear_probe(x, y, x, y, recipe=RECIPE).losses,
    "logistic_accuracy": lambda x, y: logistic_accuracy(x, y, x, y),
}


@pytest.mark.parametrize("name", MEASURES)
def test_arrays_tensors_and_lists_give_the_same(name):
    measure = MEASURES[name]
    expected = measure(X, Y)
    assert measure(torch.tensor(X, requires_grad=True), torch.tensor(Y)) == expected
    assert measure(X.tolist(), Y.tolist()) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", MEASURES)
def test_rows_that_are_not_finite_are_refused(name, bad):
    x = X.copy()
    x[7, 2] = bad
    with pytest.raises(ValueError, match="finite"):
        MEASURES[name](x, Y)


def test_the_refusal_says_where_and_how_many():
    bank = X.copy()
    bank[[5, 9]] = np.nan
    with pytest.raises(ValueError, match=r"bank rows .* in 2 of 40 rows, the first of them row 5"):
        knn_accuracy(X, Y, bank, Y)


def test_labels_of_knn_may_be_numbers_with_gaps_but_no_fractions():
    floats = Y.astype(float)
    floats[:4] = np.nan
    whole = np.where(np.isnan(floats), -1, Y)
    assert knn_accuracy(X, floats, k=5) == knn_accuracy(X, whole, k=5)
    with pytest.raises(ValueError, match="class numbers, got fractions"):
        knn_accuracy(X, Y + 0.5)


def test_a_classifier_is_trained_with_any_loss():
    x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(Y)
    weights, losses = torch.tensor([1.0, 5.0, 1.0]), {}
    for name, loss in (
        ("plain", F.cross_entropy),
        ("weighted", lambda s, t: F.cross_entropy(s, t, weight=weights)),
    ):
        layer = torch.nn.Linear(5, 3)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        result = train_classifier(
            layer,
            [{"params": list(layer.parameters())}],
            lambda epoch: [(x, y)],
            lambda: [(x, y)],
            torch.arange(3),
            SGDSettings(epochs=30, learning_rate=1.0),
            loss=loss,
        )
        losses[name] = result.losses
        predicted = layer(x).argmax(1)
        losses[f"{name} class 1"] = int((predicted == 1).sum())
    assert losses["plain"][0] == pytest.approx(np.log(3), rel=1e-6)
    assert losses["weighted class 1"] > losses["plain class 1"]


def test_eval_mode_and_frozen_bring_back_the_mode_of_every_part():
    from cl_core.evaluation.features import eval_mode, frozen

    net, head = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2)), torch.nn.ReLU()
    net[0].eval()
    for mode, gradient in ((frozen, False), (eval_mode, True)):
        with mode(net, head):
            assert not any(part.training for part in (*net.modules(), head))
            assert net(torch.ones(1, 2)).requires_grad == gradient
        assert [net.training, net[0].training, net[1].training] == [True, False, True]
        assert head.training
