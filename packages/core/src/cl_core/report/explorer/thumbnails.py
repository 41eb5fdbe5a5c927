"""Small copies of pictures, as text that stands inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cl_core.errors import InputError

try:
    from PIL import Image
except ImportError as error:
    raise InputError("thumbnails need Pillow; run pip install cl-core[images]") from error

from cl_core.images.decode import decode_image
from cl_core.images.decoding import Decoding
from cl_core.images.opening import UnreadableImageError

__all__ = ["PREFIX", "Picture", "thumbnails"]

Picture: TypeAlias = str | PathLike[str] | Image.Image | NDArray[Any] | Tensor
"""A file, a Pillow image, an array ``(h, w)`` or ``(h, w, c)``, or a tensor ``(c, h, w)``."""

PREFIX = "data:image/webp;base64,"
"""What makes a thumbnail the address of an image."""


def thumbnails(
    pictures: Sequence[Picture | None], size: int, *, quality: int = 75, threads: int = 2
) -> list[str | None]:
    """Shrink pictures to fit a square and write them as WebP in base 64.

    8-bit values are shown as they are. Floating point in [0, 1] counts as a share of white. Deeper
    integers, files with more than 8 bits and values beyond [0, 1] are stretched, picture by
    picture, from the smallest value to the largest. Of more than three channels the first three
    are shown, of two the first.

    Args:
        pictures: See :data:`Picture`; ``None`` where there is none to show.
        size: Longer side in pixels; smaller pictures stay as small as they are.
        quality: Of WebP, 1 to 100.
        threads: Pictures decoded at a time.

    Returns:
        A text per picture, to be put behind :data:`PREFIX`; empty for a file that cannot be read,
        ``None`` where there is no picture.

    Raises:
        ValueError: If the size is below 1 or an array is no picture.
    """
    if size < 1:
        raise ValueError(f"a thumbnail needs a side of at least 1 pixel, got {size}")

    def encode(picture: Picture | None) -> str | None:
        if picture is None:
            return None
        try:
            image = _image(picture, size)
        except UnreadableImageError:
            return ""
        image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        image.save(buffer, format="WEBP", quality=quality)
        return base64.b64encode(buffer.getvalue()).decode("ascii")

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(encode, pictures))


def _image(picture: Picture, size: int) -> Image.Image:
    """As a new 8-bit RGB image."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, Tensor):
        values = picture.detach().cpu().numpy()
        values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    elif isinstance(picture, np.ndarray):
        values = picture
    else:
        decoding = Decoding(jpeg_min_side=size, value_range="keep")
        values = decode_image(picture, decoding).permute(1, 2, 0).numpy()
        if values.dtype != np.uint8:
            values = _stretched(values)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(
            f"a picture is an array (h, w) or (h, w, c) or a tensor (c, h, w), got {picture.shape}"  # type: ignore[union-attr]
        )
    if values.ndim == 3:
        values = values[..., :3] if values.shape[2] >= 3 else values[..., 0]
    if values.dtype == bool:
        values = values.astype(np.float32)
    if values.dtype != np.uint8:
        deep = values.dtype.kind != "f" or not (values.min() >= 0 and values.max() <= 1)
        values = np.rint(255 * (_stretched(values) if deep else values)).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(values)).convert("RGB")


def _stretched(values: NDArray[Any]) -> NDArray[np.float32]:
    """Shares of the way from the smallest finite value to the largest."""
    values = values.astype(np.float32)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    span = max(float(high - low), 1e-12)
    shares: NDArray[np.float32] = np.nan_to_num((values - low) / span, nan=0, posinf=1, neginf=0)
    return shares.clip(0, 1)
