"""The windows of one panel, a range of columns, from the pixels to finished rows.

Down a panel the window rows are met in order, each once: new pixel rows come in below, the windows
of the row are predicted and blended, and the rows that no later window touches go out above. What
is in memory depends on the panel's width and the window, not on the raster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cl_remote_sensing.mapping.blending import RollingStrip, roll_up
from cl_remote_sensing.mapping.prediction import Predict
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import Pixels, Scene, UnreadableWindowError
from cl_remote_sensing.rasters.windows import Window, starts

__all__ = ["Panel", "Tally", "run_panel"]

PIECE = 2**18
"""Pixels that are normalised at once."""

READ_ROWS = 512
"""Most rows that are read at once where the file's blocks are lower."""


@dataclass
class Tally:
    """What the mapping did, and how long each part took; filled as it goes.

    Attributes:
        windows: Windows the network saw.
        skipped: Windows without a valid pixel.
        damaged: Pixels that could not be read.
        looked: Valid values that were looked at for the next, one of 64.
        clipped: Those that lie outside the range of the scaling.
        seconds: ``reading`` is what the rest had to wait for, since a thread reads ahead.
    """

    windows: int = 0
    skipped: int = 0
    damaged: int = 0
    looked: int = 0
    clipped: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("reading", "model", "blending", "writing"), 0.0)
    )

    def since(self, part: str, begin: float) -> float:
        """Add the time since ``begin`` to a part, and return the time."""
        now = time.perf_counter()
        self.seconds[part] += now - begin
        return now


@dataclass(frozen=True)
class Panel:
    """The part of a map that one pass covers, and the windows it takes.

    Attributes:
        cols: First and last-but-one column of the map that are its own.
        rows: First and last-but-one row.
        row_starts: First rows of the window rows that touch them, and where the next one begins.
        col_starts: First columns of the windows that touch them.
        size: Edge of a window.
    """

    cols: tuple[int, int]
    rows: tuple[int, int]
    row_starts: tuple[int, ...]
    col_starts: tuple[int, ...]
    size: int

    @classmethod
    def of(
        cls, scene: Scene, *, rows: tuple[int, int], cols: tuple[int, int], size: int, stride: int
    ) -> Panel:
        """Find the windows of the raster's one grid that touch a part of it."""

        def touching(length: int, span: tuple[int, int]) -> tuple[int, ...]:
            return tuple(
                s for s in starts(length, size, stride) if s < span[1] and s + size > span[0]
            )

        return cls(cols, rows, touching(scene.height, rows), touching(scene.width, cols), size)

    @property
    def windows(self) -> int:
        return len(self.row_starts) * len(self.col_starts)


