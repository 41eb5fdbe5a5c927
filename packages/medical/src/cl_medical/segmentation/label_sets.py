"""The classes of a domain, and which raw id in its files is which class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cl_medical.segmentation.manifest import IGNORE
from cl_medical.segmentation.problems import Problems

__all__ = ["classes_of", "is_whole", "whole"]

_MOST_CLASSES = 255


def classes_of(
    problems: Problems, name: str, record: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Read the classes of a domain and which raw id is which of them.

    Args:
        problems: Takes what is wrong.
        name: Of the domain.
        record: Its entry, with ``labels``, or ``classes`` and ``label_map``.

    Returns:
        Names, background first, and raw id to class; something usable also where much is wrong.
    """
    labels = record.get("labels")
    raw: dict[int, str] = {}
    if labels is not None:
        if not isinstance(labels, Mapping):
            problems.tell("labels must be a mapping from raw ids to names", name)
        else:
            for key, value in labels.items():
                number = whole(key)
                if number is None:
                    problems.tell(f"labels: {key!r} is no whole number", name)
                else:
                    raw[number] = str(value)
    classes = record.get("classes")
    if classes is not None and not (
        isinstance(classes, list) and all(isinstance(one, (str, int)) for one in classes)
    ):
        problems.tell("classes must be a list of names, background first", name)
        classes = None
    given = record.get("label_map")
    if given is not None and not isinstance(given, Mapping):
        problems.tell("label_map must be a mapping from raw ids to classes", name)
        given = None
    if classes is None and not raw:
        problems.tell("needs `labels`, a mapping from the ids in the files to names", name)
        return ("background", "structure"), {0: 0, 1: 1}
    if classes is None:
        raw = {0: "background"} | raw
        names = list(dict.fromkeys(raw[number] for number in sorted(raw)))
        label_map = {number: names.index(raw[number]) for number in raw}
    else:
        names = [str(one) for one in classes]
        label_map = {number: number for number in range(len(names))}
    if given is not None:
        label_map = {}
        for key, value in given.items():
            source, target = whole(key), whole(value)
            if source is None or target is None:
                problems.tell(f"label_map: {key!r}: {value!r} are no whole numbers", name)
            elif not (0 <= target < len(names) or target == IGNORE):
                problems.tell(
                    f"label_map: {source} leads to class {target}, but the classes are 0 to "
                    f"{len(names) - 1} ({', '.join(names)}), and {IGNORE} for voxels to ignore",
                    name,
                )
            else:
                label_map[source] = target
        label_map.setdefault(0, 0)
    if len(set(names)) < len(names):
        problems.tell(f"classes need names of their own, got {', '.join(names)}", name)
    if not 2 <= len(names) <= _MOST_CLASSES:
        problems.tell(
            f"needs a background and 1 to {_MOST_CLASSES - 1} structures, got {len(names)} classes",
            name,
        )
    if any("/" in one for one in names):
        problems.tell("the name of a class must not hold a slash", name)
    return tuple(names), label_map


def whole(value: Any) -> int | None:
    """A whole number, or one that is written as text, else ``None``."""
    if is_whole(value):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return None


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; truth values are none."""
    return isinstance(value, int) and not isinstance(value, bool)
