"""What files call their nodes, translated into row numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.files import Column

__all__ = ["node_numbers"]


def node_numbers(
    file: Path,
    columns: tuple[Column, ...],
    names: list[str] | None,
    num_nodes: int,
    nodes_from: Path,
    *,
    refuse: bool = True,
) -> list[NDArray[Any]]:
    """Translate what a file calls its nodes into rows; refuse what is no node, with its place.

    Unless ``refuse``, what is no node becomes -1.
    """
    if names is None:
        numbers = [_whole_numbers(file, column, nodes_from) for column in columns]
        known = f"one of the {num_nodes:,} rows of {nodes_from.name} (ids count from 0)"
    else:
        rank = {name: k for k, name in enumerate(names)}
        numbers = [
            np.fromiter((rank.get(cell, -1) for cell in _ids(column, rank)), np.int64, len(column))
            for column in columns
        ]
        known = f"an id of {nodes_from.name}"
    if not refuse:
        return numbers
    bad = np.any([(column < 0) | (column >= num_nodes) for column in numbers], axis=0)
    if bad.any():
        row = int(bad.argmax())
        which = next(k for k, c in enumerate(numbers) if not 0 <= c[row] < num_nodes)
        cell = columns[which].text[row]
        fault = "is negative, not" if names is None and numbers[which][row] < 0 else "is not"
        raise InputError(
            f"{file}, {columns[which].place(row)}: node {cell} {fault} {known}; "
            f"rows with such nodes: {int(bad.sum()):,}"
        )
    return numbers


def _ids(column: Column, known: Collection[str]) -> Sequence[str]:
    """The cells; without the point of ``3.0``, as data frames with gaps write, if that is no id."""
    cells = column.text
    if not all(cell.endswith(".0") and cell[:-2].isdecimal() for cell in cells):
        return cells
    return [cell if cell in known else cell[:-2] for cell in cells]


def _whole_numbers(file: Path, column: Column, nodes_from: Path) -> NDArray[Any]:
    """Read row numbers; what is too large for one stays too large."""
    cells = column.cells
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iu":
        return cells.astype(np.int64)
    if not isinstance(cells, np.ndarray):
        try:
            return np.array(cells, dtype=np.int64)  # all of them at once, if they are plain
        except (TypeError, ValueError, OverflowError):
            pass
    numbers = np.empty(len(cells), dtype=np.int64)
    for k, cell in enumerate(column.text):
        try:
            number = int(cell)
        except ValueError:
            raise InputError(
                f"{file}, {column.place(k)}: {cell!r} is not a row number of {nodes_from.name}; "
                "to use names, give that file a column id"
            ) from None
        numbers[k] = min(max(number, -1), 2**62)
    return numbers
