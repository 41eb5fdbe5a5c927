"""NIfTI files as arrays and back: what a header says is kept, what cannot be used is refused.

Only nibabel is imported. A volume has three axes; a file of two is a volume of one slice, a fourth
axis of length one is dropped, of a longer one ``volume_index`` names the frame.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.runs import write_atomic

__all__ = ["VolumeFile", "image_like", "label_ids", "open_volume", "same_grid", "write_like"]

LARGEST_VOXELS = 2**31
"""Voxels of a file; a header that promises more is not believed."""

_TOLERANCE_MM = 1e-3
_MM = {"meter": 1000.0, "micron": 0.001}

Voxels = NDArray[Any]


@dataclass(frozen=True)
class VolumeFile:
    """A file whose header has been read.

    Attributes:
        path: The file.
        image: As nibabel sees it; its voxels are read by :meth:`read` only.
        shape: Of the volume, three axes.
        affine: From voxel to world, mm.
        index: The frame of a file with several.
    """

    path: Path
    image: Any
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    index: int | None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Of each axis of the array, mm."""
        x, y, z = (float(mm) for mm in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def axcodes(self) -> str:
        """Where the axes of the array point to, as in ``RAS``."""
        return "".join(str(code) for code in nib.orientations.aff2axcodes(self.affine))

    def read(self) -> NDArray[np.float32]:
        """The intensities, float32 ``(x, y, z)``, scaled as the header says.

        Raises:
            InputError: If the file is damaged or a voxel is not finite.
        """
        with _refusing(self.path):
            if self.index is None:
                values = self.image.get_fdata(dtype=np.float32, caching="unchanged")
            else:
                values = np.asarray(self.image.dataobj[..., self.index], dtype=np.float32)
        # NaN and infinity pass through both, without an array of flags as large as the volume.
        if not math.isfinite(float(values.min())) or not math.isfinite(float(values.max())):
            count = int(np.count_nonzero(~np.isfinite(values)))
            raise InputError(f"{self.path}: {count:,} voxels are NaN or infinite; clean the image")
        return cast(NDArray[np.float32], values.reshape(self.shape))

    def read_label(self) -> Voxels:
        """The ids of a mask, integers ``(x, y, z)``.

        Raises:
            InputError: If the file is damaged or an id is no whole number.
        """
        with _refusing(self.path):
            data = self.image.dataobj
            values = np.asanyarray(data if self.index is None else data[..., self.index])
        values = values.reshape(self.shape)
        if np.issubdtype(values.dtype, np.integer):
            return cast(Voxels, values)
        if not math.isfinite(float(values.min())) or not math.isfinite(float(values.max())):
            raise InputError(f"{self.path}: labels that are NaN or infinite; clean the mask")
        whole = np.rint(values)
        if float(np.abs(whole - values).max()) > 1e-3:
            raise InputError(
                f"{self.path}: labels that are not whole numbers, such as "
                f"{values.ravel()[np.abs(whole - values).argmax()]:.4g}; resample masks by nearest "
                "neighbour"
            )
        if float(np.abs(whole).max()) > 2**31 - 1:
            raise InputError(f"{self.path}: labels beyond 2^31; give ids that are small numbers")
        return cast(Voxels, whole.astype(np.int32))


def open_volume(path: Path, volume_index: int | None = None) -> VolumeFile:
    """Read the header of a NIfTI file.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file.
        volume_index: Which frame of a 4-D file is meant.

    Raises:
        InputError: If it is none, is damaged, or is no volume of real numbers.
    """
    with _refusing(path):
        image = nib.load(path)
        if not isinstance(image, nib.nifti1.Nifti1Image):
            raise InputError(f"{path} is no NIfTI volume")
        shape = tuple(int(n) for n in image.shape)
        affine = np.asarray(image.affine, dtype=np.float64)
        kind = image.header.get_data_dtype()
        unit = str(image.header.get_xyzt_units()[0])
    if kind.kind not in "iufb":
        raise InputError(f"{path}: voxels of type {kind} are no intensities; convert the file")
    if not shape or 0 in shape or math.prod(shape) > LARGEST_VOXELS:
        raise InputError(f"{path}: a volume of shape {shape} cannot be used")
    shape, index = _three_axes(path, shape, volume_index)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(f"{path}: the affine of its header is singular; repair the header")
    affine = affine.copy()
    affine[:3] *= _MM.get(unit, 1.0)
    return VolumeFile(path, image, cast(Any, shape), affine, index)


def _three_axes(
    path: Path, shape: tuple[int, ...], volume_index: int | None
) -> tuple[tuple[int, ...], int | None]:
    frames = math.prod(shape[3:])
    if len(shape) > 4 and frames > shape[3]:
        raise InputError(f"{path}: a volume has three axes, got {shape}; save one frame")
    if frames == 1:
        if volume_index:
            raise InputError(f"{path}: there is one volume, no volume_index {volume_index}")
        return (*shape[:3], *(1,) * (3 - len(shape[:3]))), None
    if volume_index is None:
        raise InputError(
            f"{path}: a volume has three axes, got {shape}; name a frame by volume_index "
            f"(0 to {shape[3] - 1}), or list channels as several images"
        )
    if volume_index >= shape[3]:
        raise InputError(f"{path}: volume_index {volume_index} of {shape[3]} frames does not exist")
    return shape[:3], volume_index


def same_grid(first: VolumeFile, second: VolumeFile) -> str:
    """Empty if two volumes share a grid, else how they differ.

    Corners may lie up to 0.001 mm apart, which is what rounding of headers makes.
    """
    if first.shape != second.shape:
        return f"shape {second.shape}, expected {first.shape}"
    corners = np.array(
        [
            [x, y, z, 1.0]
            for x in (0, first.shape[0] - 1)
            for y in (0, first.shape[1] - 1)
            for z in (0, first.shape[2] - 1)
        ]
    )
    apart = float(np.abs(corners @ (first.affine - second.affine).T).max())
    return f"its affine puts corners {apart:.3g} mm away" if apart > _TOLERANCE_MM else ""


def label_ids(path: Path) -> list[int]:
    """The ids that occur in a mask.

    Raises:
        InputError: If it cannot be read as one.
    """
    return [int(one) for one in np.unique(open_volume(path).read_label())]


def image_like(values: Voxels, source: VolumeFile, *, scale: float = 1.0) -> Any:
    """Put voxels on the grid of a file, whose header is kept but for what they are.

    Affine, codes of sform and qform, units, axes and notes stay bit for bit; the type of the
    voxels, their scaling and the display range are the new ones.

    Args:
        values: uint8 or uint16, of the source's three axes; one the source dropped comes back.
        source: Whose grid it is.
        scale: What one unit of the stored numbers means.
    """
    shape = tuple(int(n) for n in source.image.shape)
    if source.index is not None:
        shape = shape[:3]
    header = source.image.header.copy()
    header.set_data_dtype(values.dtype)
    header["cal_min"] = header["cal_max"] = 0
    image = type(source.image)(values.reshape(shape), source.image.affine, header)
    image.header.set_slope_inter(scale, 0.0)
    return image


def write_like(path: Path, values: Voxels, source: VolumeFile, *, scale: float = 1.0) -> None:
    """Write :func:`image_like`.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file; it appears complete or not at all.
        values: See there.
        source: See there.
        scale: See there.

    Raises:
        InputError: If the disk is full or the place cannot be written.
    """
    image = image_like(values, source, scale=scale)
    with write_atomic(path) as temporary, _telling(path):
        nib.save(image, temporary)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """An error of the operating system names the file it was about, whatever wrote it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Nibabel and zlib tell of a damaged file in many ways; a user needs one."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: the file does not exist") from error
    except EOFError as error:
        raise InputError(f"{path}: the file is truncated; copy it again") from error
    except (OSError, zlib.error, ImageFileError, HeaderDataError, ValueError, OverflowError) as err:
        told = " ".join(str(err).split()) or type(err).__name__
        if "work out file type" in told:
            told = "no NIfTI volume, or truncated"
        raise InputError(f"{path}: cannot be read ({told[:120]}); copy it again") from err
