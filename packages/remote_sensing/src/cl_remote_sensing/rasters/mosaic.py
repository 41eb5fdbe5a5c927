"""Tiles of one pixel grid as one virtual raster (VRT): no pixel is copied."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from cl_core.errors import InputError
from cl_core.runs import write_atomic
from cl_remote_sensing.rasters.handles import handle

__all__ = ["write_vrt"]

_TOLERANCE = 0.05
"""Pixels that a tile's corners may lie off the common grid."""

_GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}

# Tags of rasterio's enumeration whose name GDAL spells otherwise.
_GDAL_COLORS = {
    "Y": "YCbCr_Y",
    "Cb": "YCbCr_Cb",
    "Cr": "YCbCr_Cr",
    "nir": "NIR",
    "swir": "SWIR",
    "mwir": "MWIR",
    "lwir": "LWIR",
    "tir": "TIR",
    "rededge": "RedEdge",
    "other_ir": "OtherIR",
}


@dataclass(frozen=True)
class _Tile:
    path: Path
    row: int
    col: int
    height: int
    width: int
    masked: bool


def write_vrt(
    paths: Sequence[str | Path],
    out: Path,
    *,
    network: bool = False,
    names: Callable[[ElementTree.Element], None] | None = None,
) -> None:
    """Write a virtual raster over tiles, by their place on the ground.

    Where tiles overlap, a later one lies above an earlier one, except where it has no data. Ground
    that no tile covers is invalid. Colours, descriptions, colour table and tags are those of the
    first tile. The tiles are named relative to ``out``, so that both can be moved together.

    Args:
        paths: Rasters with the same coordinate system, pixel size and orientation, bands, type
            and nodata value, at whole pixels from each other. They may be rotated together.
        out: The ``.vrt`` to write; appears complete or not at all.
        network: Whether a tile that is a virtual raster may name sources on the network.
        names: Adds to the first band what its values are called.

    Raises:
        InputError: If a tile cannot be read, has no georeference, or differs in one of these from
            the first; it names both.
    """
    if not paths:
        raise InputError("a mosaic needs at least one raster")
    files = [str(path) for path in paths]
    placeless = [name for name in files if handle(name, network=network).transform.is_identity]
    if len(placeless) > 1:
        raise InputError(f"{placeless[1]}: no georeference, so it has no place in a mosaic")
    tiles = [_place(name, files[0], network) for name in files]
    top, left = min(tile.row for tile in tiles), min(tile.col for tile in tiles)
    first = handle(files[0], network=network)
    root = ElementTree.Element(
        "VRTDataset",
        rasterXSize=str(max(tile.col + tile.width for tile in tiles) - left),
        rasterYSize=str(max(tile.row + tile.height for tile in tiles) - top),
    )
    if first.crs:
        ElementTree.SubElement(root, "SRS").text = first.crs.to_wkt()
    a, b, c, d, e, f = tuple(first.transform)[:6]
    numbers = (a * left + b * top + c, a, b, d * left + e * top + f, d, e)
    if numbers != (0, 1, 0, 0, 0, 1):
        ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(repr, numbers))
    _add_tags(root, first.tags())
    for band in range(1, first.count + 1):
        element = _add_band(root, first, band)
        if names is not None and band == 1:
            names(element)
        for tile in tiles:
            hidden = {"UseMaskBand": "true"} if tile.masked else {}
            if MaskFlags.nodata in first.mask_flag_enums[band - 1]:
                hidden = {"NODATA": repr(first.nodatavals[band - 1])}
            _add_source(element, tile, top, left, str(band), out, hidden)
    if _needs_mask(first, tiles):
        mask = ElementTree.SubElement(
            ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte"
        )
        for tile in tiles:
            _add_source(mask, tile, top, left, "mask,1", out, {"NODATA": "0"})
    ElementTree.indent(root)
    with write_atomic(out) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _place(name: str, first_name: str, network: bool) -> _Tile:
    """Where a tile lies on the first one's grid, after everything else was found equal."""
    tile, first = (handle(each, network=network) for each in (name, first_name))
    same = {
        "coordinate system": (tile.crs, first.crs),
        "number of bands": (tile.count, first.count),
        "type": (tile.dtypes, first.dtypes),
        "order of colours": (tile.colorinterp, first.colorinterp),
        "nodata value": tuple(list(map(repr, each.nodatavals)) for each in (tile, first)),
    }
    for what, (its, wanted) in same.items():
        if its != wanted:
            raise InputError(
                f"{name} has another {what} than {first_name}; a mosaic needs tiles of one grid, "
                "so give the rasters without --mosaic, or warp them first"
            )
    unknown = sorted({kind for kind in tile.dtypes if kind not in _GDAL_TYPES})
    if unknown:
        raise InputError(f"{name}: a mosaic cannot hold {', '.join(unknown)}")
    corners = np.array([[0, tile.width, 0], [0, 0, tile.height], [1, 1, 1]], float)
    ground = np.reshape(tile.transform, (3, 3)) @ corners
    offset = (np.linalg.solve(np.reshape(first.transform, (3, 3)), ground) - corners)[:2]
    col, row = offset[:, 0].round().astype(int).tolist()
    if np.abs(offset - [[col], [row]]).max() > _TOLERANCE:
        raise InputError(
            f"{name} is not on the pixel grid of {first_name} (another pixel size or rotation, "
            "or an origin between its pixels); give the rasters without --mosaic, or warp them"
        )
    masked = any(MaskFlags.all_valid not in flags for flags in tile.mask_flag_enums)
    return _Tile(Path(name), row, col, tile.height, tile.width, masked)


