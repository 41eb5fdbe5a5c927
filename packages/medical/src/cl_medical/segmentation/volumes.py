r"""From a file's grid to the network's and back; each step can be undone.

1. Axes are put in the order (slice, two others), each along R, A or S: a view, nothing is copied.
2. The grid is resampled to the domain's spacing: in two dimensions within slices only. Both grids
   span the same field of view, so that the way back needs the old shape and nothing else; where the
   spacing fits already (to 0.1 %) no voxel changes.
3. Intensities are clipped to percentiles and standardised, $x \mapsto (x - m) / s$.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cl_core.errors import InputError
from cl_medical.segmentation.manifest import Axis, Case, Domain
from cl_medical.segmentation.nifti import VolumeFile, open_volume, same_grid

__all__ = [
    "Geometry",
    "Intensity",
    "Recipe",
    "Volume",
    "geometry_of",
    "map_labels",
    "open_case",
    "prepare_image",
    "prepare_label",
    "resample",
]

_AXES = "RAS"
_SAME = 1e-3
_SLICES = 32  # resampled at a time

Spacing = tuple[float | None, float | None, float | None]
Voxels = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the volumes of a domain are prepared; part of the model.

    Attributes:
        slice_axis: R, A or S.
        spacing: mm along R, A, S; ``None`` leaves an axis as it is.
        in_plane: Resample within slices only, for two dimensions.
        percentiles: Where intensities are clipped, per cent.
        nonzero_only: Measure percentiles, mean and deviation on voxels that are not 0.
    """

    slice_axis: Axis
    spacing: Spacing
    in_plane: bool
    percentiles: tuple[float, float] = (0.5, 99.5)
    nonzero_only: bool = False


@dataclass(frozen=True)
class Geometry:
    """The way of a volume's voxels from its file to the network's grid.

    Attributes:
        turn: How axes are permuted and flipped, nibabel's transform ``(3, 2)``.
        shape: Of the turned volume, slice axis first.
        spacing: mm of the turned axes.
        grid: Shape after resampling.
    """

    turn: NDArray[np.float64]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    grid: tuple[int, int, int]

    def turned(self, voxels: Voxels) -> Voxels:
        """A view of a file's voxels with the slice axis first and every axis along R, A or S."""
        return cast(Voxels, nib.orientations.apply_orientation(voxels, self.turn))

    def turned_back(self, voxels: Voxels) -> Voxels:
        """The inverse of :meth:`turned`, again a view."""
        order = self.turn[:, 0].astype(int)
        back = np.transpose(voxels, order)
        flipped = tuple(slice(None, None, -1 if sign < 0 else 1) for sign in self.turn[:, 1])
        return back[flipped]

    @property
    def resampled(self) -> bool:
        """Whether the network's grid is another one."""
        return self.grid != self.shape


@dataclass(frozen=True)
class Intensity:
    """How one image is scaled.

    Attributes:
        low: Values below become it.
        high: Values above become it.
        mean: Subtracted.
        deviation: Divided by.
    """

    low: float
    high: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, voxels: NDArray[np.float32], recipe: Recipe) -> Intensity:
        """Measure an image; one of a single value is scaled to 0."""
        values = voxels[voxels != 0] if recipe.nonzero_only else voxels.ravel(order="K").copy()
        if values.size == 0:
            return cls(0.0, 0.0, 0.0, 1.0)
        low, high = (
            float(p) for p in np.percentile(values, recipe.percentiles, overwrite_input=True)
        )
        np.clip(values, low, high, out=values)
        mean = float(values.mean(dtype=np.float64))
        values -= np.float32(mean)
        deviation = float(
            np.sqrt(np.einsum("i,i->", values, values, dtype=np.float64) / values.size)
        )
        return cls(low, high, mean, deviation if deviation > 1e-12 * max(abs(mean), 1e-30) else 1.0)

    def apply(self, voxels: Voxels) -> NDArray[np.float32]:
        """The scaled image, a copy."""
        scaled = np.clip(voxels, self.low, self.high).astype(np.float32, copy=False)
        scaled -= np.float32(self.mean)
        scaled /= np.float32(self.deviation)
        return scaled

    def undo(self, scaled: Voxels) -> NDArray[np.float32]:
        """The image again, but for what was clipped."""
        return np.asarray(scaled * np.float32(self.deviation) + np.float32(self.mean), np.float32)


@dataclass(frozen=True)
class Volume:
    """A case whose headers were read, and its way to the network.

    Attributes:
        name: Of the case.
        files: Of its images, on one grid.
        label: Of its mask.
        geometry: Of both.
    """

    name: str
    files: tuple[VolumeFile, ...]
    label: VolumeFile | None
    geometry: Geometry


def open_case(case: Case, recipe: Recipe) -> Volume:
    """Read the headers of a case and plan its way.

    Raises:
        InputError: If a file cannot be used, or they do not share a grid.
    """
    files = tuple(open_volume(path, case.volume_index) for path in case.images)
    for file in files[1:]:
        if difference := same_grid(files[0], file):
            raise InputError(f"{file.path}: {difference} of {files[0].path.name}; resample one")
    label = None
    if case.label is not None:
        label = open_volume(case.label)
        if difference := same_grid(files[0], label):
            raise InputError(
                f"{label.path}: {difference} of the image; image and label must share a grid"
            )
    return Volume(case.name, files, label, geometry_of(files[0], recipe))


