"""Decoded images in one memory-mapped file: each file is decoded once, not once an epoch."""

from __future__ import annotations

import io
import json
import os
import struct
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_core.errors import InputError
from cl_core.images.decode import decode_images
from cl_core.images.decoding import Channels, Decoding, ValueRange
from cl_core.images.opening import MAX_PIXELS, UnreadableImageError
from cl_core.images.table import ImageTable
from cl_core.runs import write_atomic

__all__ = ["DecodeCache"]

_MAGIC = b"clcache1"
_DTYPES = ("|u1", "<f4", ">f4")
_TRAILER = struct.Struct("<QQ8s")  # where the index begins, the JSON's length, the magic


@dataclass(frozen=True)
class _Entry:
    offset: int
    shape: tuple[int, int, int]  # rows, columns, channels, as stored
    dtype: str


class DecodeCache:
    """Decoded images of a table, read from a memory map that all workers and ranks share.

    Meant for small images, where decoding costs more than reading: pixels are stored as they
    are, one byte each (four for images deeper than 8 bits). Make it of the whole table, then
    give it to the datasets of its splits. Images that cannot be read are not in it; the dataset
    meets them again by itself.

    Args:
        path: The cache file.

    Raises:
        InputError: If the file is no cache.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        header, entries = _read_index(self.path)
        self._header = header
        self._entries = entries
        self._pixels: NDArray[np.uint8] | None = None

    @classmethod
    def of(
        cls,
        path: Path | str,
        table: ImageTable,
        *,
        channels: Channels = 3,
        jpeg_min_side: int | None = None,
        max_pixels: int = MAX_PIXELS,
        value_range: ValueRange | None = None,
        max_bytes: int = 8 * 2**30,
        threads: int = 2,
    ) -> DecodeCache:
        """Open the cache at ``path`` if it still fits the table's files, else make it.

        It fits if it was made with the same options and holds every file of the table with the
        size and modification time the file has now. It appears complete or not at all.

        Args:
            path: The cache file; its folder must exist.
            table: The images.
            channels: See :class:`cl_core.images.Decoding`, as for the next three.
            jpeg_min_side: Decode JPEG smaller.
            max_pixels: The largest image to decode; no larger one is in the cache.
            value_range: The values of 32-bit files that become 0 and 1.
            max_bytes: Refuse to write more.
            threads: How many decode at once.

        Raises:
            InputError: If the images need more than ``max_bytes``, the disk is full, or values lie
                outside ``value_range``.
        """
        path = Path(path)
        decoding = Decoding(
            channels=channels,
            jpeg_min_side=jpeg_min_side,
            max_pixels=max_pixels,
            value_range=value_range,
        )
        options = _pixel_options(decoding)
        stamps = {os.path.abspath(file): _stamp(file) for file in table.files}  # noqa: PTH100
        if path.exists():
            try:
                cache = cls(path)
            except InputError:  # no cache: perhaps the user's own file
                if path.stat().st_size:
                    raise
            else:
                known = cache._header["stamps"]
                fits = all(known.get(file) == stamp for file, stamp in stamps.items())
                if fits and cache._header["options"] == options:
                    return cache
        images = decode_images(list(stamps), decoding, threads=threads)
        with write_atomic(path) as temporary, temporary.open("wb") as file:
            header: dict[str, Any] = {"options": options, "stamps": stamps}
            _write(file, header, zip(stamps, images, strict=True), max_bytes, path)
        return cls(path)

    def get(self, file: str | PathLike[str]) -> Tensor | None:
        """A copy of a decoded image ``(c, h, w)``, or ``None`` if it is not here."""
        entry = self._entries.get(os.path.abspath(file))  # noqa: PTH100
        if entry is None:
            return None
        if self._pixels is None:  # once per process: a map does not travel to workers
            self._pixels = np.memmap(self.path, dtype=np.uint8, mode="r")
        count = int(np.prod(entry.shape)) * np.dtype(entry.dtype).itemsize
        flat = np.array(self._pixels[entry.offset : entry.offset + count])
        return torch.from_numpy(flat.view(entry.dtype).reshape(entry.shape)).permute(2, 0, 1)

    def require(self, decoding: Decoding) -> None:
        """Refuse to stand in for decoding with other options.

        Raises:
            ValueError: Naming both.
        """
        asked = _pixel_options(decoding)
        if asked != self._header["options"]:
            raise ValueError(
                f"{self.path} was made with {self._header['options']}, the dataset asks for "
                f"{asked}: make the cache with the dataset's options"
            )

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


def _pixel_options(decoding: Decoding) -> dict[str, Any]:
    """What decides the pixels, as JSON gives it back."""
    scale = decoding.value_range
    return {
        "channels": decoding.channels,
        "jpeg_min_side": decoding.jpeg_min_side,
        "value_range": list(scale) if isinstance(scale, tuple) else scale,
    }


def _stamp(file: str) -> list[int]:
    try:
        status = os.stat(file)  # noqa: PTH116 - a million of them
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def _write(file: BinaryIO, header: dict[str, Any], images: Any, max_bytes: int, path: Path) -> None:
    entries: dict[str, list[Any]] = {}
    offset = 0
    for name, image in images:
        if isinstance(image, UnreadableImageError):
            continue
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        entries[name] = [offset, *pixels.shape, pixels.dtype.str]
        file.write(pixels.data)
        padding = -pixels.nbytes % 4  # keeps floats aligned
        file.write(bytes(padding))
        offset += pixels.nbytes + padding
        if offset > max_bytes:
            raise InputError(
                f"{path}: after {len(entries)} images the decode cache passes "
                f"{max_bytes / 2**30:.1f} GiB; shrink the images, raise the limit, or go without"
            )
    index = json.dumps({**header, "entries": entries}).encode()
    file.write(index)
    file.write(_TRAILER.pack(offset, len(index), _MAGIC))


def _read_index(path: Path) -> tuple[dict[str, Any], dict[str, _Entry]]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _TRAILER.size))
            offset, length, magic = _TRAILER.unpack(file.read())
            if magic != _MAGIC or offset + length + _TRAILER.size != size:
                raise ValueError("another kind of file")
            file.seek(offset)
            header = json.loads(file.read(length))
        if not isinstance(header["options"], dict) or not isinstance(header["stamps"], dict):
            raise ValueError("its index is damaged")
        entries = {name: _entry(cells, offset) for name, cells in header.pop("entries").items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise InputError(
            f"{path}: is not a decode cache ({error}); name another file or delete it"
        ) from error
    return header, entries


def _entry(cells: list[Any], end: int) -> _Entry:
    """One image's place, which must lie in the pixels that the file has."""
    start, rows, columns, channels, dtype = cells
    numbers = (start, rows, columns, channels)
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or dtype not in _DTYPES:
        raise ValueError("its index is damaged")
    if start + rows * columns * channels * np.dtype(dtype).itemsize > end:
        raise ValueError("its index is damaged")
    return _Entry(start, (rows, columns, channels), dtype)
