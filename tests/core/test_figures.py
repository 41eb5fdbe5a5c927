"""Figures hold the numbers they were given."""

import numpy as np
import pytest

from cl_core.report.figures import MISSING, metric_table, new_figure, scatter_2d, training_curves


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


def test_each_class_is_a_trace_with_its_points_names_and_ids():
    points = np.arange(10).reshape(5, 2)
    figure = scatter_2d(points, [1, 0, 1, -1, 0], ["a<b", "plain"], ["n0", "n1", "<i>", "n3", "n4"])
    grey, first, second = figure.data
    assert [trace.name for trace in figure.data] == ["unlabelled", "a&lt;b", "plain"]
    assert list(second.text) == ["n0", "&lt;i&gt;"]
    assert list(second.x) == [0, 4]
    assert list(second.y) == [1, 5]
    assert list(grey.x) == [6]
    assert first.marker.color != second.marker.color


def test_points_without_labels_are_one_trace_and_need_no_legend():
    figure = scatter_2d(np.zeros((3, 2)))
    assert len(figure.data) == 1
    assert figure.layout.showlegend is False


def test_points_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"points on a plane \(n, 2\)"):
        scatter_2d(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="3 points, 2 labels"):
        scatter_2d(np.zeros((3, 2)), [0, 1])


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
