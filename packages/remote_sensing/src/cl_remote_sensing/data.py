"""Tiles as tensors: windows of rasters, read when they are asked for.

Both data sets hold paths and numbers only, so they travel to worker processes, and memory does
not grow with the rasters. Random choices come from torch's global generator, which the loader
seeds for every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cl_remote_sensing.labels.legend import IGNORE
from cl_remote_sensing.labels.scene_labels import Labels
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import Pixels, Scene
from cl_remote_sensing.rasters.windows import Window
from cl_remote_sensing.tiles.ground import overlapping_within_scenes
from cl_remote_sensing.tiles.index import TileIndex

__all__ = ["LabelledTiles", "UnlabelledTiles", "super_window"]

T = TypeVar("T")

_TRIES = 4
"""Offsets that are tried before a tile without enough valid pixels falls back to its place."""


class UnlabelledTiles(Dataset[T], Generic[T]):
    """Tiles for pretraining.

    A tile smaller than the largest of the index (its raster is smaller than a tile) is filled up
    with invalid pixels below and to the right.

    Args:
        index: The tiles.
        normalization: Scales pixels to ``[0, 1]`` per band.
        transform: Makes a sample of a float32 tile ``(c, h, w)`` in ``[0, 1]``, whose invalid
            pixels hold the band's mean, and of its valid pixels, bool ``(h, w)``.
        jitter: Move each tile by a random offset inside its super-window, see
            :func:`super_window`; without it tiles lie where the index says. A moved tile may
            show ground of neighbours that the index leaves out.
        min_valid: The smallest share of valid pixels of a moved tile; where a few offsets do not
            reach it, the tile is taken from its own place, whose share the index knows.
    """

    def __init__(
        self,
        index: TileIndex,
        normalization: Normalization,
        transform: Callable[[Tensor, Tensor], T],
        *,
        jitter: bool,
        min_valid: float = 0.5,
    ) -> None:
        self.index = index
        self.normalization = normalization
        self.transform = transform
        self.jitter = jitter
        self.min_valid = min_valid
        self._sides = _largest(index)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> T:
        scene, window = self.index.at(row)
        pixels = self._moved(scene, window, float(self.index.valid[row])) if self.jitter else None
        if pixels is None:
            pixels = scene.read(window)
        unit, valid = self.normalization.unit(_fill_up(pixels, self._sides))
        return self.transform(unit, valid)

    def _moved(self, scene: Scene, window: Window, share: float) -> Pixels | None:
        area = super_window(window, scene)
        down, right = area.height - window.height + 1, area.width - window.width + 1
        for _ in range(_TRIES if down * right > 1 else 0):
            row = area.row + int(torch.randint(down, ()))
            col = area.col + int(torch.randint(right, ()))
            # Read as it is, it touches no block outside the super-window.
            pixels = scene.read(Window(row, col, window.height, window.width))
            if float(pixels.valid.mean()) >= min(self.min_valid, share):
                return pixels
        return None


class LabelledTiles(Dataset[tuple[Tensor, Tensor]]):
    """Tiles with their labels, for fine-tuning and evaluation.

    Tiles are filled up as in :class:`UnlabelledTiles`. Pixels that are invalid in the image are
    unlabelled.

    Args:
        index: The tiles.
        labels: The labels of each scene of the index.
        normalization: The network's.
        transform: An augmentation of a float32 tile ``(c, h, w)`` in ``[0, 1]``, its valid
            pixels, bool ``(h, w)``, and its labels, uint8 ``(h, w)``; returns the same three.
        count_once: Give a pixel's label in the first tile that holds it only, and 255 in later
            ones: a sum over all tiles then counts each pixel of a scene once.

    Raises:
        ValueError: If there is not one ``labels`` per scene.
    """

    def __init__(
        self,
        index: TileIndex,
        labels: Sequence[Labels],
        normalization: Normalization,
        transform: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None,
        *,
        count_once: bool = False,
    ) -> None:
        if len(labels) != len(index.scenes):
            raise ValueError(
                f"labels are given per scene: got {len(labels)} for {len(index.scenes)} scenes"
            )
        self.index = index
        self.labels = tuple(labels)
        self.normalization = normalization
        self.transform = transform
        self._sides = _largest(index)
        self._seen: dict[int, list[int]] = {}
        if count_once:
            for first, second in overlapping_within_scenes(index).tolist():
                self._seen.setdefault(second, []).append(first)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """A standardised float32 image ``(c, h, w)`` and int64 labels ``(h, w)``, 255 for none."""
        scene, window = self.index.at(row)
        pixels = _fill_up(scene.read(window), self._sides)
        marks = np.full(pixels.valid.shape, IGNORE, dtype=np.uint8)
        inside = marks[: window.height, : window.width]
        inside[:] = self.labels[int(self.index.scene[row])].read(window)
        for earlier in self._seen.get(row, ()):
            _, other = self.index.at(earlier)
            top, left = max(other.row - window.row, 0), max(other.col - window.col, 0)
            bottom = other.row + other.height - window.row
            inside[top:bottom, left : other.col + other.width - window.col] = IGNORE
        marks[~pixels.valid] = IGNORE
        label = torch.from_numpy(marks)
        if self.transform is None:
            image, _ = self.normalization(pixels)
            return image, label.long()
        unit, valid = self.normalization.unit(pixels)
        unit, valid, label = self.transform(unit, valid, label)
        return self.normalization.standardize(unit), label.long()


def super_window(window: Window, scene: Scene) -> Window:
    """The ground inside which a tile may be moved: whole blocks around it.

    It gives a tile at least half its side to move, raster permitting, and reading anywhere in it
    decodes no other block.
    """
    tall, wide = scene.block
    row, height = _around(window.row, window.height, tall, scene.height)
    col, width = _around(window.col, window.width, wide, scene.width)
    return Window(row, col, height, width)


def _around(start: int, size: int, block: int, length: int) -> tuple[int, int]:
    """Start and length of whole blocks that hold ``start .. start + size`` with room to move."""
    first = start // block * block
    last = min(-(-(start + size) // block) * block, length)
    while last - first < size + size // 2:
        if last < length:
            last = min(last + block, length)
        elif first > 0:
            first -= block
        else:
            break
    return first, last - first


def _largest(index: TileIndex) -> tuple[int, int]:
    height, width = index.window[:, 2:].max(axis=0).tolist() if len(index) else (0, 0)
    return height, width


def _fill_up(pixels: Pixels, sides: tuple[int, int]) -> Pixels:
    """Add invalid pixels below and to the right until a tile has ``sides``."""
    height, width = pixels.valid.shape
    if (height, width) == sides:
        return pixels
    margin = ((0, sides[0] - height), (0, sides[1] - width))
    values: NDArray[np.generic] = np.pad(pixels.values, ((0, 0), *margin))
    return Pixels(values, np.pad(pixels.valid, margin))
