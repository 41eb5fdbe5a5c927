"""How much ground each class covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.mapping.writer import open_raster
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.rasters.systems import system_of

__all__ = ["AreaTable", "area_table", "count_rows", "pixel_areas"]

_STEP = 100.0
"""Metres over which rows are measured together: PROJ inverts to a tenth of a millimetre or so."""

_COLUMNS = 16

_A, _B = 6_378_137.0, 6_356_752.314245  # semi-axes of WGS 84 in metres


@dataclass(frozen=True)
class AreaTable:
    """Ground by class.

    Attributes:
        names: The classes.
        pixels: Pixels of each.
        areas: Hectares of each, or pixels where the scene has no coordinate system.
        unit: ``ha`` or ``pixels``.
        note: How areas were found, where that is not plain; else empty.
    """

    names: tuple[str, ...]
    pixels: tuple[int, ...]
    areas: tuple[float, ...]
    unit: Literal["ha", "pixels"]
    note: str

    def shares(self) -> tuple[float, ...]:
        """Share of each class in what has a class; 0 if nothing has."""
        total = sum(self.areas) or 1.0
        return tuple(area / total for area in self.areas)


def count_rows(path: Path, values: MapValues) -> NDArray[np.int64]:
    """Pixels of each class in each row of a class map, ``(rows, classes)``, in one pass.

    Args:
        path: The map.
        values: What its pixels say.

    Raises:
        InputError: If the map is missing or no raster.
    """
    # Opened anew: a handle that is kept open would show a map that this one replaced.
    with open_raster(path) as file:
        counts = np.zeros((file.height, len(values)), np.int64)
        step = file.block_shapes[0][0]
        for top in range(0, file.height, step):
            rows = (top, min(top + step, file.height))
            ids = values.decode(file.read(1, window=(rows, (0, file.width))))
            for row, line in enumerate(ids, start=top):
                counts[row] = np.bincount(line, minlength=len(values))[: len(values)]
    return counts


def pixel_areas(scene: Scene) -> tuple[NDArray[np.float64], str]:
    """Area on the ground of a pixel in each row of a scene in square metres, and how it was found.

    Geographic systems: between meridians and parallels on the WGS 84 ellipsoid. Projected ones:
    corners of pixels are brought into an equal-area projection of the ellipsoid, where their
    outlines are measured; of a row the mean over its columns, along which the scale of a
    conformal projection changes by some tenths of a per cent. Without a coordinate system every
    pixel is 1.
    """
    if scene.crs is None or not scene.georeferenced:
        return np.ones(scene.height), "no coordinate system, so areas are in pixels"
    crs = system_of(scene.crs)
    a, b, _, d, e, f = scene.transform
    if crs.is_geographic and not (b or d) and crs.units_factor[0] == "degree":
        rows = f + e * (np.arange(scene.height) + 0.5)
        north, south = (np.clip(rows + side * abs(e) / 2, -90, 90) for side in (1, -1))
        band = _zone(north) - _zone(south)
        return math.radians(abs(a)) * band, "areas on the WGS 84 ellipsoid"
    found = _measured(scene, crs)
    if found is not None:
        return found, "areas on the WGS 84 ellipsoid"
    metres = float(crs.linear_units_factor[1]) if crs.is_projected else 1.0
    plane = np.full(scene.height, abs(a * e - b * d) * metres**2)
    return plane, "areas in the plane of the map, whose place on the Earth is not known"


def _measured(scene: Scene, crs: CRS) -> NDArray[np.float64] | None:
    """Row means of the pixels' areas, by outlines in an equal-area projection around the scene."""
    middle = _moved(scene, crs, "EPSG:4326", np.array([scene.width / 2]), np.array([0.5]))
    if middle is None:
        return None
    longitude, latitude = (float(value[0]) for value in middle)
    if abs(latitude) > 75:
        plane = f"+proj=laea +lat_0={math.copysign(90, latitude)} +lon_0={longitude} +ellps=WGS84"
    else:
        plane = f"+proj=cea +lon_0={longitude} +ellps=WGS84"
    pixel = _plane_pixel(scene, crs)
    step = max(1, math.ceil(min(_STEP / pixel, scene.height)))  # too short a step is all rounding
    rows = np.append(np.arange(0, scene.height, step), scene.height).astype(np.float64)
    cols = np.linspace(1e-6, 1 - 1e-6, _COLUMNS + 1) * scene.width  # off the edge of the world
    col, row = np.meshgrid(cols, rows)
    moved = _moved(scene, crs, plane, col.ravel(), row.ravel() / scene.height)
    if moved is None:
        return None
    x, y = (values.reshape(row.shape) for values in moved)
    # Outlines by the shoelace formula: half the cross product of the diagonals.
    down = (x[1:, 1:] - x[:-1, :-1], y[1:, 1:] - y[:-1, :-1])
    up = (x[:-1, 1:] - x[1:, :-1], y[:-1, 1:] - y[1:, :-1])
    outlines = np.abs(down[0] * up[1] - down[1] * up[0]) / 2
    per_pixel = outlines / (np.diff(rows)[:, None] * np.diff(cols)[None])
    centres = (rows[:-1] + rows[1:]) / 2
    areas: NDArray[np.float64] = np.interp(
        np.arange(scene.height) + 0.5, centres, per_pixel.mean(axis=1)
    )
    return areas


def _plane_pixel(scene: Scene, crs: CRS) -> float:
    """Side of a pixel in metres of the map's plane, roughly for degrees."""
    a, b, _, d, e, _ = scene.transform
    unit = float(crs.linear_units_factor[1]) if crs.is_projected else 111_000.0
    return math.sqrt(abs(a * e - b * d)) * unit


def _moved(
    scene: Scene, crs: CRS, target: str, cols: NDArray[np.float64], shares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Places in pixels (rows as shares of the height) in another system, if they have one there."""
    from rasterio.warp import transform

    a, b, c, d, e, f = scene.transform
    rows = shares * scene.height
    try:
        moved = transform(crs, system_of(target), a * cols + b * rows + c, d * cols + e * rows + f)
    except Exception:  # GDAL's errors have no common parent
        return None
    x, y = np.asarray(moved[0]), np.asarray(moved[1])
    return (x, y) if np.isfinite(x).all() and np.isfinite(y).all() else None


def _zone(latitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ellipsoid between the equator and a latitude in degrees, m² per radian of longitude."""
    e = math.sqrt(1 - (_B / _A) ** 2)
    s = np.sin(np.radians(latitude))
    result: NDArray[np.float64] = _B**2 / 2 * (s / (1 - (e * s) ** 2) + np.arctanh(e * s) / e)
    return result


def area_table(
    counts: NDArray[np.int64], scene: Scene, names: Sequence[str], *, first_row: int = 0
) -> AreaTable:
    """Sum the ground of each class.

    Args:
        counts: Pixels by row and class, as of :func:`count_rows`.
        scene: The image.
        names: Of the classes.
        first_row: Row of the scene that ``counts`` begins with.
    """
    areas, note = pixel_areas(scene)
    unit: Literal["ha", "pixels"] = "pixels" if "pixels" in note else "ha"
    square = areas[first_row : first_row + len(counts)] @ counts
    return AreaTable(
        names=tuple(names),
        pixels=tuple(int(count) for count in counts.sum(0)),
        areas=tuple((square / (1 if unit == "pixels" else 1e4)).tolist()),
        unit=unit,
        note=note,
    )
