"""What folders and cells are called that file images under a split, and what else may be meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from cl_core.errors import InputError

__all__ = ["FoldersSplit", "SplitChoice", "split_folders", "split_name"]

SplitChoice = Literal["auto", "folder", "none"]

_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_name(name: str) -> str | None:
    """``train``, ``val`` or ``test``, if ``name`` means one of them, in any case.

    Example:
        >>> split_name("Training"), split_name("dev"), split_name("rye")
        ('train', 'val', None)
    """
    return _NAMES.get(name.strip().lower())


class FoldersSplit(NamedTuple):
    """What the first folders mean.

    Attributes:
        splits: Of each image, ``None`` if the folders are no splits; an empty one means left out.
        within: The parts of each path below its split.
        notes: What was decided.
    """

    splits: tuple[str, ...] | None
    within: list[list[str]]
    notes: list[str]


def split_folders(parts: list[list[str]], choice: SplitChoice, source: str) -> FoldersSplit:
    """Tell whether the first folders are splits.

    - All are called like splits: they are.
    - Some are called ``val`` or ``test``, none ``train``, and at least two folders are not called
      like splits: these are the classes to train on.
    - Otherwise folders called like splits beside others are refused under ``auto``: a class may be
      called so. ``folder`` takes them as splits; the others are the classes to train on, or are
      left out if there is a ``train``. ``none`` takes every folder as a class.

    Args:
        parts: The path of each image, part by part.
        choice: Of the user.
        source: The folder, for messages.

    Raises:
        InputError: Naming the folders and the choices.
    """
    tops = Counter(part[0] if len(part) > 1 else "" for part in parts)
    named = {top: split for top in tops if (split := split_name(top))}
    others = [top for top in tops if top not in named]
    if choice == "none" or not named:
        return FoldersSplit(None, parts, [])
    has_train = "train" in named.values()
    if others and choice == "auto" and (has_train or len([top for top in others if top]) < 2):
        rest = "left out" if has_train else "to train on"
        raise InputError(
            f"{source}: {_listed(named)} are called like splits, but images lie in "
            f"{_listed(others)} too; say splits=folder (they are, and the others are {rest}) or "
            "splits=none (every folder is a class)"
        )
    own = "" if has_train else "train"
    splits = tuple(named.get(part[0], own) if len(part) > 1 else own for part in parts)
    within = [part[1:] if len(part) > 1 and part[0] in named else part for part in parts]
    notes = []
    if others:
        count = sum(tops[top] for top in others)
        what = "left out" if has_train else "taken to train on"
        notes.append(
            f"{_listed(named)} taken as splits; {count} images in {_listed(others)} {what} "
            "(splits=none takes every folder as a class)"
        )
    return FoldersSplit(splits, within, notes)


def _listed(tops: Sequence[str] | dict[str, str]) -> str:
    names = [f"'{top}'" if top else "the folder itself" for top in tops]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
