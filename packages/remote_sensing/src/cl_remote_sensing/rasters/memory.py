"""Rasters that a program holds in memory: arrays with their place, and open data sets.

What is given is kept as a GeoTIFF in GDAL's memory file system, so that masks, windows, warps and
worker processes meet it as they meet a file. It takes its size once more.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import Affine

__all__ = ["InMemory", "Raster", "RasterLike", "is_in_memory", "kept", "named"]

_FOLDER = "arrays"


@dataclass(frozen=True, eq=False)
class Raster:
    """An array of pixels with its place on the ground.

    Attributes:
        pixels: ``(c, h, w)``, or ``(h, w)`` for one band, of a real type; masked pixels of a
            ``numpy.ma`` array are invalid in every band.
        transform: Affine of the upper left corner, an ``affine.Affine`` or its six numbers; by
            default the raster has no place.
        crs: Coordinate system, anything that ``rasterio.crs.CRS.from_user_input`` takes.
        nodata: Value of pixels without data.
        names: Name of each band.
        colors: What each band shows: ``red``, ``green``, ``blue``, ``nir``, ...
    """

    pixels: NDArray[Any]
    transform: Affine | Sequence[float] | None = None
    crs: Any = None
    nodata: float | None = None
    names: Sequence[str] | None = None
    colors: Sequence[str] | None = None


RasterLike: TypeAlias = "str | Path | Raster | NDArray[Any] | DatasetReader"
"""A path, or what a program holds: pixels, or an open data set of rasterio's."""


class InMemory:
    """A GeoTIFF in memory under a name, as long as this object lives; it can be pickled.

    Made by :func:`kept`, so that what is the same is held once.

    Args:
        path: What GDAL opens it by, in this process.
        data: The file's bytes.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        # GDAL's own copy, which lives as long as a file of it is open; ours could be freed before.
        self._file = MemoryFile(dirname=_FOLDER, filename=Path(path).name)
        self._file.write(data)

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        self._file.seek(0)
        return kept, (bytes(self._file.read()),)


_ALIVE: WeakValueDictionary[str, InMemory] = WeakValueDictionary()


def kept(data: bytes) -> InMemory:
    """The bytes of a GeoTIFF as a file in memory, named after its contents."""
    path = f"/vsimem/{_FOLDER}/array-{hashlib.sha256(data).hexdigest()[:12]}.tif"
    found = _ALIVE.get(path)
    if found is None:
        found = _ALIVE[path] = InMemory(path, data)
    return found


def is_in_memory(data: object) -> bool:
    """Whether something is a raster that a program holds, and no path."""
    return isinstance(data, Raster | np.ndarray | DatasetReader | InMemory)


def named(data: RasterLike | InMemory) -> tuple[str, InMemory | None]:
    """The path to open a raster by, and what has to live as long as it is used.

    Raises:
        ValueError: If an array is no raster, or a data set is closed.
    """
    if isinstance(data, str | Path):
        return str(data), None
    if isinstance(data, DatasetReader):
        if data.closed:
            raise ValueError(f"the data set {data.name} is closed; give it open, or its path")
        if not data.name.startswith("/vsimem/"):
            return str(data.name), None
        held = kept(_copied(data))
    elif isinstance(data, InMemory):
        held = data
    else:
        held = kept(_written(data if isinstance(data, Raster) else Raster(data)))
    return held.path, held


def _copied(file: DatasetReader) -> bytes:
    with MemoryFile() as target:
        rasterio.shutil.copy(file, target.name, driver="GTiff")
        return bytes(target.read())


def _written(raster: Raster) -> bytes:
    pixels = raster.pixels if raster.pixels.ndim == 3 else raster.pixels[None]
    if pixels.ndim != 3 or 0 in pixels.shape or pixels.dtype.kind not in "uif":
        raise ValueError(
            "a raster in memory is an array (c, h, w) or (h, w) of integers or floats, got "
            f"{raster.pixels.shape} of {raster.pixels.dtype}"
        )
    for what, each in (("names", raster.names), ("colors", raster.colors)):
        if each is not None and len(each) != len(pixels):
            raise ValueError(f"{what} are given per band: got {len(each)} for {len(pixels)} bands")
    profile: dict[str, Any] = dict(zip(("count", "height", "width"), pixels.shape, strict=True))
    profile |= {"dtype": pixels.dtype.name, "nodata": raster.nodata, "crs": raster.crs}
    if raster.transform is not None:
        profile["transform"] = Affine(*tuple(raster.transform)[:6])
    if min(pixels.shape[1:]) >= 512:  # else one strip is as good
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with MemoryFile() as target, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            target.open(driver="GTiff", bigtiff="IF_SAFER", **profile) as file,
        ):
            if raster.colors is not None:  # before the pixels, as the format wants it
                known = ColorInterp.__members__
                file.colorinterp = [
                    known.get(color, ColorInterp.undefined) for color in raster.colors
                ]
            if raster.names is not None:
                file.descriptions = tuple(raster.names)
            file.write(np.ma.getdata(pixels))
            mask = np.ma.getmaskarray(pixels).any(0) if np.ma.isMaskedArray(pixels) else None
            if mask is not None and mask.any():
                file.write_mask(~mask)
        return bytes(target.read())
