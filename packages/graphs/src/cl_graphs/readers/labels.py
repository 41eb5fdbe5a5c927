"""Labels and published splits, brought into the order of the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_core.errors import InputError
from cl_core.tables import labels as label_rule
from cl_core.tables.files import Column
from cl_core.tables.ids import counts_rows
from cl_core.tables.labels import class_names
from cl_graphs.readers.node_names import node_numbers
from cl_graphs.readers.tables import LabelTable

__all__ = ["SPLIT_WORDS", "encode_labels", "placed_labels"]

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""How files call the parts of a published split, in any case."""


def encode_labels(cells: Sequence[str]) -> tuple[NDArray[Any], list[str]]:
    """Number the classes by the rule of `cl_core.tables.labels`.

    Args:
        cells: A label per node.

    Returns:
        Class per node, int64, -1 for none, and the names of the classes.

    Example:
        >>> y, classes = encode_labels(["pear", "", "apple", "pear"])
        >>> y.tolist(), classes
        ([1, -1, 0, 1], ['apple', 'pear'])
    """
    names = class_names(cells)
    return label_rule.encode_labels(cells, names), list(names)


def array_labels(
    name: str, y: NDArray[Any], known: Sequence[str] = ()
) -> tuple[NDArray[Any], list[str], list[str]]:
    """Number the labels in an array.

    Args:
        name: Where they come from, for messages.
        y: Whole numbers or text ``(n,)``, with NaN or a negative number for none; or 0, 1 and NaN
            ``(n, tasks)``, where a single 1 in every row is a class.
        known: Names of classes that whole numbers count.

    Returns:
        Class per node, -1 for none, or columns of 0, 1 and -1; the names of the classes, none for
        tasks; and what is to be told.

    Raises:
        InputError: If it is something else.
    """
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if _is_indicator(y):
        missing = np.isnan(y.astype(np.float64))
        if not missing.any() and (y.sum(axis=1) == 1).all():
            names = known if len(known) == y.shape[1] else range(y.shape[1])
            told = [f"labels: one-hot columns, {y.shape[1]} classes"]
            return y.argmax(axis=1).astype(np.int64), [str(k) for k in names], told
        return np.where(missing, -1, y).astype(np.int64), [], []
    if y.ndim != 1 or y.dtype.kind not in "iubUf":
        raise InputError(
            f"{name} is {y.dtype} of shape {y.shape}; labels are one row of whole numbers or text, "
            "or columns of 0 and 1"
        )
    if y.dtype.kind == "f":
        finite = y[np.isfinite(y)]
        fractions = finite[finite != np.floor(finite)]
        if len(fractions):
            raise InputError(
                f"{name} holds the fraction {fractions[0]}; labels are whole numbers or text"
            )
    if known and y.dtype.kind in "iub" and y.max(initial=-1) < len(known):
        return np.maximum(y.astype(np.int64), -1), list(known), []
    return *encode_labels(Column(y, range(len(y))).text), []


def _is_indicator(y: NDArray[Any]) -> bool:
    """Whether an array says by 0, 1 and NaN, a column a task, what each row has."""
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "iubf":
        return False
    return bool((np.isin(y, (0, 1)) | (y != y)).all())


def placed_labels(
    path: Path,
    table: LabelTable,
    names: list[str] | None,
    num_nodes: int,
    nodes_from: Path,
    only_known: bool,
) -> tuple[NDArray[Any], list[str], dict[str, Tensor], list[str]]:
    """Bring labels and split into row order, and tell what was left out.

    Args:
        path: The file of the labels.
        table: Its content.
        names: What the files call each row; None if its number.
        num_nodes: Rows.
        nodes_from: Where the rows come from, for messages.
        only_known: Refuse the label of what is no node; otherwise it is left out.

    Returns:
        Class per node, -1 for none, or columns of 0, 1 and -1; the names of the classes; the
        published split; and what is to be told, a line each.

    Raises:
        InputError: If a label belongs to no node, or two to one, or there are too few.
    """
    labels, count = table.labels, len(table.labels)
    told: list[str] = []
    kept = np.arange(count)
    if table.owners is None:
        if count != num_nodes:
            raise InputError(
                f"{path} has {count:,} labels, {nodes_from.name} has {num_nodes:,} nodes; "
                "give a label per node in the same order under no header or 'label', "
                "or columns id and label"
            )
        rows = kept
    else:
        (rows,) = node_numbers(
            path, (table.owners,), names, num_nodes, nodes_from, refuse=only_known
        )
        kept = np.flatnonzero(rows >= 0)
        _refuse_foreign(path, table.owners, names, nodes_from, len(kept))
        if len(kept) < len(rows):
            told.append(
                f"labels of {len(rows) - len(kept):,} nodes without an edge are not used: those "
                "are no nodes here"
            )
        rows = rows[kept]
        _refuse_twice(path, table.owners, rows, kept)
    if isinstance(labels, np.ndarray):
        y, classes, notes = array_labels(str(path), labels)
        return y, classes, {}, [*told, *notes]
    placed = [""] * num_nodes
    cells = labels.text
    for row, k in zip(rows.tolist(), kept.tolist(), strict=True):
        placed[row] = cells[k]
    splits: Mapping[str, Tensor] = {}
    if table.splits is not None:
        splits, more = _split_of(path, [table.splits.text[k] for k in kept], rows)
        told += more
    y, classes = encode_labels(placed)
    return y, classes, dict(splits), told


def _refuse_foreign(
    path: Path, owners: Column, names: list[str] | None, nodes_from: Path, found: int
) -> None:
    """Refuse owners of which none is a node, or that count from 1 where nodes count from 0."""
    if not found:
        raise InputError(
            f"{path}: none of its {len(owners):,} owners, such as {owners.text[0]!r}, is a node of "
            f"{nodes_from.name}"
        )
    shifted = found == len(owners) - 1 and (names is None or len(names) == len(owners))
    if shifted and (names is None or "0" in names) and counts_rows(owners.text, 1):
        raise InputError(
            f"{path}: its owners count from 1 and the nodes of {nodes_from.name} from 0; write the "
            "nodes' own ids, or leave the column out"
        )


def _refuse_twice(path: Path, owners: Column, rows: NDArray[Any], kept: NDArray[Any]) -> None:
    _, first = np.unique(rows, return_index=True)
    if len(first) < len(rows):
        again = int(kept[np.setdiff1d(np.arange(len(rows)), first)[0]])
        raise InputError(
            f"{path}, {owners.place(again)}: node {owners.text[again]} has a label already"
        )


def _split_of(
    path: Path, cells: Sequence[str], rows: NDArray[Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """Read a column of the words train, val and test; blank is none of them."""
    part_of = {word: part for part, words in SPLIT_WORDS.items() for word in words}
    strange = {cell for cell in cells if cell and cell.lower() not in part_of}
    if strange:
        return {}, [
            f"not used of {path.name}: column split, which holds {min(strange)!r} where train, "
            "val or test is read"
        ]
    parts: dict[str, list[int]] = {}
    for cell, row in zip(cells, rows.tolist(), strict=True):
        if cell:
            parts.setdefault(part_of[cell.lower()], []).append(row)
    return {part: torch.tensor(sorted(nodes)) for part, nodes in parts.items()}, []
