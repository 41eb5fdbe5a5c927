r"""Scores of a mask on its native grid: a structure of a volume at a time, distances in mm.

With TP, FP, FN, TN counted over voxels, Dice $2TP/(2TP+FP+FN)$, sensitivity $TP/(TP+FN)$,
specificity $TN/(TN+FP)$, relative absolute volume difference $|V_P - V_G|/V_G$. The surface $S(A)$
is the voxels of $A$ with a face neighbour outside; what lies outside the array is background. With
$d(a, B)$ the least distance between voxel centres, the Hausdorff distance MSSD is the largest of
all $d(p, S(G))$ and $d(g, S(P))$, HD95 the larger of their two 95th percentiles, ASSD the mean over
both surfaces together. Surfaces and distances are MONAI's, found
once for all three figures.

Empty masks are told, never dropped. Both empty: Dice 1, distances and volume difference 0,
sensitivity undefined. Prediction empty: Dice 0, distances infinite. Truth empty: Dice 0, distances
and volume difference infinite, sensitivity undefined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DISTANCES", "FIGURES", "MaskScores", "Surfaces", "score_mask", "surface_distances"]

Mask = NDArray[Any]

DISTANCES = ("mssd", "assd", "hd95")
"""Figures in mm; infinite where one mask alone is empty."""


@dataclass(frozen=True, kw_only=True)
class MaskScores:
    """How a mask compares with the truth.

    Attributes:
        dice: Overlap, in [0, 1].
        sensitivity: Share of the structure that was found; NaN if there is none.
        specificity: Share of the rest that was left out.
        mssd: Hausdorff distance, mm.
        assd: Average symmetric surface distance, mm.
        hd95: 95th percentile of the distances, mm.
        ravd: Volume difference over the true volume.
        volume_ml: Of the mask.
        true_volume_ml: Of the truth.
        diagonal: Of the volume, mm: what stands for an infinite distance in a penalised mean.
    """

    dice: float
    sensitivity: float
    specificity: float
    mssd: float
    assd: float
    hd95: float
    ravd: float
    volume_ml: float
    true_volume_ml: float
    diagonal: float

    @property
    def failed(self) -> bool:
        """Whether one of the masks alone is empty."""
        return math.isinf(self.assd)


FIGURES = tuple(field.name for field in fields(MaskScores))


@dataclass(frozen=True)
class Surfaces:
    """Distances of the surface voxels of two masks.

    Attributes:
        of_first: mm from each surface voxel of the first to the nearest of the second.
        of_second: And the other way round.
    """

    of_first: NDArray[np.floating[Any]]
    of_second: NDArray[np.floating[Any]]

    def mssd(self) -> float:
        return float(max(self.of_first.max(), self.of_second.max()))

    def assd(self) -> float:
        total = self.of_first.sum(dtype=np.float64) + self.of_second.sum(dtype=np.float64)
        return float(total / (len(self.of_first) + len(self.of_second)))

    def hd95(self) -> float:
        return float(max(np.percentile(self.of_first, 95), np.percentile(self.of_second, 95)))


def surface_distances(first: Mask, second: Mask, spacing: Sequence[float]) -> Surfaces:
    """Measure the distances between the surfaces of two masks, neither of them empty.

    Args:
        first: bool, two or three dimensions.
        second: bool, of the same shape.
        spacing: mm of each axis.

    Raises:
        ValueError: If a mask is empty.
    """
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    if not first.any() or not second.any():
        raise ValueError("an empty mask has no surface")
    box = _bounding_box(first | second)
    a, b = get_mask_edges(first[box], second[box], crop=False)
    mm = [float(one) for one in spacing]  # MONAI refuses a list of several types
    return Surfaces(
        np.asarray(get_surface_distance(a, b, spacing=mm)),
        np.asarray(get_surface_distance(b, a, spacing=mm)),
    )


def score_mask(predicted: Mask, truth: Mask, spacing: Sequence[float]) -> MaskScores:
    """Score one structure of one volume.

    Args:
        predicted: The mask, bool or 0 and 1, two or three dimensions, on the native grid.
        truth: The true one, of the same shape.
        spacing: mm of each axis.

    Raises:
        ValueError: If shapes or the number of axes differ.
    """
    if predicted.shape != truth.shape or len(spacing) != truth.ndim:
        raise ValueError(
            f"mask and truth must share a grid with a spacing an axis, got {predicted.shape}, "
            f"{truth.shape} and {len(spacing)} spacings"
        )
    p, g = predicted.astype(bool), truth.astype(bool)
    size_p, size_g = int(np.count_nonzero(p)), int(np.count_nonzero(g))
    tp = int(np.count_nonzero(p & g))
    fp, fn = size_p - tp, size_g - tp
    tn = p.size - tp - fp - fn
    if size_p and size_g:
        surfaces = surface_distances(p, g, spacing)
        mssd, assd, hd95 = surfaces.mssd(), surfaces.assd(), surfaces.hd95()
    else:
        mssd = assd = hd95 = 0.0 if size_p == size_g else math.inf
    voxel_ml = math.prod(spacing) / 1000
    return MaskScores(
        dice=2 * tp / (2 * tp + fp + fn) if size_p or size_g else 1.0,
        sensitivity=tp / size_g if size_g else math.nan,
        specificity=tn / (tn + fp) if tn + fp else math.nan,
        mssd=mssd,
        assd=assd,
        hd95=hd95,
        ravd=abs(size_p - size_g) / size_g if size_g else (math.inf if size_p else 0.0),
        volume_ml=size_p * voxel_ml,
        true_volume_ml=size_g * voxel_ml,
        diagonal=math.hypot(*(n * mm for n, mm in zip(p.shape, spacing, strict=True))),
    )


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        occupied = mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis))
        places = np.flatnonzero(occupied)
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)
