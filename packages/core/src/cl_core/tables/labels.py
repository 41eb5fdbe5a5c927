"""The one rule of what a label is, for every table, folder and array of labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError

__all__ = ["MISSING", "UNLABELLED", "class_names", "encode_labels", "is_missing"]

UNLABELLED = -1
"""The class number of what has no label."""

MISSING = (
    "", "unknown", "unlabeled", "unlabelled",
    "nan", "-nan", "na", "n/a", "#n/a", "#na", "<na>", "null", "<null>",
)  # fmt: skip
"""How tables spell a missing label, in any case; so does a negative whole number, ``-1.0`` too."""

_MISSING_NUMBERS = ("none", "missing", "?", "-", "--", ".", "*")
"""What could be a class among words, but is a missing label among whole numbers."""

_WHOLE = re.compile(r"([+-]?\d+)(?:\.0*)?")


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no label; see :data:`MISSING`.

    Example:
        >>> [is_missing(cell) for cell in ("NaN", "-1.0", " ", "none", "0")]
        [True, True, True, False, False]
    """
    cell = cell.strip()
    if cell.lower() in MISSING:
        return True
    whole = _WHOLE.fullmatch(cell) if cell.startswith("-") else None
    return whole is not None and whole[1].strip("-0") != ""


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The classes among ``labels``: whole numbers in their order, text in code-point order.

    Where all labels are whole numbers, ``1.0`` and ``1`` are one class, as tables with gaps write,
    and ``None`` or ``-`` is none.

    Example:
        >>> class_names(["10", "9.0", "None"]), class_names(["oat", "Unknown", "None", "3.0"])
        (('9', '10'), ('3.0', 'None', 'oat'))
    """
    names = {label.strip() for label in labels if not is_missing(label)}
    whole = [_whole(name) for name in names if name.lower() not in _MISSING_NUMBERS]
    if whole and all(number is not None for number in whole):
        return tuple(sorted({number for number in whole if number is not None}, key=_value))
    return tuple(sorted(names))


def encode_labels(
    labels: Sequence[str],
    classes: Sequence[str] | None = None,
    *,
    source: str = "labels",
) -> NDArray[np.int64]:
    """Number ``labels`` by their place in ``classes``; no label is -1.

    Args:
        labels: One a row.
        classes: Those of a table or of a model; by default :func:`class_names` of the labels.
        source: The file or option to name in the error.

    Raises:
        InputError: If a label is not among ``classes``.

    Example:
        >>> encode_labels(["oat", "", "rye"], ["oat", "rye"]).tolist()
        [0, -1, 1]
        >>> encode_labels(["1.0", "-1.0", "0"]).tolist()
        [1, -1, 0]
    """
    if classes is None:
        classes = class_names(labels)
    number = {name: k for k, name in enumerate(classes)}
    gaps = _MISSING_NUMBERS if number and all(map(_whole, number)) else ()
    known: dict[str, int] = {}
    strange: Counter[str] = Counter()
    for cell, count in Counter(labels).items():
        name = cell.strip()
        found = number.get(name, number.get(_whole(name) or name))
        if found is None and not is_missing(name) and name.lower() not in gaps:
            strange[name] += count
        known[cell] = UNLABELLED if found is None else found
    if strange:
        told = ", ".join(f"'{name}' ({count} rows)" for name, count in sorted(strange.items())[:5])
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise InputError(
            f"{source}: labels {told}{more} are not among the {len(classes)} classes "
            f"{', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}; "
            "correct them or leave those rows out"
        )
    return np.array([known[cell] for cell in labels], dtype=np.int64)


def _whole(name: str) -> str | None:
    """A whole number without its point, as text: ``3`` of ``3.0``, and of ``3``."""
    match = _WHOLE.fullmatch(name)
    return None if match is None else match[1]


def _value(name: str) -> tuple[int, str]:
    digits = name.lstrip("+-0")
    return len(digits), digits  # as numbers compare, whatever their length
