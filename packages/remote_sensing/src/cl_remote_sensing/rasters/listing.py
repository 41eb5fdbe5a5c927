"""Which rasters a user means: files, folders and lists of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cl_core.errors import InputError

__all__ = ["RASTER_SUFFIXES", "list_rasters"]

RASTER_SUFFIXES = frozenset(
    "." + kind
    for kind in (
        *("tif", "tiff", "gtif", "gtiff", "jp2", "img", "bil", "vrt"),
        *("png", "jpg", "jpeg", "webp", "bmp"),
    )
)
"""What is taken for a raster in a folder; a file that is named may be anything GDAL opens."""


def list_rasters(data: Sequence[str | Path]) -> list[str]:
    """Paths of the rasters, each once, in the order given.

    - A **folder** is searched through its sub-folders, in code-point order of the paths. Hidden
      entries are left out, and ``.vrt`` files if other rasters are there, being made of them.
    - A **.txt list** holds a path a line, relative to the list's folder; ``#`` begins a comment.
    - Anything else is handed on as it is: a file, a ``/vsi...`` path, a URL.

    Raises:
        InputError: If nothing is left, or a list cannot be read.
    """
    if not data:
        raise InputError("no raster is given; name a file, a folder or a .txt list")
    found = [path for entry in data for path in _expand(entry)]
    return list(dict.fromkeys(found))


def _expand(entry: str | Path) -> Iterator[str]:
    text = str(entry)
    if _is_remote(text):
        yield text
    elif Path(text).is_dir():
        yield from _folder(Path(text))
    elif text.lower().endswith(".txt"):
        yield from _lines(Path(text))
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


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{file}: no such list of rasters; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a list of paths in UTF-8 ({error})") from None
    paths = [line.strip() for line in text.splitlines()]
    paths = [path for path in paths if path and not path.startswith("#")]
    if not paths:
        raise InputError(f"{file}: names no raster; write a path a line")
    return [path if _is_remote(path) else str(file.parent / path) for path in paths]


def _is_remote(path: str) -> bool:
    return path.startswith("/vsi") or "://" in path
