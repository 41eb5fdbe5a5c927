"""Scenes: what a raster's header says, and windowed reads of its pixels with their validity.

A scene holds no open file: it can be pickled, sent to a loader's worker and stored. Pixels are
read a window at a time; no raster is ever read whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_remote_sensing.rasters.formats import GDAL_ERRORS
from cl_remote_sensing.rasters.handles import handle
from cl_remote_sensing.rasters.memory import InMemory
from cl_remote_sensing.rasters.validity import MaskSources
from cl_remote_sensing.rasters.windows import Window, blockwise

__all__ = ["Pixels", "Scene", "UnreadableWindowError"]

_T = TypeVar("_T")

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
        scales: Of each selected band the factor that its tag names; 1 without one.
        offsets: Of each selected band what its tag says is added then, in the quantity's unit.
        nodata: Value that marks missing pixels, if the bands share one that their type can hold.
            NaN is left out: pixels that are not finite are invalid anyway.
        crs: Coordinate system as WKT.
        transform: Affine ``(a, b, c, d, e, f)``: x = a col + b row + c, y = d col + e row + f, at
            pixel corners. Terms of rotation may differ from zero.
        georeferenced: Whether the file has an affine transform. It may have one without a CRS.
        block: Rows and columns that the file stores together.
        notes: What the user should be told, each a sentence that names the file.
        masks: What else in the file says which pixels are valid.
        network: Whether a virtual raster may name sources on the network.
        memory: What keeps the raster, if it is no file.
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
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    network: bool = False
    memory: InMemory | None = field(default=None, compare=False, repr=False)

    @property
    def scaled(self) -> bool:
        """Whether tags give the values a scale or an offset."""
        return any(scale != 1 for scale in self.scales) or any(self.offsets)

    def handle(self, *, fresh: bool = False) -> rasterio.DatasetReader:
        """The open file; see :func:`cl_remote_sensing.rasters.handles.handle`."""
        return handle(self.path, network=self.network, fresh=fresh)

    def with_bands(self, order: Sequence[int], *notes: str) -> Scene:
        """The same scene with its bands in the given order of places, and further notes."""

        def moved(values: tuple[_T, ...]) -> tuple[_T, ...]:
            return tuple(values[place] for place in order)

        return replace(
            self,
            bands=moved(self.bands),
            names=moved(self.names),
            colors=moved(self.colors),
            scales=moved(self.scales),
            offsets=moved(self.offsets),
            notes=(*self.notes, *notes),
        )

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
        file = self.handle()
        if (file.height, file.width) != (self.height, self.width):
            raise InputError(
                f"{self.path}: was {self.height} x {self.width} pixels and is now {file.height} x "
                f"{file.width}: the file was replaced meanwhile, so start again"
            )
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
        except GDAL_ERRORS as error:
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
