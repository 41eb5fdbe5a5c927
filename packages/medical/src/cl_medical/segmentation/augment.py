"""Random geometry and intensity of a training sample, drawn from torch's global generator.

The loader seeds that generator for every batch. Rotation, scale, shift and crop are one
interpolation: the patch is sampled from the whole slice or volume, so that turning it brings in
what lies around it and not empty corners.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

__all__ = ["Augmentation", "cut", "sample_affine"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of the random changes; geometry acts within slices.

    Attributes:
        rotation: Degrees to either side.
        scale: Factors from and to.
        shift: Share of the patch to either side.
        geometry: Probability of the three together.
        noise: Largest standard deviation of Gaussian noise, with probability 0.15.
        gamma: Exponents from and to, with probability 0.3.
        gain: Factors of brightness from and to.
        offset: Brightness added, to either side.
        flip: Mirror along the last axis of the patch half of the time: left and right, where
            slices show both.
    """

    rotation: float = 15.0
    scale: tuple[float, float] = (0.85, 1.15)
    shift: float = 0.1
    geometry: float = 0.9
    noise: float = 0.1
    gamma: tuple[float, float] = (0.7, 1.5)
    gain: tuple[float, float] = (0.8, 1.2)
    offset: float = 0.2
    flip: bool = False

    def reach(self, size: Sequence[int]) -> list[int]:
        """Voxels from the middle of a patch to the farthest that it may be made of."""
        turned = math.hypot(*size[-2:]) / 2 / min(self.scale[0], 1.0)
        halves = [*(n / 2 for n in size[:-2]), turned, turned]
        return [math.ceil(half + self.shift * n) + 2 for half, n in zip(halves, size, strict=True)]

    def patch(
        self,
        image: Tensor,
        label: Tensor,
        center: Sequence[float],
        size: Sequence[int],
        least: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Sample a patch around a place, turned, scaled and shifted at random.

        Args:
            image: float ``(c, *s)``, two or three axes of space.
            label: Classes ``(*s)``.
            center: Place of the patch's middle, in voxels.
            size: Of the patch.
            least: Value of each channel outside the image.
        """
        if float(torch.rand(())) >= self.geometry:
            patch, marks = cut(image, label, center, size, least)
        else:
            angle = math.radians(_uniform(-self.rotation, self.rotation))
            zoom = _uniform(*self.scale)
            moved = [
                c + _uniform(-self.shift, self.shift) * n for c, n in zip(center, size, strict=True)
            ]
            patch, marks = sample_affine(image, label, moved, size, least, angle=angle, zoom=zoom)
        if self.flip and float(torch.rand(())) < 0.5:
            patch, marks = patch.flip(-1), marks.flip(-1)
        return self.intensity(patch), marks

    def intensity(self, image: Float[Tensor, "c ..."]) -> Float[Tensor, "c ..."]:
        """Add noise, bend the grey values, change brightness."""
        if float(torch.rand(())) < 0.15:
            image = image + torch.randn_like(image) * _uniform(0.0, self.noise)
        if float(torch.rand(())) < 0.3:
            low, high = image.amin(), image.amax()
            span = (high - low).clamp_min(1e-6)
            image = ((image - low) / span) ** _uniform(*self.gamma) * span + low
        return image * _uniform(*self.gain) + _uniform(-self.offset, self.offset)


def cut(
    image: Float[Tensor, "c ..."],
    label: Integer[Tensor, "h ..."],
    center: Sequence[float],
    size: Sequence[int],
    least: Float[Tensor, " c"],
) -> tuple[Tensor, Tensor]:
    """Cut a patch out without interpolation; outside, the least value and label 0.

    Args:
        image: Channels first.
        label: On the same grid.
        center: Place of the patch's middle, in voxels; rounded.
        size: Of the patch.
        least: Value of each channel outside the image.
    """
    patch = _spread(least, image).expand(len(image), *size).clone()
    marks = label.new_zeros(tuple(size))
    source, target = [], []
    for c, n, length in zip(center, size, label.shape, strict=True):
        start = round(c - (n - 1) / 2)
        low, high = max(start, 0), min(start + n, length)
        source.append(slice(low, max(high, low)))
        target.append(slice(low - start, max(high, low) - start))
    patch[(slice(None), *target)] = image[(slice(None), *source)]
    marks[tuple(target)] = label[tuple(source)]
    return patch, marks


def sample_affine(
    image: Float[Tensor, "c ..."],
    label: Integer[Tensor, "h ..."],
    center: Sequence[float],
    size: Sequence[int],
    least: Float[Tensor, " c"],
    *,
    angle: float,
    zoom: float,
) -> tuple[Tensor, Tensor]:
    """Sample a patch that is turned and scaled within its last two axes.

    Args:
        image: Channels first.
        label: On the same grid.
        center: Place of the patch's middle, in voxels.
        size: Of the patch.
        least: Value of each channel outside the image.
        angle: Radians.
        zoom: Above 1 enlarges.

    Returns:
        The patch, linearly interpolated, and its labels by nearest neighbour with 0 outside.
    """
    axes = len(size)
    turn = torch.eye(axes, dtype=image.dtype)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    turn[-2:, -2:] = torch.tensor([[cos, -sin], [sin, cos]])
    steps = [torch.arange(n, dtype=image.dtype) - (n - 1) / 2 for n in size]
    offsets = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
    places = offsets @ turn.T + torch.tensor(list(center), dtype=image.dtype)
    lengths = torch.tensor(label.shape, dtype=image.dtype)
    grid = ((2 * places + 1) / lengths - 1).flip(-1)[None]  # torch counts the last axis first
    floor = _spread(least, image)
    patch = F.grid_sample((image - floor)[None], grid, align_corners=False)[0] + floor
    marks = F.grid_sample(
        label[None, None].to(image.dtype), grid, mode="nearest", align_corners=False
    )
    return patch, marks[0, 0].round().to(label.dtype)


def _spread(least: Tensor, image: Tensor) -> Tensor:
    return least.to(image).reshape(-1, *(1,) * (image.ndim - 1))


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
