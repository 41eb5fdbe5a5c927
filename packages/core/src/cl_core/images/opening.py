"""The one place that opens an image file: raster formats by name, up to a stated size.

Pillow goes by a file's content, not by its suffix, and knows formats that are programs or start
them: an EPS under the name ``photo.jpg`` would be run by Ghostscript. So only the formats of
:data:`FORMATS` are tried, whatever a file is called, and the size is checked before a pixel is
decoded: 21 kB of PNG can unpack to gigabytes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from cl_core.errors import InputError

try:
    from PIL import Image, features
except ImportError as error:
    raise InputError("reading images needs Pillow; run pip install cl-core[images]") from error

__all__ = ["EXTENSIONS", "FORMATS", "MAX_PIXELS", "UnreadableImageError", "open_image"]

MAX_PIXELS = 100_000_000
"""Largest image that is decoded unless more is allowed: 10,000 x 10,000, 300 MB as RGB."""

_SUFFIXES = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "PNG": (".png",),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".j2k", ".jp2", ".jpx"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
}
# Pillow can be built without these.
_OPTIONAL = {"JPEG2000": "jpg_2000", "WEBP": "webp", "AVIF": "avif"}

FORMATS: Mapping[str, tuple[str, ...]] = {
    name: suffixes
    for name, suffixes in _SUFFIXES.items()
    if name not in _OPTIONAL or features.check(_OPTIONAL[name])
}
"""Pillow's names of the formats that are opened, with their usual suffixes. Raster formats only."""

EXTENSIONS = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""What counts as an image in a folder, in lower case."""

_PROGRAMS = (b"%!PS", b"\xc5\xd0\xd3\xc6", b"%PDF", b"\xd7\xcd\xc6\x9a", b"<svg", b"<?xml")
_muted: list[Any] = []  # the filter below, as Python keeps it


class UnreadableImageError(InputError):
    """A file that is missing, empty, truncated, corrupt, too large, or no image.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    # One required argument: a loader rebuilds a worker's exception from its message alone.
    def __init__(self, message: str, *, path: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


@contextmanager
def open_image(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a file for the length of a ``with`` block; its pixels are decoded at their first use.

    Pillow's warnings about a file are muted, for the whole process: it is read or it is refused.
    Where ``max_pixels`` is beyond what Pillow refuses, Pillow's own limit is raised to it.

    Args:
        path: The file.
        max_pixels: Width times height of the largest image to decode.

    Yields:
        Pillow's image.

    Raises:
        UnreadableImageError: Naming the file, for whatever goes wrong with it in the block too.
    """
    _mute_remarks()
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with Image.open(path, formats=tuple(FORMATS)) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError(f"({image.width * image.height} pixels)")
            yield image
    except (MemoryError, InputError):
        raise
    except Exception as error:  # Pillow's plugins raise a dozen kinds for a broken file
        reason, advice = _reason(Path(path), error), "replace or remove the file, or say"
        if isinstance(error, Image.DecompressionBombError):
            pixels = next(iter(re.findall(r"\((\d+) pixels", str(error))), "too many")
            reason = f"it holds {pixels} pixels, more than max_pixels={max_pixels}"
            # Not every command that opens images has the option.
            advice = (
                f"if it is an honest image make it smaller or, where that is an option, say "
                f"max_pixels={pixels}, else"
            )
        raise UnreadableImageError(
            f"{path}: cannot be read as an image ({reason}); {advice} on_error=skip",
            path=str(path),
            reason=reason,
        ) from error


def _mute_remarks() -> None:
    """Of damaged metadata, and of images beyond Pillow's own limit, where ours decides."""
    if not _muted or _muted[0] not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        _muted[:] = warnings.filters[:1]


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such file"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if type(error).__name__ == "UnidentifiedImageError":
        with path.open("rb") as file:
            start = file.read(64).lstrip()
        if start.startswith(_PROGRAMS):
            return "a vector or script file, which is never opened"
        return f"of no format known here: {', '.join(FORMATS)}"
    return " ".join(str(error).split()) or type(error).__name__
