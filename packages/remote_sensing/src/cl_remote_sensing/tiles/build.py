"""Which tiles of scenes take part: the window grid, and enough valid pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.rasters.windows import Window, starts
from cl_remote_sensing.tiles.index import TileIndex, merge, read_windows

__all__ = ["TileIndex", "build_index", "merge", "read_windows"]

_CHUNK = 2**22
"""Pixels read at once while an index is built: bounds memory whatever the raster's size."""


def build_index(
    scenes: Sequence[Scene],
    *,
    size: int,
    stride: int,
    min_valid: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> TileIndex:
    """Lay the window grid over every scene and keep the tiles with enough valid pixels.

    Each scene is read once, in pieces of bounded size; windows may overlap.

    Args:
        scenes: The rasters.
        size: Pixels of a tile's side; a smaller raster gives one tile as small as itself.
        stride: Pixels between two tiles; ``size`` for no overlap.
        min_valid: Smallest share of valid pixels, in ``[0, 1]``. A tile without any valid pixel
            is always left out.
        progress: Called with the pixels read so far and those of all scenes.

    Returns:
        The tiles scene by scene, row-major; ``notes`` tells how many were left out.

    Raises:
        InputError: If no tile is left, or a raster is damaged.
        ValueError: If a number is out of range.
    """
    if not 0 <= min_valid <= 1:
        raise ValueError(f"min_valid is a share of pixels in [0, 1], got {min_valid}")
    if not scenes:
        raise ValueError("an index needs at least one scene")
    total, done = sum(scene.height * scene.width for scene in scenes), 0
    numbers, windows, shares, notes = [], [], [], []
    for number, scene in enumerate(scenes):
        tops, lefts = starts(scene.height, size, stride), starts(scene.width, size, stride)
        sides = (min(size, scene.height), min(size, scene.width))
        count = np.zeros((len(tops), len(lefts)), dtype=np.int64)
        for chunk in scene.blocks(_CHUNK):
            valid = scene.read(chunk).valid
            _add_counts(count, valid, chunk, np.array(tops), np.array(lefts), sides)
            done += chunk.height * chunk.width
            if progress is not None:
                progress(done, total)
        share = count.ravel() / (sides[0] * sides[1])
        kept = np.flatnonzero((share >= min_valid) & (share > 0))
        rows, cols = np.divmod(kept, len(lefts))
        window = np.stack([np.array(tops)[rows], np.array(lefts)[cols]], axis=1)
        windows.append(np.hstack([window, np.broadcast_to(sides, window.shape)]))
        shares.append(share[kept])
        numbers.append(np.full(len(kept), number))
        if len(kept) < len(share):
            notes.append(
                f"{scene.path}: {len(share) - len(kept)} of {len(share)} tiles left out, having "
                f"{_too_few(min_valid)}"
            )
    index = TileIndex.fresh(
        scenes, np.concatenate(numbers), np.concatenate(windows), np.concatenate(shares)
    )
    if not len(index):
        first = scenes[0].path
        names = first if len(scenes) == 1 else f"{first} and {len(scenes) - 1} more"
        raise InputError(
            f"{names}: every tile of {size} pixels has {_too_few(min_valid)}; "
            "check the nodata value, or ask for a smaller share"
        )
    return index.noting(*notes)


def _add_counts(
    count: NDArray[np.int64],
    valid: NDArray[np.bool_],
    chunk: Window,
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    sides: tuple[int, int],
) -> None:
    """Add a chunk's valid pixels to the windows of a grid that it meets.

    Windows are a product of row and column ranges, so differences of running sums along one
    axis and then the other count all of them at once.
    """
    rows = np.flatnonzero((tops < chunk.row + chunk.height) & (tops + sides[0] > chunk.row))
    cols = np.flatnonzero((lefts < chunk.col + chunk.width) & (lefts + sides[1] > chunk.col))
    if not (len(rows) and len(cols)):
        return
    first, last = (np.clip(tops[rows] + k - chunk.row, 0, chunk.height) for k in (0, sides[0]))
    left, right = (np.clip(lefts[cols] + k - chunk.col, 0, chunk.width) for k in (0, sides[1]))
    down = np.zeros((chunk.height + 1, chunk.width), dtype=np.int32)
    np.cumsum(valid, axis=0, out=down[1:])
    strips = down[last] - down[first]
    across = np.zeros((len(rows), chunk.width + 1), dtype=np.int64)
    np.cumsum(strips, axis=1, out=across[:, 1:])
    count[np.ix_(rows, cols)] += across[:, right] - across[:, left]


def _too_few(min_valid: float) -> str:
    return f"fewer than {min_valid:.0%} valid pixels" if min_valid else "no valid pixel"
