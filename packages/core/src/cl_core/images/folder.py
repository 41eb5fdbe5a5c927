"""Images in a folder: a safe walk through links, and what the folders mean."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from cl_core.errors import InputError
from cl_core.images.opening import EXTENSIONS
from cl_core.images.split_names import SplitChoice, split_folders
from cl_core.images.table import ImageTable
from cl_core.tables.labels import class_names, encode_labels

__all__ = ["find_images", "read_folder"]

# fmt: off
_OTHER_PICTURES = frozenset({
    ".ai", ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".emf", ".eps", ".exr", ".heic",
    ".heif", ".ico", ".j2k", ".jp2", ".jpf", ".jpx", ".jxl", ".nef", ".orf", ".pcx", ".pdf",
    ".pfm", ".ps", ".psd", ".raf", ".rw2", ".svg", ".tga", ".webp", ".wmf",
})
# fmt: on
"""What a user may take for an image too; counted and told unless it is read."""


def read_folder(
    root: Path,
    labels: Literal["auto", "folder", "none"] = "auto",
    splits: SplitChoice = "auto",
) -> ImageTable:
    """List a folder; see :func:`cl_core.images.list_images`."""
    names, notes = find_images(root)
    if not names:
        told = f"; {'; '.join(notes)}" if notes else ""
        raise InputError(
            f"{root}: no image in this folder or below it (looked for "
            f"{' '.join(sorted(EXTENSIONS))}{told}); check the path"
        )
    decided = split_folders([name.split("/") for name in names], splits, str(root))
    sides = decided.splits or ("all",) * len(names)
    kept = [row for row, side in enumerate(sides) if side]
    names, sides = [names[row] for row in kept], tuple(sides[row] for row in kept)
    parts = [decided.within[row] for row in kept]
    flat = _flat_sides(root, names, parts, sides, labels)
    cells = ["" if labels == "none" or len(part) == 1 else part[0] for part in parts]
    classes = class_names(cells)
    if decided.splits is not None and classes:
        notes += [f"the images of {side} lie in no class folder: no labels" for side in flat]
    return ImageTable(
        source=str(root),
        root=str(root),
        files=tuple(os.path.join(root, name) for name in names),  # noqa: PTH118 - a million of them
        labels=encode_labels(cells, classes, source=str(root)),
        classes=classes,
        splits=None if decided.splits is None else sides,
        notes=(*notes, *decided.notes),
    )


def _flat_sides(
    root: Path,
    names: Sequence[str],
    parts: Sequence[Sequence[str]],
    sides: Sequence[str],
    labels: str,
) -> list[str]:
    """The splits without class folders; a split with some is refused, unless decided."""
    loose = Counter(side for side, part in zip(sides, parts, strict=True) if len(part) == 1)
    totals = Counter(sides)
    for side, count in loose.items():
        if labels == "auto" and count < totals[side]:
            rows = zip(names, parts, sides, strict=True)
            first = next(name for name, part, own in rows if len(part) == 1 and own == side)
            raise InputError(
                f"{root}: {count} images lie beside the class folders, such as {first}; move them "
                "into a class, or say labels=folder (they have none) or labels=none (nothing has)"
            )
    return sorted(side for side, count in loose.items() if count == totals[side])


def find_images(root: Path) -> tuple[list[str], list[str]]:
    """Find every image once, however the links under ``root`` run.

    Returns:
        Paths relative to ``root`` with forward slashes, sorted, and notes on what was left out.

    Raises:
        InputError: If a folder cannot be opened.
    """
    names: list[str] = []
    file_links: list[str] = []
    folder_links: list[str] = []
    folders, visited, broken = [""], set(), 0
    others: Counter[str] = Counter()
    while folders or folder_links:
        # What is real first: of two ways to a folder the one without links gives the class.
        folder = folders.pop() if folders else heapq.heappop(folder_links)
        place = _identity(root / folder)
        if place is None or place in visited:
            continue
        visited.add(place)
        for entry in _entries(root / folder):
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                is_folder = entry.is_dir()
                is_file = entry.is_file()
            except OSError:  # a link to itself
                is_folder = is_file = False
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
            is_image = suffix in EXTENSIONS
            if is_folder and entry.is_symlink():
                heapq.heappush(folder_links, name)
            elif is_folder:
                folders.append(name)
            elif is_file and is_image:
                (file_links if entry.is_symlink() else names).append(name)
            elif entry.is_symlink() and is_image:
                broken += 1
            elif is_file and suffix in _OTHER_PICTURES:
                others[suffix] += 1
    repeated = 0
    if file_links:
        known = {_identity(root / name) for name in names}
        for name in sorted(file_links):
            place = _identity(root / name)
            if place in known:
                repeated += 1
            else:
                known.add(place)
                names.append(name)
    notes = [f"{broken} broken links to images left out"] if broken else []
    notes += [f"{repeated} links to images already listed left out"] if repeated else []
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        notes.append(f"files of formats that are not read left out: {kinds}")
    return sorted(names), notes


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (e for e in entries if not e.name.startswith((".", "__MACOSX")))
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be opened ({error.strerror}); check its permissions"
        ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
