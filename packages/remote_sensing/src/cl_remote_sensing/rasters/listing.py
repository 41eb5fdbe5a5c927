"""Which rasters a user means: files, folders and lists of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cl_core.errors import InputError
from cl_core.tables.documents import read_text
from cl_remote_sensing.rasters.places import is_remote, is_virtual

__all__ = ["RASTER_SUFFIXES", "list_rasters"]

RASTER_SUFFIXES = frozenset(
    "." + kind
    for kind in (
        *("tif", "tiff", "gtif", "gtiff", "jp2", "img", "bil", "vrt"),
        *("png", "jpg", "jpeg", "webp", "bmp"),
    )
)
"""What is taken for a raster in a folder; a file that is named may have any ending."""


def list_rasters(data: Sequence[str | Path], *, network: bool = False) -> list[str]:
    """Paths of the rasters, each once, in the order given.

    - A **folder** is searched through its sub-folders, in code-point order of the paths. Hidden
      entries are left out, and ``.vrt`` files if other rasters are there, being made of them.
    - A **.txt list** holds a path a line, relative to the list's folder; ``#`` begins a comment.
    - Anything else is handed on as it is: a file, a ``/vsi...`` path, a URL.

    Args:
        data: As above.
        network: Whether a list may name places on the network.

    Raises:
        InputError: If nothing is left, or a list cannot be read or names a place on the network.
    """
    if not data:
        raise InputError("no raster is given; name a file, a folder or a .txt list")
    found = [path for entry in data for path in _expand(entry, network)]
    return list(dict.fromkeys(found))


def _expand(entry: str | Path, network: bool) -> Iterator[str]:
    text = str(entry)
    if is_virtual(text):
        yield text
    elif Path(text).is_dir():
        yield from _folder(Path(text))
    elif text.lower().endswith(".txt"):
        yield from _lines(Path(text), network)
    else:
        yield text


def _folder(folder: Path) -> list[str]:
    files = [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in RASTER_SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    plain = [file for file in files if file.suffix.lower() != ".vrt"]
    if not files:
        raise InputError(
            f"{folder}: no raster in this folder ({', '.join(sorted(RASTER_SUFFIXES))}); "
            "name the files, or another folder"
        )
    return sorted(str(file) for file in plain or files)


def _lines(file: Path, network: bool) -> list[str]:
    if not file.exists():
        raise InputError(f"{file}: no such list of rasters; check the path")
    paths = [line.strip() for line in read_text(file).splitlines()]
    paths = [path for path in paths if path and not path.startswith("#")]
    if not paths:
        raise InputError(f"{file}: names no raster; write a path a line")
    away = [path for path in paths if is_remote(path)]
    if away and not network:
        raise InputError(
            f"{file}: names {away[0]!r} on the network, which is not read without --allow_network"
        )
    return [path if is_virtual(path) else str(file.parent / path) for path in paths]
