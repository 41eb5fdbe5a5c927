"""Which pixel value stands for which class in a map, and how a GIS learns their names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from cl_core.runs import write_atomic
from cl_remote_sensing.labels.legend import Color, Legend

__all__ = ["Codes", "MapValues", "add_names", "write_names"]

Codes = Literal["legend", "index"]
"""Whether a map's pixels hold the legend's codes, or the classes' places in it from 0."""

_TYPES = ("uint8", "uint16", "int16", "uint32", "int32")
_WIDE = {"uint16": 65535, "int16": -32768, "uint32": 2**32 - 1, "int32": -(2**31)}
_PALETTES = frozenset(("uint8", "uint16"))


@dataclass(frozen=True)
class MapValues:
    """The values of a class map.

    Attributes:
        names: The classes, in the order of their train ids.
        values: The pixel value of each.
        dtype: Numpy name of the narrowest type that holds them and a value for no data.
        nodata: Of pixels without a class: 255 in 8 bits, unless that is a class.
        colors: Of each class, if it has one.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    dtype: str
    nodata: int
    colors: tuple[Color, ...] | None = None

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        codes: Sequence[int] | None = None,
        colors: Sequence[Color] | None = None,
    ) -> MapValues:
        """Choose type and nodata value for classes; without codes their places from 0 count.

        Raises:
            ValueError: If there is no class, a code occurs twice or none of the types holds all, or
                there are other colors or codes than names.
        """
        values = tuple(range(len(names))) if codes is None else tuple(codes)
        if not names or any(len(each) != len(names) for each in (values, colors or names)):
            raise ValueError("a map needs at least one class, and a color for each or none")
        if len(set(values)) < len(values):
            raise ValueError("two classes of a map have one code")
        for dtype in _TYPES:
            limits = np.iinfo(dtype)
            if min(values) < limits.min or max(values) > limits.max:
                continue
            nodata = _free(values, dtype)
            if nodata is not None:
                kept = None if colors is None else tuple(colors)
                return cls(tuple(names), values, dtype, nodata, kept)
        raise ValueError(f"no type of a raster holds the codes {min(values)} to {max(values)}")

    @classmethod
    def of_legend(cls, legend: Legend, codes: Codes = "legend") -> MapValues:
        """The values of a legend's maps."""
        wanted = legend.codes if codes == "legend" else None
        return cls.of(legend.names, wanted, legend.colors)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def plain(self) -> bool:
        """Whether values are train ids."""
        return self.values == tuple(range(len(self.values)))

    @property
    def colormap(self) -> dict[int, tuple[int, int, int, int]] | None:
        """The palette, in types that have one; no data is transparent."""
        if self.colors is None or self.dtype not in _PALETTES:
            return None
        table = {
            value: (*color, 255) for value, color in zip(self.values, self.colors, strict=True)
        }
        return {**table, self.nodata: (0, 0, 0, 0)}

    @property
    def tag(self) -> str:
        """Names by value, as JSON: written into a map, and read when it serves as labels."""
        named = dict(zip(map(str, self.values), self.names, strict=True))
        return json.dumps(named, ensure_ascii=False)

    @cached_property
    def _encoding(self) -> NDArray[Any]:
        """By train id, the last for no class."""
        return np.array([*self.values, self.nodata], dtype=self.dtype)

    def encode(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Values of train ids; what is no class becomes no data."""
        if self.plain and ids.dtype == self.dtype:
            return ids
        encoded: NDArray[Any] = self._encoding[np.minimum(ids, len(self.values))]
        return encoded

    @cached_property
    def _decoding(self) -> NDArray[Any] | None:
        """By value, in types of at most 16 bits without sign."""
        if self.dtype not in _PALETTES:
            return None
        table = np.full(np.iinfo(self.dtype).max + 1, len(self.values), np.uint16)
        table[list(self.values)] = np.arange(len(self.values))
        return table

    def decode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Train ids of values; the number of classes for what is none."""
        if self._decoding is not None:
            ids: NDArray[Any] = self._decoding[values]
            return ids
        order = np.argsort(self.values)
        rising = np.array(self.values, np.int64)[order]
        place = np.minimum(np.searchsorted(rising, values), len(rising) - 1)
        return np.where(rising[place] == values, order[place], len(rising)).astype(np.uint16)


def _free(values: Sequence[int], dtype: str) -> int | None:
    """A value for no data that is no class."""
    taken = set(values)
    if dtype == "uint8":
        return next((value for value in (255, 0, *range(254, 0, -1)) if value not in taken), None)
    return _WIDE[dtype] if _WIDE[dtype] not in taken else None


def write_names(path: Path, values: MapValues) -> None:
    """Write ``<path>.aux.xml``, where GDAL and GIS programs find the classes of a map.

    A raster attribute table tells value, name and colour of each class; of 8-bit values the
    category names are told too.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    add_names(band, values)
    ElementTree.indent(root)
    with write_atomic(path.with_name(path.name + ".aux.xml")) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8")


def add_names(band: ElementTree.Element, values: MapValues) -> None:
    """Add category names and attribute table to a band of GDAL's XML."""
    if values.dtype == "uint8":
        by_value = dict(zip(values.values, values.names, strict=True))
        categories = ElementTree.SubElement(band, "CategoryNames")
        for value in range(max(by_value) + 1):
            ElementTree.SubElement(categories, "Category").text = _plain(by_value.get(value, ""))
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    columns: list[tuple[str, int, int]] = [("Value", 0, 5), ("Class", 2, 2)]  # name, type, usage
    if values.colors is not None:
        columns += [("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8)]
    for number, (name, kind, usage) in enumerate(columns):
        field = ElementTree.SubElement(table, "FieldDefn", index=str(number))
        for key, text in {"Name": name, "Type": str(kind), "Usage": str(usage)}.items():
            ElementTree.SubElement(field, key).text = text
    for number, (value, name) in enumerate(zip(values.values, values.names, strict=True)):
        row = ElementTree.SubElement(table, "Row", index=str(number))
        color: Sequence[int] = () if values.colors is None else values.colors[number]
        for cell in (str(value), _plain(name), *map(str, color)):
            ElementTree.SubElement(row, "F").text = cell


def _plain(name: str) -> str:
    """Without the characters that XML has no way to write."""
    return "".join(char for char in name if char >= " " and char not in "\ufffe\uffff")
