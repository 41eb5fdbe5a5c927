"""Calibration against golden figures, its definition in loops, and its laws; group bootstrap."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from cl_core.evaluation import (
    bootstrap_interval,
    bootstrap_intervals,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "supercon.npz", allow_pickle=False)
LOGITS, Y = GOLDEN["mc_logits"], GOLDEN["mc_y"]
P = softmax(LOGITS, axis=1)


def nll(logits: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(Y)), Y].mean())


def test_figures_equal_the_golden_ones():
    assert expected_calibration_error(P, Y) == pytest.approx(float(GOLDEN["mc_ece15"]), rel=1e-6)
    assert brier_score(P, Y) == pytest.approx(float(GOLDEN["mc_brier"]), rel=1e-6)
    binary = np.stack([1 - GOLDEN["m_score"], GOLDEN["m_score"]], 1)
    half = brier_score(binary, GOLDEN["m_y"]) / 2
    assert half == pytest.approx(float(GOLDEN["m_brier"]), rel=1e-6)


def test_temperature_equals_the_golden_one_and_lowers_the_cross_entropy():
    t = fit_temperature(LOGITS, Y)
    assert t == pytest.approx(float(GOLDEN["mc_temp"]), rel=1e-4)
    assert nll(LOGITS) == pytest.approx(float(GOLDEN["mc_nll"]), rel=1e-6)
    assert nll(LOGITS / t) == pytest.approx(float(GOLDEN["mc_nll_cal"]), rel=1e-6)
    assert fit_temperature(LOGITS / t, Y) == pytest.approx(1, rel=1e-5)
    assert fit_temperature(np.eye(3) * 9, [0, 1, 2]) == pytest.approx(math.exp(-3), rel=1e-4)


def test_bins_hold_their_right_border():
    # Confidences .6 (in (.4, .6]), .61 and .8 (in (.6, .8]), 1 (in (.8, 1]).
    p = [[0.6, 0.4], [0.39, 0.61], [0.8, 0.2], [1.0, 0.0]]
    bins = reliability_bins(p, [0, 0, 0, 1], bins=5)
    assert bins.size.tolist() == [0, 0, 1, 2, 1]
    np.testing.assert_allclose(bins.accuracy, [np.nan, np.nan, 1, 0.5, 0])
    np.testing.assert_allclose(bins.confidence, [np.nan, np.nan, 0.6, 0.705, 1])
    expected = (1 * 0.4 + 2 * abs(0.5 - 0.705) + 1 * 1) / 4
    assert expected_calibration_error(p, [0, 0, 0, 1], 5) == pytest.approx(expected, rel=1e-12)


def test_unlabelled_rows_are_left_out_and_tensors_and_lists_are_taken():
    p, y = np.concatenate([P, P[:3]]), np.concatenate([Y, [-1, -1, -1]])
    for rows, labels in ((p, y), (torch.tensor(p), torch.tensor(y)), (p.tolist(), y.tolist())):
        assert expected_calibration_error(rows, labels) == expected_calibration_error(P, Y)
        assert brier_score(rows, labels) == brier_score(P, Y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: brier_score(P * 2, Y), "each row must sum to 1"),
        (lambda: brier_score(P, Y[:3]), "one label each"),
        (lambda: brier_score(P, np.full(len(P), -1)), "no row is labelled"),
        (lambda: brier_score(P, np.full(len(P), 3)), "classes 0 to 2, got 3 to 3"),
        (lambda: fit_temperature(LOGITS * np.nan, Y), "logits must be finite"),
        (lambda: reliability_bins(P, Y, bins=0), "bins must be at least 1, got 0"),
        (lambda: bootstrap_interval(np.mean, []), "a group for each row"),
        (lambda: bootstrap_interval(np.mean, [1], level=1.0), "level between 0 and 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    draw, hits = np.random.default_rng(0), 0
    for i in range(200):
        x = draw.normal(size=60)
        low, high = bootstrap_interval(
            lambda r, x=x: x[r].mean(), np.arange(60), resamples=200, seed=i
        )
        hits += low < 0 < high
    assert 0.88 <= hits / 200 <= 0.99


def test_rows_of_a_group_stay_together():
    groups, sizes = ["a", "b", "b", "c", "c", "c"], {0: 1, 1: 2, 3: 3}
    seen = []

    def statistic(rows: np.ndarray) -> float:
        seen.append(rows)
        return float(len(rows))

    bootstrap_interval(statistic, groups, resamples=20)
    assert rows_dtype(seen) == {np.dtype(np.int64)}
    for rows in seen:
        counts = np.bincount(rows, minlength=6)
        assert counts[1] == counts[2]
        assert counts[3] == counts[4] == counts[5]
        assert sum(counts[first] for first in sizes) == 3  # as many groups as there are


def rows_dtype(seen: list[np.ndarray]) -> set[np.dtype]:
    return {rows.dtype for rows in seen}


def test_intervals_are_seeded_and_leave_undefined_figures_out():
    x = np.random.default_rng(0).normal(size=30)

    def figures(rows: np.ndarray) -> dict[str, float]:
        return {"mean": x[rows].mean(), "none": math.nan, "some": 1.0 if 0 in rows else math.nan}

    first = bootstrap_intervals(figures, np.arange(30), resamples=50, seed=3)
    assert repr(first) == repr(bootstrap_intervals(figures, np.arange(30), resamples=50, seed=3))
    assert first["mean"] != bootstrap_intervals(figures, np.arange(30), resamples=50)["mean"]
    assert first["some"] == (1.0, 1.0)
    assert all(math.isnan(end) for end in first["none"])
