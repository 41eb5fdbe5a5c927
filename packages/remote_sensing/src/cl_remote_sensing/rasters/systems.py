"""Coordinate systems by name or text; looked up on this machine alone."""

from __future__ import annotations

import re
from typing import Any

import rasterio
from rasterio.crs import CRS

__all__ = ["LONLAT", "system_of"]

LONLAT = "OGC:CRS84"

_NAMED = re.compile(
    r"(?:urn:(?:x-)?ogc:def:crs:|https?://www\.opengis\.net/def/crs/)?[A-Za-z]+[:/][\w.:/-]+"
)
_WRITTEN = re.compile(r"\s*(?:[A-Z_0-9]+\s*\[|\+proj=|\+init=epsg:\d+)")


def system_of(text: str) -> CRS:
    """The coordinate system that a text names (``EPSG:32633``, a URN) or spells out (WKT, PROJ).

    Anything else GDAL would take for a file to read or a page to fetch.

    Raises:
        ValueError: If it is none, or unknown.
    """
    if not (_WRITTEN.match(text) or (_NAMED.fullmatch(text.strip()) and len(text) < 200)):
        raise ValueError(f"{text[:60]!r} names no coordinate system")
    with rasterio.Env():  # else GDAL writes its own lines to standard error
        try:
            crs: Any = CRS.from_user_input(text.strip())
        except Exception as error:  # rasterio's, and GDAL's own
            raise ValueError(
                f"{text[:60]!r} is no coordinate system ({' '.join(str(error).split())})"
            ) from None
    return crs
