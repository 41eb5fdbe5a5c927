"""Drawings of a classifier's answers: curves with the chosen threshold, confusion, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cl_core.evaluation.calibration import ReliabilityBins
from cl_core.report.figures import PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_figure", "curves_figure", "reliability_figure"]


def curves_figure(
    y: NDArray[np.int64],
    p: NDArray[np.floating],
    classes: Sequence[str],
    *,
    positive: str | None,
    threshold: float | None,
) -> Figure:
    """Draw ROC and precision-recall curves, one class against the rest each.

    Args:
        y: Classes.
        p: Probabilities.
        classes: Names; of two only the positive one is drawn.
        positive: The class of the operating point, drawn thicker.
        threshold: Its threshold, marked on both curves.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    figure, (roc, pr) = new_figure(1, 2, width=9.6, height=4.2)
    drawn = range(1, 2) if len(classes) == 2 else range(len(classes))
    for place, k in enumerate(drawn):
        truth = y == k
        if not truth.any() or truth.all():
            continue
        name, own = classes[k], classes[k] == positive
        style: dict[str, Any] = {
            "color": PALETTE[place % len(PALETTE)],
            "linewidth": 2.4 if own else 1.1,
        }
        fpr, tpr, _ = roc_curve(truth, p[:, k])
        precision, recall, _ = precision_recall_curve(truth, p[:, k])
        roc.plot(fpr, tpr, label=name, **style)
        pr.plot(recall, precision, label=name, **style)
        if own and threshold is not None:
            called = p[:, k] >= threshold
            hit = (called & truth).sum() / truth.sum()
            false = (called & ~truth).sum() / (~truth).sum()
            marker: dict[str, Any] = {"marker": "o", "color": style["color"], "markersize": 7}
            roc.plot([false], [hit], **marker)
            pr.plot([hit], [(called & truth).sum() / max(1, called.sum())], **marker)
    roc.plot([0, 1], [0, 1], color="#8b93a1", linewidth=0.8, linestyle=":")
    for axes, title, x, label in (
        (roc, "ROC", "1 - specificity", "sensitivity"),
        (pr, "Precision and recall", "sensitivity", "precision"),
    ):
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel(x, fontsize=9)
        axes.set_ylabel(label, fontsize=9)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
    roc.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def confusion_figure(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts, and colours by the share of each true class (rows)."""
    size = min(9.0, 2.6 + 0.62 * len(classes))
    figure, (axes,) = new_figure(width=size, height=size)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    for row in range(len(classes)):
        for column in range(len(classes)):
            axes.text(
                column,
                row,
                f"{counts[row, column]}\n{100 * share[row, column]:.0f} %",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share[row, column] > 0.55 else "#333333",
            )
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set_xlabel("most probable", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    return figure


def reliability_figure(before_and_after: Mapping[str, ReliabilityBins]) -> Figure:
    """Draw how often the most probable class is right, by its probability, a panel each."""
    panels = len(before_and_after)
    figure, axes = new_figure(1, panels, width=4.6 * panels, height=4.2)
    for panel, (title, bins) in zip(axes, before_and_after.items(), strict=True):
        held = bins.size > 0
        panel.plot([0, 1], [0, 1], color="#8b93a1", linewidth=0.8, linestyle=":")
        panel.plot(bins.confidence[held], bins.accuracy[held], marker="o", linewidth=1.7)
        for x, y, n in zip(
            bins.confidence[held], bins.accuracy[held], bins.size[held], strict=True
        ):
            panel.annotate(
                str(int(n)), (x, y), textcoords="offset points", xytext=(4, -9), fontsize=7
            )
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_xlabel("mean probability of the most probable class", fontsize=9)
        panel.set_ylabel("share that is right", fontsize=9)
        panel.set_xlim(0, 1.02)
        panel.set_ylim(-0.02, 1.02)
    return figure
