r"""The augmentation that DC's code evaluated MNIST with, from before siamese augmentation.

Each image takes one operation of a strategy at random: ``crop_scale_rotate``, or ``crop_noise`` for
networks with batch norm. Not differentiable; for training on a finished set only. Means are those
of the batch; of what grew, the middle is kept.

| name | drawn | operation |
|---|---|---|
| ``crop`` | $t_h, t_w \in \{0..7\}$ | pad by 4 with the channel's mean, cut at the draw |
| ``scale`` | $h, w$ in pixels, 0.8 to 1.2 of the edges | nearest neighbour, zeros around |
| ``rotate`` | degrees in $\{-45..44\}$ | cubic spline, the mean around |
| ``noise`` | a normal number a pixel | times 0.001, added |
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from scipy.ndimage import rotate as spline_rotate
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LEGACY", "augment_each", "crop", "rotate", "scale"]

LEGACY = ("crop_scale_rotate", "crop_noise")
"""The strategies of the code."""

_PAD, _SCALE, _DEGREES, _NOISE = 4, 0.2, 45, 0.001

Image = Float[Tensor, "c h w"]


def crop(x: Image, mean: Float[Tensor, " c"], top: int, left: int) -> Image:
    """Pad by 4 with each channel's mean and cut a window of the image's size."""
    c, h, w = x.shape
    padded = mean.to(x)[:, None, None].expand(c, h + 2 * _PAD, w + 2 * _PAD).clone()
    padded[:, _PAD : _PAD + h, _PAD : _PAD + w] = x
    return padded[:, top : top + h, left : left + w]


def scale(x: Image, height: int, width: int) -> Image:
    """Scale by nearest neighbour to so many pixels; zeros around, the middle is kept."""
    c, h, w = x.shape
    edge = max(height, width, h, w)  # one square for both: it decides where halves are rounded
    canvas = x.new_zeros(c, edge, edge)
    _middle(canvas, height, width).copy_(F.interpolate(x[None], [height, width])[0])
    return _middle(canvas, h, w)


def rotate(x: Image, mean: Float[Tensor, " c"], degrees: float) -> Image:
    """Rotate by a cubic spline; the mean of the channels' means around, the middle is kept."""
    turned = spline_rotate(x.cpu().numpy(), degrees, axes=(-2, -1), cval=float(mean.mean()))
    return _middle(torch.from_numpy(turned).to(x), x.shape[1], x.shape[2])


def augment_each(
    x: Float[Tensor, "n c h w"], strategy: str, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Do one operation of a strategy to each image.

    Args:
        x: Images, normalised.
        strategy: Names joined by ``_``, each as likely.
        generator: Of every draw, on the CPU.
    """
    mean = x.mean(dim=(0, 2, 3)).cpu()
    size = (x.shape[2], x.shape[3])

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    def edge(pixels: int) -> int:
        drawn = float(torch.rand((), generator=generator))
        return max(1, int((1 - _SCALE + 2 * _SCALE * drawn) * pixels))

    operations: dict[str, Callable[[Tensor], Tensor]] = {
        "crop": lambda image: crop(image, mean, whole(0, 2 * _PAD), whole(0, 2 * _PAD)),
        "scale": lambda image: scale(image, edge(size[0]), edge(size[1])),
        "rotate": lambda image: rotate(image, mean, whole(-_DEGREES, _DEGREES)),
        "noise": lambda image: (
            image + _NOISE * torch.randn(image.shape, generator=generator).to(image)
        ),
    }
    names = strategy.split("_")
    return torch.stack([operations[names[whole(0, len(names))]](image) for image in x])


def _middle(x: Tensor, height: int, width: int) -> Tensor:
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]
