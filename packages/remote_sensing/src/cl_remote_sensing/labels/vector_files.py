"""Vector files as they are read: geometries, fields, coordinate system; formats by an allow-list.

OGR tells a format by what a file holds, whatever it is called, and has formats that fetch their
contents from a server. So a file must begin as its ending promises before OGR sees it. GeoJSON is
read here, without OGR.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_core.errors import InputError
from cl_core.tables.arrays import existing_file
from cl_core.tables.documents import parse_json, read_text
from cl_remote_sensing.rasters.systems import LONLAT, system_of

__all__ = ["GEOJSON_SUFFIXES", "VECTOR_SUFFIXES", "Features", "points_of", "read_features"]

GEOJSON_SUFFIXES = frozenset((".geojson", ".json", ".geojsonl", ".geojsons", ".ndjson", ".jsonl"))

_BEGINNINGS = {
    ".shp": b"\x00\x00\x27\x0a",
    ".gpkg": b"SQLite format 3\x00",
    ".fgb": b"fgb\x03",
    ".gml": b"",  # its root is looked at
}

VECTOR_SUFFIXES = GEOJSON_SUFFIXES | frozenset(_BEGINNINGS)
"""What is taken for a vector file."""

LARGEST_GEOJSON = 2**30
"""Bytes of a GeoJSON file, which is read whole."""


@dataclass(frozen=True, eq=False)
class Features:
    """What a vector file holds.

    Attributes:
        path: The file.
        geometries: GeoJSON geometries in the file's order, none missing or empty.
        fields: Values of each field, one per geometry.
        crs: Coordinate system as WKT.
        dropped: Features without a usable geometry.
        assumed: Whether the file names no coordinate system and has its format's own.
    """

    path: str
    geometries: tuple[Mapping[str, Any], ...]
    fields: Mapping[str, tuple[Any, ...]]
    crs: str | None
    dropped: int
    assumed: bool = False


def read_features(path: Path | str) -> Features:
    """Read a vector file whole: geometries, fields and coordinate system.

    GeoJSON is a ``FeatureCollection``, a ``Feature``, or features a line; without a ``crs`` member
    it is in longitude and latitude. Shapefile, GeoPackage, FlatGeobuf and GML need the extra
    ``cl-remote-sensing[vectors]``.

    Raises:
        InputError: If the file cannot be read or holds no geometry, or the extra is missing.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such label file; check the path")
    suffix = path.suffix.lower()
    crs: str | None
    if suffix in GEOJSON_SUFFIXES:
        geometries, records, crs, assumed = _read_geojson(path)
    elif suffix in _BEGINNINGS:
        geometries, records, crs = _read_with_pyogrio(path)
        assumed = False
    else:
        raise InputError(
            f"{path}: not a vector file that is read here; give GeoJSON, GeoPackage, a shapefile, "
            "FlatGeobuf or GML"
        )
    kept = [k for k, geometry in enumerate(geometries) if _is_usable(geometry)]
    if not kept:
        raise InputError(f"{path}: holds no polygon; give the labelled areas")
    return Features(
        str(path),
        tuple(geometries[k] for k in kept),
        {name: tuple(values[k] for k in kept) for name, values in records.items()},
        crs,
        len(geometries) - len(kept),
        assumed,
    )


def _read_geojson(path: Path) -> tuple[list[Any], dict[str, list[Any]], str, bool]:
    text = read_text(path, most=LARGEST_GEOJSON)
    documents = _documents(text, path)
    features: list[Mapping[str, Any]] = []
    name: Any = None
    for document in documents:
        inner = document.get("features") if isinstance(document, Mapping) else None
        if isinstance(document, Mapping) and document.get("type") == "Feature":
            inner = [document]
        if not isinstance(inner, list) or not all(isinstance(one, Mapping) for one in inner):
            raise InputError(
                f"{path}: is not GeoJSON; expected a FeatureCollection, a Feature, or one a line"
            )
        features += inner
        name = name or document.get("crs")
    try:
        told = LONLAT if not name else str(name["properties"]["name"])
        crs = system_of(told).to_wkt()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its crs is not known ({error}); name an EPSG code") from error
    properties = [one.get("properties") for one in features]
    plain = [one if isinstance(one, Mapping) else {} for one in properties]
    names = dict.fromkeys(name for one in plain for name in one)
    fields = {name: [one.get(name) for one in plain] for name in names}
    return [one.get("geometry") for one in features], fields, crs, not name


