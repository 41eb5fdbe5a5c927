"""Labels drawn as polygons: read from vector files, rasterised a window at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_remote_sensing.labels.legend import IGNORE, Legend
from cl_remote_sensing.rasters.windows import Window

__all__ = ["VECTOR_SUFFIXES", "Features", "Shapes", "class_values", "read_features"]

VECTOR_SUFFIXES = frozenset((".fgb", ".geojson", ".gml", ".gpkg", ".json", ".shp"))
"""What is taken for a vector file; GeoJSON is read with the standard library."""

_LONLAT = "OGC:CRS84"  # of a GeoJSON file that names none (RFC 7946)


@dataclass(frozen=True, eq=False)
class Features:
    """What a vector file holds.

    Attributes:
        path: The file.
        geometries: GeoJSON geometries in the file's order, none missing or empty.
        fields: Values of each field, one per geometry.
        crs: Coordinate system as WKT.
        dropped: Features without a usable geometry.
    """

    path: str
    geometries: tuple[Mapping[str, Any], ...]
    fields: Mapping[str, tuple[Any, ...]]
    crs: str | None
    dropped: int


def read_features(path: Path | str) -> Features:
    """Read a vector file whole: geometries, fields and coordinate system.

    GeoJSON without a ``crs`` member is in longitude and latitude. Other formats need the extra
    ``cl-remote-sensing[vectors]``.

    Raises:
        InputError: If the file cannot be read or holds no geometry, or the extra is missing.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such label file; check the path")
    crs: str | None
    if path.suffix.lower() in (".geojson", ".json"):
        geometries, records, crs = _read_geojson(path)
    else:
        geometries, records, crs = _read_with_pyogrio(path)
    from rasterio.features import is_valid_geom

    kept = [k for k, geometry in enumerate(geometries) if geometry and is_valid_geom(geometry)]
    if not kept:
        raise InputError(f"{path}: holds no polygon; give the labelled areas")
    fields = {name: tuple(values[k] for k in kept) for name, values in records.items()}
    return Features(
        str(path),
        tuple(geometries[k] for k in kept),
        fields,
        crs,
        len(geometries) - len(kept),
    )


def class_values(features: Features, field: str | None, legend: Legend | None) -> tuple[Any, ...]:
    """The class of each feature, as its file has it.

    Args:
        features: Of a file.
        field: The field that holds it. By default the file's only field, or the only one whose
            values the legend knows, or the one of these that is called ``class``.
        legend: The classes, if known.

    Raises:
        InputError: If there is no such field, or it cannot be told which it is.
    """
    known = ", ".join(features.fields) or "none"
    if field is not None:
        if field not in features.fields:
            raise InputError(
                f"{features.path}: has no field '{field}'; its fields are {known}; "
                "name the one with the class"
            )
        return features.fields[field]
    fitting = list(features.fields)
    if legend is not None and len(fitting) > 1:
        number = class_numbers(legend)
        fitting = [
            name for name in fitting if all(number(v) is not None for v in features.fields[name])
        ]
    fitting = ["class"] if "class" in fitting else fitting
    if len(fitting) != 1:
        raise InputError(
            f"{features.path}: cannot tell which field holds the class; its fields are {known}; "
            "name one of them"
        )
    return features.fields[fitting[0]]


def class_numbers(legend: Legend) -> Callable[[Any], int | None]:
    """A function from a field's value, a name or a code, to its train id (``IGNORE``, ``None``)."""
    numbers = {name: k for k, name in enumerate(legend.names)}
    codes = range(len(legend)) if legend.codes is None else legend.codes
    numbers |= {str(code): k for k, code in enumerate(codes) if str(code) not in numbers}
    numbers |= {str(code): IGNORE for code in legend.ignored}

    def number(value: Any) -> int | None:
        whole = isinstance(value, float) and value.is_integer()
        return numbers.get(str(int(value)) if whole else str(value).strip())

    return number


