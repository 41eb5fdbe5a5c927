"""Which bands of a file are the image: by number, by name or by colour; never alpha."""

from __future__ import annotations

from collections.abc import Sequence

import rasterio
from rasterio.enums import ColorInterp

from cl_core.errors import InputError

__all__ = ["band_color", "band_name", "select_bands"]

# Tags that say nothing of the sensor; a description such as "nir" then knows better.
_VAGUE = {ColorInterp.undefined, ColorInterp.gray, ColorInterp.palette, ColorInterp.alpha}


def _described(dataset: rasterio.DatasetReader, band: int) -> str:
    """The description of a band (counted from 1), empty without one."""
    return (dataset.descriptions[band - 1] or "").strip()


def band_name(dataset: rasterio.DatasetReader, band: int) -> str:
    """The description of a band (counted from 1), or ``band 3``."""
    return _described(dataset, band) or f"band {band}"


def band_color(dataset: rasterio.DatasetReader, band: int) -> str:
    """``red``, ``nir``, ``gray``, ``undefined``, ...: the file's tag, else its description."""
    tag = dataset.colorinterp[band - 1]
    said = _described(dataset, band).lower()
    if tag in _VAGUE and said in ColorInterp.__members__ and said != "alpha":
        return said
    return "undefined" if tag is ColorInterp.alpha else str(tag.name)


def select_bands(
    dataset: rasterio.DatasetReader, wanted: Sequence[str] | None, *, ignore_alpha_tag: bool
) -> tuple[int, ...]:
    """Numbers of the wanted bands, in the order asked for; by default all but alpha.

    Args:
        dataset: The open file.
        wanted: Each a number counted from 1, a description, or a colour; case does not matter.
        ignore_alpha_tag: Take a band that is tagged as alpha for a band of the image.

    Raises:
        InputError: If a band is unknown, ambiguous, asked for twice, or alpha.
    """
    path, count = dataset.name, dataset.count
    alpha = set() if ignore_alpha_tag else _alpha_bands(dataset)
    if wanted is None:
        bands = tuple(band for band in range(1, count + 1) if band not in alpha)
        if not bands:
            raise InputError(
                f"{path}: its only band is tagged as alpha; if it is an image, "
                "give --ignore_alpha_tag"
            )
        return bands
    bands = tuple(_find(dataset, one.strip()) for one in wanted)
    if not bands:
        raise InputError(f"{path}: no band is asked for; give --bands, or leave it out for all")
    for band in bands:
        if bands.count(band) > 1:
            raise InputError(f"{path}: band {band} is asked for twice; check --bands")
        if band in alpha:
            raise InputError(
                f"{path}: band {band} is tagged as alpha, a mask; if it is an image band all the "
                "same, give --ignore_alpha_tag"
            )
    return bands


def _alpha_bands(dataset: rasterio.DatasetReader) -> set[int]:
    tags = enumerate(dataset.colorinterp, start=1)
    return {band for band, tag in tags if tag is ColorInterp.alpha}


def _find(dataset: rasterio.DatasetReader, wanted: str) -> int:
    numbers = range(1, dataset.count + 1)
    if wanted.isdecimal() and int(wanted) in numbers:
        return int(wanted)
    for label in (band_name, band_color):
        found = [band for band in numbers if label(dataset, band).lower() == wanted.lower()]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{dataset.name}: bands {', '.join(map(str, found))} are all called {wanted!r}; "
                "choose by number in --bands"
            )
    known = ", ".join(f"{band} ({_said(dataset, band)})" for band in numbers)
    raise InputError(f"{dataset.name}: no band {wanted!r} for --bands; there are {known}")


def _said(dataset: rasterio.DatasetReader, band: int) -> str:
    return _described(dataset, band) or str(dataset.colorinterp[band - 1].name)
