"""Images named by a table: text or Parquet, as :func:`cl_core.tables.files.read_table` reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from cl_core.errors import InputError
from cl_core.images.split_names import split_name
from cl_core.images.table import ImageTable
from cl_core.tables.files import Column, Table, read_table
from cl_core.tables.labels import class_names, encode_labels

__all__ = ["read_image_manifest"]

_COLUMNS = ("image", "label", "group", "split")
_TRIED = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")


def read_image_manifest(
    path: Path,
    roots: Sequence[Path],
    columns: Mapping[str, str],
    on_error: Literal["stop", "skip"] = "stop",
) -> ImageTable:
    """List a manifest; see :func:`cl_core.images.list_images`."""
    unknown = set(columns) - set(_COLUMNS)
    if unknown:
        raise ValueError(f"columns renames {', '.join(_COLUMNS)}, not {', '.join(sorted(unknown))}")
    table = read_table(path, header="yes", split=not _is_list(path))
    found = _found(path, table, columns)
    images = found["image"].text
    files = [_locate(cell, roots) for cell in images]
    rows, notes = _present(path, images, files, roots, on_error)
    cells = {name: column.text for name, column in found.items()}
    others = {
        name: column.text
        for name, column in zip(table.names or (), table.columns, strict=True)
        if column is not found["image"]
    }
    rows, repeats = _distinct(path, rows, files, cells, others, found["image"])
    notes += repeats
    kept = {column: [values[row] for row in rows] for column, values in cells.items()}
    labels = kept.get("label")
    classes = class_names(labels or ())
    return ImageTable(
        source=str(path),
        root=str(roots[0]),
        files=tuple(str(files[row]) for row in rows),
        labels=(
            np.full(len(rows), -1, dtype=np.int64)
            if labels is None
            else encode_labels(labels, classes, source=str(path))
        ),
        classes=classes,
        groups=tuple(kept["group"]) if "group" in kept else None,
        splits=tuple(split_name(cell) or cell for cell in kept["split"])
        if "split" in kept
        else None,
        notes=tuple(notes),
        columns={name: tuple(values[row] for row in rows) for name, values in others.items()},
    )


def _is_list(path: Path) -> bool:
    """Whether a text file is a list of names, which may hold blanks, under a single word."""
    if path.suffix.lower() != ".txt":
        return False
    with path.open("rb") as file:
        return len(file.readline(4096).replace(b",", b" ").replace(b";", b" ").split()) == 1


def _found(path: Path, table: Table, columns: Mapping[str, str]) -> dict[str, Column]:
    """The columns that mean something here."""
    found = {}
    for meaning in _COLUMNS:
        name = columns.get(meaning, meaning)
        column = table.column(name.strip().lower())
        if column is not None:
            found[meaning] = column
        elif meaning == "image" or meaning in columns:
            raise InputError(
                f"{path}: no column '{name}' for the {meaning}; the columns are "
                f"{', '.join(table.names or ())}; rename one or say which holds the {meaning}"
            )
    return found


def _locate(cell: str, roots: Sequence[Path]) -> str | None:
    for root in roots:
        path = os.path.join(root, cell)  # noqa: PTH118 - a million of them; absolute cells win
        if os.path.isfile(path):  # noqa: PTH113
            return path
        for extension in _TRIED:
            if os.path.isfile(path + extension):  # noqa: PTH113
                return path + extension
    return None


def _present(
    path: Path,
    images: Sequence[str],
    files: Sequence[str | None],
    roots: Sequence[Path],
    on_error: str,
) -> tuple[list[int], list[str]]:
    """The rows whose file is there."""
    rows = [row for row, file in enumerate(files) if file is not None]
    missing = len(files) - len(rows)
    if not missing:
        return rows, []
    first = next(image for image, file in zip(images, files, strict=True) if file is None)
    told = f"{missing} of {len(files)} images are missing, first '{first}'"
    if on_error == "stop" or not rows:
        raise InputError(
            f"{path}: {told} (looked in {', '.join(map(str, roots))}); correct the paths, or say "
            "root=FOLDER or on_error=skip"
        )
    return rows, [f"{told}; left out"]


def _distinct(
    path: Path,
    rows: Sequence[int],
    files: Sequence[str | None],
    cells: Mapping[str, Sequence[str]],
    others: Mapping[str, Sequence[str]],
    places: Column,
) -> tuple[list[int], list[str]]:
    """The rows without repeats, and a note on what was left out."""
    first: dict[str, int] = {}
    differing: set[str] = set()
    for row in rows:
        earlier = first.setdefault(os.path.realpath(str(files[row])), row)
        if earlier == row:
            continue
        for column in cells.keys() - {"image"}:
            one, other = cells[column][earlier], cells[column][row]
            if one != other:
                raise InputError(
                    f"{path}: image '{cells['image'][row]}' stands in {places.place(earlier)} and "
                    f"{places.place(row)} with two values of {column}, '{one}' and '{other}'; "
                    "keep one"
                )
        differing |= {name for name, values in others.items() if values[earlier] != values[row]}
    if len(rows) == len(first):
        return list(rows), []
    told = f"{len(rows) - len(first)} repeated rows left out"
    if differing:
        told += f"; of what they hold in {', '.join(sorted(differing))} the first counts"
    return list(first.values()), [told]
