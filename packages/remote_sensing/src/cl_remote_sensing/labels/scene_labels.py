"""Labels of a scene, whatever file they come from, as train ids on the scene's own grid."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_remote_sensing.labels.grids import RasterLabels, place_raster, require_overlap
from cl_remote_sensing.labels.keys import named_values, pack, palette, unpack
from cl_remote_sensing.labels.legend import IGNORE, Legend
from cl_remote_sensing.labels.pairs import pair_labels
from cl_remote_sensing.labels.vectors import (
    VECTOR_SUFFIXES,
    Shapes,
    class_numbers,
    class_values,
    is_unset,
    looks_like_degrees,
    read_features,
)
from cl_remote_sensing.rasters.handles import handle
from cl_remote_sensing.rasters.memory import InMemory, RasterLike, named
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.rasters.systems import system_of
from cl_remote_sensing.rasters.windows import Window

__all__ = ["IGNORE", "Labels", "open_labels", "pair_labels"]

_TOLERATED = {"codes": 0.0, "colors": 0.001, "features": 0.4}
_CHUNK = 2**20  # pixels looked at together when a file's labels are counted


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one scene; holds no open file.

    Attributes:
        scene: The scene on whose grid they are read.
        path: The file they come from.
        legend: The classes.
        counts: Labelled pixels of each class in the scene.
        unlabelled: Pixels of the scene without a label.
        unknown: What the file holds that the legend does not (a code, a colour, a name), with
            its pixels (of a vector file: its features), most first.
        notes: What the user should be told, each a sentence that names the file.
    """

    scene: Scene
    path: str
    legend: Legend
    source: _RasterIds | Shapes
    counts: tuple[int, ...]
    unlabelled: int
    unknown: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Train ids ``(h, w)`` of a window of the scene, 255 where there is no label.

        Raises:
            InputError: If the file is damaged there.
            ValueError: If the window leaves the scene.
        """
        row, col, height, width = window
        inside = row + height <= self.scene.height and col + width <= self.scene.width
        if min(row, col) < 0 or min(height, width) < 1 or not inside:
            raise ValueError(f"expected a window inside {self.scene.path}, got {window}")
        return self.source.read(window)


@dataclass(frozen=True, eq=False)
class _RasterIds:
    """A label raster's keys and the train ids they stand for."""

    raster: RasterLabels
    keys: NDArray[np.int64]  # rising
    ids: NDArray[np.uint8]

    def read(self, window: Window) -> NDArray[np.uint8]:
        return self._look_up(window)[0]

    def count(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[Any], int]:
        """Train ids of a window, the keys in it that are unknown, and pixels marked as no label."""
        ids, keys, labelled, known = self._look_up(window)
        marked = int((known & labelled & (ids == IGNORE)).sum())
        return ids, keys[labelled & ~known], marked

    def _look_up(self, window: Window) -> tuple[NDArray[np.uint8], Any, Any, Any]:
        keys, labelled = self.raster.read(window)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[place] == keys
        ids = np.where(known & labelled, self.ids[place], np.uint8(IGNORE))
        return ids, keys, labelled, known


