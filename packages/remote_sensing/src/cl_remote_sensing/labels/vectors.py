"""Labels drawn as polygons: read from vector files, rasterised a window at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.labels import is_missing
from cl_remote_sensing.labels.legend import IGNORE, Legend
from cl_remote_sensing.labels.vector_files import (
    VECTOR_SUFFIXES,
    Features,
    points_of,
    read_features,
)
from cl_remote_sensing.rasters.systems import system_of
from cl_remote_sensing.rasters.windows import Window

__all__ = [
    "VECTOR_SUFFIXES",
    "Features",
    "Shapes",
    "class_numbers",
    "class_values",
    "is_unset",
    "looks_like_degrees",
    "read_features",
]

_NUMBERS_OF_FEATURES = ("id", "fid", "gid", "oid", "ogc_fid", "objectid", "object_id", "feature_id")
"""Fields that count features: small whole numbers, which codes of a legend are too."""


def class_values(features: Features, field: str | None, legend: Legend | None) -> tuple[Any, ...]:
    """The class of each feature, as its file has it.

    Args:
        features: Of a file.
        field: The field that holds it. By default the file's only field, or the only one whose
            values the legend knows, or the one of these that is called ``class``; where none is
            known throughout, the one of which it knows most. One that counts features, such as
            ``fid``, is not guessed.
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
    if len(fitting) > 1:
        fitting = [name for name in fitting if name.lower() not in _NUMBERS_OF_FEATURES]
    if legend is not None and len(features.fields) > 1:
        known_of = _known_counts(features, legend, fitting)
        total = len(features.geometries)
        fitting = [name for name, (known, _) in known_of.items() if known == total]
        if not fitting:
            most = max((named for _, named in known_of.values()), default=0)
            fitting = [name for name, (_, named) in known_of.items() if 0 < named == most]
    fitting = ["class"] if "class" in fitting else fitting
    if len(fitting) != 1:
        raise InputError(
            f"{features.path}: cannot tell which field holds the class; its fields are {known}; "
            "name one of them"
        )
    return features.fields[fitting[0]]


def is_unset(value: Any) -> bool:
    """Whether a field says that there is no class: null, NaN, blank, ``unknown``, ..."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and is_missing(value)


def _known_counts(
    features: Features, legend: Legend, fields: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Of each of these fields how many values are known or unset, and how many are known."""
    number = class_numbers(legend)
    counts = {}
    for name in fields:
        values = features.fields[name]
        times = Counter(repr(value) for value in values)
        distinct = {repr(value): value for value in values}
        named = sum(times[key] for key, value in distinct.items() if number(value) is not None)
        unset = sum(
            times[key]
            for key, value in distinct.items()
            if number(value) is None and is_unset(value)
        )
        counts[name] = (named + unset if named else 0, named)
    return counts


def class_numbers(legend: Legend) -> Callable[[Any], int | None]:
    """A function from a field's value, a name or a code, to its train id (``IGNORE``, ``None``).

    Names may be written in other capitals where no two differ by them alone.
    """
    numbers = {name: k for k, name in enumerate(legend.names)}
    codes = range(len(legend)) if legend.codes is None else legend.codes
    numbers |= {str(code): k for k, code in enumerate(codes) if str(code) not in numbers}
    numbers |= {str(name): IGNORE for name in (*legend.ignored, *legend.ignored_names)}
    times = Counter(name.casefold() for name in numbers)
    folded = {name.casefold(): k for name, k in numbers.items() if times[name.casefold()] == 1}

    def number(value: Any) -> int | None:
        whole = isinstance(value, float) and value.is_integer()
        word = str(int(value)) if whole else str(value).strip()
        return numbers.get(word, folded.get(word.casefold()))

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
        from rasterio.warp import transform_geom

        geometries: Sequence[Mapping[str, Any]] = features.geometries
        source, target = system_of(str(features.crs)), system_of(crs)
        if source.is_geographic:
            _require_degrees(features)
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
        if not np.isfinite(boxes).all():
            raise InputError(
                f"{features.path}: some of its coordinates have no place in the image's coordinate "
                "system; check the coordinate systems of both"
            )
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


def looks_like_degrees(features: Features) -> bool:
    """Whether all coordinates could be longitudes and latitudes."""
    points = np.array([point[:2] for one in features.geometries for point in points_of(one)])
    return bool((np.abs(points) <= (180, 90)).all())


def _require_degrees(features: Features) -> None:
    """Refuse coordinates that are no longitudes and latitudes.

    Raises:
        InputError: Naming them, and what the file says of its coordinate system.
    """
    points = np.array([point[:2] for one in features.geometries for point in points_of(one)])
    if (np.abs(points) <= (540, 90.1)).all():
        return
    (left, low), (right, high) = points.min(axis=0), points.max(axis=0)
    said = "names no coordinate system, so they are taken as" if features.assumed else "says"
    raise InputError(
        f"{features.path}: its coordinates (x {left:.10g} to {right:.10g}, y {low:.10g} to "
        f"{high:.10g}) are no longitudes and latitudes, but it {said} longitude and latitude; "
        "name the system they are in (in GeoJSON by a member crs)"
    )


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
    points = np.array(list(points_of(geometry)))
    low, high = points.min(axis=0), points.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
