"""Class maps and probabilities as GeoTIFFs that lie on the image's grid.

Whole blocks are written in order by one writer under a temporary name; the file appears when it is
complete. Cloud-optimised files are copies that GDAL's COG driver makes.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine

from cl_core.errors import InputError
from cl_core.runs import write_atomic
from cl_remote_sensing.rasters.raster import Scene

__all__ = [
    "BLOCK",
    "Compression",
    "create_geotiff",
    "open_raster",
    "refuse_input",
    "to_cog",
]

BLOCK = 512
"""Edge of a GeoTIFF's blocks in pixels."""

Compression = Literal["deflate", "zstd", "lzw"]


def refuse_input(out: Path, scene: Scene) -> None:
    """Refuse to write over the image, or over one of the files behind a virtual raster.

    Raises:
        InputError: If ``out`` is one of them.
    """
    for name in (scene.path, *scene.handle().files):
        source = Path(name)
        if out.resolve() == source.resolve() or (
            out.exists() and source.exists() and out.samefile(source)
        ):
            raise InputError(f"{out} is the image itself: choose another output path")


@contextmanager
def create_geotiff(
    path: Path,
    scene: Scene,
    *,
    rows: tuple[int, int] | None = None,
    dtype: str,
    nodata: float,
    names: Sequence[str] = ("class",),
    colormap: Mapping[int, tuple[int, int, int, int]] | None = None,
    scale: float | None = None,
    tags: Mapping[str, str] | None = None,
    compress: Compression = "deflate",
) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a tiled GeoTIFF for writing on a scene's grid; it appears when the block ends well.

    Args:
        path: The file to appear.
        scene: Gives size, CRS and transform, rotated or none.
        rows: First and last-but-one row of the scene, for a file that covers only these.
        dtype: Numpy name of the values' type.
        nodata: Value of pixels without data.
        names: Description of each band.
        colormap: Palette: red, green, blue and alpha of values.
        scale: What a stored value is to be multiplied with.
        tags: Of the file.
        compress: Of the blocks.

    Yields:
        The data set, of as many bands as names. Write whole blocks, in order.

    Raises:
        InputError: If the disk is full or the place cannot be written; nothing is left there.
    """
    top, bottom = rows or (0, scene.height)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": bottom - top,
        "width": scene.width,
        "count": len(names),
        "dtype": dtype,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "band",
        "compress": compress,
        "predictor": 3 if np.dtype(dtype).kind == "f" else 1,
        "bigtiff": "IF_SAFER",
        "num_threads": "ALL_CPUS",
        "crs": scene.crs,
    }
    if scene.georeferenced:
        profile["transform"] = Affine(*scene.transform) @ Affine.translation(0, top)
    with _whole(path) as temporary:
        with _open(temporary, "w", **profile) as file:
            for band, name in enumerate(names, start=1):
                file.set_band_description(band, name)
            if colormap is not None:
                file.write_colormap(1, dict(colormap))
                file.colorinterp = [ColorInterp.palette]
            if scale is not None:
                file.scales = (scale,) * len(names)
            file.update_tags(**(tags or {}))
            yield file
        _check_blocks(temporary)


def to_cog(path: Path, out: Path, *, kind: Literal["classes", "probabilities"]) -> None:
    """Copy a GeoTIFF to a cloud-optimised one with overviews down to one block.

    Args:
        path: A tiled GeoTIFF.
        out: The file to appear; may be ``path``.
        kind: Overviews take the most frequent of the classes, or the mean of the probabilities.

    Raises:
        InputError: If the disk is full or the place cannot be written; ``path`` stays.
    """
    with open_raster(path) as file:
        compress = file.profile.get("compress", "deflate").upper()
    with _whole(out) as temporary:
        rasterio.shutil.copy(
            path,
            temporary,
            driver="COG",
            blocksize=BLOCK,
            compress=compress,
            predictor="FLOATING_POINT" if kind == "probabilities" and _is_float(path) else "NO",
            overview_resampling="MODE" if kind == "classes" else "AVERAGE",
            bigtiff="IF_SAFER",
        )


def _is_float(path: Path) -> bool:
    with open_raster(path) as file:
        return bool(np.dtype(file.dtypes[0]).kind == "f")


def open_raster(path: Path) -> Any:
    """Open a raster of ours to read, georeferenced or not.

    Raises:
        InputError: If it is missing or no raster.
    """
    try:
        return _open(path)
    except RasterioError as error:
        raise InputError(f"{path}: cannot be read as a raster ({error})") from None


def _open(path: Path, mode: str = "r", **profile: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # scenes tell it in their notes
        return rasterio.open(path, mode, **profile)


def _check_blocks(path: Path) -> None:
    """Look whether every block is in the file: GDAL may not tell of a disk that filled at the end.

    Raises:
        RasterioError: If one is not.
    """
    size = path.stat().st_size
    with _open(path) as file:
        for band in file.indexes:
            for (row, col), _ in file.block_windows(band):
                place, length = (
                    file.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=band)
                    for what in ("OFFSET", "SIZE")
                )
                if place is None or int(place) + int(length) > size:
                    raise RasterioError("a block could not be written")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary path, whose troubles are told as the user's."""
    with _without_libtiff(), write_atomic(path) as temporary:
        try:
            yield temporary
        except RasterioError as error:
            cause = " ".join(str(error.__cause__ or error).split())
            raise InputError(
                f"cannot write {path}: {_reason(path)}; what was begun is removed ({cause})"
            ) from None


@contextmanager
def _without_libtiff() -> Iterator[None]:
    """Keep libtiff's own lines, as of a full disk, from standard error: the error tells it.

    They pass by GDAL's handlers and Python's streams, hence the descriptor. All else that was
    written there comes after.
    """
    if not hasattr(os, "memfd_create"):
        yield
        return
    sys.stderr.flush()
    kept, shown = os.memfd_create("stderr"), os.dup(2)
    os.dup2(kept, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(shown, 2)
        os.close(shown)
        with os.fdopen(kept, "rb") as lines:
            lines.seek(0)
            for line in lines:
                if not line.startswith(b"_tiff"):
                    os.write(2, line)


def _reason(path: Path) -> str:
    """Why a write may have failed: GDAL does not say."""
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return "the folder cannot be read"
    return f"{free / 1e6:.1f} MB are free there"
