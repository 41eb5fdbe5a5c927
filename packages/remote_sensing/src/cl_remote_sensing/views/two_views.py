"""Two views of a tile and the centres of regions that show the same ground in both.

The augmentation of GLCNet (Li et al., TGRS 2022): both views are random crops; only the second is
flipped, turned and changed in colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cl_remote_sensing.views.augment import ViewColors
from cl_remote_sensing.views.geometry import Geometry, draw_crop, draw_flip, draw_turns, source_ids
from cl_remote_sensing.views.matching import check_region, default_region_size, select_regions

__all__ = ["Standardize", "TwoViews", "ViewPair"]

REDRAWS = 10
"""Draws of a pair of crops before both views take the same one."""


@runtime_checkable
class Standardize(Protocol):
    """How images in [0, 1] become the network's input: a :class:`Normalization`."""

    def standardize(self, unit: Tensor) -> Tensor:
        """Scale ``(..., c, h, w)``."""


class ViewPair(NamedTuple):
    """Two views of a tile, or of a batch of tiles with one more axis in front.

    Attributes:
        view1: ``(c, s, s)``, standardised.
        view2: The same ground in part, changed in geometry and colour.
        centers1: Row and column of the regions' centres in view 1, ``(k, 2)`` int64. A region of
            size ``p`` is rows ``r - p/2`` to ``r + p/2 - 1``, and so for columns.
        centers2: The same ground's centres in view 2.
    """

    view1: Tensor
    view2: Tensor
    centers1: Tensor
    centers2: Tensor


class TwoViews:
    """Cut a tile into two views and draw matching regions; random by torch's global generator.

    Crops are drawn anew, up to ten times, until they share a place for a region; after that both
    views take the same crop.

    Args:
        size: Edge of a view in pixels.
        tile: Larger tiles are first cropped to this edge, at random.
        regions: Matching regions per tile.
        region_size: Their edge in a view, even; by default 0.214 of the view.
        augment_both: Flip, turn and recolour view 1 too.
        jitter_rgb: See :class:`ViewColors`.
        strict_nonoverlap: See :func:`select_regions`; where ten draws of crops leave no room for
            that many, regions may overlap.
        scale: Least and largest share of the tile's area in a crop.
        colors: What each band shows, such as ``("red", "green", "blue", "nir")``.
        normalization: Has ``standardize``; by default ``3.2 x - 1.6`` as in the official code.

    Raises:
        ValueError: If no region of that size fits in a view, or another value is out of range.
    """

    def __init__(
        self,
        *,
        size: int = 224,
        tile: int = 256,
        regions: int = 4,
        region_size: int | None = None,
        augment_both: bool = False,
        jitter_rgb: bool = True,
        strict_nonoverlap: bool = False,
        scale: tuple[float, float] = (0.4, 1.0),
        colors: Sequence[str],
        normalization: Standardize | None = None,
    ) -> None:
        region_size = default_region_size(size) if region_size is None else region_size
        check_region(region_size, size)
        if regions < 1 or tile < 1:
            raise ValueError(f"regions and tile must be positive, got {regions} and {tile}")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must rise within (0, 1], got {scale}")
        self.size, self.tile = size, tile
        self.regions, self.region_size = regions, region_size
        self.augment_both = augment_both
        self.strict_nonoverlap = strict_nonoverlap
        self.scale = scale
        self.recolor = ViewColors(colors, jitter_rgb=jitter_rgb)
        self.normalization = normalization

    def __call__(self, unit: Float[Tensor, "c h w"], valid: Bool[Tensor, "h w"]) -> ViewPair:
        """Make the views of one tile.

        Args:
            unit: In [0, 1]; pixels without data hold their band's mean.
            valid: Where there is data. What shows other pixels (by nearest) is set to that mean
                again after the changes of colour.
        """
        unit, valid = self._crop_tile(unit, valid)
        first, second, centers = self.draw(unit.shape[-2], unit.shape[-1])
        mean = None if valid.all() else unit[:, ~valid][:, :1, None]
        view1 = self._view(unit, valid, first, mean, recolor=self.augment_both)
        view2 = self._view(unit, valid, second, mean, recolor=True)
        return ViewPair(view1, view2, *map(torch.from_numpy, centers))

    def draw(
        self, height: int, width: int
    ) -> tuple[Geometry, Geometry, tuple[np.ndarray, np.ndarray]]:
        """Draw both views' geometry on a tile and the centres of the regions in them."""
        for draw in range(REDRAWS + 2):
            crop1, crop2 = (draw_crop(height, width, self.scale) for _ in range(2))
            if draw >= REDRAWS:
                crop2 = crop1
            second = self._oriented(crop2)
            first = self._oriented(crop1) if self.augment_both else Geometry(*crop1)
            centers = select_regions(
                source_ids(first, width, self.size),
                source_ids(second, width, self.size),
                region_size=self.region_size,
                count=self.regions,
                # Two views of one crop always share candidates, if not room for all regions.
                strict_nonoverlap=self.strict_nonoverlap and draw <= REDRAWS,
            )
            if centers is not None:
                return first, second, centers
        raise AssertionError("two views of one crop share every candidate")

    def _oriented(self, crop: tuple[int, int, int, int]) -> Geometry:
        flip = draw_flip()
        return Geometry(*crop, flip, draw_turns() if torch.rand(()) < 0.8 else 0)

    def _crop_tile(self, unit: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        height, width = valid.shape
        row = int(torch.randint(max(height - self.tile, 0) + 1, ()))
        col = int(torch.randint(max(width - self.tile, 0) + 1, ()))
        window = (slice(row, row + self.tile), slice(col, col + self.tile))
        return unit[:, *window], valid[window]

    def _view(
        self,
        unit: Tensor,
        valid: Tensor,
        geometry: Geometry,
        mean: Tensor | None,
        *,
        recolor: bool,
    ) -> Tensor:
        view = geometry.image(unit, self.size)
        if recolor:
            view = self.recolor(view)
        if mean is not None:
            view = torch.where(geometry.nearest(valid, self.size), view, mean)
        if self.normalization is None:
            return view * 3.2 - 1.6
        return self.normalization.standardize(view)
