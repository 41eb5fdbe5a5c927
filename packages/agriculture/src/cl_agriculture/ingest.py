"""A first look at images: what can be read, what occurs twice, how labels are spelled, a split."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cl_core.errors import InputError
from cl_core.images import ImageTable, UnreadableImageError, read_images, split_by_group
from cl_core.runs import Run, write_atomic
from cl_core.tables.labels import class_names, encode_labels

__all__ = [
    "Twins",
    "Unreadable",
    "find_twins",
    "label_counts",
    "lone_classes",
    "settle_twins",
    "split_table",
    "unify_spellings",
    "write_manifest",
]

MERGE = "cl-agriculture prepare --spellings merge"

Unreadable = list[tuple[str, str]]
"""File and reason of each."""


@dataclass(frozen=True)
class Twins:
    """Files with the same pixels.

    Attributes:
        rows: Of the table, the first by name first.
        labels: The different weak labels among them.
    """

    rows: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def conflict(self) -> bool:
        """Whether they are labelled differently."""
        return len(self.labels) > 1


def find_twins(table: ImageTable, *, threads: int = 2) -> tuple[list[Twins], Unreadable]:
    """Decode every image once, and compare all pixels.

    Args:
        table: The images.
        threads: Images decoded at a time.

    Returns:
        Every set of two files or more that show the same, and the files that cannot be read.
    """
    same: dict[bytes, list[int]] = defaultdict(list)
    unreadable: Unreadable = []
    for row, image in enumerate(read_images(table.files, channels=3, threads=threads)):
        if isinstance(image, UnreadableImageError):
            unreadable.append((table.name(row), image.reason))
            continue
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        digest = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.data, digest_size=16)
        same[digest.digest()].append(row)
    twins = []
    for rows in same.values():
        if len(rows) > 1:
            ordered = tuple(sorted(rows, key=table.name))
            known = {table.classes[k] for k in table.labels[list(rows)].tolist() if k >= 0}
            twins.append(Twins(ordered, tuple(sorted(known))))
    return twins, unreadable


def unify_spellings(
    table: ImageTable, action: Literal["tell", "merge"]
) -> tuple[ImageTable, list[str]]:
    """Find labels that differ in case, blanks, hyphens or underscores alone.

    Args:
        table: The images.
        action: ``tell`` changes nothing; ``merge`` gives all of them the most frequent spelling.

    Returns:
        The table, and a line for each label with several spellings.
    """
    counts = Counter(table.classes[k] for k in table.labels.tolist() if k >= 0)
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(counts):
        alike[_plain_spelling(name)].append(name)
    several = [names for names in alike.values() if len(names) > 1]
    lines = []
    spelled: dict[str, str] = {}
    for names in several:
        best = max(names, key=lambda name: counts[name])
        spelled |= dict.fromkeys(names, best)
        told = ", ".join(f"'{name}' ({counts[name]})" for name in names)
        done = f"merged into '{best}'" if action == "merge" else f"merge them by {MERGE}"
        lines.append(f"labels {told} differ in spelling alone: {done}")
    if action == "tell" or not several:
        return table, lines
    names_of = ["" if k < 0 else table.classes[k] for k in table.labels.tolist()]
    cells = [spelled.get(name, name) for name in names_of]
    classes = class_names(cells)
    labels = encode_labels(cells, classes, source=table.source)
    return replace(table, labels=labels, classes=classes), lines


def settle_twins(
    table: ImageTable,
    twins: Sequence[Twins],
    *,
    duplicates: Literal["drop", "keep"],
    conflicts: Literal["unlabel", "keep", "stop"],
) -> tuple[ImageTable, list[str]]:
    """Decide about files with the same pixels.

    Args:
        table: The images.
        twins: Of :func:`find_twins`.
        duplicates: ``drop`` keeps the first of each set; ``keep`` keeps all, in one group.
        conflicts: What becomes of the label where they differ.

    Returns:
        The table, and what was done.

    Raises:
        InputError: If labels differ and ``conflicts`` is ``stop``.
    """
    lines: list[str] = []
    labels = table.labels.copy()
    groups = list(table.groups) if table.groups is not None else [""] * len(table)
    dropped: set[int] = set()
    differing = [one for one in twins if one.conflict]
    if differing and conflicts == "stop":
        first, second = (table.name(row) for row in differing[0].rows[:2])
        raise InputError(
            f"{table.source}: {len(differing)} sets of files show the same and have different "
            f"labels, first {first} and {second} ({' and '.join(differing[0].labels)}): correct "
            "one, or say --conflicts unlabel"
        )
    for number, one in enumerate(twins, start=1):
        first, *others = one.rows
        if one.conflict:
            if conflicts == "unlabel":
                labels[list(one.rows)] = -1
        elif one.labels:
            labels[list(one.rows)] = table.classes.index(one.labels[0])
        if duplicates == "drop":
            dropped |= set(others)
        else:
            own = next((groups[row] for row in one.rows if groups[row]), f"same pixels {number}")
            for row in one.rows:
                groups[row] = groups[row] or own
    if twins:
        copies = sum(len(one.rows) - 1 for one in twins)
        done = "left out" if duplicates == "drop" else "kept, in one group each"
        lines.append(f"{copies} files repeat the pixels of another: {done}")
    if differing:
        done = {"unlabel": "left without a label", "keep": "kept the first one's label"}[conflicts]
        lines.append(f"{len(differing)} sets of such files have different labels: {done}")
    if any(groups):
        table = replace(table, groups=tuple(groups))
    table = replace(table, labels=labels)
    return table.select(row for row in range(len(table)) if row not in dropped), lines


def split_table(table: ImageTable, test_share: float, *, seed: int) -> tuple[ImageTable, list[str]]:
    """Split by class without tearing groups apart; a split that is there stays.

    Args:
        table: The images.
        test_share: Of the images; 0 makes no split.
        seed: Of the split.

    Returns:
        The table with splits, and lines on them.
    """
    if table.splits is not None or not test_share:
        return table, []
    shares = {"train": 1 - test_share, "test": test_share}
    # Of a class with one image one side has to go without.
    splits = split_by_group(
        table.labels,
        table.groups,
        shares,
        seed=seed,
        allow_missing=True,
        classes=table.classes,
    )
    counts = Counter(splits)
    lines = [f"split: {counts['train']:,} to train, {counts['test']:,} to test"]
    return replace(table, splits=splits), lines


def lone_classes(table: ImageTable) -> list[str]:
    """A line if labels have one image only, which no other image can be pulled to."""
    counts = Counter(table.labels[table.labels >= 0].tolist())
    lone = [table.classes[k] for k, count in sorted(counts.items()) if count == 1]
    if not lone:
        return []
    shown = ", ".join(f"'{name}'" for name in lone[:5]) + (", ..." if len(lone) > 5 else "")
    return [f"{len(lone)} labels have a single image: {shown}"]


def write_manifest(run: Run, name: str, table: ImageTable) -> None:
    """Write a table that `list_images` reads: image, label, group, split, and the other columns.

    Paths of images, and of a column that names files, are relative to the manifest's folder.
    """
    path = run.output(name)
    columns: dict[str, Sequence[str]] = {
        "image": [_relative(file, path.parent) for file in table.files],
        "label": ["" if k < 0 else table.classes[k] for k in table.labels.tolist()],
    }
    if table.groups is not None:
        columns["group"] = table.groups
    if table.splits is not None:
        columns["split"] = table.splits
    columns |= {
        name: _moved(cells, table.root, path.parent)
        for name, cells in table.columns.items()
        if name.lower() not in ("image", "label", "group", "split")
    }
    with write_atomic(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def label_counts(table: ImageTable) -> list[dict[str, object]]:
    """A row a weak label: its images by split."""
    splits: Mapping[str, int] | tuple[()] = Counter(table.splits or ())
    names = [*table.classes, "(none)"]
    rows = []
    for k, name in [*enumerate(table.classes), (-1, names[-1])]:
        of_class = np.flatnonzero(table.labels == k)
        if not len(of_class):
            continue
        row: dict[str, object] = {"label": name, "images": len(of_class)}
        if table.splits is not None:
            own = Counter(table.splits[i] for i in of_class.tolist())
            row |= {split: own.get(split, 0) for split in sorted(splits)}
        rows.append(row)
    return rows


def _plain_spelling(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name.casefold()).strip()


def _relative(file: str, folder: Path) -> str:
    try:
        return os.path.relpath(file, folder).replace(os.sep, "/")
    except ValueError:  # on another drive
        return file


def _moved(cells: Sequence[str], root: str, folder: Path) -> Sequence[str]:
    """The cells of a column, relative to another folder if they name files."""
    first = next((cell for cell in cells if cell), "")
    if not first or not Path(root, first).is_file():
        return cells
    return [_relative(str(Path(root, cell)), folder) if cell else "" for cell in cells]
