"""Fractions of the labels: which rows are drawn, and what is trained on them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cl_core.evaluation import (
    SEMI_SETTINGS,
    SGDSettings,
    fine_tune,
    fraction_protocol,
    fraction_rows,
    logistic_accuracy,
    logistic_fractions,
)


def blobs(n, d, c, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % c
    centres = 2 * torch.randn(c, d, generator=torch.Generator().manual_seed(99))
    return centres[y] + spread * torch.randn(n, d, generator=generator), y


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(-1, 4), min_size=5, max_size=60),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.integers(0, 2**31 - 1),
)
def test_every_class_gives_its_share_and_smaller_draws_are_nested(labels, a, b, seed):
    y = np.array([0, *labels])
    small, large = (fraction_rows(y, f, seed=seed) for f in sorted((a, b)))
    assert set(small) <= set(large)
    assert len(set(large)) == len(large)
    for name in set(y.tolist()) - {-1}:
        size = int((y == name).sum())
        assert int((y[large] == name).sum()) == max(1, round(max(a, b) * size))
    assert not (y[large] == -1).any()


def test_draws_follow_the_seed_alone():
    y = np.arange(200) % 4
    state = np.random.get_state()[1].copy()
    first, again, other = (fraction_rows(y, 0.1, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(state, np.random.get_state()[1])
    assert np.array_equal(fraction_rows(y, 1.0, seed=3), np.arange(200))


def test_the_protocol_reports_mean_and_population_spread():
    y, seen = np.arange(100) % 5, []

    def measure(rows, seed):
        seen.append((len(rows), seed))
        return 0.5 + 0.1 * seed

    small, large = fraction_protocol(y, measure, fractions=(0.01, 0.2), seeds=(0, 2))
    assert seen == [(5, 0), (5, 2), (20, 0), (20, 2)]
    assert (small.rows, large.rows) == (5, 20)  # one row a class, though 1 % is one row in all
    assert small.accuracies == pytest.approx((0.5, 0.7))
    assert small.metrics() == pytest.approx(
        {
            "fraction_0.01/accuracy": 0.6,
            "fraction_0.01/accuracy_std": 0.1,
            "fraction_0.01/rows": 5,
        }
    )


def test_a_probe_on_a_fraction_is_the_probe_of_those_rows_and_more_labels_help():
    x, y = blobs(400, 8, 5, 0, spread=3.0)
    x_test, y_test = blobs(300, 8, 5, 1, spread=3.0)
    few, many = logistic_fractions(x, y, x_test, y_test, fractions=(0.01, 0.5), seeds=(0, 1, 2))
    rows = fraction_rows(y, 0.01, seed=1)
    alone = logistic_accuracy(x[rows], y[rows], x_test, y_test, cs=(1.0,))
    assert few.accuracies[1] == alone
    assert few.accuracy_std == pytest.approx(np.std(few.accuracies))
    assert 0.2 < few.accuracy < many.accuracy - 0.05


# Fine-tuning


def encoder():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
    with torch.no_grad():
        net[0].weight.normal_(0, 0.4, generator=generator)
        net[0].bias.zero_()
    return net.eval()


def tune(**options):
    x, y = blobs(120, 6, 3, 0, spread=2.0)
    test = DataLoader(TensorDataset(*blobs(90, 6, 3, 1, spread=2.0)), batch_size=40)
    settings = {"recipe": SGDSettings(epochs=8, learning_rate=0.05, batch_size=16)} | options
    net = encoder()
    rows = fraction_rows(y, 0.5, seed=0)
    state = torch.get_rng_state()
    result = fine_tune(net, TensorDataset(x, y), rows, test, classes=(0, 1, 2), **settings)
    assert torch.equal(state, torch.get_rng_state())
    return net, result


def test_fine_tuning_learns_on_a_copy_of_the_encoder():
    net, result = tune(head_learning_rate=0.2)
    for name, value in net.state_dict().items():
        assert torch.equal(value, encoder().state_dict()[name])
    tuned = result.model[0]
    assert not torch.equal(tuned[0].weight, net[0].weight)
    assert int(tuned[1].num_batches_tracked) == 8 * 4  # in training mode
    assert not any(part.training for part in net.modules())
    assert result.losses[-1] < 0.6 * result.losses[0]
    assert result.accuracy > 0.8


def test_fine_tuning_is_a_function_of_the_seed():
    first, again, other = (tune(seed=seed)[1] for seed in (0, 0, 1))
    assert first.losses == again.losses
    assert first.losses != other.losses


def test_encoder_and_layer_have_rates_of_their_own():
    recipe = SGDSettings(epochs=1, learning_rate=1e-12, batch_size=16)
    net, result = tune(recipe=recipe, head_learning_rate=0.5)
    torch.testing.assert_close(result.model[0][0].weight, net[0].weight, rtol=0, atol=1e-9)
    assert result.model[2].weight.abs().max() > 0.1


def test_a_frozen_encoder_stays_frozen_in_the_copy():
    x, y = blobs(60, 6, 3, 0)
    net = nn.Linear(6, 4).requires_grad_(False)
    result = fine_tune(
        net,
        TensorDataset(x, y),
        np.arange(60),
        [(x, y)],
        classes=(0, 1, 2),
        recipe=SGDSettings(epochs=2, learning_rate=0.1, batch_size=16),
    )
    assert torch.equal(result.model[0].weight, net.weight)


def test_the_published_recipe_is_70_epochs_with_drops_at_30_and_60():
    factors = [SEMI_SETTINGS.rate_factor(epoch) for epoch in (29, 30, 59, 60, 69)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])
    assert (SEMI_SETTINGS.epochs, SEMI_SETTINGS.learning_rate) == (70, 0.005)


def test_what_cannot_be_drawn_or_trained_is_refused():
    x, y = blobs(12, 6, 3, 0)
    for fraction in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"fraction must lie in \(0, 1\]"):
            fraction_rows(y, fraction, seed=0)
    with pytest.raises(ValueError, match="no row is labelled"):
        fraction_rows(y * 0 - 1, 0.5, seed=0)
    with pytest.raises(ValueError, match="at least one seed"):
        fraction_protocol(y, lambda rows, seed: 0.0, seeds=())
    data = TensorDataset(x, y)
    with pytest.raises(ValueError, match=r"needs a label of \[0, 1\], got \[0, 1, 2\]"):
        fine_tune(encoder(), data, np.arange(12), [(x, y)], classes=(0, 1))
    with pytest.raises(ValueError, match="head_learning_rate must be positive"):
        tune(head_learning_rate=0.0)
