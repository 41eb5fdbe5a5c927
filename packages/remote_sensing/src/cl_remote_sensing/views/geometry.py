"""Crop, resize, flip and quarter turn of a tile, and the tile's pixel behind each of a view's."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

__all__ = ["FLIPS", "Geometry", "draw_crop", "draw_flip", "draw_turns", "source_ids"]

FLIPS = {"horizontal": (-1,), "vertical": (-2,), "both": (-2, -1), "none": ()}
"""Axes that each flip reverses."""


class Geometry(NamedTuple):
    """How a view is cut from a tile: crop, resize, flip, then turn.

    Attributes:
        row: First row of the crop.
        col: First column.
        height: Rows of the crop.
        width: Columns.
        flip: A key of :data:`FLIPS`.
        turns: Quarter turns clockwise.
    """

    row: int
    col: int
    height: int
    width: int
    flip: str = "none"
    turns: int = 0

    def image(self, image: Float[Tensor, "c h w"], size: int) -> Float[Tensor, "c {size} {size}"]:
        """Return the view of an image, resized bilinearly with half-pixel centres."""
        crop = self._crop(image)
        if crop.shape[-2:] != (size, size):
            crop = F.interpolate(crop[None], size=(size, size), mode="bilinear")[0]
        return self.orient(crop)

    def nearest(self, plane: Shaped[Tensor, "h w"], size: int) -> Shaped[Tensor, "{size} {size}"]:
        """Return the view of a mask or of labels: pixel ``i`` is source pixel ``i * n // size``."""
        rows = _nearest(self.height, size) + self.row
        cols = _nearest(self.width, size) + self.col
        return self.orient(plane[torch.from_numpy(rows)[:, None], torch.from_numpy(cols)])

    def orient(self, x: Shaped[Tensor, "*c h w"]) -> Shaped[Tensor, "*c y x"]:
        """Flip and turn."""
        if FLIPS[self.flip]:
            x = x.flip(FLIPS[self.flip])
        return torch.rot90(x, -self.turns, (-2, -1)) if self.turns % 4 else x

    def _crop(self, x: Tensor) -> Tensor:
        return x[..., self.row : self.row + self.height, self.col : self.col + self.width]


def source_ids(
    geometry: Geometry, tile_width: int, size: int
) -> Int64[np.ndarray, "{size} {size}"]:
    """Return which pixel of the tile each pixel of the view shows, as ``row * tile_width + col``.

    What an image of those numbers becomes when it goes through the same crop, nearest resizing,
    flip and turn as the view.
    """
    rows = _nearest(geometry.height, size) + geometry.row
    cols = _nearest(geometry.width, size) + geometry.col
    ids = rows[:, None] * tile_width + cols
    if FLIPS[geometry.flip]:
        ids = np.flip(ids, FLIPS[geometry.flip])
    return np.ascontiguousarray(np.rot90(ids, -geometry.turns))


def _nearest(length: int, size: int) -> Int64[np.ndarray, " {size}"]:
    return np.arange(size, dtype=np.int64) * length // size


def draw_crop(height: int, width: int, scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """Draw row, column, height and width of a random crop from torch's generator.

    Five tries of an area uniform in ``scale`` times the tile's and an aspect ratio uniform in
    [3/4, 4/3], laid across or upright; the first smaller than the tile in both axes is put
    anywhere in it. Failing that, the largest centred square.

    Args:
        height: Of the tile.
        width: Of the tile.
        scale: Least and largest share of the tile's area.
    """
    for _ in range(5):
        u_area, u_ratio, u_swap, u_row, u_col = torch.rand(5, dtype=torch.float64).tolist()
        area = (scale[0] + u_area * (scale[1] - scale[0])) * height * width
        ratio = 3 / 4 + u_ratio * (4 / 3 - 3 / 4)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if u_swap < 0.5:
            w, h = h, w
        if 0 < w < width and 0 < h < height:
            return int(u_row * (height - h + 1)), int(u_col * (width - w + 1)), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def draw_flip() -> str:
    """Draw a flip: each of the three with probability 1/5, none with 2/5."""
    return ("horizontal", "vertical", "both", "none", "none")[int(torch.randint(5, ()))]


def draw_turns() -> int:
    """Draw 0 to 3 quarter turns, each as likely."""
    return int(torch.randint(4, ()))
