"""What folders and cells are called that file images under a split, and what else may be meant."""

from __future__ import annotations

import re
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

_THINGS = r"(?:seg|data|images?|imgs?|sets?|datasets?|splits?|samples?)"
_SPELLED = re.compile(rf"(?:{_THINGS} )*({'|'.join(_NAMES)})(?: ?{_THINGS})*")


def split_name(name: str) -> str | None:
    """``train``, ``val`` or ``test``, if ``name`` means one of them, in any case.

    So do names of collections such as ``Training_set``, ``seg_test``, ``trainset``, ``val2017``.

    Example:
        >>> split_name("Training"), split_name("dev"), split_name("rye"), split_name("test_track")
        ('train', 'val', None, None)
        >>> split_name("Train-Images"), split_name("testset"), split_name("val2017")
        ('train', 'test', 'val')
    """
    found = _SPELLED.fullmatch(re.sub(r"[\W\d_]+", " ", name.lower()).strip())
    return None if found is None else _NAMES[found[1]]


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
    - Splits inside every class folder are refused under ``auto`` too, or are splits, or are not.
    - A folder that alone holds the splits, and one that repeats the name of its split, are passed.

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
    if choice == "none":
        return FoldersSplit(None, parts, [])
    if not named:
        return _splits_inside(parts, tops, choice, source)
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
    repeated = [top for top in named if _repeats(top, parts)]
    within = [
        part[1 + (part[0] in repeated) :] if len(part) > 1 and part[0] in named else part
        for part in parts
    ]
    spelled = {top: split for top, split in named.items() if top.lower() not in _NAMES}
    told = ", ".join(f"'{top}' as {split}" for top, split in sorted(spelled.items())[:6])
    notes = [f"taken as splits: {told} (splits=none takes every folder as a class)"] * bool(told)
    if others:
        count = sum(tops[top] for top in others)
        what = "left out" if has_train else "taken to train on"
        notes.append(
            f"{_listed(named)} taken as splits; {count} images in {_listed(others)} {what} "
            "(splits=none takes every folder as a class)"
        )
    return FoldersSplit(splits, within, notes)


def _repeats(top: str, parts: list[list[str]]) -> bool:
    """Whether a split holds but one folder of its own meaning, as ``seg_train/seg_train``."""
    own = [part for part in parts if part[0] == top]
    return all(len(part) > 2 and split_name(part[1]) == split_name(top) for part in own)


def _splits_inside(
    parts: list[list[str]], tops: Counter[str], choice: SplitChoice, source: str
) -> FoldersSplit:
    """Tell what splits one folder down mean: below a folder that holds all, or below classes."""
    inner = {part[1] if len(part) > 2 else "" for part in parts}
    if not all(map(split_name, inner)):
        return FoldersSplit(None, parts, [])
    if len(tops) == 1 and all(len(part) > 3 for part in parts):
        below = split_folders([part[1:] for part in parts], choice, source)
        return below._replace(notes=[f"the splits lie in '{parts[0][0]}'", *below.notes])
    if choice == "auto":
        raise InputError(
            f"{source}: {_listed(sorted(inner))} inside the folders {_listed(sorted(tops))} are "
            "called like splits; say splits=folder (they are) or splits=none (all images of a "
            "folder are alike)"
        )
    splits = tuple(split_name(part[1]) or "" for part in parts)
    return FoldersSplit(splits, [[part[0], *part[2:]] for part in parts], [])


def _listed(tops: Sequence[str] | dict[str, str]) -> str:
    names = [f"'{top}'" if top else "the folder itself" for top in tops]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
