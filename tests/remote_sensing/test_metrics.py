"""Scores of a class map: confusion over all pixels, OA, kappa, F1, IoU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cl_remote_sensing.evaluation.metrics import Confusion, confusion_matrix, scores

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "glcnet.npz", allow_pickle=False)
MATRICES = hnp.arrays(np.int64, st.integers(1, 5).map(lambda k: (k, k)), elements=st.integers(0, 9))


def named(k):
    return [f"c{i}" for i in range(k)]


def column(figures, k, figure):
    return np.array([figures[f"c{c}/{figure}"] for c in range(k)])


@pytest.mark.parametrize("case", [0, 1, 2])
def test_scores_equal_the_golden_ones(case):
    m = GOLDEN[f"met{case}_confusion"]
    k = len(m)
    figures = scores(m, named(k))
    for name in ("f1", "iou"):
        expected = GOLDEN[f"met{case}_{name}"]
        np.testing.assert_allclose(column(figures, k, name), expected, rtol=1e-12)
    assert figures["miou"] == pytest.approx(float(GOLDEN[f"met{case}_miou"]), rel=1e-12)
    assert figures["macro_f1"] == pytest.approx(float(GOLDEN[f"met{case}_mf1"]), rel=1e-12)
    # The official figures carry 1e-8 in their denominators, and 0 for a class that is absent.
    for name in ("oa", "kappa"):
        assert figures[name] == pytest.approx(float(GOLDEN[f"met{case}_{name}"]), abs=1e-6)
    for name in ("precision", "recall"):
        mine = column(figures, k, name)
        absent = m.sum(0) + m.sum(1) == 0
        np.testing.assert_array_equal(np.isnan(mine), absent)
        np.testing.assert_allclose(
            np.nan_to_num(mine), GOLDEN[f"met{case}_{name}"], atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_pixels_are_counted_as_the_official_code_counts_them(kind):
    truth, predicted = kind(GOLDEN["met_pixels_truth"]), kind(GOLDEN["met_pixels_pred"])
    expected = GOLDEN["met_pixels_confusion"]
    np.testing.assert_array_equal(confusion_matrix(truth, predicted, 4), expected)


def test_windows_add_up_to_the_whole_and_ignored_pixels_are_told():
    truth, predicted = GOLDEN["met_pixels_truth"], GOLDEN["met_pixels_pred"]
    confusion = Confusion.empty(4)
    for t, p in zip(truth, predicted, strict=True):
        confusion.add(t.astype(np.uint8), torch.from_numpy(p))
    np.testing.assert_array_equal(confusion.matrix, GOLDEN["met_pixels_confusion"])
    assert confusion.ignored == (truth == 255).sum() > 0
    assert scores(confusion, named(4))["ignored"] == (truth == 255).mean()


def test_the_mean_over_images_is_not_what_is_reported():
    truth, predicted = GOLDEN["met_pixels_truth_without_ignore"], GOLDEN["met_pixels_pred"]
    miou = scores(confusion_matrix(truth, predicted, 4), named(4))["miou"]
    official = GOLDEN["met_pixels_official_per_image_mean_iou"].mean()
    assert abs(miou - official) > 1e-3


def loop_scores(m):
    """Kappa and F1 from the pixels one by one: nothing shared with the code under test."""
    pairs = [(t, p) for t in range(len(m)) for p in range(len(m)) for _ in range(m[t, p])]
    n = len(pairs)
    agree = sum(t == p for t, p in pairs) / n
    chance = sum(
        sum(t == c for t, _ in pairs) / n * sum(p == c for _, p in pairs) / n for c in range(len(m))
    )
    f1 = []
    for c in range(len(m)):
        tp = sum(t == p == c for t, p in pairs)
        wrong = sum((t == c) != (p == c) for t, p in pairs)
        f1.append(2 * tp / (2 * tp + wrong) if tp + wrong else float("nan"))
    return agree, (agree - chance) / (1 - chance) if chance < 1 - 1e-12 else 0.0, f1


@settings(deadline=None, max_examples=50)
@given(MATRICES.filter(lambda m: m.sum() > 0))
def test_scores_equal_the_definition(m):
    figures = scores(m, named(len(m)))
    oa, kappa, f1 = loop_scores(m)
    assert figures["oa"] == pytest.approx(oa, abs=1e-12)
    assert figures["kappa"] == pytest.approx(kappa, abs=1e-9)
    np.testing.assert_allclose(column(figures, len(m), "f1"), f1, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(MATRICES.filter(lambda m: m.sum() > 0))
def test_swapping_truth_and_map_swaps_precision_and_recall(m):
    k = len(m)
    a, b = scores(m, named(k)), scores(m.T, named(k))
    np.testing.assert_array_equal(column(a, k, "precision"), column(b, k, "recall"))
    for figure in ("oa", "kappa", "miou", "macro_f1"):
        assert a[figure] == pytest.approx(b[figure], abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(MATRICES.filter(lambda m: m.sum() > 0))
def test_weighted_means_weigh_by_true_pixels(m):
    figures = scores(m, named(len(m)))
    share = m.sum(1) / m.sum()
    for figure in ("f1", "iou"):
        expected = np.nansum(share * column(figures, len(m), figure))
        assert figures[f"weighted_{figure}"] == pytest.approx(expected, abs=1e-12)


def test_one_class_has_no_kappa_and_no_pixel_no_score():
    assert scores(np.array([[7]]), ["sea"])["kappa"] == 0.0
    figures = scores(np.zeros((2, 2), dtype=np.int64), ["a", "b"])
    undefined = ("oa", "kappa", "miou", "macro_f1", "weighted_f1", "a/f1")
    assert all(np.isnan(figures[name]) for name in undefined)


def test_a_class_in_truth_or_map_alone_scores_zero():
    figures = scores(np.array([[4, 0, 1], [2, 0, 0], [0, 0, 0]]), ["a", "b", "c"])
    for name in ("b/f1", "b/iou", "b/precision", "b/recall", "c/f1", "c/precision", "c/recall"):
        assert figures[name] == 0.0
    assert figures["a/support"] == 5


def test_kappa_is_exact_for_more_pixels_than_int64_can_square():
    m = np.array([[10**10, 10**9], [2 * 10**9, 5 * 10**9]])
    small = scores(m // 10**9, ["a", "b"])["kappa"]
    assert scores(m, ["a", "b"])["kappa"] == pytest.approx(small, rel=1e-12)


def test_pixels_that_the_map_leaves_out_are_ignored():
    confusion = Confusion.empty(2)
    confusion.add(np.array([0, 1, 1, 255], np.uint16), [0, 255, 0, 1])
    np.testing.assert_array_equal(confusion.matrix, [[1, 0], [1, 0]])
    assert confusion.ignored == 2


def test_strange_ids_and_shapes_are_refused():
    with pytest.raises(ValueError, match="the truth holds ids from 0 to 3, expected 0 to 1"):
        confusion_matrix([0, 3], [0, 1], 2)
    with pytest.raises(ValueError, match="the map holds ids from -1 to 0"):
        confusion_matrix([0, 1], [0, -1], 2)
    with pytest.raises(ValueError, match="pixel by pixel"):
        confusion_matrix([0, 1], [0], 2)
    with pytest.raises(ValueError, match="3 class names need a square matrix"):
        scores(np.zeros((2, 2), dtype=np.int64), ["a", "b", "c"])
