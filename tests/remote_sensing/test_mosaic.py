"""Virtual mosaics equal the raster they were cut from; tiles that do not fit are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from cl_core.errors import InputError
from cl_remote_sensing.rasters.mosaic import write_vrt
from cl_remote_sensing.rasters.raster import Scene, open_scene
from cl_remote_sensing.rasters.windows import Window

NORTH = Affine(10, 0, 500_000, 0, -10, 4_000_000)
ROTATED = Affine(8, 6, 500_000, 6, -8, 4_000_000)


def write(path: Path, values: np.ndarray, transform: Affine = NORTH, **profile: Any) -> Path:
    """A GeoTIFF of ``values`` ``(c, h, w)``; ``transform`` is that of its first pixel."""
    colors, mask = profile.pop("colors", None), profile.pop("mask", None)
    profile = {"crs": "EPSG:32652", **profile}
    shape = dict(zip(("count", "height", "width"), values.shape, strict=True))
    with rasterio.open(
        path, "w", driver="GTiff", dtype=values.dtype, transform=transform, **shape, **profile
    ) as file:
        if colors:  # before the pixels: afterwards the format cannot make a band alpha
            file.colorinterp = [ColorInterp[color] for color in colors]
        file.write(values)
        if mask is not None:
            file.write_mask(mask)
    return path


def shifted(transform: Affine, row: float, col: float) -> Affine:
    a, b, c, d, e, f = tuple(transform)[:6]
    return Affine(a, b, a * col + b * row + c, d, e, d * col + e * row + f)


def whole(scene: Scene) -> Window:
    return Window(0, 0, scene.height, scene.width)


def noise(bands: int, height: int, width: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(1, 200, (bands, height, width)).astype(dtype)


@pytest.mark.parametrize("transform", [NORTH, ROTATED], ids=["north up", "rotated"])
def test_quarters_give_back_the_raster_and_its_place(tmp_path: Path, transform: Affine) -> None:
    values = noise(3, 40, 50, "uint16")
    cuts = [(20, 0), (0, 0), (0, 30), (20, 30)]  # the first is not the upper left
    paths = []
    for row, col in cuts:
        tile = values[:, row : row + 20, col : (col or 30) + (20 if col else 0)]
        path = tmp_path / f"{row}_{col}.tif"
        paths.append(write(path, tile, shifted(transform, row, col), colors=["red", "nir", "blue"]))
    write_vrt(paths, tmp_path / "all.vrt")
    scene = open_scene(tmp_path / "all.vrt")
    pixels = scene.read(whole(scene))
    np.testing.assert_array_equal(pixels.values, values)
    assert pixels.valid.all()
    assert scene.colors == ("red", "nir", "blue")
    assert scene.transform == pytest.approx(tuple(transform)[:6])


def test_ground_without_a_tile_is_invalid(tmp_path: Path) -> None:
    values = noise(2, 8, 8)
    one = write(tmp_path / "one.tif", values)
    two = write(tmp_path / "two.tif", values, shifted(NORTH, 8, 8))
    write_vrt([one, two], tmp_path / "all.vrt")
    scene = open_scene(tmp_path / "all.vrt")
    valid = scene.read(whole(scene)).valid
    expected = np.kron(np.eye(2), np.ones((8, 8))).astype(bool)
    np.testing.assert_array_equal(valid, expected)


def test_a_mosaic_without_a_gap_needs_no_mask_even_where_tiles_overlap(tmp_path: Path) -> None:
    values = noise(2, 10, 8)
    one = write(tmp_path / "one.tif", values[:, :6])
    two = write(tmp_path / "two.tif", values[:, 4:], shifted(NORTH, 4, 0))
    write_vrt([one, two], tmp_path / "all.vrt")
    assert "MaskBand" not in (tmp_path / "all.vrt").read_text()
    scene = open_scene(tmp_path / "all.vrt")
    np.testing.assert_array_equal(scene.read(whole(scene)).values, values)


@pytest.mark.parametrize("by", ["nodata", "alpha", "mask"])
def test_a_later_tile_covers_an_earlier_one_only_where_it_has_data(tmp_path: Path, by: str) -> None:
    under, over = noise(2, 6, 6), noise(2, 6, 6) + np.uint8(50)
    if by == "nodata":
        over[:, :, :3] = 0
        options: dict[str, Any] = {"nodata": 0}
    elif by == "mask":
        options = {}
    else:
        over[1, :, :3], under[1], over[1, :, 3:] = 0, 255, 255
        options = {"colors": ["gray", "alpha"]}
    one = write(tmp_path / "one.tif", under, **options)
    if by == "mask":
        options["mask"] = np.repeat([[0, 0, 0, 255, 255, 255]], 6, axis=0).astype(np.uint8)
    two = write(tmp_path / "two.tif", over, **options)
    write_vrt([one, two], tmp_path / "all.vrt")
    scene = open_scene(tmp_path / "all.vrt")
    pixels = scene.read(whole(scene))
    assert pixels.valid.all()
    np.testing.assert_array_equal(pixels.values[0, :, :3], under[0, :, :3])
    np.testing.assert_array_equal(pixels.values[0, :, 3:], over[0, :, 3:])


def test_the_mosaic_moves_with_its_tiles_and_keeps_names_that_xml_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "a & b"
    (folder / "tiles").mkdir(parents=True)
    values = noise(1, 4, 4)
    one = write(folder / "tiles" / "Wälder <1>.tif", values)
    write_vrt([one], folder / "all.vrt")
    shutil.move(folder, tmp_path / "moved")
    scene = open_scene(tmp_path / "moved" / "all.vrt")
    np.testing.assert_array_equal(scene.read(whole(scene)).values, values)


def test_a_class_maps_colours_and_tags_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", noise(1, 4, 4), nodata=255)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (1, 2, 3, 255), 1: (4, 5, 6, 255)})
        file.update_tags(classes="field,forest")
        file.set_band_description(1, "class")
    other = write(tmp_path / "other.tif", noise(1, 4, 4), shifted(NORTH, 4, 0), nodata=255)
    with rasterio.open(other, "r+") as file:
        file.write_colormap(1, {0: (9, 9, 9, 255)})
    write_vrt([path, other], tmp_path / "m.vrt")
    with rasterio.open(tmp_path / "m.vrt") as file:
        assert file.colormap(1)[1] == (4, 5, 6, 255)
        assert file.tags()["classes"] == "field,forest"
        assert file.descriptions == ("class",)
        assert file.nodata == 255


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": "EPSG:32651"}, "another coordinate system"),
        ({"transform": Affine(20, 0, 500_080, 0, -20, 4_000_000)}, "not on the pixel grid"),
        ({"transform": shifted(NORTH, 0, 8.5)}, "not on the pixel grid"),
        ({"transform": ROTATED}, "not on the pixel grid"),
        ({"bands": 3}, "another number of bands"),
        ({"dtype": "int16"}, "another type"),
        ({"nodata": 7}, "another nodata value"),
    ],
)
def test_a_tile_of_another_grid_is_refused_by_both_names(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    change = dict(change)
    one = write(tmp_path / "one.tif", noise(2, 8, 8))
    values = noise(change.pop("bands", 2), 8, 8, change.pop("dtype", "uint8"))
    two = write(tmp_path / "two.tif", values, **{"transform": shifted(NORTH, 0, 8), **change})
    with pytest.raises(InputError, match=message) as caught:
        write_vrt([one, two], tmp_path / "all.vrt")
    assert "one.tif" in str(caught.value)
    assert "two.tif" in str(caught.value)
    assert not (tmp_path / "all.vrt").exists()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_tiles_without_a_place_are_refused(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / name, noise(1, 4, 4), Affine.identity(), crs=None)
        for name in ("one.tif", "two.tif")
    ]
    with pytest.raises(InputError, match="no georeference"):
        write_vrt(paths, tmp_path / "all.vrt")


def test_many_more_tiles_than_files_stay_open(tmp_path: Path) -> None:
    values = noise(1, 2, 2 * 80)
    paths = [
        write(tmp_path / f"{k}.tif", values[:, :, 2 * k : 2 * k + 2], shifted(NORTH, 0, 2 * k))
        for k in range(80)
    ]
    write_vrt(paths, tmp_path / "all.vrt")
    scene = open_scene(tmp_path / "all.vrt")
    np.testing.assert_array_equal(scene.read(whole(scene)).values, values)
