"""Splits that never tear a group apart, with every class on every side."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.images.decode import decode_images
from cl_core.images.decoding import Channels, Decoding
from cl_core.images.opening import UnreadableImageError
from cl_core.images.table import ImageTable
from cl_core.runs import write_atomic

__all__ = [
    "fold_by_group",
    "rare_classes",
    "refuse_shared_groups",
    "refuse_shared_pixels",
    "split_by_group",
    "write_splits",
]


def split_by_group(
    labels: Sequence[int] | NDArray[np.int64],
    groups: Sequence[str] | None,
    fractions: Mapping[str, float],
    *,
    seed: int,
    allow_missing: bool = False,
    rare: Literal["refuse", "first"] = "refuse",
    classes: Sequence[str] = (),
) -> tuple[str, ...]:
    """Deal whole groups to splits so that each class is spread by ``fractions``.

    Groups are shuffled by ``seed`` and ordered by the rarest class they hold (most images first
    within a class); each goes to the split that is furthest below its target count of that class.
    A class that is about to run out of groups goes first to the splits that have none of it.

    Args:
        labels: Class per image. Images of no class (-1) are spread like a class of their own.
        groups: Patient, field, ... per image; empty means a group of its own, as does ``None``.
        fractions: Share of the images per split, such as ``{"train": .8, "val": .1, "test": .1}``;
            they sum to 1.
        seed: Any integer; the same gives the same split.
        allow_missing: Accept splits that lack a class.
        rare: What to do about classes of fewer groups than there are splits: ``refuse``, or give
            all their groups to the ``first`` split; :func:`rare_classes` tells which these are.
        classes: Names of the classes, for the error.

    Returns:
        The split of each image.

    Raises:
        ValueError: If lengths differ or the fractions are not positive with sum 1.
        InputError: If a class has fewer groups than there are splits, or ends up missing in one.
    """
    y = np.asarray(labels, dtype=np.int64)
    if groups is not None and len(groups) != len(y):
        raise ValueError(f"one group per image: got {len(groups)} groups, {len(y)} labels")
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and sum to 1, got {dict(fractions)}")
    names = list(fractions)
    counts = _count(y, groups)
    order = _deal_order(counts, np.random.default_rng(seed))
    totals: Counter[int] = Counter(y.tolist())
    left = Counter(label for group in counts.values() for label in group)  # groups, not images
    few = {label for label, n in left.items() if label >= 0 and n < len(names)}
    if few and rare == "refuse" and not allow_missing:
        raise _too_few(few, left, len(names), classes)
    # below[s][c]: images of class c that split s still lacks
    below = {name: {c: share * n for c, n in totals.items()} for name, share in fractions.items()}
    held: dict[str, set[int]] = {name: set() for name in names}
    chosen: dict[str | int, str] = {}
    for group in order:
        own = sorted(counts[group], key=lambda label: (totals[label], label))
        open_names = names[:1] if rare == "first" and few & set(own) else names
        for label in own if len(open_names) > 1 else ():
            without = [name for name in names if label not in held[name]]
            if without and label >= 0 and left[label] <= len(without):
                open_names = without
                break
        best = max(open_names, key=lambda name: below[name][own[0]])  # ties: first named
        chosen[group] = best
        held[best].update(own)
        for label, count in counts[group].items():
            below[best][label] -= count
            left[label] -= 1
    if not allow_missing:
        for name in names:
            lost = sorted(c for c in totals if c >= 0 and c not in held[name] | few)
            if lost:
                raise InputError(
                    f"split '{name}' has no image of class {_name(lost[0], classes)}, whose groups "
                    "also hold rarer classes; use another seed, fewer splits, or allow it"
                )
    keys = _keys(len(y), groups)
    return tuple(chosen[key] for key in keys)


def rare_classes(
    labels: Sequence[int] | NDArray[np.int64], groups: Sequence[str] | None, splits: int
) -> dict[int, int]:
    """The classes of fewer groups than ``splits``, with their number of groups.

    Args:
        labels: Class per image, -1 for none.
        groups: As of :func:`split_by_group`.
        splits: How many.
    """
    counts = _count(np.asarray(labels, dtype=np.int64), groups)
    held = Counter(label for group in counts.values() for label in group)
    return {label: n for label, n in sorted(held.items()) if label >= 0 and n < splits}


def fold_by_group(
    labels: Sequence[int] | NDArray[np.int64],
    groups: Sequence[str] | None,
    folds: int,
    *,
    seed: int,
    allow_missing: bool = False,
    classes: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Number each image's fold, 0 to ``folds - 1``, by the rule of :func:`split_by_group`."""
    if folds < 2:
        raise ValueError(f"cross-validation needs at least 2 folds, got {folds}")
    fractions = {str(fold): 1 / folds for fold in range(folds)}
    splits = split_by_group(
        labels, groups, fractions, seed=seed, allow_missing=allow_missing, classes=classes
    )
    return np.array([int(split) for split in splits], dtype=np.int64)


