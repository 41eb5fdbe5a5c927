"""Which files are opened as rasters, and how: an allow-list, limits, and no network unasked.

GDAL opens far more than images: descriptions of web services, scripts of other files, overviews
that a tag or a side file places on some server. Whatever is opened here is one of
:data:`FORMATS`, and neither it nor what lies beside it leads off this machine, unless the user
named a place on the network or allowed it.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from cl_core.errors import InputError
from cl_remote_sensing.rasters.places import is_remote, is_virtual, stamp_of
from cl_remote_sensing.rasters.virtual import check_virtual

__all__ = ["FORMATS", "GDAL_ERRORS", "MAX_BANDS", "MAX_BLOCK", "MAX_PIXELS", "open_allowed"]

IMAGES = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG", "WEBP", "BMP", "HFA")
"""GDAL's drivers of formats that are known by their first bytes, so that none else takes them."""

FORMATS = (*IMAGES, "ENVI", "EHdr", "VRT")
"""GDAL's drivers that are used to read, in the order they are tried."""

MAX_PIXELS = 10**12
"""Pixels of a raster: a million by a million."""

MAX_BANDS = 4096

MAX_BLOCK = 2**30
"""Bytes that a file makes GDAL unpack at once: a block, or of a PNG the whole image."""

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What reading raises; GDAL's own errors have no common parent and no public name in rasterio."""

_BESIDE = (".ovr", ".OVR", ".msk", ".MSK")
"""What GDAL looks for beside a raster and would open with any of its drivers."""

_MAX_DEPTH = 8

_UNKNOWN = "not recognized as being in a supported file format"

_checked: dict[str, tuple[int, int, int]] = {}
"""Files that were found harmless, and their state then."""


def open_allowed(path: str, *, network: bool = False) -> rasterio.DatasetReader:
    """Open a raster that :data:`FORMATS` can read, on this machine unless told otherwise.

    Args:
        path: A file, a ``/vsi...`` path or a URL. A name on the network is opened, being the
            caller's own; what a file names is not.
        network: Whether a local virtual raster may name sources on the network.

    Raises:
        InputError: If it is missing, in no such format, too large, or leads off this machine.
    """
    if not network and not is_remote(path):
        _check_beside(path)
    file = _open(path, FORMATS)
    try:
        if not network and not is_remote(path):
            _check_overviews(path, file)
            if file.driver == "VRT":
                check_virtual(path, partial(_check_source, depth=1))
        elif file.driver == "VRT" and not is_remote(path):
            check_virtual(path, None)
        _check_size(path, file)
    except BaseException:
        file.close()
        raise
    return file


@cache
def _hide_failing_log() -> None:
    """Hide that rasterio cannot log a message of GDAL's that quotes bytes of a damaged file.

    It happens in a callback, so Python would print a traceback and go on.
    """
    before = sys.unraisablehook

    def hook(failed: Any) -> None:
        if failed.object != "rasterio._env.log_error":
            before(failed)

    sys.unraisablehook = hook


def _open(path: str, formats: tuple[str, ...]) -> rasterio.DatasetReader:
    _hide_failing_log()
    reason = ""
    for driver in formats:
        try:
            with warnings.catch_warnings():  # that it has no georeference is told by the scene
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                return _opened(path, driver)
        except (*GDAL_ERRORS, UnicodeError, ValueError) as error:
            line = " ".join(str(error).split())
            if _UNKNOWN not in line:
                reason = reason or line
    raise InputError(_why_not(path, reason))


def _opened(path: str, driver: str) -> rasterio.DatasetReader:
    if path.startswith("/vsi") and not path.startswith("/vsimem/") and not is_remote(path):
        # Beside a file in an archive nothing is looked for: it could not be checked first.
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            return rasterio.open(path, driver=driver)
    return rasterio.open(path, driver=driver)


def _why_not(path: str, reason: str) -> str:
    if not is_virtual(path):
        file = Path(path)
        try:
            if file.is_dir():
                return f"{path}: a folder, not a raster; name a file in it"
            if not file.exists() and ":" not in path:
                return f"{path}: no such file; check the path"
            if file.is_file() and file.stat().st_size == 0:
                return f"{path}: the file is empty (0 bytes); fetch it again"
        except (OSError, ValueError) as error:
            return f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
    if reason:
        return f"{path}: not a raster that GDAL can read ({reason})"
    return (
        f"{path}: not a raster that GDAL can read as {', '.join(FORMATS)}; convert other formats "
        "first (gdal_translate)"
    )


def _check_size(path: str, file: rasterio.DatasetReader) -> None:
    """Refuse what would take memory or time without measure.

    Raises:
        InputError: If it would.
    """
    if file.width * file.height > MAX_PIXELS:
        raise InputError(
            f"{path}: says it has {file.height} x {file.width} pixels, over the limit of "
            f"{MAX_PIXELS:.0e}; give it in parts"
        )
    if file.count > MAX_BANDS:
        raise InputError(
            f"{path}: says it has {file.count} bands, over the limit of {MAX_BANDS}; give a file "
            "with fewer"
        )
    if file.count == 0:
        return
    rows, cols = file.block_shapes[0]
    if file.driver == "PNG":  # an interlaced one is unpacked whole
        rows, cols = file.height, file.width
    together = 1 if str(file.interleaving or "").lower().endswith("band") else file.count
    size = min(rows, file.height) * min(cols, file.width) * together * _bytes(file.dtypes[0])
    if size > MAX_BLOCK:
        raise InputError(
            f"{path}: has to be unpacked in pieces of {rows} x {cols} pixels ({size / 2**30:.1f} "
            f"GiB, over the limit of {MAX_BLOCK / 2**30:.0f}); tile it first "
            "(gdal_translate -co TILED=YES)"
        )


def _bytes(dtype: str) -> int:
    kind = "".join(char for char in dtype if char.isdigit())
    return int(kind) // 8 if kind else 1


def _check_beside(path: str) -> None:
    """Check the overviews and masks that GDAL would take from files beside a raster.

    Raises:
        InputError: If one of them is no image of its own.
    """
    if is_virtual(path):
        return
    for suffix in _BESIDE:
        beside = path + suffix
        if Path(beside).exists():
            try:
                _check_source(beside)
            except InputError as error:
                raise InputError(
                    f"{path}: the {suffix} file beside it is no image ({error}); remove it"
                ) from None


def _check_overviews(path: str, file: rasterio.DatasetReader) -> None:
    """Refuse overviews that a tag places in another file: anywhere, in any format.

    Raises:
        InputError: If there is such a tag.
    """
    elsewhere = file.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if elsewhere is not None:
        raise InputError(
            f"{path}: a tag of it, or the .aux.xml beside it, takes its overviews from "
            f"{elsewhere!r}, which is not followed; remove the tag OVERVIEW_FILE"
        )


def _check_source(path: str, depth: int = 0) -> None:
    """Check a file that another one makes GDAL open, and remember that it is harmless.

    Raises:
        InputError: If it is not in one of the formats that only their own driver takes.
    """
    if depth > _MAX_DEPTH:
        raise InputError(f"{path}: virtual rasters are nested more than {_MAX_DEPTH} deep")
    state = stamp_of(path)
    if state is not None and _checked.get(path) == state:
        return
    _check_beside(path)
    with _open(path, (*IMAGES, "VRT")) as file:
        _check_overviews(path, file)
        if file.driver == "VRT":
            check_virtual(path, partial(_check_source, depth=depth + 1))
    if state is not None:
        _checked[path] = state
