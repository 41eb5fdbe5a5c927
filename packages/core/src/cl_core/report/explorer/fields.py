"""Columns of a table as the explorer page wants them: categories, numbers or text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cl_core.evaluation.labels import Array, as_array, is_labelled

__all__ = ["category", "field"]

# More kinds of text than this cannot be told apart by colour: they are names.
_MOST_LEVELS = 60


def category(name: str, values: Array, names: Sequence[str] | None = None) -> dict[str, Any]:
    """A class or cluster: the levels in their order, and the place of each row's among them.

    Args:
        name: Heading.
        values: ``(n,)`` numbers or text; -1, NaN and an empty text are none, with place -1.
        names: Name of class ``i`` at place ``i``, for integers.
    """
    array = as_array(values)
    if array.dtype.kind == "O":
        array = np.array(["" if value is None else str(value) for value in array], dtype=str)
    known = is_labelled(array) & (array != "" if array.dtype.kind == "U" else True)
    levels, places = np.unique(array[known], return_inverse=True)
    codes = np.full(len(array), -1)
    codes[known] = places
    text = [_shown(level.item()) for level in levels]
    if names is not None and array.dtype.kind in "iu":
        text = [names[k] if 0 <= k < len(names) else str(k) for k in levels.tolist()]
    return {"name": name, "kind": "category", "levels": text, "codes": codes.tolist()}


def field(name: str, values: Array) -> dict[str, Any]:
    """A column of any kind.

    Few different texts, whole numbers or truth values make categories, floating point and many
    whole numbers a scale, many texts a field that is shown but gives no colour.
    """
    array = as_array(values)
    if array.dtype.kind == "O":
        numbers = [None if v is None or isinstance(v, bool | str) else _number(v) for v in array]
        missing = [v is None for v in array]
        if all(m or v is not None for m, v in zip(missing, numbers, strict=True)):
            array = np.array([math.nan if v is None else v for v in numbers], dtype=np.float64)
    kinds = len(np.unique(array)) if array.dtype.kind in "iuU" else 0
    if array.dtype.kind == "f" or (array.dtype.kind in "iu" and kinds > 20):
        shown = [float(f"{v:.6g}") if math.isfinite(v) else None for v in array.tolist()]
        return {"name": name, "kind": "number", "values": shown}
    if array.dtype.kind == "b":
        return category(name, np.where(array, "yes", "no"))
    if array.dtype.kind in "iu":
        return category(name, array.astype(str)) | {
            "levels": [str(v) for v in np.unique(array).tolist()],
            "codes": np.unique(array, return_inverse=True)[1].tolist(),
        }
    texts = np.array(["" if v is None else _shown(v) for v in array.tolist()], dtype=str)
    if len(np.unique(texts)) <= _MOST_LEVELS:
        return category(name, texts)
    return {"name": name, "kind": "text", "values": texts.tolist()}


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
