"""The index of tiles: which windows of which scenes take part, kept as CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.runs import write_atomic
from cl_remote_sensing.rasters.places import is_remote, is_virtual
from cl_remote_sensing.rasters.raster import Scene, open_scenes
from cl_remote_sensing.rasters.windows import Window
from cl_remote_sensing.tiles.manifest import find_listed, read_listing

__all__ = ["TileIndex", "merge", "read_windows"]

_WINDOW = ("row_off", "col_off", "height", "width")


@dataclass(frozen=True, eq=False)
class TileIndex:
    """A row per tile; nothing is read until a data set asks.

    Attributes:
        scenes: The rasters.
        scene: Which of them each tile is cut from, int64 ``(n,)``.
        window: Row, column, height and width of each tile in pixels, int64 ``(n, 4)``.
        valid: Share of valid pixels in each tile, in ``[0, 1]``, float64 ``(n,)``.
        split: Name of each tile's split, empty for none, text ``(n,)``.
        notes: What was left out or decided, a sentence each.
    """

    scenes: tuple[Scene, ...]
    scene: NDArray[np.int64]
    window: NDArray[np.int64]
    valid: NDArray[np.float64]
    split: NDArray[Any]
    notes: tuple[str, ...] = ()

    @classmethod
    def fresh(
        cls,
        scenes: Sequence[Scene],
        scene: NDArray[np.int64],
        window: NDArray[np.int64],
        valid: NDArray[np.float64],
    ) -> TileIndex:
        """An index whose tiles have no split yet."""
        return cls(
            scenes=tuple(scenes),
            scene=scene.astype(np.int64),
            window=window.astype(np.int64),
            valid=valid.astype(np.float64),
            split=np.full(len(scene), ""),
        )

    def __len__(self) -> int:
        return len(self.scene)

    def at(self, row: int) -> tuple[Scene, Window]:
        """The scene and the window of a tile."""
        return self.scenes[self.scene[row]], Window(*self.window[row].tolist())

    def windows(self) -> list[tuple[int, Window]]:
        """Scene number and window of every tile, in order."""
        rows = zip(self.scene.tolist(), self.window.tolist(), strict=True)
        return [(scene, Window(*window)) for scene, window in rows]

    def take(self, rows: Iterable[int] | NDArray[np.int64] | NDArray[np.bool_]) -> TileIndex:
        """The given tiles in the given order (or those where a mask is true); scenes all stay."""
        kept = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows))
        kept = np.flatnonzero(kept) if kept.dtype == bool else kept.astype(np.int64)
        return replace(
            self,
            scene=self.scene[kept],
            window=self.window[kept],
            valid=self.valid[kept],
            split=self.split[kept],
        )

    def noting(self, *notes: str) -> TileIndex:
        """The same index with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def select(self, split: str) -> TileIndex:
        """The tiles of one split.

        Raises:
            InputError: If it has none, naming the splits there are.
        """
        rows = np.flatnonzero(self.split == split)
        if not len(rows):
            known = sorted({name for name in self.split.tolist() if name})
            told = f"the splits are {', '.join(known)}" if known else "no tile has a split yet"
            raise InputError(f"no tile is in split '{split}': {told}")
        return self.take(rows)

    def in_block_order(self) -> TileIndex:
        """The same tiles, scene by scene and block by block: each block is decoded once.

        For evaluation, where order is free; in row-major order a row of blocks would have to
        stay in GDAL's cache.
        """
        sides = np.array([scene.block for scene in self.scenes], dtype=np.int64)[self.scene]
        # A block may be smaller than a tile; then a tile is the unit that is read.
        unit = np.maximum(sides, self.window[:, 2:])
        row, col = (self.window[:, :2] // unit).T
        return self.take(np.lexsort((*self.window[:, 1::-1].T, col, row, self.scene)))

    def save(self, path: Path | str, *, labels: Sequence[Path | str] | None = None) -> None:
        """Write the index as CSV; image paths are relative to its folder.

        Columns: ``image[,label],row_off,col_off,height,width,valid,split``.

        Args:
            path: The file; its folder must exist.
            labels: A label file per scene, to be written beside the image.
        """
        path = Path(path)
        images = [_relative(scene.path, path) for scene in self.scenes]
        marks = [[_relative(label, path)] for label in labels] if labels else [[] for _ in images]
        with (
            write_atomic(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", *["label"] * bool(labels), *_WINDOW, "valid", "split"])
            for scene, window, valid, split in zip(
                self.scene, self.window.tolist(), self.valid.tolist(), self.split, strict=True
            ):
                writer.writerow([images[scene], *marks[scene], *window, repr(valid), split])

    @classmethod
    def load(
        cls,
        path: Path | str,
        scenes: Sequence[Scene] | None = None,
        *,
        bands: Sequence[str] | None = None,
        ignore_alpha_tag: bool = False,
        network: bool = False,
    ) -> TileIndex:
        """Read an index that :meth:`save` wrote, or any list of windows.

        Args:
            path: The CSV file.
            scenes: The scenes it was made of; by default the files it names are opened.
            bands: As for :func:`cl_remote_sensing.rasters.raster.open_scene`, when they are opened.
            ignore_alpha_tag: Likewise.
            network: Likewise; also whether the list may name places on the network.

        Raises:
            InputError: As :func:`read_windows`.
        """
        if scenes is None:
            images = dict.fromkeys(row["image"] for row in read_listing(path, ["image"]))
            held = [image for image in images if image.startswith("/vsimem/")]
            if held:
                raise InputError(
                    f"{path}: the rasters of this run were given in memory and cannot be read "
                    "again; give --data and --labels"
                )
            away = [image for image in images if is_remote(image)]
            if away and not network:
                raise InputError(
                    f"{path}: names {away[0]!r} on the network, which is not read without "
                    "--allow_network"
                )
            files = [
                image if is_virtual(image) else str(find_listed(image, path)) for image in images
            ]
            scenes = open_scenes(
                files, bands=bands, ignore_alpha_tag=ignore_alpha_tag, network=network
            )
        return read_windows(path, scenes)


def merge(parts: Mapping[str, TileIndex]) -> TileIndex:
    """Put indexes together; each becomes the split of its key, an empty key keeps its splits."""
    scenes: dict[Scene, int] = {}
    numbers = []
    for index in parts.values():
        place = [scenes.setdefault(scene, len(scenes)) for scene in index.scenes]
        numbers.append(np.array(place, dtype=np.int64)[index.scene])
    splits = [np.full(len(i), name) if name else i.split for name, i in parts.items()]
    notes = dict.fromkeys(note for index in parts.values() for note in index.notes)
    return TileIndex(
        scenes=tuple(scenes),
        scene=np.concatenate(numbers),
        window=np.concatenate([index.window for index in parts.values()]),
        valid=np.concatenate([index.valid for index in parts.values()]),
        split=np.concatenate(splits),
        notes=tuple(notes),
    )


def read_windows(path: Path | str, scenes: Sequence[Scene]) -> TileIndex:
    """Read a list of windows, such as few-label windows that were drawn once and stored.

    Args:
        path: A CSV file with the columns ``image,row_off,col_off,height,width`` (pixels), and
            perhaps ``valid`` and ``split``. Images are paths relative to the list's folder or
            to the folder above it.
        scenes: The scenes; each listed image must be one of them.

    Returns:
        The tiles in the order of the list. Without a column ``valid`` the windows are read.

    Raises:
        InputError: If the list is malformed, names another image, or a window leaves its image.
    """
    rows = read_listing(path, ["image", *_WINDOW])
    place = {_whereabouts(scene.path): number for number, scene in enumerate(scenes)}
    found: dict[str, int] = {}
    for image in dict.fromkeys(row["image"] for row in rows):
        file = image if is_virtual(image) else str(find_listed(image, path))
        number = place.get(_whereabouts(file))
        if number is None:
            raise InputError(
                f"{path}: lists '{image}', which is not among the {len(scenes)} images given; "
                "give it too, or take it out of the list"
            )
        found[image] = number
    windows = np.zeros((len(rows), 4), dtype=np.int64)
    for number, row in enumerate(rows):
        try:
            window = Window(*(int(row[name]) for name in _WINDOW))
        except ValueError as error:
            raise InputError(
                f"{path}: entry {number + 1}: {','.join(_WINDOW)} must be whole pixels"
            ) from error
        scene = scenes[found[row["image"]]]
        if (
            min(window.row, window.col) < 0
            or min(window.height, window.width) < 1
            or window.row + window.height > scene.height
            or window.col + window.width > scene.width
        ):
            raise InputError(
                f"{path}: entry {number + 1}: window {tuple(window)} leaves {scene.path}, which "
                f"has {scene.height} rows and {scene.width} columns"
            )
        windows[number] = window
    numbers = [found[row["image"]] for row in rows]
    if all(row.get("valid") for row in rows):
        try:
            shares = [float(row["valid"]) for row in rows]
        except ValueError as error:
            raise InputError(f"{path}: the column 'valid' must hold shares in [0, 1]") from error
    else:
        shares = [
            float(scenes[scene].read(Window(*window)).valid.mean())
            for scene, window in zip(numbers, windows.tolist(), strict=True)
        ]
    index = TileIndex.fresh(scenes, np.array(numbers), windows, np.array(shares))
    return replace(index, split=np.array([row.get("split", "") for row in rows]))


def _whereabouts(path: str) -> str:
    return path if is_virtual(path) else str(Path(path).resolve())


def _relative(file: Path | str, listing: Path) -> str:
    if is_virtual(str(file)):
        return str(file)
    try:
        return os.path.relpath(file, listing.parent).replace(os.sep, "/")
    except ValueError:  # on another drive
        return str(file)