@dataclass(frozen=True, eq=False)
class Shapes:
    """Geometries in the pixels of one raster, each with a train id.

    Attributes:
        geometries: GeoJSON geometries; x is the column, y the row.
        ids: Their train ids, uint8 ``(n,)``.
        boxes: Left, upper, right and lower bound of each, float64 ``(n, 4)``.
    """

    geometries: tuple[Mapping[str, Any], ...]
    ids: NDArray[np.uint8]
    boxes: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        features: Features,
        ids: Sequence[int],
        crs: str,
        transform: tuple[float, float, float, float, float, float],
    ) -> Shapes:
        """Move features onto a raster's grid.

        Args:
            features: Of a file.
            ids: Train id of each.
            crs: Coordinate system of the raster, WKT.
            transform: The raster's affine.

        Raises:
            InputError: If the file's coordinates have no place in ``crs``.
        """
        from affine import Affine
        from rasterio.crs import CRS
        from rasterio.warp import transform_geom

        geometries: Sequence[Mapping[str, Any]] = features.geometries
        source, target = CRS.from_wkt(features.crs), CRS.from_wkt(crs)
        if source != target:
            try:
                geometries = transform_geom(source, target, list(geometries))
            except Exception as error:  # GDAL's and rasterio's errors have no common parent
                raise InputError(
                    f"{features.path}: its coordinates cannot be brought into the image's "
                    f"coordinate system ({error})"
                ) from error
        inverse = ~Affine(*transform)
        moved = tuple(_to_pixels(geometry, inverse) for geometry in geometries)
        boxes = np.array([_box(geometry) for geometry in moved])
        return cls(moved, np.asarray(ids, dtype=np.uint8), boxes)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Train ids of a window, 255 where no geometry covers a pixel's centre.

        Where geometries overlap the later one wins.
        """
        from affine import Affine
        from rasterio.features import rasterize

        left, upper, right, lower = self.boxes.T
        near = (left < window.col + window.width) & (right > window.col)
        near &= (upper < window.row + window.height) & (lower > window.row)
        rows = np.flatnonzero(near)
        shape = (window.height, window.width)
        if not len(rows):
            return np.full(shape, IGNORE, dtype=np.uint8)
        drawn = rasterize(
            ((self.geometries[k], int(self.ids[k])) for k in rows),
            out_shape=shape,
            fill=IGNORE,
            transform=Affine.translation(window.col, window.row),
            all_touched=False,
            dtype="uint8",
        )
        return np.asarray(drawn, dtype=np.uint8)


def _read_geojson(path: Path) -> tuple[list[Any], dict[str, list[Any]], str]:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not GeoJSON ({error})") from error
    features = data.get("features") if isinstance(data, dict) else None
    if not isinstance(features, list) or not all(isinstance(one, dict) for one in features):
        raise InputError(f"{path}: is not GeoJSON; expected a FeatureCollection")
    named = data.get("crs") or {}
    try:
        name = named["properties"]["name"] if named else _LONLAT
        crs = CRS.from_user_input(name).to_wkt()
    except (KeyError, TypeError, CRSError) as error:
        raise InputError(f"{path}: its crs is not known ({error}); name an EPSG code") from error
    properties = [one.get("properties") or {} for one in features]
    names = dict.fromkeys(name for one in properties for name in one)
    fields = {name: [one.get(name) for one in properties] for name in names}
    return [one.get("geometry") for one in features], fields, crs


def _read_with_pyogrio(path: Path) -> tuple[list[Any], dict[str, list[Any]], str | None]:
    try:
        import pyogrio
        import shapely
    except ImportError as error:
        raise InputError(
            f"{path}: reading {path.suffix} needs pyogrio and shapely; install "
            "'cl-remote-sensing[vectors]', or give GeoJSON"
        ) from error
    from rasterio.crs import CRS

    try:
        meta, _, geometries, columns = pyogrio.raw.read(path)
    except Exception as error:  # a zoo of GDAL errors
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    crs = CRS.from_user_input(meta["crs"]).to_wkt() if meta.get("crs") else None
    shapes = shapely.from_wkb(geometries)
    plain = [
        None if one is None or one.is_empty else shapely.geometry.mapping(one) for one in shapes
    ]
    names = [str(name) for name in meta["fields"]]
    return plain, {name: column.tolist() for name, column in zip(names, columns, strict=True)}, crs


def _to_pixels(geometry: Mapping[str, Any], inverse: Any) -> Mapping[str, Any]:
    if geometry["type"] == "GeometryCollection":
        parts = [_to_pixels(part, inverse) for part in geometry["geometries"]]
        return {"type": "GeometryCollection", "geometries": parts}
    return {"type": geometry["type"], "coordinates": _moved(geometry["coordinates"], inverse)}


def _moved(coordinates: Any, inverse: Any) -> Any:
    if isinstance(coordinates[0], int | float):
        return inverse @ (coordinates[0], coordinates[1])
    if isinstance(coordinates[0][0], int | float):
        x, y = np.array([point[:2] for point in coordinates], dtype=np.float64).T
        a, b, c, d, e, f = tuple(inverse)[:6]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1).tolist()
    return [_moved(part, inverse) for part in coordinates]


def _box(geometry: Mapping[str, Any]) -> tuple[float, float, float, float]:
    if geometry["type"] == "GeometryCollection":
        boxes = np.array([_box(part) for part in geometry["geometries"]])
        low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    else:
        points = np.array(list(_points(geometry["coordinates"])))
        low, high = points.min(axis=0), points.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _points(coordinates: Any) -> Any:
    if isinstance(coordinates[0], int | float):
        yield coordinates
    else:
        for part in coordinates:
            yield from _points(part)
