"""Image file to tensor, with Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cl_core.errors import InputError

try:
    from PIL import Image, ImageOps
except ImportError as error:
    raise InputError("reading images needs Pillow; run pip install cl-core[images]") from error

__all__ = ["Channels", "UnreadableImageError", "read_image", "read_images"]

Channels = Literal[1, 3, 4, "keep"]


class UnreadableImageError(InputError):
    """A file that is missing, empty, truncated, corrupt, or no image.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    # One required argument: a loader rebuilds a worker's exception from its message alone.
    def __init__(self, message: str, *, path: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


def read_image(
    path: str | PathLike[str], *, channels: Channels = 3, jpeg_min_side: int | None = None
) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """Decode the first frame of an image, upright.

    The EXIF orientation is applied. 8-bit images, 1-bit ones and palettes become uint8. 16-bit
    grey becomes float32, divided by 65535; 32-bit float stays as stored. CMYK becomes RGB by
    Pillow's rule, without a colour profile; 16 bits per channel of colour are cut to 8 by Pillow.

    Transparent images are laid on black if ``channels`` is 1 or 3, so that hidden colours never
    show. RGB becomes grey by ITU-R 601 (.299, .587, .114).

    Args:
        path: The file.
        channels: 3 for RGB, 1 for grey, 4 for RGB and opacity (255 or 1 where the file has none),
            ``"keep"`` for as many as the file has.
        jpeg_min_side: Allow the JPEG decoder to give a half, quarter or eighth of the size while
            both sides stay this long, in pixels. Far faster for photographs that are shrunk
            afterwards; the pixels differ a little from those of a full decoding, hence off.

    Returns:
        The image, strided as it was stored: channels last.

    Raises:
        UnreadableImageError: Naming the file.
    """
    if channels not in (1, 3, 4, "keep"):
        raise ValueError(f"channels must be 1, 3, 4 or 'keep', got {channels!r}")
    try:
        with Image.open(path) as image:
            if jpeg_min_side is not None:
                image.draft(None, (jpeg_min_side, jpeg_min_side))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            pixels = _pixels(image, channels)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise a dozen kinds for a broken file
        reason = _reason(Path(path), error)
        raise UnreadableImageError(
            f"{path}: cannot be read as an image ({reason}); replace or remove the file, "
            "or pass --on-error skip",
            path=str(path),
            reason=reason,
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_images(
    files: Sequence[str],
    *,
    channels: Channels = 3,
    jpeg_min_side: int | None = None,
    threads: int = 2,
) -> Iterator[Tensor | UnreadableImageError]:
    """Decode many files in order, on threads; an unreadable one yields its error.

    At most a few hundred decoded images are held at a time.
    """

    def read(file: str) -> Tensor | UnreadableImageError:
        try:
            return read_image(file, channels=channels, jpeg_min_side=jpeg_min_side)
        except UnreadableImageError as error:
            return error

    block = 64 * threads
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(files), block):
            yield from pool.map(read, files[start : start + block])


def _pixels(image: Image.Image, channels: Channels) -> NDArray[Any]:
    """Rows, columns, channels; writable."""
    if image.mode[0] in "IF":
        return _deep_pixels(image, channels)
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


def _deep_pixels(image: Image.Image, channels: Channels) -> NDArray[Any]:
    pixels = np.array(image).astype(np.float32)[..., None]
    if image.mode != "F":
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("its integers do not fit 16 bits")
        pixels /= 65535
    if channels == 1 or channels == "keep":
        return pixels
    pixels = np.repeat(pixels, channels, axis=2)
    if channels == 4:
        pixels[..., 3] = 1
    return pixels


def _on_black(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    black = Image.new("RGB", image.size)
    black.paste(image, mask=image.getchannel("A"))
    return black


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such file"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if type(error).__name__ == "UnidentifiedImageError":
        return "of no format known to Pillow"
    return " ".join(str(error).split()) or type(error).__name__