def _documents(text: str, path: Path) -> Iterator[Any]:
    """The one document of a text, or one a line (newline-delimited, also with record marks)."""
    lines = [line.strip("\x1e \t\r") for line in text.splitlines()]
    lines = [line for line in lines if line]
    try:
        if len(lines) < 2 or not all(_is_object(line) for line in lines[:2]):
            yield parse_json(text.strip("\x1e \t\r\n"), source=str(path))
            return
        for line in lines:
            yield parse_json(line, source=str(path))
    except InputError as error:
        raise InputError(f"{path}: is not GeoJSON ({error})") from error


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _read_with_pyogrio(path: Path) -> tuple[list[Any], dict[str, list[Any]], str | None]:
    try:
        import pyogrio
        import shapely
    except ImportError as error:
        raise InputError(
            f"{path}: reading {path.suffix} needs pyogrio and shapely; install "
            "'cl-remote-sensing[vectors]', or give GeoJSON"
        ) from error
    _check_beginning(path)
    options = {"DOWNLOAD_SCHEMA": "NO"} if path.suffix.lower() == ".gml" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd encodings and fields; the classes are checked
            meta, _, binary, columns = pyogrio.raw.read(path, **options)
            shapes = shapely.from_wkb(binary, on_invalid="ignore")
    except Exception as error:  # a zoo of GDAL and GEOS errors
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    open_ = [
        k
        for k, (one, shape) in enumerate(zip(binary, shapes, strict=True))
        if one is not None and shape is None
    ]
    if open_:
        raise InputError(
            f"{path}: {len(open_)} of its shapes are damaged, first number {open_[0] + 1} (a ring "
            "that is not closed, or too short); repair them (ogr2ogr -makevalid)"
        )
    try:
        crs = system_of(str(meta["crs"])).to_wkt() if meta.get("crs") else None
    except ValueError as error:
        raise InputError(f"{path}: its coordinate system is not known ({error})") from error
    plain = [
        None if one is None or one.is_empty else shapely.geometry.mapping(one) for one in shapes
    ]
    names = [str(name) for name in meta["fields"]]
    return plain, {name: column.tolist() for name, column in zip(names, columns, strict=True)}, crs


def _check_beginning(path: Path) -> None:
    """Refuse a file that is not what its ending says.

    Raises:
        InputError: If it is not.
    """
    with existing_file(path).open("rb") as file:
        head = file.read(4096)
    suffix = path.suffix.lower()
    sound = head.startswith(_BEGINNINGS[suffix])
    if suffix == ".gml":
        sound = b"opengis.net/gml" in head and b"FeatureCollection" in head and b"<OGR" not in head
    if not sound:
        raise InputError(f"{path}: does not begin as a {suffix} file does; it is damaged, or none")


_DEPTHS = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
"""Lists around the points of each type of geometry."""

_RINGS = frozenset(("Polygon", "MultiPolygon"))


def _is_usable(geometry: Any) -> bool:
    """Whether a GeoJSON geometry is whole: a known type, finite numbers, no ring too short."""
    if not isinstance(geometry, Mapping):
        return False
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        parts = geometry.get("geometries")
        return isinstance(parts, list | tuple) and bool(parts) and all(map(_is_usable, parts))
    depth = _DEPTHS.get(kind) if isinstance(kind, str) else None
    return depth is not None and _is_nested(geometry.get("coordinates"), depth, kind in _RINGS)


def _is_nested(coordinates: Any, depth: int, ring: bool) -> bool:
    if not isinstance(coordinates, list | tuple) or not coordinates:
        return False
    if depth == 0:
        return len(coordinates) >= 2 and all(_is_finite(number) for number in coordinates[:2])
    if depth == 1 and ring and len(coordinates) < 4:
        return False
    return all(_is_nested(part, depth - 1, ring) for part in coordinates)


def _is_finite(number: Any) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    return abs(number) < 1e300 and math.isfinite(number)


def points_of(geometry: Mapping[str, Any]) -> Iterator[Sequence[float]]:
    """The points of a geometry, in order."""
    todo = [geometry.get("geometries") or geometry["coordinates"]]
    while todo:
        part = todo.pop()
        if isinstance(part, Mapping):
            todo.append(part.get("geometries") or part["coordinates"])
        elif isinstance(part[0], int | float):
            yield part
        else:
            todo.extend(reversed(part))