def refuse_shared_groups(table: ImageTable) -> None:
    """Check splits that came with the data.

    Raises:
        InputError: If a group lies in two splits, naming the first such.
    """
    if table.groups is None or table.splits is None:
        return
    sides = defaultdict(set)
    for group, split in zip(table.groups, table.splits, strict=True):
        if group:
            sides[group].add(split)
    torn = sorted(group for group, splits in sides.items() if len(splits) > 1)
    if torn:
        raise InputError(
            f"{table.source}: {len(torn)} groups lie in more than one split, first '{torn[0]}' in "
            f"{' and '.join(sorted(sides[torn[0]]))}; split anew by group"
        )


def refuse_shared_pixels(table: ImageTable, *, channels: Channels = 3, threads: int = 2) -> None:
    """Decode all images and look for equal ones, under whatever name, in different splits.

    Raises:
        InputError: If there are, naming the first pair. Unreadable images are passed over.
    """
    seen: dict[bytes, int] = {}
    shared = []
    decoding = Decoding(channels=channels, value_range="keep")
    for row, image in enumerate(decode_images(table.files, decoding, threads=threads)):
        if isinstance(image, UnreadableImageError):
            continue
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        digest = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.data, digest_size=16).digest()
        first = seen.setdefault(digest, row)
        if table.splits is not None and table.splits[first] != table.splits[row]:
            shared.append((first, row))
    if shared and table.splits is not None:
        one, other = shared[0]
        raise InputError(
            f"{table.source}: {len(shared)} images repeat one of another split pixel by pixel, "
            f"first {table.name(one)} ({table.splits[one]}) and {table.name(other)} "
            f"({table.splits[other]}); give both the same group and split anew"
        )


def write_splits(path: Path | str, table: ImageTable, splits: Sequence[str], *, seed: int) -> None:
    """Save a split as a manifest (image, label, group, split, seed) that ``list_images`` reads.

    The table's further columns follow. Paths of images, and of a column that names files, are
    relative to the manifest's folder.
    """
    path = Path(path)
    head = ("image", "label", "group", "split", "seed")
    further = {
        name: _moved(cells, table.root, path.parent)
        for name, cells in table.columns.items()
        if name.lower() not in head
    }
    with write_atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*head, *further])
        for row, (name, split) in enumerate(zip(table.files, splits, strict=True)):
            label = table.classes[table.labels[row]] if table.labels[row] >= 0 else ""
            group = table.groups[row] if table.groups is not None else ""
            own = (_relative(name, path.parent), label, group, split, seed)
            writer.writerow([*own, *(cells[row] for cells in further.values())])


def _moved(cells: Sequence[str], root: str, folder: Path) -> Sequence[str]:
    """The cells of a column, relative to another folder if they name files."""
    first = next((cell for cell in cells if cell), "")
    if not first or not Path(root, first).is_file():
        return cells
    return [_relative(str(Path(root, cell)), folder) if cell else "" for cell in cells]


def _relative(file: str, folder: Path) -> str:
    try:
        return os.path.relpath(file, folder).replace(os.sep, "/")
    except ValueError:  # on another drive
        return file


def _keys(n: int, groups: Sequence[str] | None) -> list[str | int]:
    """A key per image: its group's name, or its own row number."""
    return [groups[row] if groups is not None and groups[row] else row for row in range(n)]


def _count(y: NDArray[np.int64], groups: Sequence[str] | None) -> dict[str | int, Counter[int]]:
    """Images of each class in each group."""
    counts: dict[str | int, Counter[int]] = defaultdict(Counter)
    for key, label in zip(_keys(len(y), groups), y.tolist(), strict=True):
        counts[key][label] += 1
    return counts


def _deal_order(
    counts: Mapping[str | int, Counter[int]], generator: np.random.Generator
) -> list[str | int]:
    groups = list(counts)
    generator.shuffle(groups)
    totals: Counter[int] = Counter()
    for count in counts.values():
        totals.update(count)

    def rank(group: str | int) -> tuple[int, int, int]:
        rarest = min(counts[group], key=lambda label: (totals[label], label))
        return totals[rarest], rarest, -counts[group].total()

    return sorted(groups, key=rank)  # stable: equals stay shuffled


def _too_few(
    few: Iterable[int], groups: Mapping[int, int], splits: int, classes: Sequence[str]
) -> InputError:
    short = sorted(few)
    told = ", ".join(f"{_name(label, classes)} ({groups[label]})" for label in short[:5])
    return InputError(
        f"{len(short)} classes have fewer groups than the {splits} splits: {told}; gather more "
        "groups, merge classes, or use fewer splits"
    )


def _name(label: int, classes: Sequence[str]) -> str:
    return f"'{classes[label]}'" if label < len(classes) else str(label)
