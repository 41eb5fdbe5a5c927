"""The random changes of GLCNet's official code to a view and to a labelled tile.

Li et al., TGRS 2022. Hue, saturation and value are changed only where bands are tagged red, green
and blue, wherever these lie in the image; everything else works on any bands. All is drawn from
torch's global generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cl_remote_sensing.labels.legend import IGNORE
from cl_remote_sensing.views.geometry import Geometry, draw_flip, draw_turns
from cl_remote_sensing.views.radiometry import (
    blur,
    brightness_contrast,
    copy_band,
    replace_pixels,
    shift_hsv,
)

__all__ = ["FineTuneAugment", "ViewColors", "jitter_bands", "jitter_hsv", "rgb_bands"]


def rgb_bands(colors: Sequence[str]) -> tuple[int, int, int] | None:
    """Return where red, green and blue lie among the bands, if all three are there."""
    try:
        return colors.index("red"), colors.index("green"), colors.index("blue")
    except ValueError:
        return None


def _uniform(low: float, high: float, count: int) -> Tensor:
    return low + (high - low) * torch.rand(count)


def _chance(probability: float) -> bool:
    return bool(torch.rand(()) < probability)


def jitter_hsv(x: Float[Tensor, "c h w"], rgb: tuple[int, int, int]) -> Float[Tensor, "c h w"]:
    """Shift hue by a whole number in [-30, 30], saturation by up to 5 and value by up to 15."""
    hue = int(torch.randint(-30, 31, ()))
    saturation, value = (_uniform(-1, 1, 2) * torch.tensor([5.0, 15.0])).tolist()
    x = x.clone()
    x[list(rgb)] = shift_hsv(x[list(rgb)], hue, saturation, value)
    return x


def jitter_bands(
    x: Float[Tensor, "c h w"], strength: float, *, noise: float = 0.001
) -> Float[Tensor, "c h w"]:
    """Change brightness and contrast of every band by its own factors, then some pixels.

    Args:
        x: In [0, 1].
        strength: Factors are uniform within 1 plus or minus this.
        noise: Share of the values replaced by random ones.
    """
    brightness, contrast = _uniform(1 - strength, 1 + strength, 2 * len(x)).to(x.dtype).chunk(2)
    return replace_pixels(brightness_contrast(x, brightness, contrast), noise)


class ViewColors:
    """What the second view of a pair goes through after its crop, flip and turn.

    With probability 0.8 colour: half the time hue, saturation and value of the bands red, green
    and blue, then brightness, contrast and noise of every band. With 0.1 one band in the place of
    all. With 0.5 a blur of 3, 5 or 7 pixels.

    Args:
        colors: What each band shows; only ``red``, ``green`` and ``blue`` mean something.
        jitter_rgb: Whether images of exactly three bands get brightness, contrast and noise too;
            in the official code they do not.
    """

    def __init__(self, colors: Sequence[str], *, jitter_rgb: bool = True) -> None:
        self.rgb = rgb_bands(colors)
        self.jitter = jitter_rgb or len(colors) != 3

    def __call__(self, x: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        """Change one image in [0, 1]; the argument stays as it is."""
        if _chance(0.8):
            if self.rgb is not None and _chance(0.5):
                x = jitter_hsv(x, self.rgb)
            if self.jitter:
                x = jitter_bands(x, 0.1)
        if _chance(0.1):
            x = copy_band(x, int(torch.randint(len(x), ())))
        if _chance(0.5):
            x = blur(x, (3, 5, 7)[int(torch.randint(3, ()))])
        return x


class FineTuneAugment:
    """Change a labelled tile as the official code does in fine-tuning, without its two defects.

    A flip as for views, 0 to 3 quarter turns, a random crop to ``size``; half the time a shift by
    up to 10 % of each edge, a scale of 0.9 to 1.1 and an aspect of 0.9 to 1.1; half the time hue,
    saturation and value of the bands red, green and blue; always, for the other bands, brightness
    and contrast within 1 % and noise. Labels go by nearest pixel (the official code interpolates
    between class numbers), and ground that comes from outside has the label :data:`IGNORE` (there
    it becomes class 0) and no data.

    Args:
        size: Edge of the result in pixels; smaller tiles keep their size.
        colors: What each band shows.
        fill: What pixels without data hold, a number per band in the unit range; by default what
            such pixels of the tile hold, or the tile's mean if it has none.
    """

    def __init__(
        self, *, size: int = 256, colors: Sequence[str], fill: Sequence[float] | None = None
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        if fill is not None and len(fill) != len(colors):
            raise ValueError(f"fill has {len(fill)} numbers for {len(colors)} bands")
        self.size = size
        self.fill = None if fill is None else torch.tensor(list(fill))[:, None, None]
        self.rgb = rgb_bands(colors)
        self.others = [b for b in range(len(colors)) if self.rgb is None or b not in self.rgb]

    def __call__(
        self,
        unit: Float[Tensor, "c h w"],
        valid: Bool[Tensor, "h w"],
        label: UInt8[Tensor, "h w"],
    ) -> tuple[Float[Tensor, "c y x"], Bool[Tensor, "y x"], UInt8[Tensor, "y x"]]:
        """Change one tile.

        Args:
            unit: In [0, 1]; pixels without data hold their band's mean.
            valid: Where there is data.
            label: Class of each pixel, or :data:`IGNORE`.

        Returns:
            The three, changed alike.
        """
        fill = _fill(unit, valid) if self.fill is None else self.fill.to(unit)
        turn = Geometry(0, 0, valid.shape[0], valid.shape[1], draw_flip(), draw_turns())
        window = _crop(turn.orient(valid), self.size)
        unit, valid, label = (turn.orient(x)[..., *window] for x in (unit, valid, label))
        if _chance(0.5):
            unit, valid, label = _shift_scale(unit, valid, label)
        if self.rgb is not None and _chance(0.5):
            unit = jitter_hsv(unit, self.rgb)
        if self.others:
            unit = unit.clone()
            unit[self.others] = jitter_bands(unit[self.others], 0.01)
        return torch.where(valid, unit, fill), valid.contiguous(), label.contiguous()


def _fill(unit: Tensor, valid: Tensor) -> Tensor:
    """Return what pixels without data are to hold, ``(c, 1, 1)``."""
    if valid.all():
        return unit.mean((-2, -1), keepdim=True)
    return unit[:, ~valid][:, :1, None]


def _crop(plane: Tensor, size: int) -> tuple[slice, slice]:
    row, col = (int(torch.randint(max(n - size, 0) + 1, ())) for n in plane.shape)
    return slice(row, row + size), slice(col, col + size)


def _shift_scale(unit: Tensor, valid: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move and scale about the centre; what lies outside is invalid and :data:`IGNORE`."""
    height, width = valid.shape
    shift_y, shift_x = _uniform(-0.1, 0.1, 2).tolist()
    scale, aspect = _uniform(0.9, 1.1, 2).tolist()
    y = _source(height, scale / aspect**0.5, shift_y * height)
    x = _source(width, scale * aspect**0.5, shift_x * width)
    row, col = (p.round().long() for p in (y, x))
    inside = ((row >= 0) & (row < height))[:, None] & ((col >= 0) & (col < width))
    at = (row.clamp(0, height - 1)[:, None], col.clamp(0, width - 1))
    grid = torch.empty(height, width, 2, dtype=unit.dtype)
    grid[..., 0] = 2 * (x + 0.5) / width - 1
    grid[..., 1] = (2 * (y + 0.5) / height - 1)[:, None]
    unit = F.grid_sample(unit[None], grid[None], padding_mode="border", align_corners=False)[0]
    return unit, valid[at] & inside, label[at].masked_fill(~inside, IGNORE)


def _source(length: int, scale: float, shift: float) -> Tensor:
    """Return where each pixel of a scaled, then shifted, axis lay, in pixels of the original."""
    center = (length - 1) / 2
    return (torch.arange(length, dtype=torch.float64) - center - shift) / scale + center