def open_labels(
    scene: Scene,
    data: RasterLike | InMemory,
    legend: Legend,
    *,
    tolerance: float | None = None,
    field: str | None = None,
) -> Labels:
    """Open the labels of a scene and count them, in one pass of bounded memory.

    A file is one of

    - a raster of **codes**: one band of whole numbers (also a palette, whose index counts);
    - a raster of **colours**: red, green and blue in 8 bits, looked up in the legend exactly;
    - a **vector** file: polygons with a class field, drawn over one another in the file's order;
      a pixel takes the class that covers its centre.

    A raster on another grid, in another coordinate system or resolution is warped onto the
    scene's grid by nearest neighbour, which invents no code, and this is told in the notes.
    Without georeference on one side, or coordinate systems on both, the two must have the same
    size and are taken as aligned. A nodata value that the legend has a class for is that class.

    Args:
        scene: The image.
        data: The label file; or a raster in memory, as for
            :func:`cl_remote_sensing.rasters.raster.open_scene`.
        legend: The classes.
        tolerance: Share of the labelled pixels (of a vector file: features) that may hold what the
            legend does not; they become unlabelled and are told. By default 0.001 for colours
            (compression blurs edges), 0 for codes and 0.4 for vectors. Features whose class is
            null or blank are unlabelled and told whatever their share.
        field: Class field of a vector file; by default it is found, if that is possible.

    Raises:
        InputError: If the file is the image, is none of these, does not lie on the image, has a
            coordinate system and the image none (or the reverse), or holds too much that the
            legend does not.
    """
    path, memory = named(data)
    if _same_file(scene.path, path):
        raise InputError(f"{path}: is the image itself; name the file with its labels")
    if Path(path).suffix.lower() in VECTOR_SUFFIXES:
        return _open_vector(scene, path, legend, tolerance, field)
    raster, notes = place_raster(scene, path, legend, memory)
    source = _RasterIds(raster, *_table(raster, legend))
    counts = np.zeros(IGNORE + 1, dtype=np.int64)
    strange: Counter[int] = Counter()
    marked = 0
    for window in scene.blocks(_CHUNK):
        ids, unknown, more = source.count(window)
        marked += more
        counts += np.bincount(ids.ravel(), minlength=IGNORE + 1)
        if unknown.size:
            keys, times = np.unique(unknown, return_counts=True)
            strange.update(dict(zip(keys.tolist(), times.tolist(), strict=True)))
    told = Counter({_told(raster, key): times for key, times in strange.items()})
    labelled = scene.height * scene.width - int(counts[IGNORE]) + strange.total()
    unit = "labelled pixels" if raster.kind == "codes" else "pixels"
    notes += _judge(path, told, labelled, tolerance, raster.kind, unit, legend)
    labels = _labels(scene, path, legend, source, counts, told, notes)
    if not marked:
        return labels
    codes = legend.ignored if raster.kind == "codes" else legend.ignored_colors
    note = f"{path}: {marked} pixels marked as no label ({', '.join(map(str, codes))})"
    return replace(labels, notes=(*labels.notes, note))


def _open_vector(
    scene: Scene, path: Path | str, legend: Legend, tolerance: float | None, field: str | None
) -> Labels:
    features = read_features(path)
    if scene.crs is None or features.crs is None:
        with_crs, without = (scene.path, path) if scene.crs else (path, scene.path)
        raise InputError(
            f"{without}: has no coordinate system but {with_crs} has; "
            "polygons need both to be georeferenced"
        )
    number = class_numbers(legend)
    values = class_values(features, field, legend)
    ids = [number(value) for value in values]
    unset = [k is None and is_unset(value) for value, k in zip(values, ids, strict=True)]
    told = Counter(
        str(v) for v, k, none in zip(values, ids, unset, strict=True) if k is None and not none
    )
    classed = len(ids) - sum(unset)
    notes = _judge(path, told, classed, tolerance, "features", "features", legend)
    if any(unset):
        notes.append(f"{path}: {sum(unset)} features without a class are taken as unlabelled")
    if features.dropped:
        notes.append(f"{path}: {features.dropped} features without a geometry left out")
    known = [IGNORE if k is None else k for k in ids]
    shapes = Shapes.of(features, known, scene.crs, scene.transform)
    low, high = shapes.boxes[:, :2].min(axis=0), shapes.boxes[:, 2:].max(axis=0)
    degrees = not system_of(features.crs).is_geographic and looks_like_degrees(features)
    hint = "; those of the labels look like degrees" if degrees else ""
    require_overlap(scene, path, low, high, hint=hint)
    counts = np.zeros(IGNORE + 1, dtype=np.int64)
    for window in scene.blocks(_CHUNK):
        counts += np.bincount(shapes.read(window).ravel(), minlength=IGNORE + 1)
    return _labels(scene, path, legend, shapes, counts, told, notes)


