"""Values and sizes: to [0, 1], normalised, cut to the centre."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from cl_core.errors import InputError

__all__ = ["IMAGENET", "CenterCrop", "Normalize", "Statistics", "to_unit_range"]


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel, of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""ImageNet's, which weights trained on it expect."""


def to_unit_range(image: Shaped[Tensor, "*n h w"]) -> Float[Tensor, "*n h w"]:
    """Float32 in [0, 1] from uint8; a float image is returned as it is, not copied.

    Raises:
        ValueError: For any other type, whose range is not known.
    """
    if image.is_floating_point():
        return image
    if image.dtype != torch.uint8:
        raise ValueError(f"expected a uint8 or a float image, got {image.dtype}: scale it first")
    return image.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


class Normalize(nn.Module):
    """Subtract the mean and divide by the standard deviation, channel by channel.

    Args:
        statistics: Of the training set, or those a checkpoint was trained with.

    Raises:
        ValueError: On an image with another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(statistics.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(statistics.std)[:, None, None])
        if len(self.mean) != len(self.std) or not (self.std > 0).all():
            raise ValueError(f"need a mean and a positive std per channel, got {statistics}")

    def forward(self, image: Tensor) -> Tensor:
        """Normalise uint8 or float images ``(..., c, h, w)``; the result is float."""
        x = to_unit_range(image)
        if x.shape[-3] != len(self.mean):
            raise ValueError(
                f"the image has {x.shape[-3]} channels, the statistics have {len(self.mean)}"
            )
        return (x - self.mean).div_(self.std)


class CenterCrop(nn.Module):
    """Cut the central square; refuse a smaller image (torchvision would pad it with black).

    Args:
        size: Edge in pixels.

    Raises:
        InputError: On an image that is smaller.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        """Crop ``(..., h, w)``."""
        h, w = image.shape[-2:]
        if min(h, w) < self.size:
            raise InputError(
                f"the image is {w} x {h} pixels, smaller than the crop of {self.size}; "
                "resize before cropping, or use a smaller crop"
            )
        top, left = round((h - self.size) / 2), round((w - self.size) / 2)
        return image[..., top : top + self.size, left : left + self.size]

    def extra_repr(self) -> str:
        return f"size={self.size}"
