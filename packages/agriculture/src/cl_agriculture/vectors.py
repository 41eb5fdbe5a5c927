"""Vectors to group: of an encoder, or of any origin from a file or in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.errors import InputError
from cl_core.tables.arrays import read_array
from cl_core.tables.files import TABLE_SUFFIXES, read_table
from cl_core.tables.labels import class_names, encode_labels

__all__ = ["Vectors", "read_vectors"]

_NUMBERED = re.compile(r"[A-Za-z_]*\d+")


@dataclass(frozen=True, eq=False)
class Vectors:
    """One vector a row, and what is known of the rows.

    Attributes:
        x: ``(n, d)``, on the CPU.
        names: What rows are called.
        labels: Weak label of each, -1 for none.
        classes: Their names.
        splits: Filed under; ``None`` without splits.
        notes: On where they come from.
    """

    x: Float[Tensor, "n d"]
    names: list[str]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...] = ()
    splits: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def class_names(self) -> list[str | None]:
        """Name of each row's weak label."""
        return [self.classes[k] if k >= 0 else None for k in self.labels.tolist()]

    def split(self) -> tuple[Int64[np.ndarray, " a"], Int64[np.ndarray, " b"]]:
        """The rows to fit to, and those to measure on; without splits all and none.

        Raises:
            InputError: If there are splits but no ``train``.
        """
        if self.splits is None:
            return np.arange(len(self.names)), np.zeros(0, dtype=np.int64)
        filed = np.array(self.splits)
        train = np.flatnonzero(filed == "train")
        if not len(train):
            raise InputError(
                f"no row is of split 'train' (the splits are {', '.join(sorted(set(self.splits)))})"
            )
        test = np.flatnonzero(filed == ("test" if "test" in self.splits else "val"))
        return train, test

    def require_finite(self) -> None:
        """Refuse rows that hold NaN or infinity.

        Raises:
            InputError: Naming the first.
        """
        bad = ~torch.isfinite(self.x).all(dim=1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise InputError(
                f"{int(bad.sum())} of {len(self.x)} vectors hold values that are not finite, first "
                f"{self.names[first]}: leave those rows out"
            )


def read_vectors(source: Any) -> Vectors:
    """Read vectors.

    Args:
        source: An array ``(n, d)`` in memory; a ``.npy`` file, beside which ``files.txt`` names the
            rows if it is there; or a table with columns that end in a number (``e0``, ``e1``, ...)
            and, as far as known, ``file``, ``label`` and ``split``.

    Raises:
        InputError: If the file cannot be read, or holds no such vectors.
    """
    if not isinstance(source, str):
        array = np.asarray(source.detach().cpu() if isinstance(source, Tensor) else source)
        return _plain(array, None, "vectors in memory")
    path = Path(source)
    if path.suffix.lower() == ".npy":
        beside = path.with_name("files.txt")
        names = beside.read_text("utf-8").splitlines() if beside.is_file() else None
        return _plain(read_array(path), names, str(path))
    if not path.name.lower().endswith(TABLE_SUFFIXES):
        raise InputError(
            f"--vectors {path}: give a .npy file or a table ({', '.join(TABLE_SUFFIXES)})"
        )
    table = read_table(path, known=("file", "label", "split"))
    if table.names is None:
        raise InputError(f"--vectors {path}: a table of vectors needs a header: file, e0, e1, ...")
    numbered = [k for k, name in enumerate(table.names) if _NUMBERED.fullmatch(name)]
    if not numbered:
        raise InputError(f"--vectors {path}: no column ends in a number, as e0, e1, ... do")
    x = np.empty((len(table), len(numbered)), dtype=np.float32)
    for place, k in enumerate(numbered):
        cells = table.columns[k].cells
        try:
            x[:, place] = np.asarray(cells, dtype=np.float32)
        except ValueError as error:
            raise InputError(
                f"--vectors {path}: column {table.names[k]} holds text: {error}"
            ) from error
    named = table.column("file", "image", "id", "name")
    labelled, filed = table.column("label"), table.column("split")
    cells = [] if labelled is None else labelled.text
    classes = class_names(cells)
    labels = encode_labels(cells, classes, source=str(path)) if cells else np.full(len(x), -1)
    return Vectors(
        torch.from_numpy(x),
        [str(row) for row in range(len(x))] if named is None else named.text,
        labels,
        classes,
        None if filed is None else filed.text,
        [f"{path}: {len(x):,} vectors of {x.shape[1]} numbers"],
    )


def _plain(array: np.ndarray, names: list[str] | None, source: str) -> Vectors:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise InputError(
            f"--vectors {source}: need numbers of shape (rows, columns), got {array.dtype} of "
            f"shape {array.shape}"
        )
    n = len(array)
    if names is not None and len(names) != n:
        raise InputError(f"--vectors {source}: files.txt beside it names {len(names)} rows of {n}")
    x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    return Vectors(
        x,
        names or [str(row) for row in range(n)],
        np.full(n, -1, dtype=np.int64),
        notes=[f"{source}: {n:,} vectors of {x.shape[1]} numbers"],
    )
