"""Crop, resize, flip and quarter turn: one draw for an image and for what lies on it.

A mask that belongs to an image must be cut where the image is cut. So a draw is a value,
:class:`Geometry`, that can be looked at, rejected, and applied to both: the image is resized with
antialiasing, the mask by the nearest pixel. :class:`RandomResizedCrop` draws.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, overload

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Geometry", "Interpolation", "RandomResizedCrop", "Resize"]

Interpolation = Literal["bilinear", "bicubic"]

_TRIES = 10


class Geometry(NamedTuple):
    """A box of an image, and how it is laid: cut, resize, flip, turn, in this order.

    Attributes:
        top: First row of the box, in pixels.
        left: First column.
        height: Rows.
        width: Columns.
        flip: Whether left and right are exchanged.
        flip_vertical: Whether top and bottom are.
        turns: Quarter turns anticlockwise, 0 to 3.
    """

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    flip_vertical: bool = False
    turns: int = 0

    def cut(self, x: Shaped[Tensor, "*n h w"]) -> Shaped[Tensor, "*n height width"]:
        """The box alone, a view of ``x``."""
        rows = slice(self.top, self.top + self.height)
        return x[..., rows, self.left : self.left + self.width]

    def apply(
        self,
        image: Shaped[Tensor, "c h w"],
        size: tuple[int, int],
        interpolation: Interpolation = "bilinear",
    ) -> Shaped[Tensor, "c _ _"]:
        """Apply to an image, with antialiasing; uint8 stays uint8.

        Args:
            image: uint8, or float in [0, 1].
            size: Rows and columns of the result, before a turn.
            interpolation: Of the resizing.
        """
        return self._lay(_resize(self.cut(image), size, interpolation))

    def apply_mask(
        self, mask: Shaped[Tensor, "*n h w"], size: tuple[int, int]
    ) -> Shaped[Tensor, "*n _ _"]:
        """Apply to a mask of any type; every pixel is the one that its centre falls on."""
        x = self.cut(mask)
        if x.shape[-2:] != size:
            rows, columns = map(_nearest, x.shape[-2:], size)
            x = x[..., rows[:, None], columns]
        return self._lay(x)

    def _lay(self, x: Tensor) -> Tensor:
        axes = [axis for axis, flip in ((-1, self.flip), (-2, self.flip_vertical)) if flip]
        x = x.flip(axes) if axes else x
        return x.rot90(self.turns, (-2, -1)) if self.turns else x


class Resize(nn.Module):
    """Resize with antialiasing; uint8 stays uint8.

    Args:
        size: What the shorter side becomes, in pixels, or rows and columns.
        interpolation: Bilinear or bicubic.
    """

    def __init__(
        self, size: int | tuple[int, int], interpolation: Interpolation = "bilinear"
    ) -> None:
        super().__init__()
        self.size, self.interpolation = size, interpolation

    def forward(self, image: Tensor) -> Tensor:
        """Resize one uint8 image ``(c, h, w)``, or a float one in [0, 1]."""
        if not isinstance(self.size, int):
            return _resize(image, self.size, self.interpolation)
        h, w = image.shape[-2:]
        longer = int(self.size * max(h, w) / min(h, w))
        size = (self.size, longer) if h <= w else (longer, self.size)
        return _resize(image, size, self.interpolation)

    def extra_repr(self) -> str:
        return f"{self.size}, {self.interpolation}"


class RandomResizedCrop(nn.Module):
    """A random box resized to one size, flipped and turned by chance.

    The box is drawn as torchvision does: its area uniform in ``scale`` times the image's, the
    logarithm of its aspect uniform in that of ``ratio``, its place uniform; after ten that do not
    fit, the largest central one of an allowed aspect. A smaller image is enlarged.

    Args:
        size: Edge of the result in pixels, or rows and columns.
        scale: Least and largest share of the image's area.
        ratio: Least and largest width over height.
        interpolation: Of the image.
        flip: Probability of exchanging left and right.
        flip_vertical: Probability of exchanging top and bottom.
        turn: Turn by 0, 90, 180 or 270 degrees, each equally often; needs a square ``size``.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        *,
        interpolation: Interpolation = "bilinear",
        flip: float = 0.0,
        flip_vertical: float = 0.0,
        turn: bool = False,
    ) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else size
        if min(self.size) < 1 or not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(
                f"size, scale and ratio must be positive and rise, got {size}, {scale}, {ratio}"
            )
        if not 0 <= flip <= 1 or not 0 <= flip_vertical <= 1:
            raise ValueError(f"flips have probabilities in [0, 1], got {flip}, {flip_vertical}")
        if turn and self.size[0] != self.size[1]:
            raise ValueError(f"a quarter turn needs a square size, got {size}")
        self.scale, self.ratio = scale, ratio
        self.interpolation = interpolation
        self.flip, self.flip_vertical, self.turn = flip, flip_vertical, turn

    def draw(self, height: int, width: int) -> Geometry:
        """Draw for an image of this size, from torch's generator."""
        low, high = map(math.log, self.ratio)
        for _ in range(_TRIES):
            # One call for all that is uniform: each costs as much as flipping a small image.
            area, aspect, top, left, flip, upside_down, turns = torch.rand(7).tolist()
            area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * area)
            aspect = math.exp(low + (high - low) * aspect)
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(top * (height - h + 1)), int(left * (width - w + 1))
                break
        else:
            w, h = width, height
            if width < height * self.ratio[0]:
                h = round(w / self.ratio[0])
            elif width > height * self.ratio[1]:
                w = round(h * self.ratio[1])
            top, left = (height - h) // 2, (width - w) // 2
        return Geometry(
            top,
            left,
            h,
            w,
            flip < self.flip,
            upside_down < self.flip_vertical,
            int(4 * turns) if self.turn else 0,
        )

    @overload
    def forward(self, image: Tensor) -> Tensor: ...

    @overload
    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]: ...

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Cut an image ``(c, h, w)``, and the mask ``(h, w)`` on it by the same draw."""
        geometry = self.draw(*image.shape[-2:])
        view = geometry.apply(image, self.size, self.interpolation)
        return view if mask is None else (view, geometry.apply_mask(mask, self.size))

    def extra_repr(self) -> str:
        return (
            f"{self.size}, scale={self.scale}, ratio={self.ratio}, {self.interpolation}, "
            f"flip={self.flip}, flip_vertical={self.flip_vertical}, turn={self.turn}"
        )


def _resize(x: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    if x.shape[-2:] == size:
        return x
    x = F.interpolate(x[None], size, mode=interpolation, antialias=True)[0]
    if interpolation == "bicubic" and x.is_floating_point():
        return x.clamp_(0, 1)  # it overshoots; bytes are cut anyway
    return x


def _nearest(have: int, want: int) -> Tensor:
    """The pixel on which the centre of each of ``want`` falls, of ``have``."""
    step = have / want
    return ((torch.arange(want) + 0.5) * step).long().clamp_(max=have - 1)
