"""Where a masked view is cut: with enough of the plant in it."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from cl_core.transforms import Geometry, RandomResizedCrop

__all__ = ["TRIES", "around_plants", "draw_accepted", "least_plant", "nearest_mask"]

TRIES = 10
"""Crops drawn before the box around the plants is taken."""


def least_plant(fraction: float) -> float:
    """Share of a crop that must be plant, from the share of the whole image that is."""
    return min(0.02, 0.25 * fraction)


def draw_accepted(crop: RandomResizedCrop, mask: Bool[Tensor, "h w"]) -> Geometry:
    """Draw crops until one holds enough of the plants; after ten, take the box around them.

    A mask of all ones accepts any crop.

    Args:
        crop: Draws.
        mask: Of the whole image.
    """
    height, width = mask.shape
    plant, whole = _count(mask), height * width
    geometry = crop.draw(height, width)
    if plant == whole:
        return geometry
    least = least_plant(plant / whole)
    for _ in range(TRIES - 1):
        if _count(geometry.cut(mask)) >= least * geometry.height * geometry.width:
            return geometry
        geometry = crop.draw(height, width)
    if _count(geometry.cut(mask)) >= least * geometry.height * geometry.width:
        return geometry
    top, left, h, w = around_plants(mask)
    return geometry._replace(top=top, left=left, height=h, width=w)


def around_plants(mask: Bool[Tensor, "h w"], *, margin: float = 0.1) -> tuple[int, int, int, int]:
    """The square around the plants, with a margin on each side, as far as the image reaches.

    Args:
        mask: Of the whole image; without a plant the largest centred square is given.
        margin: Share of the longer side of the plants' box.

    Returns:
        First row, first column, rows, columns.
    """
    height, width = mask.shape
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    if not len(rows):
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    side = math.ceil((1 + 2 * margin) * max(bottom - top, right - left))
    h, w = min(side, height), min(side, width)
    first_row = min(max(0, (top + bottom - h) // 2), height - h)
    first_column = min(max(0, (left + right - w) // 2), width - w)
    return first_row, first_column, h, w


def nearest_mask(
    geometry: Geometry, mask: Bool[Tensor, "h w"], size: int
) -> Bool[Tensor, "{size} {size}"]:
    """The mask under a geometry: pixel ``i`` is pixel ``i * n // size`` of the box.

    That is torch's ``nearest``, by which the reference masks are made;
    ``Geometry.apply_mask`` takes the pixel under the centre instead.
    """
    top, left, height, width, flip, flip_vertical, turns = geometry
    steps = np.arange(size)
    rows, columns = top + steps * height // size, left + steps * width // size
    rows = rows[::-1] if flip_vertical else rows
    columns = columns[::-1] if flip else columns
    # numpy takes a few thousand bits in a tenth of torch's time
    view = torch.from_numpy(mask.numpy().take(rows, 0).take(columns, 1))
    return view.rot90(turns) if turns else view


def _count(mask: Tensor) -> int:
    return int(np.count_nonzero(mask.numpy()))
