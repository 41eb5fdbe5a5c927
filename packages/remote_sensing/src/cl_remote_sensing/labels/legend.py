"""The classes of a map: names, the codes and colours they have in files, and their train ids."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["CODES", "IGNORE", "Color", "Legend", "default_colors", "read_color", "shown"]

IGNORE = 255
"""Train id of a pixel without a label."""

Color = tuple[int, int, int]

CODES = (-(2**31), 2**32 - 1)
"""The least and the largest code: what a raster of 32 bits holds."""


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
        ignored_names: The same for the class field of vector files.

    Raises:
        ValueError: If lengths differ or something occurs twice.
    """

    names: tuple[str, ...]
    codes: tuple[int, ...] | None
    colors: tuple[Color, ...]
    ignored: tuple[int, ...] = ()
    ignored_colors: tuple[Color, ...] = ()
    ignored_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE:
            raise ValueError(f"a legend has 1 to {IGNORE} classes, got {len(self.names)}")
        lengths = {len(self.colors), len(self.names if self.codes is None else self.codes)}
        if lengths != {len(self.names)}:
            raise ValueError("a legend has a code (or no codes) and a color for each name")
        "".join(self.names).encode()  # lone surrogates are ValueErrors
        codes = (*(self.codes or ()), *self.ignored)
        if not all(CODES[0] <= code <= CODES[1] for code in codes):
            raise ValueError(f"codes lie between {CODES[0]} and {CODES[1]}")
        for color in (*self.colors, *self.ignored_colors):
            if len(color) != 3 or not all(0 <= part <= 255 for part in color):
                raise ValueError(f"the color {color} is not three numbers from 0 to 255")
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
            "ignored_names": list(self.ignored_names),
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
            colors=tuple(read_color(color) for color in plain["colors"]),
            ignored=tuple(int(code) for code in plain.get("ignored", ())),
            ignored_colors=tuple(read_color(color) for color in plain.get("ignored_colors", ())),
            ignored_names=tuple(str(name) for name in plain.get("ignored_names", ())),
        )

    @staticmethod
    def load(path: Path | str) -> Legend:
        """Read a file; see :func:`cl_remote_sensing.labels.legend_files.read_legend`."""
        return _made_by("legend_files", "read_legend", path)

    @staticmethod
    def discover(paths: Sequence[Path | str], **options: Any) -> Legend:
        """Look into label files; see :func:`cl_remote_sensing.labels.discovery.discover`."""
        return _made_by("discovery", "discover", paths, **options)


def _made_by(room: str, function: str, *given: Any, **options: Any) -> Legend:
    # The readers know what a legend is; a legend knows its readers by name alone.
    made = getattr(import_module(f"cl_remote_sensing.labels.{room}"), function)
    legend: Legend = made(*given, **options)
    return legend


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


def read_color(value: Any) -> Color:
    """Read ``#rrggbb``, ``"r g b"``, ``"r,g,b"`` or three numbers."""
    parts: Any = value
    try:
        if isinstance(value, str):
            text = value.strip()
            hexadecimal = text.startswith("#") and len(text) == 7
            parts = bytes.fromhex(text[1:]) if hexadecimal else text.replace(",", " ").split()
        red, green, blue = (int(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError(
            f"{shown(value)} is no color, expected '#rrggbb' or three numbers"
        ) from None
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"the color {shown(value)} has numbers outside 0 to 255")
    return red, green, blue


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    try:
        text = repr(value)
    except ValueError:  # an integer too long to be written
        text = "a number"
    return text if len(text) <= 60 else f"{text[:60]}..."