def run_panel(
    panel: Panel,
    predict: Predict,
    scene: Scene,
    normalization: Normalization,
    *,
    classes: int,
    batch_size: int,
    device: torch.device,
    skip_damaged: bool,
    tally: Tally,
    step: Callable[[int], None] = lambda windows: None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Map a panel from above to below.

    Args:
        panel: What to map.
        predict: Probabilities ``(n, k, t, t)`` of normalised windows.
        scene: The image.
        normalization: That of the training.
        classes: ``k``.
        batch_size: Windows predicted at once.
        device: Where the windows go and the probabilities come from.
        skip_damaged: Take pixels that cannot be read as invalid.
        tally: Counts and times go here.
        step: Called with the number of windows after each row of them.

    Yields:
        For consecutive rows of the panel: the first one's number; the weighted sums
        ``(k, rows, cols)``, which are overwritten when the next rows are asked for; and which
        pixels are valid ``(rows, cols)``.
    """
    left, size = panel.col_starts[0], panel.size
    right = panel.col_starts[-1] + size  # may lie beyond a raster smaller than the window
    fill = normalization(Pixels(np.zeros((len(scene.bands), 1, 1), scene.dtype), _INVALID))[0]
    fill = fill.to(device)
    strip = RollingStrip(classes, size, right - left, device=device)
    image = fill.expand(-1, size, right - left).contiguous()
    valid = torch.zeros(size, right - left, dtype=torch.bool)
    own = slice(panel.cols[0] - left, panel.cols[1] - left)
    columns = (left, min(right, scene.width))
    reader = _rows(panel, scene, normalization, columns, skip_damaged=skip_damaged, tally=tally)
    news = _ahead(reader)
    now = time.perf_counter()
    for number, top in enumerate(panel.row_starts):
        pixels, seen = next(news)
        now = tally.since("reading", now)
        last = number + 1 == len(panel.row_starts)
        if number:
            roll_up(image, top - panel.row_starts[number - 1], fill)
            roll_up(valid, top - panel.row_starts[number - 1], False)
        height = min(size, scene.height)
        image[:, height - pixels.shape[1] : height, : pixels.shape[2]] = pixels.to(device)
        valid[height - len(seen) : height, : seen.shape[1]] = seen
        cols = _with_data(valid, panel, left)
        tally.skipped += len(panel.col_starts) - len(cols)
        tally.windows += len(cols)
        now = tally.since("blending", now)
        for first in range(0, len(cols), batch_size):
            batch = cols[first : first + batch_size]
            windows = torch.stack([image[:, :, col : col + size] for col in batch])
            now = tally.since("blending", now)
            probabilities = predict(windows)
            _check(probabilities, windows, classes)
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # for the clock alone
            now = tally.since("model", now)
            strip.add(probabilities, batch)
            now = tally.since("blending", now)
        step(len(panel.col_starts))
        bottom = panel.rows[1] if last else min(panel.row_starts[number + 1], panel.rows[1])
        begin = max(top, panel.rows[0])
        if bottom > begin:
            rows = slice(begin - top, bottom - top)
            yield begin, strip.total[:, rows, own], valid[rows, own]
        now = time.perf_counter()
        if not last:
            strip.advance(panel.row_starts[number + 1] - top)


_INVALID = np.zeros((1, 1), bool)


def _with_data(valid: Tensor, panel: Panel, left: int) -> list[int]:
    """Columns in the strip of the windows that have a valid pixel."""
    filled = np.flatnonzero(valid.any(0).numpy())
    cols = np.array(panel.col_starts) - left
    some = np.searchsorted(filled, cols) < np.searchsorted(filled, cols + panel.size)
    return [int(col) for col in cols[some]]


def _check(probabilities: Tensor, windows: Tensor, classes: int) -> None:
    expected = (len(windows), classes, *windows.shape[2:])
    if tuple(probabilities.shape) != expected:
        raise ValueError(f"predict must give {expected}, got {tuple(probabilities.shape)}")


def _rows(
    panel: Panel,
    scene: Scene,
    normalization: Normalization,
    columns: tuple[int, int],
    *,
    skip_damaged: bool,
    tally: Tally,
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each window row the pixel rows that it adds to those before it, normalised."""
    first, stop = columns
    block = scene.block[0]
    # Whole blocks, so that each is decoded once a panel whatever the size of GDAL's cache.
    chunk = block * max(1, READ_ROWS // block) if block < READ_ROWS else min(block, 4 * READ_ROWS)
    held, held_from, held_to = None, 0, 0
    done = panel.row_starts[0]
    for top in panel.row_starts:
        end = min(top + panel.size, scene.height)
        image = torch.empty(len(scene.bands), end - done, stop - first)
        valid = torch.empty(end - done, stop - first, dtype=torch.bool)
        begin = done
        while done < end:
            if held is None or done >= held_to:
                held_from = max(done // chunk * chunk, panel.row_starts[0])
                held_to = min((done // chunk + 1) * chunk, scene.height)
                window = Window(held_from, first, held_to - held_from, stop - first)
                held = _read(scene, window, skip_damaged, tally)
            rows = min(end, held_to, done + max(1, PIECE // (stop - first))) - done
            part = slice(done - held_from, done - held_from + rows)
            into = slice(done - begin, done - begin + rows)
            pixels = Pixels(held.values[:, part], held.valid[part])
            image[:, into], valid[into] = normalization(pixels)
            _look(pixels, normalization, tally)
            done += rows
        yield image, valid


def _look(pixels: Pixels, normalization: Normalization, tally: Tally) -> None:
    """Count some of the values that lie outside what the scaling was made for."""
    valid = pixels.valid[::8, ::8]
    values = pixels.values[:, ::8, ::8][:, valid]
    low, high = (np.asarray(ends)[:, None] for ends in (normalization.low, normalization.high))
    tally.looked += values.size
    tally.clipped += int(((values < low) | (values > high)).sum())


def _read(scene: Scene, window: Window, skip_damaged: bool, tally: Tally) -> Pixels:
    """Read a window; where that fails and may, find the damaged blocks and leave them out."""
    try:
        return scene.read(window)
    except UnreadableWindowError:
        if not skip_damaged:
            raise
    shape = (window.height, window.width)
    values = np.zeros((len(scene.bands), *shape), scene.dtype)
    valid = np.zeros(shape, bool)
    for rows in _blocks(window.row, window.height, scene.block[0]):
        for cols in _blocks(window.col, window.width, scene.block[1]):
            part = Window(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
            place = (
                slice(rows[0] - window.row, rows[1] - window.row),
                slice(cols[0] - window.col, cols[1] - window.col),
            )
            try:
                values[(slice(None), *place)], valid[place] = scene.read(part)
            except UnreadableWindowError:
                tally.damaged += part.height * part.width
    return Pixels(values, valid)


def _blocks(first: int, length: int, block: int) -> list[tuple[int, int]]:
    edges = [first, *range((first // block + 1) * block, first + length, block), first + length]
    return list(pairwise(edges))


_T = TypeVar("_T")


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Make each item while the one before it is in use, in a thread of its own."""
    end: Any = object()
    with ThreadPoolExecutor(1, "reading") as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
