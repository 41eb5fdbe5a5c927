r"""Overlapping windows become one seamless map: weighted sums in a strip that rolls downwards.

A window's probabilities count most at its centre, where the network sees context on all sides:
with $T$ the window's edge, pixel $(i, j)$ weighs $a_i a_j$,

$$a_i = \max\bigl(\sin^2 \tfrac{\pi (i + 1/2)}{T},\ 10^{-3}\bigr).$$

The weights are separable and windows lie on a grid, so their sum over all windows is the product of
a sum over row starts and one over column starts; only probabilities themselves need to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

__all__ = ["RollingStrip", "coverage", "roll_up", "window_weights"]


def window_weights(
    size: int, *, dtype: torch.dtype = torch.float32, floor: float = 1e-3
) -> Float[Tensor, " t"]:
    """The weights along one axis of a window of ``size`` pixels, from ``floor`` to 1."""
    i = torch.arange(size, dtype=torch.float64)
    return (torch.sin(torch.pi * (i + 0.5) / size) ** 2).clamp_min(floor).to(dtype)


def coverage(starts: Sequence[int], size: int, length: int) -> Float[Tensor, " length"]:
    """The summed weight at each pixel of an axis, float64.

    Args:
        starts: First pixels of the windows that cover the axis.
        size: Their edge; a window may reach beyond the axis.
        length: Pixels of the axis.
    """
    a = window_weights(size, dtype=torch.float64)
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        part = total[start : start + size]
        part += a[: len(part)]
    return total


def roll_up(
    strip: Shaped[Tensor, "*c rows cols"], by: int, fill: Tensor | float | bool = 0
) -> None:
    """Move the rows of ``strip`` up by ``by`` in place, and fill the freed ones."""
    rows = strip.shape[-2]
    for top in range(0, rows - by, by):  # in pieces, so that source and target never overlap
        part = min(by, rows - by - top)
        strip[..., top : top + part, :] = strip[..., top + by : top + by + part, :]
    strip[..., max(0, rows - by) :, :] = fill


class RollingStrip:
    """Sums of weighted probabilities over the rows of the windows in hand.

    Memory is ``classes * size * width`` numbers, whatever the height of the raster. A window is
    added in one pass over it and without a copy.

    Args:
        classes: Channels of the probabilities.
        size: Edge of a window, and rows of the strip.
        width: Columns of the strip, at least ``size``.
        dtype: Of the sums.
        device: Where they are; that of the probabilities.
    """

    def __init__(
        self,
        classes: int,
        size: int,
        width: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.total = torch.zeros(classes, size, width, dtype=dtype, device=device)
        a = window_weights(size, dtype=torch.float64)
        self.weights = torch.outer(a, a).to(self.total)

    def add(self, probabilities: Float[Tensor, "n k t t"], cols: Sequence[int]) -> None:
        """Add windows whose first row is the strip's, at their first columns in the strip."""
        size = self.total.shape[1]
        for window, col in zip(probabilities, cols, strict=True):
            self.total[:, :, col : col + size].addcmul_(window, self.weights)

    def advance(self, rows: int) -> None:
        """Drop the upper ``rows``, which no later window touches."""
        roll_up(self.total, rows)
