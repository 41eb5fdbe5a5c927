"""Masks that lie on images: class numbers, read as they are and brought to the image's size."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from cl_core.errors import InputError
from cl_core.images.opening import MAX_PIXELS, open_image

__all__ = ["MaskSource", "fit_mask", "read_mask"]

MaskSource = Callable[[int, Tensor], Tensor]
"""Gives the mask ``(h, w)`` of a row of the table, from its number and its decoded image."""


def read_mask(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Shaped[Tensor, "h w"]:
    """Read the class numbers of a mask file.

    Args:
        path: One channel of 1, 8, 16 or 32 bits, or a palette, whose indices are the numbers; or
            colours that are equal in all channels.
        max_pixels: The largest mask to decode.

    Returns:
        uint8, or int32 where the file is deeper.

    Raises:
        UnreadableImageError: Naming the file, also if it holds colours or fractions.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        values = np.array(image)
        if image.mode in ("RGB", "RGBA", "LA") and (values == values[..., :1])[..., :3].all():
            values = values[..., 0]
        if values.ndim != 2 or values.dtype.kind == "f":
            raise ValueError(f"a mask has one channel of whole numbers, this one is {image.mode}")
    if values.dtype == bool:
        values = values.astype(np.uint8)
    return torch.from_numpy(values if values.dtype == np.uint8 else values.astype(np.int32))


def fit_mask(
    mask: Shaped[Tensor, "_ _"], image: Shaped[Tensor, "c h w"], *, source: str
) -> Shaped[Tensor, "h w"]:
    """Give a mask the size of its image, if one is a whole multiple of the other.

    Args:
        mask: Class numbers.
        image: What it lies on.
        source: The mask's name, for the error.

    Raises:
        InputError: If the sizes do not fit.
    """
    have, want = mask.shape, image.shape[-2:]
    if have == want:
        return mask
    factor = want[0] // have[0]
    if factor >= 1 and (have[0] * factor, have[1] * factor) == want:
        return mask.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    factor = have[0] // want[0]
    if factor >= 1 and (want[0] * factor, want[1] * factor) == have:
        return mask[factor // 2 :: factor, factor // 2 :: factor]
    raise InputError(
        f"{source}: the mask is {have[1]} x {have[0]} pixels, its image {want[1]} x {want[0]}; "
        "sizes must be equal or whole multiples"
    )
