r"""Colour changes on float images of any number of channels, with torchvision's meaning.

Images are ``(..., c, h, w)`` in [0, 1]. With $L$ the :func:`luminance` and $f \ge 0$ a factor,
each result cut to [0, 1],

- brightness: $f x$
- contrast: $f x + (1 - f)\,\overline{L}$, the mean over the image
- saturation: $f x + (1 - f)\,L$
- hue: a turn of the colour circle by $360^\circ f$, for RGB only

For three channels these are the formulas of ``torchvision.transforms.v2`` (Pillow's, without the
rounding to 8 bits in between); torchvision itself refuses other numbers of channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.transforms.scaling import to_unit_range

__all__ = [
    "ColorJitter",
    "Grayscale",
    "Solarize",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "luminance",
]


def luminance(x: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n 1 h w"]:
    """ITU-R 601 grey (.299, .587, .114) of three channels, the plain mean of any other number."""
    if x.shape[-3] != 3:
        return x.mean(-3, keepdim=True)
    red, green, blue = torch.split(x, 1, -3)
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def adjust_brightness(x: Float[Tensor, "*n c h w"], factor: float) -> Float[Tensor, "*n c h w"]:
    """Scale towards black (``factor`` 0) or beyond the original (1)."""
    return (x * factor).clamp_(0, 1)


def adjust_contrast(x: Float[Tensor, "*n c h w"], factor: float) -> Float[Tensor, "*n c h w"]:
    """Blend with the image's mean grey, one number for all channels."""
    grey = luminance(x).mean((-3, -2, -1), keepdim=True)
    return (x * factor).add_(grey, alpha=1 - factor).clamp_(0, 1)


def adjust_saturation(x: Float[Tensor, "*n c h w"], factor: float) -> Float[Tensor, "*n c h w"]:
    """Blend with the grey image; a single channel stays as it is."""
    if x.shape[-3] == 1:
        return x
    return (x * factor).add_(luminance(x), alpha=1 - factor).clamp_(0, 1)


def adjust_hue(x: Float[Tensor, "*n c h w"], turn: float) -> Float[Tensor, "*n c h w"]:
    r"""Turn the hue of RGB, keeping HSV saturation and value.

    With $m$ the smallest and $C$ the span of a pixel's channels and $h \in [0, 6)$ its hue,
    channel $i$ becomes $m + C\,\mathrm{clip}(|(h + 6 f + o_i) \bmod 6 - 3| - 1, 0, 1)$ for
    $o = (0, 4, 2)$: the closed form of HSV to RGB.

    Args:
        x: Three channels.
        turn: $f$ in turns; 0.5 gives the complement.

    Raises:
        ValueError: If there are not three channels: other bands have no hue.
    """
    if x.shape[-3] != 3:
        raise ValueError(f"hue is defined for 3 channels, got {x.shape[-3]}: use hue=0")
    red, green, blue = torch.split(x, 1, -3)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    span = high - low
    scale = span.clamp(min=1e-12).reciprocal_()  # grey has span 0, so its hue does not matter
    hue = torch.where(
        high == red,
        (green - blue) * scale,
        torch.where(high == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    o = torch.tensor([0.0, 4.0, 2.0], dtype=x.dtype, device=x.device)[:, None, None]
    k = hue.add_(6 * turn) + o
    k.sub_(torch.floor(k / 6).mul_(6))  # modulo 6, faster than torch.remainder
    return k.sub_(3).abs_().sub_(1).clamp_(0, 1).mul_(span).add_(low)


class ColorJitter(nn.Module):
    """Change brightness, contrast, saturation and hue by random amounts in a random order.

    As in torchvision: each factor is uniform in ``[max(0, 1 - s), 1 + s]``, the hue turn in
    ``[-hue, hue]``, and the order is a random permutation; but for any number of channels.

    Args:
        brightness: ``s`` of the brightness factor.
        contrast: ``s`` of the contrast factor.
        saturation: ``s`` of the saturation factor; no effect on one channel.
        hue: At most 0.5; must be 0 unless images have three channels.
        p: Probability that the image is changed at all.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        *,
        p: float = 1.0,
    ) -> None:
        super().__init__()
        if min(brightness, contrast, saturation) < 0 or not 0 <= hue <= 0.5 or not 0 <= p <= 1:
            raise ValueError(
                "strengths must not be negative, hue lies in [0, 0.5] and p in [0, 1], got "
                f"{brightness}, {contrast}, {saturation}, hue {hue}, p {p}"
            )
        self.strengths = (brightness, contrast, saturation, hue)
        self.p = p

    def forward(self, image: Tensor) -> Tensor:
        """Jitter one uint8 or float ``(c, h, w)`` image; the result is float."""
        x = to_unit_range(image)
        if torch.rand(()) >= self.p:
            return x
        draws = torch.rand(4).tolist()
        changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        for step in torch.randperm(4).tolist():
            strength = self.strengths[step]
            low = -strength if step == 3 else max(0.0, 1 - strength)
            high = strength if step == 3 else 1 + strength
            if strength:
                x = changes[step](x, low + (high - low) * draws[step])
        return x

    def extra_repr(self) -> str:
        return "brightness={}, contrast={}, saturation={}, hue={}".format(*self.strengths)


class Grayscale(nn.Module):
    """With probability ``p``, every channel becomes the :func:`luminance`."""

    def __init__(self, p: float = 1.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, image: Tensor) -> Tensor:
        """Grey one uint8 or float ``(c, h, w)`` image; the result is float."""
        x = to_unit_range(image)
        if torch.rand(()) >= self.p:
            return x
        return luminance(x).expand_as(x).contiguous()

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Solarize(nn.Module):
    """With probability ``p``, invert what is at least as bright as ``threshold``.

    Args:
        p: Probability.
        threshold: In [0, 1]; BYOL's 128 of 255.
    """

    def __init__(self, p: float = 0.2, *, threshold: float = 128 / 255) -> None:
        super().__init__()
        self.p, self.threshold = p, threshold

    def forward(self, image: Tensor) -> Tensor:
        """Solarise one uint8 or float ``(c, h, w)`` image; the result is float."""
        x = to_unit_range(image)
        if torch.rand(()) >= self.p:
            return x
        return torch.where(x >= self.threshold, 1 - x, x)

    def extra_repr(self) -> str:
        return f"p={self.p}, threshold={self.threshold:g}"
