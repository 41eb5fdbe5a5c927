"""Opening rasters: one, or many that are to be used together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import rasterio
from rasterio.enums import ColorInterp

from cl_core.errors import InputError
from cl_core.tables.arrays import readable
from cl_remote_sensing.rasters.bands import band_color, band_name, select_bands
from cl_remote_sensing.rasters.handles import handle
from cl_remote_sensing.rasters.listing import list_rasters
from cl_remote_sensing.rasters.memory import InMemory, RasterLike, named
from cl_remote_sensing.rasters.order import (
    descriptions,
    in_order,
    require_alike,
    require_one_scale,
)
from cl_remote_sensing.rasters.scene import Pixels, Scene, UnreadableWindowError
from cl_remote_sensing.rasters.validity import mask_sources

__all__ = ["Pixels", "Scene", "UnreadableWindowError", "handle", "open_scene", "open_scenes"]


def open_scene(
    data: RasterLike | InMemory,
    *,
    bands: Sequence[str] | None = None,
    ignore_alpha_tag: bool = False,
    network: bool = False,
) -> Scene:
    """Read the header of a raster.

    Args:
        data: A raster in one of :data:`~cl_remote_sensing.rasters.formats.FORMATS`, by its path, a
            ``/vsi...`` name or a URL; or one in memory: an array ``(c, h, w)``, a
            :class:`~cl_remote_sensing.rasters.memory.Raster` (an array with its place), an open
            data set of rasterio's.
        bands: Bands by number from 1, by description or by colour, in output order; by default
            all but alpha.
        ignore_alpha_tag: Take a band that is tagged as alpha for a band of the image.
        network: Whether a virtual raster may name sources on the network.

    Raises:
        InputError: If the file is missing, no raster, a palette image, complex, or has not the
            bands.
        ValueError: If an array is no raster.
    """
    path, memory = named(data)
    file = handle(path, network=network, fresh=True)
    with readable(Path(path), "a raster"):
        scene = _scene(path, file, bands, ignore_alpha_tag)
    return replace(scene, network=network, memory=memory)


def _once(found: Sequence[RasterLike | InMemory]) -> list[RasterLike | InMemory]:
    """Each path once; what is in memory as it is."""
    seen: set[str] = set()
    kept: list[RasterLike | InMemory] = []
    for one in found:
        if not isinstance(one, str) or one not in seen:
            kept.append(one)
        if isinstance(one, str):
            seen.add(one)
    return kept


def _scene(
    path: str, file: rasterio.DatasetReader, bands: Sequence[str] | None, ignore_alpha_tag: bool
) -> Scene:
    if file.count == 0:
        inner = f"; give one of {', '.join(file.subdatasets[:3])}" if file.subdatasets else ""
        raise InputError(f"{path}: holds no band{inner}")
    chosen = select_bands(file, bands, ignore_alpha_tag=ignore_alpha_tag)
    dtype = _common_type(file, chosen)
    if ColorInterp.palette in (file.colorinterp[band - 1] for band in chosen):
        raise InputError(
            f"{path}: a palette image, whose numbers are colours' places in a table; expand it to "
            "red, green and blue first (gdal_translate -expand rgb)"
        )
    nodata, masks = mask_sources(file, chosen, dtype, ignore_alpha_tag=ignore_alpha_tag)
    return Scene(
        path=path,
        height=file.height,
        width=file.width,
        bands=chosen,
        names=tuple(band_name(file, band) for band in chosen),
        colors=tuple(band_color(file, band) for band in chosen),
        dtype=dtype,
        nodata=nodata,
        crs=file.crs.to_wkt() if file.crs else None,
        transform=tuple(file.transform)[:6],
        georeferenced=not file.transform.is_identity,
        block=tuple(file.block_shapes[chosen[0] - 1]),
        notes=tuple(f"{path}: {note}" for note in _notes(file, chosen)),
        masks=masks,
        scales=tuple(float(file.scales[band - 1]) for band in chosen),
        offsets=tuple(float(file.offsets[band - 1]) for band in chosen),
    )


def open_scenes(
    data: Sequence[RasterLike | InMemory],
    *,
    bands: Sequence[str] | None = None,
    ignore_alpha_tag: bool = False,
    network: bool = False,
) -> list[Scene]:
    """Read the headers of many rasters, which must have the same bands and type.

    Bands that are described are brought into the order of the first raster's.

    Args:
        data: Rasters as for :func:`open_scene`, folders and ``.txt`` lists of rasters; see
            :func:`cl_remote_sensing.rasters.listing.list_rasters`.
        bands: As for :func:`open_scene`, of every raster; then their order stays.
        ignore_alpha_tag: As for :func:`open_scene`.
        network: Whether lists and virtual rasters may name places on the network.

    Raises:
        InputError: If there is no raster, or two differ in their bands, type or scale.
    """
    found: list[RasterLike | InMemory] = []
    for entry in data:
        if isinstance(entry, str | Path):
            found += list_rasters([entry], network=network)
        else:
            found.append(entry)
    if not found:
        raise InputError("no raster is given; name a file, a folder or a .txt list")
    scenes = [
        open_scene(one, bands=bands, ignore_alpha_tag=ignore_alpha_tag, network=network)
        for one in _once(found)
    ]
    first = scenes[0]
    wanted = descriptions(first.names)
    for place, scene in enumerate(scenes[1:], start=1):
        if len(scene.bands) == len(first.bands):
            scenes[place] = in_order(scene, wanted, first.path, trusted=bands is not None)
        require_alike(scenes[place], first)
        require_one_scale(scenes[place], first)
    return scenes


def _common_type(file: rasterio.DatasetReader, bands: tuple[int, ...]) -> str:
    types = {file.dtypes[band - 1] for band in bands}
    if len(types) > 1:
        raise InputError(
            f"{file.name}: its bands are of several types ({', '.join(sorted(types))}); choose "
            "bands of one type with --bands"
        )
    dtype = str(types.pop())
    if dtype.startswith("complex"):
        raise InputError(
            f"{file.name}: complex numbers ({dtype}) are not an image; write amplitude or "
            "intensity first (gdal_calc.py --calc 'abs(A)')"
        )
    return dtype


def _notes(file: rasterio.DatasetReader, bands: Sequence[int]) -> Iterator[str]:
    """What a user should know before the pixels are used."""
    units = {(file.scales[band - 1], file.offsets[band - 1]) for band in bands} - {(1, 0)}
    for scale, offset in sorted(units)[:1]:
        yield (
            f"tagged with scale {scale:g} and offset {offset:g}; values are used as they are stored"
        )
    points, _ = file.gcps
    if file.transform.is_identity:
        if points or file.rpcs:
            by = f"{len(points)} ground control points" if points else "RPC coefficients"
            yield f"placed by {by} alone; used in pixel space, so warp it first for a map"
        else:
            yield "no georeference; used in pixel space"
    elif not file.crs:
        yield "has an affine transform but no coordinate system"
    rows, cols = file.block_shapes[0]
    if cols >= file.width >= 2048 and file.height >= 2048:
        yield f"stored in strips of {rows} rows, which are slow to read in windows; tile it first"
