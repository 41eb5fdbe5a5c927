"""Figures of masks and groups, and pictures of plants beside their masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cl_agriculture.data import Plants
from cl_agriculture.mixture.selection import Selection
from cl_core.report.figures import PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "TILE",
    "bic_figure",
    "contingency_figure",
    "fraction_figure",
    "pictures",
    "some_rows",
]

TILE = 190
"""Pixels of a picture in a sheet."""
POINTS = 4000
"""Points of a scatter plot; more are a cloud, and a slow page."""

_SIDE = 160  # pixels of a picture's longer side
_DIM = 0.25  # brightness of the background under a mask


def bic_figure(selection: Selection) -> Figure:
    """Draw BIC over the number of groups, a line a covariance, the chosen fit marked."""
    figure, (axes,) = new_figure(width=6.4, height=3.4)
    shapes = dict.fromkeys(fit.covariance for fit in selection.fits)
    for shape in shapes:
        fits = [f for f in selection.fits if f.covariance == shape and f.mixture is not None]
        counts = [fit.count for fit in fits]
        axes.plot(counts, [fit.bic for fit in fits], marker="o", markersize=3, label=shape)
    chosen = selection.chosen
    axes.scatter([chosen.count], [chosen.bic], s=120, facecolors="none", edgecolors="#000000")
    axes.set_xlabel("groups")
    axes.set_ylabel("BIC")
    axes.legend(frameon=False, fontsize=8)
    return figure


def fraction_figure(fractions: Sequence[float]) -> Figure:
    """Draw how much of the images plants cover."""
    figure, (axes,) = new_figure(width=6.4, height=2.8)
    axes.hist(fractions, bins=40, range=(0, 1), color=PALETTE[2])
    axes.set_xlabel("share of the image that is plant")
    axes.set_ylabel("images")
    return figure


def contingency_figure(
    table: Int64[np.ndarray, "c k"], classes: Sequence[str], names: Sequence[int]
) -> Figure:
    """Draw how the images of each label are spread over the groups, rows of sum 1."""
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    width, height = 2.4 + 0.34 * len(names), 1.2 + 0.26 * len(classes)
    figure, (axes,) = new_figure(width=min(width, 14), height=min(height, 12))
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(len(names)), [str(name) for name in names], fontsize=8)
    axes.set_yticks(range(len(classes)), list(classes), fontsize=8)
    axes.set_xlabel("cluster")
    if table.size <= 600:
        for (row, column), count in np.ndenumerate(table):
            if count:
                dark = shares[row, column] > 0.6
                axes.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="#ffffff" if dark else "#1c2330",
                )
    return figure


def pictures(plants: Plants, rows: Iterable[int]) -> list[NDArray[Any]]:
    """Small pictures of some images; with masks each beside itself with a dark background.

    Args:
        plants: The images.
        rows: Of them.
    """
    return [_picture(plants, row) for row in rows]


def _picture(plants: Plants, row: int) -> UInt8[np.ndarray, "h w 3"]:
    sample = plants.dataset[row]
    image = sample.views[0]
    height, width = image.shape[-2:]
    step = max(1, round(max(height, width) / _SIDE))
    small = image[:, ::step, ::step].permute(1, 2, 0)
    if small.dtype != torch.uint8:
        small = (small.clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = small.numpy()
    if not sample.masks:
        return np.ascontiguousarray(pixels)
    mask = sample.masks[0][::step, ::step].numpy()
    masked = np.where(mask[..., None], pixels, (pixels * _DIM).astype(np.uint8))
    return np.concatenate([pixels, masked], axis=1)


def some_rows(n: int) -> Tensor:
    """The rows that a scatter plot of ``n`` shows."""
    if n <= POINTS:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:POINTS]
