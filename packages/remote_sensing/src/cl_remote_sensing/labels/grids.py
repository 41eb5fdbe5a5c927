"""A label raster seen on a scene's grid: as it is where the grids agree, warped where not."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as move

from cl_core.errors import InputError
from cl_remote_sensing.labels.keys import (
    Kind,
    RasterKeys,
    named_values,
    pack,
    raster_kind,
    read_keys,
)
from cl_remote_sensing.labels.legend import Legend
from cl_remote_sensing.rasters.formats import GDAL_ERRORS
from cl_remote_sensing.rasters.handles import MAX_OPEN, handle
from cl_remote_sensing.rasters.memory import InMemory
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.rasters.systems import system_of
from cl_remote_sensing.rasters.windows import Window

__all__ = ["RasterLabels", "place_raster", "require_overlap"]

_SHIFT = 0.01
"""Pixels by which grids may differ and still be the same: rounding in files, not a shift."""


@dataclass(frozen=True, eq=False)
class RasterLabels:
    """A label raster on a scene's grid.

    Attributes:
        path: The file.
        kind: ``codes`` or ``colors``.
        scene: Gives the grid.
        warped: Whether the file has another grid.
        heed_nodata: Whether its nodata value marks pixels without a label; not where the legend
            has a class of that code or colour.
        memory: What keeps the raster, if it is no file.
    """

    path: str
    kind: Kind
    scene: Scene
    warped: bool
    heed_nodata: bool = True
    memory: InMemory | None = None

    def read(self, window: Window) -> RasterKeys:
        """The keys of a window of the scene; see :func:`read_keys`."""
        file = _warped(self) if self.warped else handle(self.path, network=self.scene.network)
        return read_keys(file, window, self.kind, self.path, heed_nodata=self.heed_nodata)


def place_raster(
    scene: Scene, path: str, legend: Legend, memory: InMemory | None = None
) -> tuple[RasterLabels, list[str]]:
    """Lay a label raster onto a scene, with what is to be told about it.

    Raises:
        InputError: If it is no label raster, has a coordinate system and the image none (or the
            reverse), has no place and another size, or does not lie on the image.
    """
    file = handle(path, network=scene.network, fresh=True)
    kind = raster_kind(file)
    claimed = _claimed_nodata(file, kind, legend)
    notes = [] if claimed is None else [f"{path}: {claimed}"]

    def laid(*, warped: bool) -> RasterLabels:
        return RasterLabels(path, kind, scene, warped, claimed is None, memory)

    same_size = (file.height, file.width) == (scene.height, scene.width)
    size = f"{file.height} x {file.width} pixels"
    if file.transform.is_identity or not scene.georeferenced:
        lacks = path if file.transform.is_identity else scene.path
        if same_size:
            return laid(warped=False), [*notes, f"{lacks}: has no georeference; taken as aligned"]
        raise InputError(
            f"{lacks}: has no georeference, and the labels have {size} but the image "
            f"{scene.height} x {scene.width}; without a place both must have the same size"
        )
    if (file.crs is None) != (scene.crs is None):
        lacks, has = (path, scene.path) if file.crs is None else (scene.path, path)
        raise InputError(
            f"{lacks}: has no coordinate system but {has} has; give it the one it was made in "
            "(gdal_edit.py -a_srs)"
        )
    if file.crs is None:
        if not same_size:
            raise InputError(
                f"{path}: has {size} but {scene.path} {scene.height} x {scene.width}; without "
                "coordinate systems labels and image must have the same size"
            )
        told = f"{path}: has no coordinate system, nor has its image; taken as aligned"
        return laid(warped=False), [*notes, told]
    low, high = _bounds_in_pixels(file, scene)
    same_crs = file.crs == system_of(str(scene.crs))
    if same_size and same_crs and _same_grid(tuple(file.transform)[:6], scene):
        return laid(warped=False), notes
    require_overlap(scene, path, low, high)
    differs = "coordinate system" if not same_crs else "size" if not same_size else "grid"
    told = (
        f"{path}: has another {differs} than {scene.path}; warped onto its grid by nearest "
        "neighbour"
    )
    return laid(warped=True), [*notes, told]


def _claimed_nodata(file: rasterio.DatasetReader, kind: Kind, legend: Legend) -> str | None:
    """In words, that the legend has a class for the file's nodata value: the legend wins."""
    value = file.nodata
    if value is None or not np.isfinite(value) or value != int(value) or named_values(file):
        return None
    if kind == "colors":
        keys = [pack(color) for color in legend.colors]
        key = pack((int(value),) * 3) if 0 <= value <= 255 else -1
    else:
        keys = list(range(len(legend)) if legend.codes is None else legend.codes)
        key = int(value)
    if key not in keys:
        return None
    name = legend.names[keys.index(key)]
    return f"its nodata value {value:g} is the class {name} of the legend, and taken for it"


