"""What data a run was begun with, so that it is not continued on other data without a word."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_core.errors import InputError

__all__ = ["Fingerprint", "of_arrays", "of_files"]

_WHOLE = 2**20  # bytes up to which a file counts as a whole; of larger ones head, middle and tail
_SAMPLE = 2**16
_FILES = 2000  # of more files, evenly spaced ones count by content, all by name and size


@dataclass(frozen=True)
class Fingerprint:
    """Of data at one moment.

    Attributes:
        about: The data in words, such as ``e.csv, x.npy``.
        digest: Of names, sizes and content, in hexadecimal.
    """

    about: str
    digest: str

    def require_same(self, before: Mapping[str, Any], place: str) -> None:
        """Refuse to go on if the data are not those recorded before.

        Raises:
            InputError: Naming both.
        """
        if before.get("digest") != self.digest:
            raise InputError(
                f"--resume: the data ({self.about}) are not those that {place} was begun with "
                f"({before.get('about')}): bring them back, or start anew with --overwrite"
            )


def of_files(files: Iterable[Path | str], *, root: Path | str | None = None) -> Fingerprint:
    """The fingerprint of files: names, sizes and content, not times, so a copy is the same data.

    Of a file above 1 MiB three samples of 64 KiB stand for the content, and of more than 2,000
    files evenly spaced ones.

    Args:
        files: In any order.
        root: What names are relative to; by default only the last part of a name counts.

    Raises:
        InputError: If a file cannot be read.
    """
    paths = sorted(str(file) for file in files)
    every = max(1, -(-len(paths) // _FILES))
    digest = hashlib.sha256()
    for number, path in enumerate(paths):
        name = os.path.relpath(path, root) if root is not None else Path(path).name
        try:
            size = os.stat(path).st_size  # noqa: PTH116 - a million of them
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
            if number % every == 0:
                digest.update(_content(path, size))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    shown = [Path(path).name for path in paths[:3]]
    about = ", ".join(shown) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")
    return Fingerprint(about, digest.hexdigest())


def of_arrays(about: str, arrays: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint of data in memory.

    Args:
        about: The data in words.
        arrays: Named arrays or tensors; ``None`` for what is not there.
    """
    import numpy as np

    digest = hashlib.sha256()
    for name, value in arrays.items():
        if value is None:
            continue
        array = np.ascontiguousarray(value.detach().cpu() if hasattr(value, "detach") else value)
        digest.update(f"{name}\0{array.shape}\0{array.dtype}\0".encode())
        digest.update(array.tobytes() if array.dtype != object else repr(array.tolist()).encode())
    return Fingerprint(about, digest.hexdigest())


def _content(path: str, size: int) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - a million of them
        if size <= _WHOLE:
            return hashlib.sha256(file.read()).digest()
        digest = hashlib.sha256()
        for start in (0, (size - _SAMPLE) // 2, size - _SAMPLE):
            file.seek(start)
            digest.update(file.read(_SAMPLE))
        return digest.digest()
