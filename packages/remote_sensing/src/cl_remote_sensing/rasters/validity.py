"""Where a file says which of its pixels are valid: nodata value, alpha band, internal mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

__all__ = ["MaskSources", "mask_sources"]


class MaskSources(NamedTuple):
    """Bands that must be read to know the valid pixels, besides the image's own.

    ``alpha`` is the number of the alpha band; ``own`` are the image bands that have a mask which
    is not in their pixels.
    """

    alpha: int | None = None
    own: tuple[int, ...] = ()


def mask_sources(
    file: rasterio.DatasetReader, bands: Sequence[int], dtype: str, *, ignore_alpha_tag: bool
) -> tuple[float | None, MaskSources]:
    """The nodata value that some bands of an open file share, and what else masks them.

    Nodata and alpha are found in pixels that are read anyway; other masks cost a second read.
    Where a file has several of these, all are heeded; GDAL by itself would take the first.
    """
    values = {_as_stored(file.nodatavals[band - 1], dtype) for band in bands}
    common = len(values) == 1
    own: list[int] = []
    for band in bands:
        flags = set(file.mask_flag_enums[band - 1])
        if flags & {MaskFlags.all_valid, MaskFlags.alpha} or (
            flags == {MaskFlags.nodata} and common
        ):
            continue
        own.append(band)
        if MaskFlags.per_dataset in flags:
            break  # one mask for all
    tagged = ColorInterp.alpha in file.colorinterp and not ignore_alpha_tag
    alpha = file.colorinterp.index(ColorInterp.alpha) + 1 if tagged else None
    return values.pop() if common else None, MaskSources(alpha, tuple(own))


def _as_stored(nodata: float | None, dtype: str) -> float | None:
    """The value pixels carry, or none where the type cannot hold it, as -9999 in 8 bits."""
    if nodata is None or np.isnan(nodata):
        return None  # NaN is not finite, so it is invalid anyway
    if np.dtype(dtype).kind == "f":
        return float(np.dtype(dtype).type(nodata))
    limits = np.iinfo(dtype)
    return nodata if nodata == int(nodata) and limits.min <= nodata <= limits.max else None
