"""The linear probe against momentum SGD in loops, and what it must leave alone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cl_core.evaluation import (
    HCSC_PROBE,
    SGDSettings,
    extract_features,
    linear_probe,
    logistic_accuracy,
    probe_encoder,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "hcsc.npz"
SHORT = SGDSettings(epochs=5, batch_size=16, learning_rate=0.5)


def blobs(n, d, c, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % c
    centres = 2 * torch.randn(c, d, generator=torch.Generator().manual_seed(99))
    return centres[y] + spread * torch.randn(n, d, generator=generator), y


def digits():
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:1200]], y[order[:1200]], x[order[1200:]], y[order[1200:]]


def slow_probe(x, y, c, recipe, rates, seed):
    """Momentum SGD on the cross-entropy, its gradient by hand, in float64."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.empty(c, x.shape[1]).normal_(0, 0.01, generator=generator).double().numpy()
    b, mw, mb = np.zeros(c), 0.0, 0.0
    x, losses = x.double().numpy(), []
    for rate in rates:
        order = torch.randperm(len(x), generator=generator).numpy()
        total = 0.0
        for start in range(0, len(x), recipe.batch_size):
            rows = order[start : start + recipe.batch_size]
            gw, gb = recipe.weight_decay * w, recipe.weight_decay * b
            for row in rows:
                e = np.exp(w @ x[row] + b)
                p = e / e.sum()
                total -= math.log(p[y[row]])
                p[y[row]] -= 1
                gw, gb = gw + np.outer(p, x[row]) / len(rows), gb + p / len(rows)
            mw, mb = recipe.momentum * mw + gw, recipe.momentum * mb + gb
            w, b = w - rate * mw, b - rate * mb
        losses.append(total / len(x))
    return w, b, losses


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"milestones": (1, 3)}, [0.5, 0.05, 0.05, 0.005, 0.005]),
        ({}, [0.5, 0.5, 0.5, 0.05, 0.005]),
        ({"schedule": "cosine", "weight_decay": 0.1}, None),
    ],
)
def test_the_layer_is_that_of_momentum_sgd(options, rates):
    recipe = SGDSettings(epochs=5, batch_size=16, learning_rate=0.5, **options)
    rates = rates or [0.25 * (1 + math.cos(math.pi * e / 5)) for e in range(5)]
    x, y = blobs(40, 3, 4, 0)
    w, b, losses = slow_probe(x, y, 4, recipe, rates, seed=7)
    result = linear_probe(x, y, x, y, recipe=recipe, seed=7)
    np.testing.assert_allclose(result.model.weight.detach().numpy(), w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.model.bias.detach().numpy(), b, rtol=1e-4, atol=1e-5)
    assert result.losses == pytest.approx(losses, rel=1e-5)
    logits = x @ torch.tensor(w, dtype=torch.float32).T + torch.tensor(b, dtype=torch.float32)
    assert result.accuracy == (logits.argmax(1) == y).double().mean().item()


def test_the_cosine_schedule_is_that_of_hcsc():
    golden = np.load(GOLDEN, allow_pickle=False)
    rates = golden["lr__lr"]
    recipe = SGDSettings(epochs=len(rates), schedule="cosine")
    ours = [float(golden["lr__base"]) * recipe.rate_factor(e) for e in range(len(rates))]
    np.testing.assert_allclose(ours, rates, rtol=1e-12, atol=1e-15)


