"""Legends as users write them: YAML, JSON or CSV, in the forms that are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cl_core.errors import InputError
from cl_core.tables.documents import read_json, read_yaml
from cl_core.tables.files import read_table
from cl_remote_sensing.labels.legend import Color, Legend, default_colors, read_color, shown

__all__ = ["read_legend"]

_FORMS = "name, code and color of each class"
_LONGEST = 200
_UNLABELLED = "ignore"  # the name that makes an entry of a legend file no class


def read_legend(path: Path | str) -> Legend:
    """Read a legend from a file.

    - ``.yaml`` or ``.json``: a list of entries with ``name`` and, as far as known, ``code``
      and ``color``; or a mapping of codes to names (or of names to codes). The list may
      stand under ``classes``, with ``ignore`` beside it.
    - ``.csv``: columns ``name``, ``code``, ``color``; the last may also be three columns
      ``red``, ``green``, ``blue``.

    A color is ``#rrggbb`` or three numbers from 0 to 255; classes without one get one. An
    entry called ``ignore`` names what is no class: as its code a code, a value of a vector
    file's class field, or a list of them; or a color.

    Raises:
        InputError: If the file cannot be read or is no legend.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json", ".yaml", ".yml"):
        raise InputError(f"{path}: a legend is a .yaml, .json or .csv file with {_FORMS}")
    try:
        if suffix == ".csv":
            table = read_table(path, header="yes")
            rows = zip(*(column.text for column in table.columns), strict=True)
            return _of_entries([dict(zip(table.lower, row, strict=True)) for row in rows])
        return _of_plain(read_json(path) if suffix == ".json" else read_yaml(path))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        told = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: is no legend ({told}); give {_FORMS}") from error


def _of_plain(plain: Any) -> Legend:
    if isinstance(plain, Mapping) and "names" in plain and "colors" in plain:
        return Legend.from_dict(plain)
    ignored: Any = None
    if isinstance(plain, Mapping) and "classes" in plain:
        plain, ignored = plain["classes"], plain.get(_UNLABELLED)
    if isinstance(plain, Mapping):
        plain = [_mapped(key, value) for key, value in plain.items()]
    if not isinstance(plain, list):
        raise ValueError("expected a list of classes")
    entries = [{"name": one} if isinstance(one, str) else one for one in plain]
    if not all(isinstance(one, Mapping) for one in entries):
        raise ValueError("a class is a name, or name, code and color")
    if ignored is not None:
        entries.append({"name": _UNLABELLED, "code": ignored})
    return _of_entries(entries)


def _of_entries(entries: Iterable[Mapping[str, Any]]) -> Legend:
    names, codes, colors = [], [], []
    ignored: list[int | str] = []
    ignored_colors: list[Color] = []
    for entry in entries:
        name = _name(entry.get("name"))
        color = _entry_color(entry)
        if name.lower() == _UNLABELLED:
            ignored += _codes_or_names(entry.get("code"))
            ignored_colors += [] if color is None else [color]
            continue
        code = _code(entry.get("code"), name)
        names.append(name)
        codes.append(code)
        colors.append(color)
    if None in codes and any(code is not None for code in codes):
        raise ValueError(f"the class {names[codes.index(None)]} has no code, but others have")
    return Legend(
        names=tuple(names),
        codes=None if None in codes else tuple(code for code in codes if code is not None),
        colors=_completed(colors, ignored_colors),
        ignored=tuple(dict.fromkeys(one for one in ignored if isinstance(one, int))),
        ignored_colors=tuple(ignored_colors),
        ignored_names=tuple(dict.fromkeys(one for one in ignored if isinstance(one, str))),
    )


def _completed(colors: Sequence[Color | None], taken: Sequence[Color]) -> tuple[Color, ...]:
    """Give each class without a colour one that no other has."""
    used = {color for color in colors if color} | set(taken)
    free = iter(color for color in default_colors(len(colors) + len(used)) if color not in used)
    return tuple(color or next(free) for color in colors)


def _mapped(key: Any, value: Any) -> dict[str, Any]:
    """An entry of a mapping: code to name, code to entry, name to code or name to entry."""
    if isinstance(key, str) and _is_whole(key) and not _is_whole(value):
        key = int(key)  # the keys of JSON are text
    if isinstance(value, Mapping):
        return {("code" if isinstance(key, int) else "name"): key, **value}
    if isinstance(key, int):
        return {"code": key, "name": value}
    return {"name": key, "code": value}


def _is_whole(value: Any) -> bool:
    text = str(value).strip()
    return text.removeprefix("-").isdecimal() and len(text) < 12


def _name(value: Any) -> str:
    """The name of a class: text, or a number that stands for it."""
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"the name of a class is {shown(value)}, expected text")
    name = str(value if value is not None else "").strip()
    if not name:
        raise ValueError("a class has no name")
    if len(name) > _LONGEST:
        raise ValueError(f"the name {name[:40]!r}... has over {_LONGEST} letters")
    return name


def _code(value: Any, name: str) -> int | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    whole = value.is_integer() if isinstance(value, float) else isinstance(value, int | str)
    if whole and not isinstance(value, bool):
        try:
            return int(value)
        except ValueError:
            pass
    raise ValueError(f"the code of {name} is {shown(value)}, expected a whole number")


def _codes_or_names(value: Any) -> list[int | str]:
    """What an entry ``ignore`` names: a code, a name, or a list of them."""
    if isinstance(value, list | tuple):
        return [one for part in value for one in _codes_or_names(part)]
    try:
        code = _code(value, _UNLABELLED)
    except ValueError:
        return [_name(value)]
    return [] if code is None else [code]


def _entry_color(entry: Mapping[str, Any]) -> Color | None:
    color = entry.get("color")
    if color is None and entry.get("red") not in (None, ""):
        color = [entry["red"], entry["green"], entry["blue"]]
    return None if color is None or color == "" else read_color(color)
