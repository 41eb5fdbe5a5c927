"""Images named by a table: CSV or Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cl_core.errors import InputError
from cl_core.images.table import ImageTable
from cl_core.tables.labels import class_names, encode_labels

__all__ = ["MANIFEST_SUFFIXES", "read_manifest"]

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".parquet"})

_COLUMNS = ("image", "label", "group", "split")
_TRIED = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")


def read_manifest(
    path: Path,
    roots: Sequence[Path],
    columns: Mapping[str, str],
    on_error: Literal["stop", "skip"] = "stop",
) -> ImageTable:
    """List a manifest; see :func:`cl_core.images.list_images`."""
    unknown = set(columns) - set(_COLUMNS)
    if unknown:
        raise ValueError(f"columns renames {', '.join(_COLUMNS)}, not {', '.join(sorted(unknown))}")
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if not table or not next(iter(table.values())):
        raise InputError(f"{path}: the manifest has no rows; list an image per row")
    cells = {}
    for column in _COLUMNS:
        name = columns.get(column, column)
        if name in table:
            cells[column] = table[name]
        elif column == "image" or column in columns:
            raise InputError(
                f"{path}: no column '{name}' for the {column}; the columns are "
                f"{', '.join(table)}; rename one or say which holds the {column}"
            )
    files = [_locate(cell, roots) for cell in cells["image"]]
    rows, notes = _present(path, cells["image"], files, roots, on_error)
    others = {name: values for name, values in table.items() if values is not cells["image"]}
    rows, repeats = _distinct(path, rows, files, cells, others)
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
        splits=tuple(kept["split"]) if "split" in kept else None,
        notes=tuple(notes),
        columns={name: tuple(values[row] for row in rows) for name, values in others.items()},
    )


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
                    f"{path}: image '{cells['image'][row]}' stands in rows {earlier + 1} and "
                    f"{row + 1} with two values of {column}, '{one}' and '{other}'; keep one row"
                )
        differing |= {name for name, values in others.items() if values[earlier] != values[row]}
    if len(rows) == len(first):
        return list(rows), []
    told = f"{len(rows) - len(first)} repeated rows left out"
    if differing:
        told += f"; of what they hold in {', '.join(sorted(differing))} the first counts"
    return list(first.values()), [told]


def _read_csv(path: Path) -> dict[str, list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=head.count)
            lines = [
                [cell.strip() for cell in line]
                for line in csv.reader(file, delimiter=delimiter)
                if any(cell.strip() for cell in line)
            ]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); check the file") from error
    if not lines:
        return {}
    header, rows = lines[0], lines[1:]
    if len(set(header)) < len(header):
        raise InputError(f"{path}: two columns have the same name in {', '.join(header)}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise InputError(
                f"{path}: row {number} has {len(row)} cells under {len(header)} column names; "
                "put cells that hold the separator in quotes"
            )
    return {name: [row[k] for row in rows] for k, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, list[str]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{path}: reading Parquet needs pyarrow; run pip install cl-core[images]"
        ) from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as Parquet ({reason}); check the file") from error
    return {
        name: [_text(value) for value in column.to_pylist()]
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # class numbers become floats when a table has gaps
    return str(value).strip()
