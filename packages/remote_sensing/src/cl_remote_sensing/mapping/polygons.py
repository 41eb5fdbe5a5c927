"""A class map as polygons in a GeoPackage; made in windows, so memory does not grow."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cl_core.errors import InputError
from cl_core.runs import write_atomic
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.mapping.writer import open_raster

__all__ = ["WINDOW", "require_writer", "write_polygons"]

WINDOW = 2048
"""Edge of the windows in pixels; polygons are cut where two meet."""

_BATCH = 20_000  # polygons written together


def require_writer() -> None:
    """Check that polygons can be written, before a long mapping.

    Raises:
        InputError: If pyogrio or shapely is missing.
    """
    try:
        import pyogrio  # noqa: F401
        import shapely  # noqa: F401
    except ImportError as error:
        raise InputError(
            "--polygons needs pyogrio and shapely; install 'cl-remote-sensing[vectors]'"
        ) from error


def write_polygons(path: Path, out: Path, values: MapValues, *, window: int = WINDOW) -> int:
    """Write the areas of one class that hang together by their sides, with its name and code.

    Args:
        path: The class map.
        out: The GeoPackage to appear, with a layer called as the file and the fields ``class`` and
            ``code``.
        values: What the map's pixels say.
        window: Edge of the windows in pixels; polygons are cut where two meet.

    Returns:
        How many polygons there are.

    Raises:
        InputError: If the map cannot be read, or the file not be written.
    """
    import pyogrio
    import shapely

    require_writer()
    names = dict(zip(values.values, values.names, strict=True))
    written = 0
    with write_atomic(out) as temporary, tempfile.TemporaryDirectory(dir=out.parent) as folder:
        file = Path(folder) / "map.gpkg"  # OGR goes by the ending
        with open_raster(path) as raster:
            crs = raster.crs.to_wkt() if raster.crs else None
            for geometries, codes in _batches(_shapes(raster, values, window)):
                fields = [np.array([names[c] for c in codes], object), np.array(codes, np.int64)]
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # that there is no crs is told elsewhere
                        pyogrio.raw.write(
                            file,
                            np.array(
                                [shapely.to_wkb(shapely.geometry.shape(one)) for one in geometries],
                                object,
                            ),
                            fields,
                            ["class", "code"],
                            layer=out.stem,
                            driver="GPKG",
                            geometry_type="Polygon",
                            crs=crs,
                            append=file.exists(),
                        )
                except Exception as error:  # GDAL's errors have no common parent
                    raise InputError(f"cannot write {out}: {error}") from error
                written += len(codes)
        file.replace(temporary)
    return written


def _shapes(raster: Any, values: MapValues, size: int) -> Iterator[tuple[Any, int]]:
    """Each area of one class inside a window, as GeoJSON, and its value."""
    from affine import Affine
    from rasterio.features import shapes
    from rasterio.windows import Window

    for top in range(0, raster.height, size):
        for left in range(0, raster.width, size):
            height, width = min(size, raster.height - top), min(size, raster.width - left)
            place = Window(left, top, width, height)
            pixels = raster.read(1, window=place)
            known = values.decode(pixels) < len(values)
            pixels = pixels.astype(np.int32) if pixels.dtype != np.uint8 else pixels
            # Codes above 2^31 wrap round and are unwrapped below.
            for geometry, value in shapes(
                pixels,
                mask=known,
                connectivity=4,
                transform=raster.transform @ Affine.translation(left, top),
            ):
                code = int(value)
                yield geometry, code if code in values.values else code + 2**32


def _batches(
    items: Iterator[tuple[Any, int]],
) -> Iterator[tuple[list[Any], list[int]]]:
    geometries: list[Any] = []
    codes: list[int] = []
    for geometry, code in items:
        geometries.append(geometry)
        codes.append(code)
        if len(codes) == _BATCH:
            yield geometries, codes
            geometries, codes = [], []
    yield geometries, codes  # may be empty: then the layer is
