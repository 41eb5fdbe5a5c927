"""Classes made of what occurs in label files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cl_core.errors import InputError
from cl_remote_sensing.labels.keys import palette, raster_kind, read_keys, unpack
from cl_remote_sensing.labels.legend import Color, Legend, default_colors
from cl_remote_sensing.labels.vectors import VECTOR_SUFFIXES, class_values, read_features
from cl_remote_sensing.rasters.handles import handle
from cl_remote_sensing.rasters.windows import blockwise

__all__ = ["discover"]

_CHUNK = 2**20  # pixels looked at together


def discover(paths: Sequence[Path | str], *, field: str | None, limit: int) -> Legend:
    """See :meth:`cl_remote_sensing.labels.legend.Legend.discover`."""
    files = list(dict.fromkeys(str(path) for path in paths))
    if not files:
        raise ValueError("a legend is made of at least one label file")
    vectors = [Path(file).suffix.lower() in VECTOR_SUFFIXES for file in files]
    kinds = {
        "features" if vector else raster_kind(file)
        for file, vector in zip(files, vectors, strict=True)
    }
    if len(kinds) > 1:
        raise InputError(
            f"{files[0]} and {len(files) - 1} more labels are of several kinds "
            f"({', '.join(sorted(kinds))}); give a legend"
        )
    if kinds == {"features"}:
        return _of_values(files, field, limit)
    keys: set[int] = set()
    colors: dict[int, Color] = {}
    for file in files:
        keys |= _keys(file, limit, keys)
        for code, color in palette(file).items():
            colors.setdefault(code, color)
    if not keys:
        raise InputError(f"{files[0]}: holds no label, every pixel is nodata; name another file")
    found = sorted(keys)
    if kinds == {"colors"}:
        names = tuple("#{:02x}{:02x}{:02x}".format(*unpack(key)) for key in found)
        return Legend(names, None, tuple(unpack(key) for key in found))
    shown = [colors.get(code) for code in found]
    plain = [color for color in shown if color is not None]
    whole = len(plain) == len(found) == len(set(plain))
    return Legend(
        tuple(str(code) for code in found),
        tuple(found),
        tuple(plain) if whole else default_colors(len(found)),
    )


def _keys(path: str, limit: int, known: set[int]) -> set[int]:
    file, kind = handle(path), raster_kind(path)
    block = file.block_shapes[0]
    found: set[int] = set()
    for window in blockwise(file.height, file.width, block=block, pixels=_CHUNK):
        keys, labelled = read_keys(handle(path), window, kind, path)
        found |= set(np.unique(keys[labelled]).tolist())
        if len(found | known) > limit:
            raise InputError(
                f"{path}: holds more than {limit} different "
                f"{'colors' if kind == 'colors' else 'codes'}, so it does not look like labels; "
                "check the file, or give a legend"
            )
    return found


def _of_values(files: Sequence[str], field: str | None, limit: int) -> Legend:
    names: set[str] = set()
    for file in files:
        values = class_values(read_features(file), field, None)
        names |= {_name(value) for value in values if value is not None}
        if len(names) > limit:
            raise InputError(
                f"{file}: its field has more than {limit} different values, so it does not look "
                "like a class; name another field"
            )
    if not names:
        raise InputError(f"{files[0]}: its class field is empty; name another field")
    whole = all(name.lstrip("-").isdecimal() for name in names)
    order = sorted(names, key=int) if whole else sorted(names)
    codes = tuple(int(name) for name in order) if whole else None
    return Legend(tuple(order), codes, default_colors(len(order)))


def _name(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole and isinstance(value, float) else str(value).strip()
