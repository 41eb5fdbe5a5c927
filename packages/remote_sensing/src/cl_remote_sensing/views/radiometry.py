"""Changes of radiometry on float images in the unit range, for any number of bands.

The augmentations of GLCNet's official code (Li et al., TGRS 2022), which works on 8-bit images:
0 to 1 here is 0 to 255 there. Hue, saturation and value are OpenCV's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "BLUR_KERNELS",
    "blur",
    "brightness_contrast",
    "copy_band",
    "replace_pixels",
    "shift_hsv",
]

BLUR_KERNELS = {
    3: (0.5, 0.25),
    5: (6 / 16, 4 / 16, 1 / 16),
    7: (9 / 32, 7 / 32, 3.5 / 32, 1 / 32),
}
"""Weights of the centre and outwards: OpenCV's fixed kernels, not the sigma formula's."""


def shift_hsv(
    rgb: Float[Tensor, "3 h w"],
    hue: float,
    saturation: float,
    value: float,
    *,
    eight_bit: bool = False,
) -> Float[Tensor, "3 h w"]:
    """Shift hue, saturation and value.

    The hue is cyclic; the official code's wraps at 256 in place of 180 and turns reds green.

    Args:
        rgb: In [0, 1].
        hue: In OpenCV's units of two degrees.
        saturation: In 1/255, cut to [0, 1].
        value: In 1/255, cut to [0, 1].
        eight_bit: Keep hue, saturation and value in whole units and round them as OpenCV does for
            8-bit images, by tables of reciprocals; a hue off by one moves a colour by up to
            8.5/255.
    """
    if eight_bit:
        sextant, chroma, high = _eight_bit_hsv(rgb)
    else:
        sextant, chroma, high = _hsv(rgb)
    sextant = sextant + hue / 30
    chroma = (chroma + saturation / 255).clamp(0, 1)
    high = (high + value / 255).clamp(0, 1)
    if eight_bit:
        chroma, high = ((x * 255 + 1e-4).floor() / 255 for x in (chroma, high))
    # Channel i lies between high and high - span by its distance from hue o_i on the circle.
    o = torch.tensor([0.0, 4.0, 2.0], dtype=rgb.dtype, device=rgb.device)[:, None, None]
    k = sextant + o
    k = (k - 6 * torch.floor(k / 6)).sub_(3).abs_().sub_(1).clamp_(0, 1)
    return k.sub_(1).mul_(chroma).add_(1).mul_(high)


def _hsv(rgb: Float[Tensor, "3 h w"]) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in sixths of a turn, saturation and value, each ``(h, w)``."""
    red, green, blue = rgb
    high, low = rgb.amax(0), rgb.amin(0)
    span = high - low
    scale = 1 / span.clamp(min=1e-12)  # of grey any hue will do: its span is 0
    sextant = torch.where(
        high == red,
        (green - blue) * scale,
        torch.where(high == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    return sextant, span / high.clamp(min=1e-12), high


def _eight_bit_hsv(rgb: Float[Tensor, "3 h w"]) -> tuple[Tensor, Tensor, Tensor]:
    """The same in OpenCV's whole units: quotients are products with rounded reciprocals.

    With 12 bits behind the point, ``h = (180/6 p 2^12/d + 2^11) >> 12``, where ``d`` is the span
    and ``p`` the position among the six sextants times ``d``, and
    ``s = (d 255 2^12/v + 2^11) >> 12``.
    """
    red, green, blue = (rgb * 255).round().to(torch.int64)
    high = torch.maximum(torch.maximum(red, green), blue)
    span = high - torch.minimum(torch.minimum(red, green), blue)
    position = torch.where(
        high == red,
        green - blue,
        torch.where(high == green, blue - red + 2 * span, red - green + 4 * span),
    )
    levels = torch.arange(256, dtype=torch.float64, device=rgb.device).clamp(min=1)
    of_span = ((180 << 12) / (6 * levels)).round().to(torch.int64)
    of_value = ((255 << 12) / levels).round().to(torch.int64)
    hue = (position * of_span[span] + (1 << 11)) >> 12
    saturation = (span * of_value[high] + (1 << 11)) >> 12
    return hue.to(rgb) / 30, saturation.to(rgb) / 255, high.to(rgb) / 255


def brightness_contrast(
    x: Float[Tensor, "c h w"], brightness: Float[Tensor, " c"], contrast: Float[Tensor, " c"]
) -> Float[Tensor, "c h w"]:
    """Scale each band towards black (``brightness`` below 1) or white (above), then about zero.

    Args:
        x: In [0, 1].
        brightness: ``b``: ``b x`` up to 1, above it ``(2 - b) x + (b - 1)``.
        contrast: Factor of the result, which is cut to [0, 1].
    """
    above = (brightness - 1).clamp(min=0)
    scale = torch.where(brightness > 1, 2 - brightness, brightness)
    return torch.addcmul(
        (above * contrast)[:, None, None], x, (scale * contrast)[:, None, None]
    ).clamp_(0, 1)


def replace_pixels(x: Float[Tensor, "c h w"], probability: float) -> Float[Tensor, "c h w"]:
    """Replace each value with ``probability`` by one uniform in [0, 1]."""
    n = x.numel()
    # The gaps between the chosen are geometric: some draws in place of one for every value.
    most = int(n * probability + 8 * (n * probability) ** 0.5 + 16)
    at = torch.empty(most).geometric_(probability).long().cumsum(0) - 1
    at = at[at < n]
    flat = x.flatten().clone()
    flat[at] = torch.rand(len(at), dtype=x.dtype)
    return flat.view(x.shape)


def copy_band(x: Float[Tensor, "c h w"], band: int) -> Float[Tensor, "c h w"]:
    """Show one band in the place of all: the official code's grey."""
    return x[band].expand_as(x).contiguous()


def blur(x: Float[Tensor, "c h w"], kernel: int) -> Float[Tensor, "c h w"]:
    """Blur rows and columns by OpenCV's kernel of 3, 5 or 7 pixels, mirrored at the border."""
    weights = BLUR_KERNELS[kernel]
    radius = len(weights) - 1
    for axis, margin in ((-1, (radius, radius, 0, 0)), (-2, (0, 0, radius, radius))):
        n = x.shape[axis]
        padded = F.pad(x, margin, mode="reflect")
        x = padded.narrow(axis, radius, n) * weights[0]
        for k in range(1, radius + 1):
            pair = padded.narrow(axis, radius - k, n) + padded.narrow(axis, radius + k, n)
            x.add_(pair, alpha=weights[k])
    return x
