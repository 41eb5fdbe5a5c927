"""Classes made of what occurs in label files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cl_core.errors import InputError
from cl_remote_sensing.labels.keys import (
    named_values,
    palette,
    raster_kind,
    read_keys,
    unpack,
)
from cl_remote_sensing.labels.legend import IGNORE, Color, Legend, default_colors
from cl_remote_sensing.labels.vectors import VECTOR_SUFFIXES, class_values, is_unset, read_features
from cl_remote_sensing.rasters.handles import handle
from cl_remote_sensing.rasters.windows import blockwise

__all__ = ["discover"]

_CHUNK = 2**20  # pixels looked at together


def discover(
    paths: Sequence[Path | str],
    *,
    field: str | None = None,
    limit: int = IGNORE,
    network: bool = False,
) -> Legend:
    """Make a legend of what occurs in label files; each is read once, a window at a time.

    Codes become names (``"10"``) and keep the colours of a palette; colours become names
    (``"#ff0000"``); values of a vector's class field become names. All in rising order. A map
    of ``predict`` has the classes that it was made with. Where codes count up from 0 or 1 and
    255 is beyond them, 255 is taken for no label.

    Args:
        paths: Label files, all of one kind.
        field: The vector's class field, as for ``open_labels``.
        limit: More classes than this are taken for a mistake.
        network: Whether a virtual raster may name sources on the network.

    Raises:
        InputError: If there is no class or are too many, or the kinds differ.
    """
    files = list(dict.fromkeys(str(path) for path in paths))
    if not files:
        raise ValueError("a legend is made of at least one label file")
    vectors = [Path(file).suffix.lower() in VECTOR_SUFFIXES for file in files]
    kinds = {
        "features" if vector else raster_kind(handle(file, network=network))
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
    known = [named_values(handle(file, network=network)) for file in files]
    for file in files:
        if not known[0] or known.count(known[0]) < len(files):
            keys |= _keys(file, limit, keys, network)
        for code, color in palette(handle(file, network=network)).items():
            colors.setdefault(code, color)
    if known[0] and known.count(known[0]) == len(files):  # maps of one model
        return _of_codes(list(known[0]), list(known[0].values()), colors)
    if not keys:
        raise InputError(f"{files[0]}: holds no label, every pixel is nodata; name another file")
    found = sorted(keys)
    if kinds == {"colors"}:
        names = tuple("#{:02x}{:02x}{:02x}".format(*unpack(key)) for key in found)
        return Legend(names, None, tuple(unpack(key) for key in found))
    if _is_marked(found):
        found.remove(255)
        return _of_codes(found, [str(code) for code in found], colors, ignored=(255,))
    return _of_codes(found, [str(code) for code in found], colors)


def _is_marked(codes: Sequence[int]) -> bool:
    """Whether 255 stands apart from codes that count up from 0 or 1: the usual mark of no label."""
    others = codes[:-1]
    counting = len(others) > 1 and others[0] in (0, 1) and others[-1] - others[0] < len(others)
    return codes[-1] == 255 and counting and others[-1] < 250


def _of_codes(
    codes: Sequence[int],
    names: Sequence[str],
    colors: Mapping[int, Color],
    *,
    ignored: tuple[int, ...] = (),
) -> Legend:
    """Classes in the colours of a palette, if it has one for each."""
    plain = [colors[code] for code in codes if code in colors]
    whole = len(plain) == len(codes) == len(set(plain))
    try:
        return Legend(
            tuple(names),
            tuple(codes),
            tuple(plain) if whole else default_colors(len(codes)),
            ignored=ignored,
        )
    except ValueError as error:
        raise InputError(f"the codes of the labels make no legend ({error}); give one") from error


def _keys(path: str, limit: int, known: set[int], network: bool) -> set[int]:
    file = handle(path, network=network)
    kind = raster_kind(file)
    block = file.block_shapes[0]
    found: set[int] = set()
    for window in blockwise(file.height, file.width, block=block, pixels=_CHUNK):
        keys, labelled = read_keys(handle(path, network=network), window, kind, path)
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
        names |= {_name(value) for value in values if not is_unset(value)}
        if len(names) > limit:
            raise InputError(
                f"{file}: its field has more than {limit} different values, so it does not look "
                "like a class; name another field"
            )
    if not names:
        raise InputError(f"{files[0]}: its class field is empty; name another field")
    whole = all(name.lstrip("-").isdecimal() and len(name) < 12 for name in names)
    order = sorted(names, key=int) if whole else sorted(names)
    codes = tuple(int(name) for name in order) if whole else None
    try:
        return Legend(tuple(order), codes, default_colors(len(order)))
    except ValueError as error:
        raise InputError(
            f"{files[0]}: the values of its class field make no legend ({error}); give one"
        ) from error


def _name(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole and isinstance(value, float) else str(value).strip()
