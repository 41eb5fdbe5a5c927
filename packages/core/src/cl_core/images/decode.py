"""Image file to tensor, with Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from cl_core.images.decoding import Channels, Decoding, ValueRange
from cl_core.images.opening import MAX_PIXELS, UnreadableImageError, open_image

__all__ = ["decode_image", "decode_images", "read_image", "read_images", "stored_range"]


def read_image(
    path: str | PathLike[str],
    *,
    channels: Channels = 3,
    jpeg_min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """Decode the first frame of an image, upright.

    The EXIF orientation is applied. 8-bit images, 1-bit ones and palettes become uint8. 16-bit
    grey becomes float32, divided by 65535; 32-bit files become float32 by ``value_range``. CMYK
    becomes RGB by Pillow's rule, without a colour profile; 16 bits per channel of colour are cut
    to 8 by Pillow.

    Transparent images are laid on black if ``channels`` is 1 or 3, so that hidden colours never
    show. RGB becomes grey by ITU-R 601 (.299, .587, .114).

    Args:
        path: The file.
        channels: See :class:`cl_core.images.Decoding`, as for the others.
        jpeg_min_side: Decode JPEG smaller.
        max_pixels: The largest image to decode.
        value_range: The values of 32-bit files that become 0 and 1.

    Returns:
        The image, strided as it was stored: channels last.

    Raises:
        UnreadableImageError: Naming the file.
        ValueRangeError: If values lie outside ``value_range``.
    """
    decoding = Decoding(
        channels=channels,
        jpeg_min_side=jpeg_min_side,
        max_pixels=max_pixels,
        value_range=value_range,
    )
    return decode_image(path, decoding)


def decode_image(
    path: str | PathLike[str], decoding: Decoding
) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """As :func:`read_image`, by options that were checked once for many files."""
    with open_image(path, max_pixels=decoding.max_pixels) as image:
        if decoding.jpeg_min_side is not None:
            image.draft(None, (decoding.jpeg_min_side, decoding.jpeg_min_side))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":
            pixels = _deep_pixels(image, decoding, str(path))
        else:
            pixels = _pixels(image, decoding.channels)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_images(
    files: Sequence[str],
    *,
    channels: Channels = 3,
    jpeg_min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    threads: int = 2,
) -> Iterator[Tensor | UnreadableImageError]:
    """Decode many files in order, on threads; an unreadable one yields its error.

    At most a few hundred decoded images are held at a time. Arguments as of :func:`read_image`.

    Raises:
        ValueRangeError: If values lie outside ``value_range``.
    """
    decoding = Decoding(
        channels=channels,
        jpeg_min_side=jpeg_min_side,
        max_pixels=max_pixels,
        value_range=value_range,
    )
    return decode_images(files, decoding, threads=threads)


def decode_images(
    files: Sequence[str], decoding: Decoding, *, threads: int = 2
) -> Iterator[Tensor | UnreadableImageError]:
    """As :func:`read_images`, by options that were checked before."""

    def read(file: str) -> Tensor | UnreadableImageError:
        try:
            return decode_image(file, decoding)
        except UnreadableImageError as error:
            return error

    block = 64 * threads
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(files), block):
            yield from pool.map(read, files[start : start + block])


def stored_range(
    path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS
) -> tuple[float, float] | None:
    """The least and largest value of a 32-bit file; none for others, which are not decoded.

    Raises:
        UnreadableImageError: Naming the file.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        if not _is_deep(image):
            return None
        values = np.array(image)
        return float(values.min()), float(values.max())


def _is_deep(image: Image.Image) -> bool:
    """Whether values have no range of their own. Older Pillow gives 16-bit PNG as 32-bit."""
    return image.mode in ("F", "I") and image.format not in ("PNG", "PPM")


def _pixels(image: Image.Image, channels: Channels) -> NDArray[Any]:
    """Rows, columns, channels; writable."""
    alpha = image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info
    if channels == "keep":
        grey = image.mode in {"1", "L", "LA"}
        mode = ("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB")
    else:
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        if alpha and channels != 4:
            image = _on_black(image)
    if image.mode != mode:
        image = image.convert("RGBA").convert(mode) if mode == "LA" else image.convert(mode)
    pixels = np.array(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _deep_pixels(image: Image.Image, decoding: Decoding, source: str) -> NDArray[Any]:
    values = np.array(image).astype(np.float32)[..., None]
    if _is_deep(image):
        values = decoding.scaled(values, source, whole=image.mode == "I")
    else:
        values /= 65535
    if decoding.channels in (1, "keep"):
        return values
    values = np.repeat(values, int(decoding.channels), axis=2)
    if decoding.channels == 4:
        values[..., 3] = 1
    return values


def _on_black(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    black = Image.new("RGB", image.size)
    black.paste(image, mask=image.getchannel("A"))
    return black
