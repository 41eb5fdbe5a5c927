"""The transforms that every package needs: measuring without chance, a probe's crops, sequences.

Each takes one uint8 or float image ``(c, h, w)`` of any size and gives a float view. Nothing is
normalised unless ``statistics``, such as :data:`cl_core.transforms.IMAGENET`, are given.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from cl_core.checks import OptionError
from cl_core.transforms.geometry import Interpolation, RandomResizedCrop, Resize
from cl_core.transforms.scaling import CenterCrop, Normalize, Statistics, to_unit_range

__all__ = ["SMALL", "crop_and_flip", "evaluation", "evaluation_view", "sequence"]

SMALL = 64
"""Edge in pixels up to which views are made as papers make those of 32-pixel images."""


class ToUnitRange(nn.Module):
    """:func:`to_unit_range` as a module."""

    def forward(self, image: Tensor) -> Tensor:
        return to_unit_range(image)


def sequence(*steps: nn.Module, statistics: Statistics | None = None) -> nn.Sequential:
    """The steps in their order, then the normalisation, or at least values in [0, 1]."""
    last = ToUnitRange() if statistics is None else Normalize(statistics)
    return nn.Sequential(*steps, last)


def crop_and_flip(
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    statistics: Statistics | None = None,
) -> nn.Module:
    """Random resized crop and flip: how a linear probe is trained in most papers."""
    return sequence(RandomResizedCrop(size, scale, flip=0.5), statistics=statistics)


def evaluation(
    size: int = 224,
    *,
    resize: int | Literal["auto", "square"] | None = "auto",
    interpolation: Interpolation = "bilinear",
    statistics: Statistics | None = None,
) -> nn.Module:
    """No chance: resize and cut the centre.

    Args:
        size: Edge of the result in pixels.
        resize: What the shorter side becomes before the crop; ``auto`` is ``size`` x 256 / 224.
            ``square`` resizes both sides to ``size``, the aspect not kept, and cuts nothing
            (SuperCon). ``None`` only crops, and refuses a smaller image.
        interpolation: Bilinear as usual, or bicubic (HCSC's kNN).
        statistics: See the module.
    """
    if resize == "square":
        return sequence(Resize((size, size), interpolation), statistics=statistics)
    if resize is None:
        return sequence(CenterCrop(size), statistics=statistics)
    edge = round(size * 256 / 224) if resize == "auto" else int(resize)
    if edge < size:
        raise OptionError(f"resize must be at least the crop of {size} pixels, got {edge}")
    return sequence(Resize(edge, interpolation), CenterCrop(size), statistics=statistics)


def evaluation_view(size: int, statistics: Statistics | None) -> nn.Module:
    """The view that measures: up to :data:`SMALL` pixels an image is not enlarged before the crop.

    Args:
        size: Edge of the result in pixels.
        statistics: Normalise it; none leaves it in [0, 1].
    """
    return evaluation(size, resize=size if size <= SMALL else "auto", statistics=statistics)
