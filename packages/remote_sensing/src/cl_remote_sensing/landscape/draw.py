"""A made-up landscape as GeoTIFF: four bands, a class raster, a slanted edge without data.

Its classes overlap in colour and differ in texture, and the light changes across the scene, so
that a pixel's values alone do not tell its class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from affine import Affine
from numpy.typing import NDArray

from cl_core.runs import write_atomic

__all__ = ["CLASSES", "COLORS", "Landscape", "write_landscape"]

CLASSES = ("water", "forest", "meadow", "field", "built-up")
COLORS = ((70, 130, 200), (30, 110, 50), (150, 200, 90), (225, 195, 110), (190, 70, 60))

#: Reflectance x 10000 in red, green, blue and near infrared; fields lie between soil and crop.
_REFLECTANCE = {
    "water": (420, 520, 560, 260),
    "forest": (480, 720, 400, 2900),
    "meadow": (620, 900, 480, 3100),
    "soil": (1500, 1300, 1050, 2100),
    "crop": (480, 780, 400, 3300),
    "roof": (1900, 1600, 1450, 2000),
    "road": (1000, 1000, 1000, 1200),
}
_PIXEL = 10.0
_CORNER = (500_000.0, 5_600_000.0)  # metres east and north in UTM zone 33

Image = NDArray[np.floating[Any]]


class Landscape(NamedTuple):
    """Files of a landscape.

    Attributes:
        scene: 4 bands, uint16, nodata 0.
        labels: Class codes in the order of :data:`CLASSES`, uint8, nodata 255, with a colour table.
        legend: Names, codes and colours of the classes, YAML.
    """

    scene: Path
    labels: Path
    legend: Path


def write_landscape(folder: Path, *, size: int = 1536, seed: int = 0) -> Landscape:
    """Write a landscape: GeoTIFFs, tiled and compressed, in UTM zone 33, and their legend.

    Args:
        folder: Made if it does not exist.
        size: Edge in pixels of 10 metres.
        seed: The landscape's.
    """
    rng = np.random.default_rng(seed)
    classes, image = _paint(size, rng)
    row, col = np.mgrid[:size, :size]
    outside = row * 0.2 + col < size * 0.05
    values = np.clip(np.rint(image), 1, 65535).astype(np.uint16)
    values[:, outside] = 0
    classes[outside] = 255
    folder.mkdir(parents=True, exist_ok=True)
    files = Landscape(folder / "landscape.tif", folder / "classes.tif", folder / "legend.yaml")
    _write(files.scene, values, nodata=0, names=("red", "green", "blue", "nir"))
    _write(files.labels, classes[None], nodata=255, names=("class",))
    entries = [
        {"name": name, "code": code, "color": list(color)}
        for code, (name, color) in enumerate(zip(CLASSES, COLORS, strict=True))
    ]
    with write_atomic(files.legend) as beside:
        beside.write_text(yaml.safe_dump(entries, sort_keys=False), "utf-8")
    return files


def _paint(size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Image]:
    height = _smooth(size, size / 10, rng)
    wet = _smooth(size, size / 14, rng)
    settled = _smooth(size, size / 16, rng)
    parcel = _parcels(size, size // 28, rng)
    per_parcel = rng.random((4, parcel.max() + 1))
    farmed = per_parcel[0][parcel] + 0.35 * wet > 0.45
    classes = np.where(farmed, 3, 2).astype(np.uint8)
    classes[(height > 0.45) & (wet > -0.9)] = 1
    classes[settled > 1.35] = 4
    classes[height < -1.25] = 0

    row, col = np.mgrid[:size, :size].astype(np.float32)
    angle = np.pi * per_parcel[1][parcel]
    rows = np.sin((row * np.cos(angle) + col * np.sin(angle)) * (2 * np.pi / 6))
    growth = np.clip(per_parcel[2][parcel] + 0.25 * rows, 0, 1)
    crowns = _smooth(size, 1.6, rng)
    grass = _smooth(size, 9, rng)
    house = _parcels(size, size // 5, rng)
    brightness = 0.6 + 0.8 * rng.random(house.max() + 1)
    street = (row.astype(int) % 24 < 3) | (col.astype(int) % 32 < 3)

    def colour(name: str) -> Image:
        return np.asarray(_REFLECTANCE[name], dtype=np.float32)[:, None, None]

    layers = {
        0: colour("water") * (1 + 0.04 * _smooth(size, 3, rng)),
        1: colour("forest") * np.clip(1 + 0.35 * crowns, 0.3, 2),
        2: colour("meadow") * (1 + 0.06 * grass),
        3: colour("soil") * (1 - growth) + colour("crop") * growth,
        4: np.where(street, colour("road"), colour("roof") * brightness[house]),
    }
    image = np.zeros((4, size, size), dtype=np.float32)
    for number, layer in layers.items():
        image[:, classes == number] = np.broadcast_to(layer, image.shape)[:, classes == number]
    light = 1 + 0.18 * _smooth(size, size / 4, rng)
    haze = 120 * (1 + _smooth(size, size / 3, rng))
    noise = 1 + 0.05 * rng.standard_normal(image.shape, dtype=np.float32)
    return classes, image * light * noise + haze


def _smooth(size: int, scale: float, rng: np.random.Generator) -> Image:
    """Gaussian noise of unit variance without detail finer than ``scale`` pixels."""
    frequency = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None] ** 2
    low_pass = np.exp(-2 * (np.pi * scale) ** 2 * frequency)
    noise = np.fft.rfft2(rng.standard_normal((size, size)))
    field = np.fft.irfft2(noise * low_pass, s=(size, size))
    scaled: Image = ((field - field.mean()) / field.std()).astype(np.float32)
    return scaled


def _parcels(size: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Cells of a jittered grid of ``count x count`` points: each pixel's nearest, by number."""
    from scipy.spatial import KDTree

    step = size / count
    corner = np.mgrid[:count, :count].reshape(2, -1).T * step
    points = corner + step * rng.random((count * count, 2))
    pixels = np.mgrid[:size, :size].reshape(2, -1).T
    return np.asarray(KDTree(points).query(pixels)[1], dtype=np.int64).reshape(size, size)


def _write(path: Path, values: NDArray[Any], *, nodata: int, names: tuple[str, ...]) -> None:
    import rasterio
    from rasterio.enums import ColorInterp

    bands, height, width = values.shape
    profile = {
        "driver": "GTiff",
        "dtype": values.dtype.name,
        "count": bands,
        "height": height,
        "width": width,
        "crs": "EPSG:32633",
        "transform": Affine(_PIXEL, 0, _CORNER[0], 0, -_PIXEL, _CORNER[1]),
        "nodata": nodata,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
    }
    with write_atomic(path) as beside, rasterio.open(beside, "w", **profile) as raster:
        raster.write(values)
        raster.descriptions = names
        if bands == 1:
            raster.write_colormap(1, {i: (*rgb, 255) for i, rgb in enumerate(COLORS)})
            raster.update_tags(1, **{f"class_{i}": name for i, name in enumerate(CLASSES)})
        else:
            raster.colorinterp = [
                ColorInterp.red,
                ColorInterp.green,
                ColorInterp.blue,
                ColorInterp.undefined,
            ]
