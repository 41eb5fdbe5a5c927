"""What is known of a set of images before any is decoded: files, labels, groups, splits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.labels import UNLABELLED, class_names, encode_labels

__all__ = ["UNLABELLED", "ImageTable", "class_names", "encode_labels"]


@dataclass(frozen=True, eq=False)
class ImageTable:
    """A row per image; what :func:`cl_core.images.list_images` returns.

    Attributes:
        source: The folder or manifest it was read from, for messages.
        root: Folder that :meth:`name` is relative to.
        files: Path of each image.
        labels: Class number of each image, int64, -1 for none.
        classes: Names of the classes.
        groups: Patient, field or other unit of each image that a split must not tear apart;
            an empty name means a group of its own. ``None`` if none are known.
        splits: The split each image was filed under, or ``None``.
        notes: What was dropped or decided while listing, a sentence each.
        columns: Every column of a manifest but that of the images, by its own name: patient, site,
            date, mask, ...; the cells as they stand there, without blanks around them.
    """

    source: str
    root: str
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {"labels": self.labels, "groups": self.groups, "splits": self.splits}
        for name, cells in {**given, **self.columns}.items():
            if cells is not None and len(cells) != len(self.files):
                raise ValueError(f"{len(self.files)} images, but {len(cells)} cells of '{name}'")

    def __len__(self) -> int:
        return len(self.files)

    def name(self, row: int) -> str:
        """The path of an image relative to ``root``, with forward slashes."""
        try:
            name = os.path.relpath(self.files[row], self.root)
        except ValueError:  # on another drive
            name = self.files[row]
        return name.replace(os.sep, "/")

    def select(self, rows: Iterable[int] | NDArray[np.int64]) -> ImageTable:
        """The table of the given rows, in the given order; classes keep their numbers."""
        kept = [int(row) for row in rows]
        return replace(
            self,
            files=tuple(self.files[row] for row in kept),
            labels=self.labels[np.asarray(kept, dtype=np.int64)],
            groups=None if self.groups is None else tuple(self.groups[row] for row in kept),
            splits=None if self.splits is None else tuple(self.splits[row] for row in kept),
            columns={
                name: tuple(cells[row] for row in kept) for name, cells in self.columns.items()
            },
        )

    def column(self, name: str) -> tuple[str, ...]:
        """The cells of a named column, a row each; capitals do not count.

        Raises:
            InputError: If there is no such column, naming those there are.
        """
        for own in (name, *(own for own in self.columns if own.lower() == name.lower())):
            if own in self.columns:
                return self.columns[own]
        present = f"the columns are {', '.join(self.columns)}" if self.columns else "it has none"
        raise InputError(
            f"{self.source}: no column '{name}' ({present}); name another, or give a manifest "
            "that has it"
        )

    def with_column(self, name: str, cells: Sequence[str]) -> ImageTable:
        """The same images with a further column, or another in place of that of this name.

        Raises:
            ValueError: If there is not a cell for each image.
        """
        return replace(self, columns={**self.columns, name: tuple(cells)})

    def noting(self, notes: Iterable[str]) -> ImageTable:
        """The same table with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def of_split(self, split: str) -> ImageTable:
        """The table of one split; see :meth:`rows_of`."""
        return self.select(self.rows_of(split))

    def rows_of(self, split: str) -> list[int]:
        """Where the images of one split stand.

        Raises:
            InputError: If there is no such split, naming those there are.
        """
        known = sorted(set(self.splits or ()))
        if self.splits is None or split not in known:
            present = f"the splits are {', '.join(known)}" if known else "it has no splits"
            raise InputError(
                f"{self.source}: no image in split '{split}' ({present}); "
                "name another, or give a manifest with a column 'split'"
            )
        return [row for row, name in enumerate(self.splits) if name == split]

    def with_classes(self, classes: Sequence[str]) -> ImageTable:
        """The same images with the class numbers of a model.

        Raises:
            InputError: If an image has a label that is not among ``classes``.
        """
        names = [self.classes[k] if k >= 0 else "" for k in self.labels]
        labels = encode_labels(names, classes, source=self.source)
        return replace(self, labels=labels, classes=tuple(classes))

    def require_classes(self, count: int = 2) -> None:
        """Refuse a table with images of fewer than ``count`` classes.

        Raises:
            InputError: Naming the classes there are.
        """
        present = [self.classes[k] for k in np.unique(self.labels) if k >= 0]
        if len(present) < count:
            found = ", ".join(present) if present else "no label at all"
            raise InputError(
                f"{self.source}: needs images of at least {count} classes, found {found}; "
                "use a folder per class or a manifest with a column 'label'"
            )
