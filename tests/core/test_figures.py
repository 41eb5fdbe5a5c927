"""Figures hold the numbers they were given."""

import json
import re

import numpy as np
import pytest

from cl_core.report.explorer.plane import scatter_2d
from cl_core.report.figures import MISSING, metric_table, new_figure, training_curves


def test_columns_of_one_quantity_share_a_panel():
    rows = [
        {"epoch": "0", "train/loss": "2.0", "val/loss": "3.0", "effective_rank": ""},
        {"epoch": "1", "train/loss": "1.0", "val/loss": "nan", "effective_rank": "7.5"},
        {"epoch": "2", "train/loss": "0.5", "val/loss": "2.5", "effective_rank": None},
    ]
    loss, rank = training_curves(rows).axes
    assert [line.get_label() for line in loss.lines] == ["train", "val"]
    assert loss.lines[0].get_xydata().tolist() == [[0, 2], [1, 1], [2, 0.5]]
    assert loss.lines[1].get_xydata().tolist() == [[0, 3], [2, 2.5]]
    assert rank.lines[0].get_xydata().tolist() == [[1, 7.5]]
    assert (loss.get_ylabel(), rank.get_ylabel()) == ("loss", "effective rank")
    assert {panel.get_xlabel() for panel in (loss, rank)} == {"epoch"}
    assert all(float(tick).is_integer() for tick in loss.get_xticks())


def test_a_history_without_epochs_counts_its_rows():
    (axes,) = training_curves([{"loss": 3.0}, {"loss": 2.0}]).axes
    assert axes.lines[0].get_xdata().tolist() == [0, 1]


def test_panels_without_a_quantity_are_hidden():
    figure = training_curves([{"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0}])
    assert [axes.get_visible() for axes in figure.axes] == [True] * 5 + [False]


def test_a_history_without_numbers_is_refused():
    with pytest.raises(ValueError, match="no number to draw"):
        training_curves([{"epoch": 1, "note": "text"}])


def test_drawing_leaves_pyplot_alone():
    import matplotlib.pyplot as plt

    new_figure(2, 2)
    assert plt.get_fignums() == []


def told(block):
    """What the script of an explorer draws."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', block, re.S)[1])


def test_a_plane_has_its_points_classes_and_ids():
    points = np.arange(10).reshape(5, 2)
    labels = np.array([1, 0, 1, -1, 0])
    block = scatter_2d(points, labels, ["a<b", "plain"], ["n0", "n1", "<i>", "n3", "n4"])
    data = told(block)
    assert data["ids"] == ["n0", "n1", "<i>", "n3", "n4"]
    (classes,) = data["fields"]
    assert classes["levels"] == ["a<b", "plain"]
    assert classes["codes"] == [1, 0, 1, -1, 0]
    assert data["planes"][0]["x"] == [0, 25_000, 50_000, 75_000, 100_000]
    assert "<i>" not in block  # escaped, wherever it stands
    assert told(scatter_2d(np.zeros((3, 2))))["fields"] == []


def test_points_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"points on a plane \(n, 2\)"):
        scatter_2d(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="one of labels a point, got 2 for 3"):
        scatter_2d(np.zeros((3, 2)), np.array([0, 1]))


def test_scores_and_spreads_share_a_column_and_shares_are_per_cent():
    rows = [
        {"method": "a", "accuracy": 0.8402, "accuracy_std": 0.0091, "seeds": 3},
        {"method": "b", "accuracy": 0.5, "nmi": 0.12345},
    ]
    assert metric_table(rows) == [
        {"method": "a", "accuracy (%)": "84.0 ± 0.9", "seeds": "3", "NMI": MISSING},
        {"method": "b", "accuracy (%)": "50.0", "seeds": MISSING, "NMI": "0.123"},
    ]


def test_a_prefix_is_kept_and_its_metric_still_formatted():
    (row,) = metric_table([{"grace/macro_f1": 0.5, "grace/macro_f1_std": 0.01}])
    assert row == {"grace/macro F1 (%)": "50.0 ± 1.0"}