def _needs_mask(first: rasterio.DatasetReader, tiles: Sequence[_Tile]) -> bool:
    """Whether some pixels are invalid and neither nodata nor alpha says which."""
    if ColorInterp.alpha in first.colorinterp:
        return False
    if all(MaskFlags.nodata in flags for flags in first.mask_flag_enums):
        return False
    return any(tile.masked for tile in tiles) or not _covered(tiles)


def _covered(tiles: Sequence[_Tile]) -> bool:
    """Whether the tiles leave no gap: on the cells between all their edges."""
    rows = np.unique([edge for tile in tiles for edge in (tile.row, tile.row + tile.height)])
    cols = np.unique([edge for tile in tiles for edge in (tile.col, tile.col + tile.width)])
    if len(rows) * len(cols) > 10**8:
        return False  # so many edges that looking would take longer than a mask
    cells = np.zeros((len(rows) - 1, len(cols) - 1), bool)
    for tile in tiles:
        top, bottom = np.searchsorted(rows, (tile.row, tile.row + tile.height))
        left, right = np.searchsorted(cols, (tile.col, tile.col + tile.width))
        cells[top:bottom, left:right] = True
    return bool(cells.all())


def _add_tags(element: ElementTree.Element, tags: dict[str, str]) -> None:
    if tags:
        metadata = ElementTree.SubElement(element, "Metadata")
        for key, value in tags.items():
            ElementTree.SubElement(metadata, "MDI", key=key).text = value


def _add_band(
    root: ElementTree.Element, first: rasterio.DatasetReader, band: int
) -> ElementTree.Element:
    rows, cols = first.block_shapes[band - 1]
    element = ElementTree.SubElement(
        root,
        "VRTRasterBand",
        dataType=_GDAL_TYPES[first.dtypes[band - 1]],
        band=str(band),
        blockXSize=str(cols),
        blockYSize=str(rows),
    )
    _add_tags(element, first.tags(band))
    if first.descriptions[band - 1]:
        ElementTree.SubElement(element, "Description").text = first.descriptions[band - 1]
    nodata = first.nodatavals[band - 1]
    if nodata is not None:
        ElementTree.SubElement(element, "NoDataValue").text = repr(nodata)
    tag = first.colorinterp[band - 1].name
    ElementTree.SubElement(element, "ColorInterp").text = _GDAL_COLORS.get(tag, tag.capitalize())
    if first.colorinterp[band - 1] is ColorInterp.palette:
        table = ElementTree.SubElement(element, "ColorTable")
        for _, color in sorted(first.colormap(band).items()):
            parts = {f"c{place}": str(part) for place, part in enumerate(color, start=1)}
            ElementTree.SubElement(table, "Entry", parts)
    if first.scales[band - 1] != 1:
        ElementTree.SubElement(element, "Scale").text = repr(first.scales[band - 1])
    if first.offsets[band - 1] != 0:
        ElementTree.SubElement(element, "Offset").text = repr(first.offsets[band - 1])
    return element


def _add_source(
    band: ElementTree.Element,
    tile: _Tile,
    top: int,
    left: int,
    source_band: str,
    out: Path,
    hidden: Mapping[str, str],
) -> None:
    """Name a tile as a source; ``hidden`` says which of its pixels are left out."""
    # A ComplexSource is read four times slower, so it is taken only where it is needed.
    source = ElementTree.SubElement(band, "ComplexSource" if hidden else "SimpleSource")
    path, relative = _seen_from(tile.path, out.parent)
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT=relative).text = path
    ElementTree.SubElement(source, "SourceBand").text = source_band
    size = {"xSize": str(tile.width), "ySize": str(tile.height)}
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    place = {"xOff": str(tile.col - left), "yOff": str(tile.row - top)}
    ElementTree.SubElement(source, "DstRect", {**place, **size})
    for name, value in hidden.items():
        ElementTree.SubElement(source, name).text = value


def _seen_from(path: Path, folder: Path) -> tuple[str, str]:
    """A tile's path relative to the VRT's folder, if it is a plain file."""
    if not path.exists():
        return str(path), "0"
    return os.path.relpath(path.resolve(), folder.resolve()), "1"
