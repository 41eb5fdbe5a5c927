"""``.npy`` and ``.npz`` files: plain numbers and text, no pickles, nothing larger than told."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from cl_core.errors import InputError

__all__ = ["LARGEST_ARRAYS", "existing_file", "read_array", "read_arrays", "readable"]

LARGEST_ARRAYS = 4 * 2**30
"""Bytes that the arrays of one file may unpack to, unless the caller asks for more."""


def existing_file(path: Path | str) -> Path:
    """``path``, if it is a file with something in it.

    Raises:
        InputError: If it does not exist, is a folder, no regular file, or empty.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file")
    if not path.exists():
        raise InputError(f"{path} does not exist; correct the path")
    if not path.is_file():
        raise InputError(f"{path} is no regular file; give a file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; give a file with data")
    return path


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a damaged file provokes in a library into one line about that file."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "allow_pickle" in reason or "Object arrays" in reason:
            reason = "it holds pickled objects, which could run code; save plain arrays"
        raise InputError(f"{path} cannot be read as {what}: {reason}") from error


def read_array(path: Path, *, max_bytes: int = LARGEST_ARRAYS) -> NDArray[Any]:
    """Read a ``.npy`` file.

    Args:
        path: The file.
        max_bytes: Refuse a larger array.

    Raises:
        InputError: If the file is damaged, holds pickled objects, or more than ``max_bytes``.
    """
    path = existing_file(path)
    with readable(path, "a numpy array"), path.open("rb") as file:
        _check(file, path, path.stat().st_size, max_bytes)
        file.seek(0)
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array


def read_arrays(path: Path, *, max_bytes: int = LARGEST_ARRAYS) -> dict[str, NDArray[Any]]:
    """Read every array of a ``.npz`` file.

    Args:
        path: The file.
        max_bytes: Refuse a file whose arrays together unpack to more.

    Raises:
        InputError: As for :func:`read_array`.
    """
    path = existing_file(path)
    arrays = {}
    left = max_bytes
    with readable(path, "an npz of plain arrays"), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                raise ValueError(f"{member.filename} in it is no array")
            with archive.open(member) as file:
                left -= _check(file, path, member.file_size, left, whole=max_bytes)
            with archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = npy.read_array(
                    file, allow_pickle=False
                )
    return arrays


def _check(file: Any, path: Path, size: int, most: int, *, whole: int | None = None) -> int:
    """The bytes of the array that follows, from its header: before they are allocated."""
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"its format is of version {version[0]}.{version[1]}")
    if dtype.hasobject:
        raise ValueError("Object arrays hold pickles")
    needed = math.prod(shape) * dtype.itemsize
    if needed > most:
        raise InputError(
            f"{path} unpacks to more than the {(whole or most) / 2**30:.3g} GiB that are read: "
            "split it, or give smaller arrays"
        )
    if needed > size:
        raise ValueError(f"it promises {needed:,} bytes and holds {size:,}")
    return needed
