"""How much ground each class covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cl_remote_sensing.mapping.writer import open_raster
from cl_remote_sensing.rasters.raster import Scene

__all__ = ["AreaTable", "area_table", "count_rows", "pixel_areas"]

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


def count_rows(path: Path, num_classes: int) -> NDArray[np.int64]:
    """Pixels of each class in each row of a class map, ``(rows, classes)``, in one pass.

    Raises:
        InputError: If the map is missing or no raster.
    """
    # Opened anew: a handle that is kept open would show a map that this one replaced.
    with open_raster(path) as file:
        counts = np.zeros((file.height, num_classes), np.int64)
        step = file.block_shapes[0][0]
        for top in range(0, file.height, step):
            rows = (top, min(top + step, file.height))
            for row, line in enumerate(file.read(1, window=(rows, (0, file.width))), start=top):
                counts[row] = np.bincount(line, minlength=num_classes)[:num_classes]
    return counts


def pixel_areas(scene: Scene) -> tuple[NDArray[np.float64], str]:
    """Area of a pixel in each row of a scene in square metres, and how it was found.

    Projected systems: from the transform, in the plane of the map. Geographic ones: between
    meridians and parallels on the WGS 84 ellipsoid; of a rotated raster at the row's middle.
    Without a coordinate system every pixel is 1.
    """
    if scene.crs is None or not scene.georeferenced:
        return np.ones(scene.height), "no coordinate system, so areas are in pixels"
    from rasterio.crs import CRS

    crs = CRS.from_wkt(scene.crs)
    a, b, _, d, e, f = scene.transform
    if not crs.is_geographic:
        metres = float(crs.linear_units_factor[1]) if crs.is_projected else 1.0
        return np.full(scene.height, abs(a * e - b * d) * metres**2), ""
    middle = f + d * scene.width / 2 + e * (np.arange(scene.height) + 0.5)
    turned = abs(a * e - b * d)  # square degrees of a pixel
    width = turned / abs(e) if e else math.sqrt(turned)
    half = abs(e) / 2 if e else math.sqrt(turned) / 2
    band = _zone(np.clip(middle + half, -90, 90)) - _zone(np.clip(middle - half, -90, 90))
    return math.radians(width) * band, "areas on the WGS 84 ellipsoid"


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
