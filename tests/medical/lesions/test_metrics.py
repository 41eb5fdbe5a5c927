"""Figures, thresholds and heat maps against the golden arrays and by their own laws."""

from __future__ import annotations

from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_medical.lesions.metrics import class_scores, confusion, ranking_scores, scores
from cl_medical.lesions.thresholds import choose_threshold, rates_at

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "supercon.npz", allow_pickle=False)
BINARY = GOLDEN["m_y"], np.stack([1 - GOLDEN["m_score"], GOLDEN["m_score"]], axis=1)
MULTI = GOLDEN["mc_y"], torch.from_numpy(GOLDEN["mc_logits"]).softmax(1).numpy()


def test_binary_figures_are_the_golden_ones():
    found = scores(*BINARY, ["benign", "malignant"])
    for name, key in {
        "auroc": "m_auc",
        "malignant/auroc": "m_auc",
        "average_precision": "m_ap",
        "balanced_accuracy": "m_bacc",
        "macro_f1": "m_f1_macro",
        "weighted_f1": "m_f1_weighted",
        "malignant/f1": "m_f1_pos",
        "malignant/recall": "m_sens",
        "benign/recall": "m_spec",
    }.items():
        assert found[name] == pytest.approx(float(GOLDEN[key]), rel=1e-6), name
    assert confusion(*BINARY, ["benign", "malignant"]).tolist() == GOLDEN["m_cm"].tolist()


def test_the_area_under_hard_answers_is_the_balanced_accuracy_and_not_the_auroc():
    y, p = BINARY
    hard = (p[:, 1] >= 0.5).astype(float)
    published = ranking_scores(y, np.stack([1 - hard, hard], axis=1), ["0", "1"])["auroc"]
    found = scores(y, p, ["0", "1"])
    assert published == pytest.approx(float(GOLDEN["m_hard_auc"]), rel=1e-6)
    assert published == pytest.approx(found["balanced_accuracy"])
    assert found["auroc"] > published + 0.05


def test_multiclass_figures_are_the_golden_ones():
    found = scores(*MULTI, ["a", "b", "c"])
    assert found["macro_f1"] == pytest.approx(float(GOLDEN["mc_f1_macro"]), rel=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(float(GOLDEN["mc_bacc"]), rel=1e-6)
    assert found["auroc"] == pytest.approx(float(GOLDEN["mc_auc_ovr_macro"]), rel=1e-6)
    assert [found[f"{name}/f1"] for name in "abc"] == pytest.approx(
        GOLDEN["mc_f1_per"].tolist(), rel=1e-6
    )
    assert confusion(*MULTI, ["a", "b", "c"]).tolist() == GOLDEN["mc_cm"].tolist()


def test_a_class_without_images_has_no_auroc_and_the_mean_is_over_the_others():
    y, p = MULTI
    kept = y != 2
    found = ranking_scores(y[kept], p[kept], ["a", "b", "c"])
    assert np.isnan(found["c/auroc"])
    assert found["auroc"] == pytest.approx((found["a/auroc"] + found["b/auroc"]) / 2)
    plain = class_scores(y[kept], p[kept], ["a", "b", "c"])
    assert plain["balanced_accuracy"] == pytest.approx((plain["a/recall"] + plain["b/recall"]) / 2)


@pytest.mark.parametrize(("rule", "key"), [("youden", "m_youden_thr"), ("f1", "m_bestf1_thr")])
def test_thresholds_are_the_golden_ones(rule, key):
    positive, score = GOLDEN["m_y"] == 1, GOLDEN["m_score"]
    threshold = choose_threshold(positive, score, rule)
    assert threshold == pytest.approx(float(GOLDEN[key]), rel=1e-6)
    rates = rates_at(positive, score, threshold)
    if rule == "youden":
        j = rates["sensitivity"] + rates["specificity"] - 1
        assert j == pytest.approx(float(GOLDEN["m_youden_j"]), rel=1e-6)
    else:
        assert rates["f1"] == pytest.approx(float(GOLDEN["m_bestf1"]), rel=1e-6)


def test_rates_at_a_half_are_the_golden_ones():
    rates = rates_at(GOLDEN["m_y"] == 1, GOLDEN["m_score"], 0.5)
    assert rates["sensitivity"] == pytest.approx(float(GOLDEN["m_sens"]), rel=1e-6)
    assert rates["specificity"] == pytest.approx(float(GOLDEN["m_spec"]), rel=1e-6)
    assert rates["f1"] == pytest.approx(float(GOLDEN["m_f1_pos"]), rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=25),
    st.sampled_from(["youden", "f1", "sensitivity"]),
    st.sampled_from([0.5, 0.9, 1.0]),
)
def test_thresholds_equal_a_search_through_all_scores(rows, rule, wanted):
    positive = np.array([row[0] for row in rows])
    score = np.array([row[1] / 8 for row in rows])
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="images of the class and others"):
            choose_threshold(positive, score, rule)
        return
    best, best_value = None, -np.inf
    tried = sorted(set(score.tolist()), reverse=rule != "f1")  # ties: the first that is met
    for t in tried:
        tp, fp = (positive & (score >= t)).sum(), (~positive & (score >= t)).sum()
        tpr, fpr = tp / positive.sum(), fp / (~positive).sum()
        value = {
            "youden": tpr - fpr,
            "f1": 2 * tp / (tp + fp + positive.sum()),
            "sensitivity": float(tpr >= wanted),
        }[rule]
        if value > best_value + 1e-12:
            best, best_value = t, value
    assert choose_threshold(positive, score, rule, sensitivity=wanted) == best


TWO = np.array([True, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: unwrap(scores)(np.array([0, 3]), np.full((2, 2), 0.5), "ab"),
            "must lie in 0 to 1",
        ),
        (lambda: unwrap(scores)(np.array([0]), np.full((2, 2), 0.5), "ab"), "2 probabilities"),
        (lambda: unwrap(scores)(np.array([0]), np.full((1, 2), np.nan), "ab"), "must be finite"),
        (
            lambda: choose_threshold(TWO, np.zeros(2), "sensitivity", sensitivity=0.0),
            r"sensitivity must lie in \(0, 1\]",
        ),
        (
            lambda: unwrap(choose_threshold)(TWO, np.zeros(2), "best"),
            "rule must be youden, f1 or sensitivity",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_equal_thresholds_are_told_from_rounding():
    positive = np.array([False] * 6 + [True] * 6)
    score = np.array([0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 2]) / 8
    # 3/6 - 2/6 and 1/6 - 0/6 are one value, which floats write in two ways: the higher is first.
    assert choose_threshold(positive, score, "youden") == 0.25
