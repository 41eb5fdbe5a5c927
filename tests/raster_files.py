"""Small GeoTIFFs on disk, and maps of them, as the tests of this folder need them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from cl_remote_sensing.mapping import scene_map
from cl_remote_sensing.mapping.job import MapJob
from cl_remote_sensing.mapping.values import MapValues

__all__ = ["GRID", "map_scene", "write"]

GRID = Affine(10, 0, 300000, 0, -10, 4100000)
"""Pixels of 10 m, north up."""


def write(
    path: Path,
    values: np.ndarray,
    *,
    transform: Affine = GRID,
    crs: str | None = "EPSG:32652",
    palette: Mapping[int, tuple[int, ...]] | None = None,
    **profile: Any,
) -> Path:
    """Write ``(c, h, w)`` or ``(h, w)`` values."""
    values = np.asarray(values)
    values = values if values.ndim == 3 else values[None]
    count, height, width = values.shape
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    place = {"crs": crs, "transform": transform}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **profile) as file:
        file.write(values)
        if palette:
            file.write_colormap(1, palette)
    return path


def map_scene(
    predict: Any,
    scene: Any,
    normalization: Any,
    out: Path,
    *,
    classes: Any,
    colors: Any = None,
    codes: Any = None,
    shard: tuple[int, int] = (0, 1),
    progress: Any = None,
    **options: Any,
) -> Any:
    """Map with a function that predicts."""
    values = MapValues.of(classes, codes, colors)
    job = MapJob(predict=predict, normalization=normalization, values=values, **options)
    return scene_map.map_scene(job, scene, out, shard=shard, progress=progress)
