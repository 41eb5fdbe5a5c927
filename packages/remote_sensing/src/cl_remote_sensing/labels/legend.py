"""The classes of a map: names, the codes and colours they have in files, and their train ids."""

from __future__ import annotations

import colorsys
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cl_core.errors import InputError

__all__ = ["IGNORE", "Color", "Legend", "default_colors"]

IGNORE = 255
"""Train id of a pixel without a label."""

Color = tuple[int, int, int]

_FORMS = "name, code and color of each class"
_UNLABELLED = "ignore"  # the name that makes an entry of a legend file no class


@dataclass(frozen=True)
class Legend:
    """Classes in the order of their train ids: class ``k`` has ``names[k]``.

    Attributes:
        names: Names, all different; 1 to 255 of them.
        codes: Pixel value of each class in label rasters, or ``None`` if labels are colours or
            names; then a plain raster holds train ids.
        colors: Red, green and blue of each class, 0 to 255; they draw maps and are looked up in
            label rasters of three bands.
        ignored: Codes of pixels without a label, beside the file's own nodata.
        ignored_colors: The same for label rasters of three bands.

    Raises:
        ValueError: If lengths differ or something occurs twice.
    """

    names: tuple[str, ...]
    codes: tuple[int, ...] | None
    colors: tuple[Color, ...]
    ignored: tuple[int, ...] = ()
    ignored_colors: tuple[Color, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE:
            raise ValueError(f"a legend has 1 to {IGNORE} classes, got {len(self.names)}")
        if len(self.colors) != len(self.names) or len(self.codes or self.names) != len(self.names):
            raise ValueError("a legend has a code (or no codes) and a color for each name")
        codes = (*(self.codes or ()), *self.ignored)
        for what, values in (
            ("name", self.names),
            ("code", codes),
            ("color", (*self.colors, *self.ignored_colors)),
        ):
            twice = [value for k, value in enumerate(values) if value in values[:k]]
            if twice:
                raise ValueError(f"the {what} {twice[0]} occurs twice in the legend")

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self) -> dict[str, Any]:
        """The legend as plain JSON, for a model card."""
        return {
            "names": list(self.names),
            "codes": None if self.codes is None else list(self.codes),
            "colors": [list(color) for color in self.colors],
            "ignored": list(self.ignored),
            "ignored_colors": [list(color) for color in self.ignored_colors],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Legend:
        """The legend that :meth:`to_dict` wrote.

        Raises:
            ValueError: If it is malformed.
        """
        codes = plain.get("codes")
        return cls(
            names=tuple(str(name) for name in plain["names"]),
            codes=None if codes is None else tuple(int(code) for code in codes),
            colors=tuple(_color(color) for color in plain["colors"]),
            ignored=tuple(int(code) for code in plain.get("ignored", ())),
            ignored_colors=tuple(_color(color) for color in plain.get("ignored_colors", ())),
        )

    @classmethod
    def load(cls, path: Path | str) -> Legend:
        """Read a legend from a file.

        - ``.yaml`` or ``.json``: a list of entries with ``name`` and, as far as known, ``code``
          and ``color``; or a mapping of codes to names (or of names to codes). The list may
          stand under ``classes``.
        - ``.csv``: columns ``name``, ``code``, ``color``; the last may also be three columns
          ``red``, ``green``, ``blue``.

        A color is ``#rrggbb`` or three numbers from 0 to 255; classes without one get one. An
        entry called ``ignore`` names a code or a color of pixels without a label.

        Raises:
            InputError: If the file cannot be read or is no legend.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        try:
            text = path.read_text(encoding="utf-8-sig")
            if suffix == ".csv":
                return cls._of_entries(list(csv.DictReader(text.splitlines())))
            if suffix == ".json":
                return cls._of_plain(json.loads(text))
            if suffix in (".yaml", ".yml"):
                return cls._of_plain(yaml.safe_load(text))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except yaml.YAMLError as error:
            raise InputError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
        except (ValueError, KeyError, TypeError) as error:  # JSON and UTF-8 errors are ValueErrors
            raise InputError(f"{path}: is no legend ({error}); give {_FORMS}") from error
        raise InputError(f"{path}: a legend is a .yaml, .json or .csv file with {_FORMS}")

    @classmethod
    def discover(
        cls, paths: Sequence[Path | str], *, field: str | None = None, limit: int = IGNORE
    ) -> Legend:
        """Make a legend of what occurs in label files; each is read once, a window at a time.

        Codes become names (``"10"``) and keep the colours of a palette; colours become names
        (``"#ff0000"``); values of a vector's class field become names. All in rising order.

        Args:
            paths: Label files, all of one kind.
            field: The vector's class field, as for ``open_labels``.
            limit: More classes than this are taken for a mistake.

        Raises:
            InputError: If there is no class or are too many, or the kinds differ.
        """
        from cl_remote_sensing.labels.discovery import discover

        return discover(paths, field=field, limit=limit)

    @classmethod
    def _of_plain(cls, plain: Any) -> Legend:
        if isinstance(plain, Mapping) and "names" in plain and "colors" in plain:
            return cls.from_dict(plain)
        if isinstance(plain, Mapping) and "classes" in plain:
            plain = plain["classes"]
        if isinstance(plain, Mapping):
            plain = [_mapped(key, value) for key, value in plain.items()]
        if not isinstance(plain, list):
            raise ValueError("expected a list of classes")
        entries = [{"name": one} if isinstance(one, str) else one for one in plain]
        if not all(isinstance(one, Mapping) for one in entries):
            raise ValueError("a class is a name, or name, code and color")
        return cls._of_entries(entries)

    @classmethod
    def _of_entries(cls, entries: Iterable[Mapping[str, Any]]) -> Legend:
        names, codes, colors = [], [], []
        ignored: list[int] = []
        ignored_colors: list[Color] = []
        for entry in entries:
            name = str(entry.get("name") or "").strip()
            if not name:
                raise ValueError("a class has no name")
            code = _code(entry.get("code"), name)
            color = _entry_color(entry)
            if name.lower() == _UNLABELLED:
                ignored += [] if code is None else [code]
                ignored_colors += [] if color is None else [color]
                continue
            names.append(name)
            codes.append(code)
            colors.append(color)
        if None in codes and any(code is not None for code in codes):
            raise ValueError(f"the class {names[codes.index(None)]} has no code, but others have")
        return cls(
            names=tuple(names),
            codes=None if None in codes else tuple(code for code in codes if code is not None),
            colors=_completed(colors, ignored_colors),
            ignored=tuple(ignored),
            ignored_colors=tuple(ignored_colors),
        )


def default_colors(count: int) -> tuple[Color, ...]:
    """Colours that are easily told apart, the same for a class whatever follows it."""
    golden = 0.618033988749895  # turns of the hue: never close to an earlier one for long
    chosen: list[Color] = []
    k = 0
    while len(chosen) < count:
        value, saturation = (0.85, 0.60, 0.95)[k % 3], (0.75, 0.85, 0.45)[k % 3]
        r, g, b = colorsys.hsv_to_rgb((0.33 + k * golden) % 1, saturation, value)
        color = (round(r * 255), round(g * 255), round(b * 255))
        if color not in chosen:
            chosen.append(color)
        k += 1
    return tuple(chosen)


def _completed(colors: Sequence[Color | None], taken: Sequence[Color]) -> tuple[Color, ...]:
    """Give each class without a colour one that no other has."""
    used = {color for color in colors if color} | set(taken)
    free = iter(color for color in default_colors(len(colors) + len(used)) if color not in used)
    return tuple(color or next(free) for color in colors)


def _mapped(key: Any, value: Any) -> dict[str, Any]:
    """An entry of a mapping: code to name, code to entry, name to code or name to entry."""
    if isinstance(value, Mapping):
        return {("code" if isinstance(key, int) else "name"): key, **value}
    if isinstance(key, int):
        return {"code": key, "name": value}
    return {"name": key, "code": value}


def _code(value: Any, name: str) -> int | None:
    if value is None or not str(value).strip():
        return None
    try:
        return int(str(value))
    except ValueError:
        raise ValueError(f"the code of {name} is {value!r}, expected a whole number") from None


def _entry_color(entry: Mapping[str, Any]) -> Color | None:
    color = entry.get("color")
    if color is None and entry.get("red") not in (None, ""):
        color = [entry["red"], entry["green"], entry["blue"]]
    return None if color is None or color == "" else _color(color)


def _color(value: Any) -> Color:
    """Read ``#rrggbb``, ``"r g b"``, ``"r,g,b"`` or three numbers."""
    parts: Any = value
    try:
        if isinstance(value, str):
            text = value.strip()
            hexadecimal = text.startswith("#") and len(text) == 7
            parts = bytes.fromhex(text[1:]) if hexadecimal else text.replace(",", " ").split()
        red, green, blue = (int(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no color, expected '#rrggbb' or three numbers") from None
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"the color {value!r} has numbers outside 0 to 255")
    return red, green, blue