def test_the_published_recipe_drops_the_rate_at_epochs_60_and_80():
    factors = [HCSC_PROBE.rate_factor(epoch) for epoch in (0, 59, 60, 79, 80, 99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert (HCSC_PROBE.learning_rate, HCSC_PROBE.epochs) == (5.0, 100)


def test_last_best_and_top_five_are_told_apart():
    x, y = blobs(60, 4, 8, 1, spread=3.0)
    x_test, y_test = blobs(80, 4, 8, 2, spread=3.0)
    result = linear_probe(x, y, x_test, y_test, recipe=SHORT)
    assert result.accuracy == result.accuracies[-1]
    assert result.best_accuracy == max(result.accuracies)
    assert result.accuracies.index(result.best_accuracy) == result.best_epoch - 1
    order = result.model(x_test).argsort(dim=1, descending=True)
    five = (order[:, :5] == y_test[:, None]).any(dim=1).double().mean().item()
    assert result.top5_accuracy == five > result.accuracy
    assert result.metrics() == {
        "linear_accuracy": result.accuracy,
        "linear_accuracy_best": result.best_accuracy,
        "linear_accuracy_top5": five,
    }


def test_unlabelled_rows_count_nowhere_and_an_unknown_class_is_missed():
    x, y = blobs(60, 3, 3, 3)
    names = torch.tensor([10, 20, 40])[y]
    hidden = names.clone()
    hidden[::4] = -1
    with_gaps = linear_probe(x, hidden, x, hidden, recipe=SHORT)
    without = linear_probe(*(2 * (x[hidden >= 0], names[hidden >= 0])), recipe=SHORT)
    assert with_gaps.accuracies == without.accuracies
    assert with_gaps.classes == (10, 20, 40)
    assert with_gaps.accuracy > 0.9
    assert linear_probe(x, names, x, torch.full((60,), 30), recipe=SHORT).top5_accuracy == 0


def test_the_global_generators_and_the_seed_do_not_mix():
    x, y = blobs(40, 3, 3, 4, spread=3.0)
    state = torch.get_rng_state()
    first = linear_probe(x, y, x, y, recipe=SHORT, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    again = linear_probe(x, y, x, y, recipe=SHORT, seed=1)
    other = linear_probe(x, y, x, y, recipe=SHORT, seed=2)
    assert torch.equal(first.model.weight, again.model.weight)
    assert not torch.equal(first.model.weight, other.model.weight)


def test_normalised_rows_have_no_length():
    x, y = blobs(40, 3, 3, 5)
    longer = x * torch.arange(1, 41)[:, None]
    results = [linear_probe(z, y, z, y, recipe=SHORT, normalize=True) for z in (x, longer)]
    torch.testing.assert_close(results[0].model.weight, results[1].model.weight)


def test_digits_are_read_off_by_sgd_as_well_as_exactly():
    x, y, x_test, y_test = digits()
    recipe = SGDSettings(epochs=30, learning_rate=10.0)
    sgd = linear_probe(x, y, x_test, y_test, recipe=recipe, normalize=True).accuracy
    exact = logistic_accuracy(x, y, x_test, y_test, cs=(1.0, 8.0, 64.0))
    assert sgd > 0.94
    assert exact > 0.94
    assert abs(sgd - exact) < 0.02


def test_the_exact_probe_is_scikit_learns():
    x, y = blobs(90, 4, 3, 6, spread=2.5)
    x_test, y_test = blobs(60, 4, 3, 7, spread=2.5)
    theirs = OneVsRestClassifier(LogisticRegression(solver="liblinear", C=2.0, tol=1e-10))
    expected = theirs.fit(x.numpy(), y.numpy()).score(x_test.numpy(), y_test.numpy())
    ours = logistic_accuracy(x, y, x_test, y_test, cs=(2.0,), normalize=False)
    assert ours == pytest.approx(expected)
    assert 0.5 < ours < 1


def test_the_exact_probe_may_be_given_rows_sorted_by_class():
    x, y = blobs(90, 4, 3, 6, spread=2.5)
    order = y.argsort(stable=True)
    test = blobs(200, 4, 3, 7, spread=2.5)
    accuracies = [logistic_accuracy(x[o], y[o], *test) for o in (torch.arange(90), order)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.03)


# An encoder


def encoder():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5))
    net[1].eval()  # a mode that is not its parent's
    return net


def images(n, seed):
    x, y = blobs(n, 25, 3, seed)
    return TensorDataset(x.reshape(n, 1, 5, 5), y)


def test_an_encoder_is_probed_in_eval_mode_and_left_as_it_was():
    net = encoder()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    train, test = (DataLoader(images(48, seed), batch_size=20) for seed in (0, 1))
    result = probe_encoder(net, train, test, recipe=SHORT)
    assert [part.training for part in net.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    net.eval()
    (x, y), (x_test, y_test) = (images(48, seed)[:] for seed in (0, 1))
    with torch.no_grad():
        h, h_test = net(x).mean(dim=(2, 3)), net(x_test).mean(dim=(2, 3))
    again = linear_probe(h, y, h_test, y_test, recipe=SHORT)
    torch.testing.assert_close(result.model.weight, again.model.weight, rtol=1e-4, atol=1e-6)
    assert result.accuracies == again.accuracies


def test_without_a_cache_the_rows_are_encoded_anew_each_epoch():
    x, y = blobs(40, 3, 3, 0)
    epochs = []

    class Growing:
        """One batch, longer in every epoch; unlabelled rows at the end."""

        def __iter__(self):
            epochs.append(len(epochs))
            labels = torch.cat([y, torch.full((40,), -1)])
            yield torch.cat([x, -x]) * len(epochs), labels

    recipe = SGDSettings(epochs=3, learning_rate=0.1, momentum=0.0)
    result = probe_encoder(nn.Identity(), Growing(), [(x, y)], recipe=recipe, cache=False)
    assert epochs == [0, 1, 2, 3]  # the first for the classes
    layer = nn.Linear(3, 3)
    nn.init.normal_(layer.weight, std=0.01, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(layer.bias)
    for epoch in range(3):
        layer.zero_grad()
        nn.functional.cross_entropy(layer(x * (epoch + 2)), y).backward()
        with torch.no_grad():
            for p in layer.parameters():
                p -= 0.1 * recipe.rate_factor(epoch) * p.grad
    torch.testing.assert_close(result.model.weight, layer.weight, rtol=1e-5, atol=1e-6)


def test_the_first_of_several_views_is_encoded():
    x = torch.arange(6.0).reshape(3, 2)
    rows, labels = extract_features(nn.Identity(), [([x, -x], torch.tensor([1, 0, -1]), None)])
    assert torch.equal(rows, x)
    assert labels.tolist() == [1, 0, -1]


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs and batch_size must be at least 1, got 0 and 256"),
        ({"learning_rate": math.nan}, "learning_rate must be positive, got nan"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
    ],
)
def test_recipes_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SGDSettings(**options)


def test_data_that_cannot_be_probed_are_refused():
    x, y = blobs(12, 3, 3, 0)
    cases = [
        ((x, y * 0, x, y), "at least 2 classes to train on, got .0."),
        ((x, y, x, y * 0 - 1), "no test row is labelled"),
        ((x, y[:5], x, y), r"training features \(n, d\) and one label a row, got \(12, 3\)"),
        ((x, y, x[:, :2], y), "differ in width: 3 and 2"),
        ((x * math.nan, y, x, y), "training features must be finite"),
        ((x, y.float(), x, y), "training labels must be integers"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            linear_probe(*arguments, recipe=SHORT)
    with pytest.raises(ValueError, match=r"the loss is .* in epoch 1: lower the learning rate"):
        linear_probe(x, y, x, y, recipe=SGDSettings(learning_rate=1e38, batch_size=3))
    with pytest.raises(ValueError, match="no test row is labelled"):
        logistic_accuracy(x, y, x, y * 0 - 1)
    with pytest.raises(ValueError, match="gives no batch"):
        extract_features(nn.Identity(), [])
    with pytest.raises(ValueError, match=r"a label a row, got \(12, 3\) and labels \(5,\)"):
        extract_features(nn.Identity(), [(x, y[:5])])
