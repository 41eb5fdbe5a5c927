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
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as move

from cl_core.errors import InputError
from cl_remote_sensing.labels.keys import Kind, RasterKeys, raster_kind, read_keys
from cl_remote_sensing.rasters.handles import MAX_OPEN, handle
from cl_remote_sensing.rasters.raster import Scene
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
    """

    path: str
    kind: Kind
    scene: Scene
    warped: bool

    def read(self, window: Window) -> RasterKeys:
        """The keys of a window of the scene; see :func:`read_keys`."""
        file = _warped(self.path, self.scene) if self.warped else handle(self.path)
        return read_keys(file, window, self.kind, self.path)


def place_raster(scene: Scene, path: Path | str) -> tuple[RasterLabels, list[str]]:
    """Lay a label raster onto a scene, with what is to be told about it.

    Raises:
        InputError: If it is no label raster, has a coordinate system and the image none (or the
            reverse), or does not lie on the image.
    """
    path = str(path)
    kind = raster_kind(path)
    file = handle(path)
    if (file.crs is None) != (scene.crs is None):
        lacks, has = (path, scene.path) if file.crs is None else (scene.path, path)
        raise InputError(
            f"{lacks}: has no coordinate system but {has} has; give it the one it was made in "
            "(gdal_edit.py -a_srs)"
        )
    size = f"{file.height} x {file.width} pixels"
    same_size = (file.height, file.width) == (scene.height, scene.width)
    if file.crs is None:
        if not same_size:
            raise InputError(
                f"{path}: has {size} but {scene.path} {scene.height} x {scene.width}; without "
                "coordinate systems labels and image must have the same size"
            )
        note = f"{path}: has no coordinate system, nor has its image; taken as aligned"
        return RasterLabels(path, kind, scene, warped=False), [note]
    low, high = _bounds_in_pixels(file, scene)
    same_crs = file.crs == CRS.from_wkt(scene.crs)
    if same_size and same_crs and _same_grid(tuple(file.transform)[:6], scene):
        return RasterLabels(path, kind, scene, warped=False), []
    require_overlap(scene, path, low, high)
    differs = "coordinate system" if not same_crs else "size" if not same_size else "grid"
    note = (
        f"{path}: has another {differs} than {scene.path}; warped onto its grid by nearest "
        "neighbour"
    )
    return RasterLabels(path, kind, scene, warped=True), [note]


def require_overlap(
    scene: Scene, path: Path | str, low: NDArray[np.float64], high: NDArray[np.float64]
) -> None:
    """Check that labels meet the image.

    Args:
        scene: The image.
        path: The label file.
        low: Left and upper bound of the labels in pixels of the image; NaN if they have no
            place in the image's coordinate system.
        high: Right and lower bound.

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
        "the files anew, or check their coordinate systems"
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
            file.crs, CRS.from_wkt(scene.crs), a * col + b * row + c, d * col + e * row + f
        )
    except (RasterioError, CRSError):
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
        self.views: OrderedDict[object, WarpedVRT] = OrderedDict()
        self.inherited: list[object] = []


_WARPED = _Warped()


def _warped(path: str, scene: Scene) -> WarpedVRT:
    if os.getpid() != _WARPED.process:  # forked: neither use nor close the parent's
        _WARPED.inherited.append(_WARPED.views)
        _WARPED.views, _WARPED.process = OrderedDict(), os.getpid()
    key = (path, scene.path)
    if key in _WARPED.views:
        _WARPED.views.move_to_end(key)
        return _WARPED.views[key]
    file = handle(path)
    # Pixels beyond the label raster must not look like labels: nodata or alpha says so.
    marked = file.nodata is not None or ColorInterp.alpha in file.colorinterp
    view = WarpedVRT(
        file,
        crs=CRS.from_wkt(scene.crs),
        transform=Affine(*scene.transform),
        height=scene.height,
        width=scene.width,
        resampling=Resampling.nearest,
        add_alpha=not marked,
    )
    _WARPED.views[key] = view
    if len(_WARPED.views) > MAX_OPEN:
        _WARPED.views.popitem(last=False)[1].close()
    return view
