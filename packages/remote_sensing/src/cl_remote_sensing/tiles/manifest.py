"""Manifests: lists of images with their labels or windows, as CSV or as two columns of paths."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from cl_core.errors import InputError
from cl_core.tables.documents import read_text

__all__ = ["find_listed", "read_listing"]


def read_listing(path: Path | str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a manifest.

    A ``.csv`` has a header, in any order and with any further columns. A ``.txt`` has no header:
    its lines hold ``columns`` in their order, separated by spaces or tabs; a line that starts
    with ``#`` is left out.

    Args:
        path: The manifest.
        columns: The columns it must have.

    Returns:
        A dictionary per row, by column.

    Raises:
        InputError: If the file cannot be read, lacks a column or a value, or has no row.
    """
    path = Path(path)
    lines = read_text(path).splitlines()
    if path.suffix.lower() == ".txt":
        words = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        rows = [dict(zip(columns, values, strict=False)) for values in words]
    else:
        try:
            reader = csv.DictReader(lines)
            header, listed = reader.fieldnames or (), list(reader)
        except csv.Error as error:
            raise InputError(f"{path}: is no CSV ({error}); correct it") from error
        lost = [name for name in columns if name not in header]
        if lost:
            raise InputError(
                f"{path}: has no column '{lost[0]}'; expected a header with {','.join(columns)}"
            )
        rows = [{k: v for k, v in row.items() if k and isinstance(v, str)} for row in listed]
    for number, row in enumerate(rows):
        empty = [name for name in columns if not row.get(name, "").strip()]
        if empty:
            raise InputError(f"{path}: entry {number + 1} has no '{empty[0]}'; fill it in")
    if not rows:
        raise InputError(f"{path}: lists nothing; expected rows of {','.join(columns)}")
    return rows


def find_listed(text: str, manifest: Path | str) -> Path:
    """Find a listed file: relative to its manifest's folder, or to the folder above.

    Manifests often lie in a folder of their own (``splits/``) beside the images; so both count.

    Raises:
        InputError: If it is in neither place.
    """
    manifest = Path(manifest)
    folder = manifest.absolute().parent
    for place in (folder, folder.parent):
        try:
            if (place / text).exists():
                return place / text
        except (OSError, ValueError):  # no name of a file
            continue
    raise InputError(f"{manifest}: '{text}' is neither in {folder} nor in the folder above")