def require_overlap(
    scene: Scene,
    path: Path | str,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    *,
    hint: str = "",
) -> None:
    """Check that labels meet the image.

    Args:
        scene: The image.
        path: The label file.
        low: Left and upper bound of the labels in pixels of the image; NaN if they have no
            place in the image's coordinate system.
        high: Right and lower bound.
        hint: What else may be told.

    Raises:
        InputError: If they do not, naming both bounds in the image's coordinate system.
    """
    size = np.array([scene.width, scene.height])
    if ((low < size) & (high > 0)).all():
        return
    labels = "nowhere in the image's coordinate system"
    if np.isfinite([*low, *high]).all():
        labels = _told_bounds(scene, low, high)
    image = _told_bounds(scene, np.zeros(2), size.astype(np.float64))
    raise InputError(
        f"{path}: does not overlap {scene.path}: labels cover {labels}, the image {image}; pair "
        f"the files anew, or check their coordinate systems{hint}"
    )


def _told_bounds(scene: Scene, low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    a, b, c, d, e, f = scene.transform
    corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    x, y = a * corners[:, 0] + b * corners[:, 1] + c, d * corners[:, 0] + e * corners[:, 1] + f
    return f"x {x.min():.10g} to {x.max():.10g}, y {y.min():.10g} to {y.max():.10g}"


def _bounds_in_pixels(
    file: rasterio.DatasetReader, scene: Scene
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of a raster's outline in another's pixels; the outline bends when it is warped."""
    t = np.linspace(0, 1, 21)
    col = np.concatenate([t, np.ones_like(t), t, np.zeros_like(t)]) * file.width
    row = np.concatenate([np.zeros_like(t), t, np.ones_like(t), t]) * file.height
    a, b, c, d, e, f = tuple(file.transform)[:6]
    try:
        moved = move(
            file.crs, system_of(str(scene.crs)), a * col + b * row + c, d * col + e * row + f
        )
    except (*GDAL_ERRORS, CRSError):
        return np.full(2, np.nan), np.full(2, np.nan)
    x, y = np.array(moved[0]), np.array(moved[1])
    a, b, c, d, e, f = tuple(~Affine(*scene.transform))[:6]
    points = np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return np.full(2, np.nan), np.full(2, np.nan)
    return points.min(axis=0), points.max(axis=0)


def _same_grid(transform: tuple[float, ...], scene: Scene) -> bool:
    """Whether all corners of two rasters of one size fall together."""
    a, b, c, d, e, f = np.array(transform) - np.array(scene.transform)
    col = np.array([0, scene.width, scene.width, 0])
    row = np.array([0, 0, scene.height, scene.height])
    apart = np.hypot(a * col + b * row + c, d * col + e * row + f).max()
    pixel = np.sqrt(
        abs(scene.transform[0] * scene.transform[4] - scene.transform[1] * scene.transform[3])
    )
    return bool(apart <= _SHIFT * pixel)


class _Warped(threading.local):
    """Warped views this thread has open, least recently used first; see `handles`."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.views: OrderedDict[object, tuple[WarpedVRT, object]] = OrderedDict()
        self.inherited: list[object] = []


_WARPED = _Warped()


def _warped(labels: RasterLabels) -> WarpedVRT:
    if os.getpid() != _WARPED.process:  # forked: neither use nor close the parent's
        _WARPED.inherited.append(_WARPED.views)
        _WARPED.views, _WARPED.process = OrderedDict(), os.getpid()
    scene = labels.scene
    file = handle(labels.path, network=scene.network)
    key = (labels.path, scene.path, scene.transform, labels.heed_nodata)
    if key in _WARPED.views:
        view, of = _WARPED.views[key]
        if of is file:
            _WARPED.views.move_to_end(key)
            return view
        _WARPED.views.pop(key)[0].close()  # of a file that was replaced
    # Pixels beyond the label raster must not look like labels: nodata or alpha says so.
    marked = file.nodata is not None and labels.heed_nodata
    plain = {} if labels.heed_nodata else {"src_nodata": None, "nodata": None}
    view = WarpedVRT(
        file,
        crs=system_of(str(scene.crs)),
        transform=Affine(*scene.transform),
        height=scene.height,
        width=scene.width,
        resampling=Resampling.nearest,
        add_alpha=not (marked or ColorInterp.alpha in file.colorinterp),
        **plain,
    )
    _WARPED.views[key] = view, file
    if len(_WARPED.views) > MAX_OPEN:
        _WARPED.views.popitem(last=False)[1][0].close()
    return view
