"""The window grid: one rule for where windows start, in pretraining, training and prediction.

The rule is global and deterministic: it depends on the raster's size, the window and the stride
alone, never on how the work is cut into chunks or shared between processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Window", "blockwise", "grid", "starts"]


class Window(NamedTuple):
    """A rectangle of a raster in whole pixels; ``row`` and ``col`` are its upper-left pixel."""

    row: int
    col: int
    height: int
    width: int


def starts(length: int, size: int, stride: int) -> list[int]:
    """First pixels of the windows that cover an axis.

    Args:
        length: Pixels of the axis, at least 1.
        size: Pixels of a window, at least 1.
        stride: Pixels between two starts, at least 1; above ``size`` it leaves gaps.

    Returns:
        ``[0]`` when one window covers the axis, else ``0, stride, 2*stride, ...`` below
        ``length - size``, then ``length - size``: the last window ends on the last pixel.

    Raises:
        ValueError: If any of the three is below 1.
    """
    if min(length, size, stride) < 1:
        raise ValueError(
            f"length, size and stride must be at least 1, got {length}, {size} and {stride}"
        )
    if length <= size:
        return [0]
    return [*range(0, length - size, stride), length - size]


def grid(height: int, width: int, *, size: int, stride: int) -> list[Window]:
    """Windows over a raster, row-major.

    No window leaves the raster: an axis shorter than ``size`` gives windows as short as itself.

    Raises:
        ValueError: As :func:`starts`.
    """
    rows, cols = starts(height, size, stride), starts(width, size, stride)
    tall, wide = min(size, height), min(size, width)
    return [Window(row, col, tall, wide) for row in rows for col in cols]


def blockwise(
    height: int, width: int, *, block: tuple[int, int], pixels: int = 2**20
) -> Iterator[Window]:
    """Windows along a raster's blocks that hold every pixel once, row-major.

    Each is a whole number of blocks (less at the right and lower edge), of about ``pixels`` pixels
    and as square as the blocks allow, so that no block is decoded twice.

    Args:
        height: Rows of the raster.
        width: Columns of the raster.
        block: Rows and columns that the file stores together.
        pixels: Wanted size of a window; one block is taken even if it is larger.
    """
    rows, cols = min(block[0], height), min(block[1], width)
    wide = min(max(min(int(pixels**0.5), pixels // rows) // cols, 1) * cols, width)
    tall = max(pixels // (wide * rows), 1) * rows
    for row in range(0, height, tall):
        for col in range(0, width, wide):
            yield Window(row, col, min(tall, height - row), min(wide, width - col))