def geometry_of(file: VolumeFile, recipe: Recipe) -> Geometry:
    """Plan the way of a file's voxels."""
    own = nib.orientations.io_orientation(file.affine)
    mm = dict(zip((_AXES[int(axis)] for axis in own[:, 0]), file.spacing, strict=True))
    axes = [recipe.slice_axis, *(axis for axis in _AXES if axis != recipe.slice_axis)]
    wanted = nib.orientations.axcodes2ornt("".join(axes))
    turn = nib.orientations.ornt_transform(own, wanted)
    lengths = dict(zip((_AXES[int(axis)] for axis in own[:, 0]), file.shape, strict=True))
    shape = tuple(int(lengths[axis]) for axis in axes)
    targets = dict(zip(_AXES, recipe.spacing, strict=True))
    grid = []
    for place, axis in enumerate(axes):
        target = targets[axis]
        same = target is None or abs(target / mm[axis] - 1) < _SAME
        if same or (recipe.in_plane and place == 0):
            grid.append(lengths[axis])
        else:
            assert target is not None
            grid.append(max(1, round(lengths[axis] * mm[axis] / target)))
    return Geometry(
        turn=np.asarray(turn, dtype=np.float64),
        shape=cast(Any, shape),
        spacing=cast(Any, tuple(mm[axis] for axis in axes)),
        grid=cast(Any, tuple(grid)),
    )


def resample(values: Tensor, size: Sequence[int], *, nearest: bool = False) -> Tensor:
    """Resample arrays to a size that spans the same field of view.

    Args:
        values: ``(n, c, *s)``, two or three axes of space.
        size: The new ``s``; the values themselves if it is the old one.
        nearest: For labels; else linear.
    """
    if tuple(values.shape[2:]) == tuple(size):
        return values
    if nearest:
        return F.interpolate(values, size=tuple(size), mode="nearest-exact")
    mode = "bilinear" if values.ndim == 4 else "trilinear"
    return F.interpolate(values, size=tuple(size), mode=mode, align_corners=False)


def prepare_image(
    voxels: NDArray[np.float32], geometry: Geometry, recipe: Recipe
) -> tuple[NDArray[np.float32], Intensity]:
    """Take one image to the network's grid.

    Args:
        voxels: Of the file, ``(x, y, z)``.
        geometry: Its way.
        recipe: Of the domain.

    Returns:
        float32 of shape ``geometry.grid``, standardised, and how it was scaled.
    """
    intensity = Intensity.of(voxels, recipe)
    turned = geometry.turned(voxels)
    return _resampled(turned, geometry, intensity=intensity), intensity


def prepare_label(classes: Voxels, geometry: Geometry) -> NDArray[np.uint8]:
    """Take classes, uint8 ``(x, y, z)``, to the network's grid by nearest neighbour."""
    return cast(NDArray[np.uint8], _resampled(geometry.turned(classes), geometry, intensity=None))


def _resampled(turned: Voxels, geometry: Geometry, *, intensity: Intensity | None) -> Any:
    """Slice by slice where slices keep their number, so that memory stays small."""
    made = np.empty(geometry.grid, np.uint8 if intensity is None else np.float32)
    whole = geometry.grid[0] != geometry.shape[0]
    step = geometry.shape[0] if whole else _SLICES
    for start in range(0, geometry.shape[0], step):
        part = turned[start : start + step]
        scaled = part.astype(np.float32) if intensity is None else intensity.apply(part)
        values = torch.from_numpy(np.ascontiguousarray(scaled))
        nearest = intensity is None
        if whole:
            made[:] = resample(values[None, None], geometry.grid, nearest=nearest)[0, 0].numpy()
        else:
            flat = resample(values[:, None], geometry.grid[1:], nearest=nearest)
            made[start : start + step] = flat[:, 0].numpy()
    return made


def map_labels(raw: Voxels, domain: Domain) -> NDArray[np.uint8]:
    """Turn raw ids into the classes of a domain.

    Raises:
        InputError: If an id is not in its label map.
    """
    low, high = int(raw.min()), int(raw.max())
    if low >= 0 and high < 2**16:
        counts = np.bincount(raw.ravel(order="K"), minlength=high + 1)
        found = np.flatnonzero(counts).tolist()
    else:
        found = np.unique(raw).tolist()
    unknown = [number for number in found if number not in domain.label_map]
    if unknown:
        raise InputError(
            f"label ids {', '.join(map(str, unknown[:10]))} are not in the label map of "
            f"{domain.name} ({', '.join(map(str, domain.label_map))}); add them to `labels` or "
            "`label_map`"
        )
    if low >= 0 and high < 2**16:
        table = np.zeros(high + 1, np.uint8)
        table[found] = [domain.label_map[number] for number in found]
        return table[raw]
    made = np.zeros(raw.shape, np.uint8)
    for number in found:
        made[raw == number] = domain.label_map[number]
    return made
