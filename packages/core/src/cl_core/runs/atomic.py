"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cl_core.errors import InputError

__all__ = ["TEMPORARY", "remove", "write_atomic"]

TEMPORARY = ".tmp-"
"""How the name of an unfinished file begins; whatever carries it may be deleted."""


@contextmanager
def write_atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what is written there becomes ``path`` at the end.

    The body writes a file, or makes a folder and fills it. When it ends, the data is flushed to
    the disk and renamed over ``path``; when it raises, nothing but the old ``path`` is left. A
    reader, a kill or a full disk therefore never sees half a file. The temporary name keeps the
    suffix, for writers that go by it. An existing *folder* is replaced in two renames, between
    which a kill leaves the old one under a temporary name.

    Args:
        path: The file or folder to appear; its parent must exist.

    Yields:
        The path to write to; it does not exist yet.

    Raises:
        InputError: If the disk is full or the place cannot be written, naming ``path``.
        ValueError: If the body wrote nothing.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        remove(temporary)
        yield temporary
        if not temporary.exists():
            raise ValueError(f"nothing was written to {temporary}, so {path} cannot appear")
        _flush(temporary)
        _replace(temporary, path)
    except OSError as error:
        culprit = Path(error.filename) if error.filename else path
        if culprit != path and not culprit.is_relative_to(temporary):
            raise  # another file's trouble, met while this one was written
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        remove(temporary)


def _replace(temporary: Path, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        old = path.with_name(f"{TEMPORARY}{os.getpid()}-old-{path.name}")
        path.replace(old)
        temporary.replace(path)
        remove(old)
    else:
        temporary.replace(path)
    _flush_entry(path.parent)


def _flush(path: Path) -> None:
    for part in [*path.rglob("*"), path] if path.is_dir() else [path]:
        _flush_entry(part)


def _flush_entry(path: Path) -> None:
    if os.name != "posix":
        return  # elsewhere neither a folder nor a file opened for reading can be flushed
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file, a folder with all in it, or a link, but never what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
