r"""Hard attention: the background of a view becomes one colour.

$x = I \circ M + f (1 - M)$, after the photometric changes, so that the background is exactly the
same in all views and can carry no brightness, blur or colour. CLAWS puts the mask into the cropped
input image before the agreement of the pair is maximised (arXiv 2112.00847); the soft form and the
fill are decisions of this project.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cl_core.transforms import IMAGENET, gaussian_blur

__all__ = ["Attention", "Fill", "attend", "fill_colour"]

Attention = Literal["hard", "soft", "off"]
Fill = Literal["zero", "mean"]


@cache
def fill_colour(fill: Fill) -> Float[Tensor, "c 1 1"]:
    """The colour of the background, in [0, 1]: black, or ImageNet's mean.

    Raises:
        ValueError: If the fill is unknown.
    """
    if fill not in ("zero", "mean"):
        raise ValueError(f"fill must be 'zero' or 'mean', got {fill!r}")
    colour = IMAGENET.mean if fill == "mean" else (0.0, 0.0, 0.0)
    return torch.tensor(colour)[:, None, None]


def attend(
    image: Float[Tensor, "c h w"],
    mask: Bool[Tensor, "h w"],
    *,
    attention: Attention = "hard",
    fill: Fill = "zero",
    sigma: float = 1.0,
) -> Float[Tensor, "c h w"]:
    """Replace the background of a view.

    Args:
        image: In [0, 1], not normalised yet.
        mask: True is plant.
        attention: ``hard``; ``soft`` blends by the mask blurred with ``sigma``; ``off`` gives the
            image as it is.
        fill: What stands for the background.
        sigma: In pixels, of ``soft``.

    Raises:
        ValueError: If the attention or the fill is unknown.
    """
    if attention == "off":
        return image
    colour = fill_colour(fill)
    if attention == "hard":
        return torch.where(mask, image, colour)
    if attention != "soft":
        raise ValueError(f"attention must be 'hard', 'soft' or 'off', got {attention!r}")
    m: Tensor = gaussian_blur(mask.to(image.dtype)[None], sigma)
    return image * m + colour * (1 - m)