def _table(raster: RasterLabels, legend: Legend) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Keys that a label raster may hold, rising, and the train id of each."""
    ignored: Sequence[int] = legend.ignored
    file = handle(raster.path, network=raster.scene.network)
    if raster.kind == "colors":
        table = {pack(color): k for k, color in enumerate(legend.colors)}
        ignored = [pack(color) for color in legend.ignored_colors]
    elif (by_name := named_values(file)) and set(by_name.values()) <= set(legend.names):
        table, ignored = {value: legend.names.index(name) for value, name in by_name.items()}, ()
    elif legend.codes is not None:
        table = {code: k for k, code in enumerate(legend.codes)}
    elif colors := palette(
        handle(raster.path, network=raster.scene.network)
    ):  # codes are known by the colours they are shown in
        place = {color: k for k, color in enumerate(legend.colors)}
        table = {code: place[color] for code, color in colors.items() if color in place}
        ignored = [code for code, color in colors.items() if color in legend.ignored_colors]
    else:
        table = {k: k for k in range(len(legend))}
    table |= dict.fromkeys(ignored, IGNORE)
    keys = sorted(table) or [-1]
    ids = [table.get(key, IGNORE) for key in keys]
    return np.array(keys, dtype=np.int64), np.array(ids, dtype=np.uint8)


def _told(raster: RasterLabels, key: int) -> str:
    return "color {} {} {}".format(*unpack(key)) if raster.kind == "colors" else f"code {key}"


def _judge(
    path: Path | str,
    unknown: Counter[str],
    total: int,
    tolerance: float | None,
    kind: str,
    unit: str,
    legend: Legend,
) -> list[str]:
    """Refuse what the legend does not know, or tell how much was ignored."""
    if not unknown:
        return []
    allowed = _TOLERATED[kind] if tolerance is None else tolerance
    share = unknown.total() / total
    listed = ", ".join(f"{name} ({times})" for name, times in unknown.most_common(5))
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    if share > allowed:
        known = ", ".join(
            name if kind == "features" else f"{key} {name}"
            for key, name in zip(_keys(legend, kind), legend.names, strict=True)
        )
        raise InputError(
            f"{path}: {listed}{more} not in the legend, {share:.2%} of the {unit} (it has "
            f"{known}); add to the legend what is a class, and as 'ignore' what is none"
        )
    return [
        f"{path}: {unknown.total()} {unit} ({share:.3%}) not in the legend, so unlabelled: "
        f"{listed}{more}"
    ]


def _keys(legend: Legend, kind: str) -> Sequence[object]:
    if kind == "colors":
        return ["{} {} {}".format(*color) for color in legend.colors]
    return range(len(legend)) if legend.codes is None else legend.codes


def _labels(
    scene: Scene,
    path: Path | str,
    legend: Legend,
    source: _RasterIds | Shapes,
    counts: NDArray[np.int64],
    unknown: Counter[str],
    notes: list[str],
) -> Labels:
    labelled = int(counts[:IGNORE].sum())
    if not labelled:
        notes.append(f"{path}: labels no pixel of {scene.path}")
    elif labelled < scene.height * scene.width:
        # Rounded down, so that 100 % is said of no scene that lacks a label.
        share = math.floor(1000 * labelled / (scene.height * scene.width)) / 1000
        notes.append(f"{path}: labels {share:.1%} of {scene.path} ({labelled} pixels)")
    return Labels(
        scene=scene,
        path=str(path),
        legend=legend,
        source=source,
        counts=tuple(counts[: len(legend)].tolist()),
        unlabelled=int(counts[IGNORE]),
        unknown=tuple(unknown.most_common()),
        notes=tuple(notes),
    )


def _same_file(image: str, labels: Path | str) -> bool:
    try:
        return Path(image).samefile(labels)
    except OSError:
        return image == str(labels)
