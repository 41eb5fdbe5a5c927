"""Pixels of label rasters as keys: a class code, or a colour packed into one number."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.vrt import WarpedVRT

from cl_core.errors import InputError
from cl_remote_sensing.rasters.formats import GDAL_ERRORS
from cl_remote_sensing.rasters.windows import Window

__all__ = [
    "Kind",
    "RasterKeys",
    "named_values",
    "pack",
    "palette",
    "raster_kind",
    "read_keys",
    "unpack",
]

Kind = Literal["codes", "colors"]


class RasterKeys(NamedTuple):
    """The keys of a window, integers ``(h, w)``, and where there is a label, bool ``(h, w)``."""

    keys: NDArray[Any]
    labelled: NDArray[np.bool_]


def pack(color: tuple[int, int, int]) -> int:
    """A colour as one number."""
    return color[0] << 16 | color[1] << 8 | color[2]


def unpack(key: int) -> tuple[int, int, int]:
    """The colour of a packed number."""
    return key >> 16 & 255, key >> 8 & 255, key & 255


def raster_kind(file: rasterio.DatasetReader) -> Kind:
    """Tell a raster of class codes (one band) from one of colours (red, green, blue).

    An alpha band says where there are labels.

    Raises:
        InputError: If it is neither.
    """
    bands = [k for k, color in enumerate(file.colorinterp) if color != ColorInterp.alpha]
    types = {file.dtypes[k] for k in bands}
    if len(bands) == 1 and not any(name.startswith("complex") for name in types):
        return "codes"
    if len(bands) == 3 and types == {"uint8"}:
        return "colors"
    raise InputError(
        f"{file.name}: has {len(bands)} bands of {', '.join(sorted(types))}; a label raster has "
        "one band of codes, or red, green and blue in 8 bits"
    )


def palette(file: rasterio.DatasetReader) -> dict[int, tuple[int, int, int]]:
    """Colours of a raster's palette by code; empty without one."""
    if ColorInterp.palette not in file.colorinterp:
        return {}
    table = file.colormap(file.colorinterp.index(ColorInterp.palette) + 1)
    return {code: (r, g, b) for code, (r, g, b, _) in table.items()}


def named_values(file: rasterio.DatasetReader) -> dict[int, str]:
    """Names of the values of a map that `predict` wrote; empty for other rasters."""
    tags = file.tags()
    if not tags.get("software", "").startswith("cl-remote-sensing"):
        return {}
    try:
        named = {int(value): str(name) for value, name in json.loads(tags["classes"]).items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # edited by hand: a plain raster of codes
    return named if len(set(named.values())) == len(named) else {}


def read_keys(
    file: rasterio.DatasetReader | WarpedVRT,
    window: Window,
    kind: Kind,
    path: str,
    *,
    heed_nodata: bool = True,
) -> RasterKeys:
    """Read the keys of a window.

    Args:
        file: The label raster, as it is or warped.
        window: In the pixels of ``file``.
        kind: What :func:`raster_kind` said.
        path: The file to name in errors.
        heed_nodata: Whether pixels of the file's nodata value have no label.

    Raises:
        InputError: If it is damaged there, or holds numbers that are not whole.
    """
    row, col, height, width = window
    where = rasterio.windows.Window(col, row, width, height)
    bands = [k + 1 for k, color in enumerate(file.colorinterp) if color != ColorInterp.alpha]
    bands = bands[: 1 if kind == "codes" else 3]
    try:
        values = file.read(bands, window=where)
        flags = {flag for k in bands for flag in file.mask_flag_enums[k - 1]}
        if flags == {MaskFlags.all_valid}:
            labelled = np.ones((height, width), dtype=bool)
        elif not heed_nodata and MaskFlags.nodata in flags:
            labelled = _opaque(file, where)
        elif kind == "codes":
            labelled = file.read_masks(bands[0], window=where) > 0
        else:  # black may be nodata in each band, blue is not
            labelled = file.dataset_mask(window=where) > 0
    except (*GDAL_ERRORS, MemoryError) as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise InputError(
            f"{path}: cannot read the labels of rows {row} to {row + height - 1}, columns {col} to "
            f"{col + width - 1}; the file is truncated or damaged there, so fetch it again "
            f"({cause})"
        ) from None
    if kind == "colors":
        red, green, blue = values.astype(np.int32)
        return RasterKeys(red << 16 | green << 8 | blue, labelled)
    keys = values[0]
    if keys.dtype.kind == "f":
        labelled = labelled & np.isfinite(keys)
        whole = np.where(labelled, keys, 0)
        keys = whole.astype(np.int64)
        if (keys != whole).any():
            raise InputError(
                f"{path}: holds numbers that are not whole, such as "
                f"{whole[keys != whole][0]:g}; labels are class codes"
            )
    return RasterKeys(keys, labelled)


def _opaque(file: rasterio.DatasetReader | WarpedVRT, where: Any) -> NDArray[np.bool_]:
    """What an alpha band lets through; everything without one."""
    if ColorInterp.alpha not in file.colorinterp:
        return np.ones((int(where.height), int(where.width)), dtype=bool)
    return np.asarray(file.read(file.colorinterp.index(ColorInterp.alpha) + 1, window=where) > 0)
