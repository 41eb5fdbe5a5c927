"""Scenes: what a raster's header says, and windowed reads of its pixels with their validity.

A scene holds no open file: it can be pickled, sent to a loader's worker and stored. Pixels are
read a window at a time; no raster is ever read whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from cl_core.errors import InputError
from cl_remote_sensing.rasters.bands import band_color, band_name, select_bands
from cl_remote_sensing.rasters.handles import handle
from cl_remote_sensing.rasters.listing import list_rasters
from cl_remote_sensing.rasters.validity import MaskSources, mask_sources
from cl_remote_sensing.rasters.windows import Window, blockwise

__all__ = ["Pixels", "Scene", "UnreadableWindowError", "handle", "open_scene", "open_scenes"]

Corners = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]


class UnreadableWindowError(InputError):
    """A window that the file cannot give, being truncated or damaged; others may be sound."""


class Pixels(NamedTuple):
    """A window's pixels and which of them are valid.

    ``values`` is ``(c, h, w)`` in the raster's own type and units; ``valid`` is bool ``(h, w)``:
    the file's mask (nodata, alpha or internal mask) says so, and all bands are finite.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One raster: where its file is, its size, bands and place on the ground.

    Attributes:
        path: As GDAL is to open it.
        height: Rows.
        width: Columns.
        bands: Numbers of the selected bands, from 1, in output order; alpha is never among them.
        names: Of each selected band its description, or ``band 3``.
        colors: Of each selected band ``red``, ``green``, ``blue``, ``nir``, ``gray``,
            ``undefined``, ...
        dtype: Numpy name of the selected bands' type.
        nodata: Value that marks missing pixels, if the bands share one that their type can hold.
            NaN is left out: pixels that are not finite are invalid anyway.
        crs: Coordinate system as WKT.
        transform: Affine ``(a, b, c, d, e, f)``: x = a col + b row + c, y = d col + e row + f, at
            pixel corners. Terms of rotation may differ from zero.
        georeferenced: Whether the file has an affine transform. It may have one without a CRS.
        block: Rows and columns that the file stores together.
        notes: What the user should be told, each a sentence that names the file.
        masks: What else in the file says which pixels are valid.
    """

    path: str
    height: int
    width: int
    bands: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]
    dtype: str
    nodata: float | None
    crs: str | None
    transform: tuple[float, float, float, float, float, float]
    georeferenced: bool
    block: tuple[int, int]
    notes: tuple[str, ...] = ()
    masks: MaskSources = field(default_factory=MaskSources)

    def read(self, window: Window, *, shape: tuple[int, int] | None = None) -> Pixels:
        """Read the selected bands of a window, and which pixels are valid, in one pass.

        Args:
            window: Must lie inside the raster.
            shape: Rows and columns to shrink the window to, by nearest neighbour from an overview
                where the file has one; by default full resolution.

        Raises:
            ValueError: If the window leaves the raster or is empty.
            UnreadableWindowError: If the file is truncated or damaged there.
            InputError: If the file is gone.
        """
        row, col, height, width = window
        if row < 0 or col < 0 or height < 1 or width < 1:
            raise ValueError(f"expected a window inside the raster, got {window}")
        if row + height > self.height or col + width > self.width:
            raise ValueError(
                f"{window} leaves the raster of {self.height} x {self.width} pixels; move it inside"
            )
        file = handle(self.path)
        alpha, masked = self.masks
        where = rasterio.windows.Window(col, row, width, height)
        try:
            if alpha is None:
                values = file.read(self.bands, window=where, out_shape=shape)
                valid = None
            else:
                both = file.read((*self.bands, alpha), window=where, out_shape=shape)
                values, valid = both[:-1], both[-1] != 0
            if masked:
                said = file.read_masks(masked, window=where, out_shape=shape).all(axis=0)
                valid = said if valid is None else valid & said
        except RasterioError as error:
            cause = " ".join(str(error.__cause__ or error).split())
            raise UnreadableWindowError(
                f"{self.path}: cannot read rows {row} to {row + height - 1}, columns {col} to "
                f"{col + width - 1}; the file is truncated or damaged there, so fetch it again "
                f"({cause})"
            ) from None
        if values.dtype.kind == "f":
            finite = np.isfinite(values).all(axis=0)
            valid = finite if valid is None else valid & finite
        if self.nodata is not None:
            present = (values != values.dtype.type(self.nodata)).all(axis=0)
            valid = present if valid is None else valid & present
        return Pixels(values, np.ones(values.shape[1:], bool) if valid is None else valid)

    def blocks(self, pixels: int = 2**20) -> Iterator[Window]:
        """Windows of about ``pixels`` pixels that tile the raster along its blocks, row-major."""
        return blockwise(self.height, self.width, block=self.block, pixels=pixels)

    def footprint(self, window: Window | None = None) -> Corners:
        """Outer corners ``(x, y)`` of a window or of the scene, in the units of the CRS.

        In the order upper left, upper right, lower right, lower left of the pixel grid; right for
        rotated rasters also, for which a bounding box is not. Without georeference: pixels.
        """
        row, col, height, width = window or Window(0, 0, self.height, self.width)
        a, b, c, d, e, f = self.transform

        def place(x: int, y: int) -> tuple[float, float]:
            return a * x + b * y + c, d * x + e * y + f

        right, lower = col + width, row + height
        return place(col, row), place(right, row), place(right, lower), place(col, lower)


def open_scene(
    path: str | Path, *, bands: Sequence[str] | None = None, ignore_alpha_tag: bool = False
) -> Scene:
    """Read the header of a raster.

    Args:
        path: Anything GDAL opens; a string is handed on as it is (``/vsi...``, URLs).
        bands: Bands by number from 1, by description or by colour, in output order; by default
            all but alpha.
        ignore_alpha_tag: Take a band that is tagged as alpha for a band of the image.

    Raises:
        InputError: If the file is missing, no raster, a palette image, complex, or has not the
            bands.
    """
    path = str(path)
    file = handle(path)
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
        notes=tuple(f"{path}: {note}" for note in _notes(file)),
        masks=masks,
    )


def open_scenes(
    data: Sequence[str | Path],
    *,
    bands: Sequence[str] | None = None,
    ignore_alpha_tag: bool = False,
) -> list[Scene]:
    """Read the headers of many rasters, which must have the same bands and type.

    Args:
        data: Rasters, folders and ``.txt`` lists of rasters; see
            :func:`cl_remote_sensing.rasters.listing.list_rasters`.
        bands: As for :func:`open_scene`, of every raster.
        ignore_alpha_tag: As for :func:`open_scene`.

    Raises:
        InputError: If there is no raster, or two differ in their bands or their type.
    """
    scenes = [
        open_scene(path, bands=bands, ignore_alpha_tag=ignore_alpha_tag)
        for path in list_rasters(data)
    ]
    first = scenes[0]
    for scene in scenes[1:]:
        if len(scene.bands) != len(first.bands):
            raise InputError(
                f"{scene.path} has {len(scene.bands)} bands but {first.path} has "
                f"{len(first.bands)}; choose the same with --bands, or leave one out"
            )
        if scene.dtype != first.dtype:
            raise InputError(
                f"{scene.path} is {scene.dtype} but {first.path} is {first.dtype}; convert one, or "
                "leave it out"
            )
        if _order(scene) and _order(first) and _order(scene) != _order(first):
            raise InputError(
                f"{scene.path} has the bands {', '.join(scene.colors)} but {first.path} "
                f"{', '.join(first.colors)}; choose by colour, as --bands red,green,blue"
            )
    return scenes


def _order(scene: Scene) -> list[str]:
    """Where red, green and blue are, if the file tells."""
    return [color for color in scene.colors if color in ("red", "green", "blue")]


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


def _notes(file: rasterio.DatasetReader) -> Iterator[str]:
    """What a user should know before the pixels are used."""
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
