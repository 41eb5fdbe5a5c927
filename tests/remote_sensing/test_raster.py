"""Scenes of every kind: bands, masks, types, place, handles, lists, and files that are broken."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from cl_core.errors import InputError
from cl_remote_sensing.rasters import handles
from cl_remote_sensing.rasters.raster import (
    Scene,
    UnreadableWindowError,
    handle,
    open_scene,
    open_scenes,
)
from cl_remote_sensing.rasters.windows import Window, blockwise

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NORTH = Affine(10, 0, 500_000, 0, -10, 4_000_000)


def write(path: Path, values: np.ndarray, **options: Any) -> Path:
    """A GeoTIFF of ``values`` ``(c, h, w)``."""
    colors, mask = options.pop("colors", None), options.pop("mask", None)
    names = options.pop("names", None)
    shape = dict(zip(("count", "height", "width"), values.shape, strict=True))
    profile = {"driver": "GTiff", "crs": "EPSG:32652", "transform": NORTH, **shape, **options}
    with rasterio.open(path, "w", dtype=values.dtype, **profile) as file:
        if colors:  # before the pixels: afterwards the format cannot make a band alpha
            file.colorinterp = [ColorInterp[color] for color in colors]
        file.descriptions = names or [None] * len(values)
        file.write(values)
        if mask is not None:
            file.write_mask(mask)
    return path


def noise(bands: int, height: int, width: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(1, 100, (bands, height, width)).astype(dtype)


def whole(scene: Scene) -> Window:
    return Window(0, 0, scene.height, scene.width)


TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
def test_values_come_in_the_rasters_own_type(tmp_path: Path, dtype: str) -> None:
    values = noise(3, 20, 30, dtype)
    scene = open_scene(write(tmp_path / "a.tif", values))
    pixels = scene.read(Window(3, 5, 7, 11))
    assert scene.dtype == dtype
    assert pixels.values.dtype == dtype
    assert pixels.valid.dtype == bool
    assert pixels.valid.shape == (7, 11)
    np.testing.assert_array_equal(pixels.values, values[:, 3:10, 5:16])


@settings(max_examples=40, deadline=None)
@given(
    row=st.integers(0, 60),
    col=st.integers(0, 70),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_a_window_is_the_slice_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, height: int, width: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    values = noise(2, 70, 80, "uint16")
    path = folder / "blocks.tif"
    if not path.exists():
        write(path, values, tiled=True, blockxsize=16, blockysize=32, compress="deflate", nodata=7)
    pixels = open_scene(path).read(Window(row, col, height, width))
    expected = values[:, row : row + height, col : col + width]
    np.testing.assert_array_equal(pixels.values, expected)
    np.testing.assert_array_equal(pixels.valid, (expected != 7).all(axis=0))


@pytest.mark.parametrize(
    "window",
    [Window(-1, 0, 4, 4), Window(0, 17, 4, 4), Window(7, 0, 4, 4), Window(0, 0, 0, 4)],
)
def test_a_window_over_the_edge_is_refused(tmp_path: Path, window: Window) -> None:
    scene = open_scene(write(tmp_path / "a.tif", noise(1, 10, 20)))
    with pytest.raises(ValueError, match="inside"):
        scene.read(window)


def test_a_window_can_be_shrunk(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    pixels = open_scene(write(tmp_path / "a.tif", values)).read(Window(0, 0, 8, 8), shape=(4, 2))
    assert pixels.values.shape == (1, 4, 2)
    assert pixels.valid.shape == (4, 2)
    assert set(pixels.values.ravel()) <= set(range(64))


# Validity.


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", 0), ("int16", -9999), ("float32", -3.4e38), ("float64", 1e30), ("float32", np.nan)],
)
def test_a_pixel_with_nodata_in_any_band_is_invalid(
    tmp_path: Path, dtype: str, nodata: float
) -> None:
    values = noise(2, 6, 6, dtype)
    values[0, 0, 0] = values[1, 5, 5] = nodata
    scene = open_scene(write(tmp_path / "a.tif", values, nodata=nodata))
    expected = np.ones((6, 6), bool)
    expected[0, 0] = expected[5, 5] = False
    np.testing.assert_array_equal(scene.read(whole(scene)).valid, expected)


def test_only_the_selected_bands_decide_about_nodata(tmp_path: Path) -> None:
    values = noise(2, 4, 4)
    values[1] = 0
    path = write(tmp_path / "a.tif", values, nodata=0)
    scene = open_scene(path, bands=["1"])
    assert scene.read(whole(scene)).valid.all()
    scene = open_scene(path)
    assert not scene.read(whole(scene)).valid.any()


def test_a_nodata_value_that_the_type_cannot_hold_marks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.vrt"
    write(tmp_path / "a.tif", noise(1, 4, 4))
    path.write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1">'
        "<NoDataValue>-9999</NoDataValue><SimpleSource>"
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    scene = open_scene(path)
    assert scene.nodata is None
    assert scene.read(whole(scene)).valid.all()


def test_values_that_are_not_finite_are_invalid(tmp_path: Path) -> None:
    values = noise(2, 4, 4, "float32")
    values[0, 0, 0], values[1, 1, 1], values[1, 2, 2] = np.nan, np.inf, -np.inf
    scene = open_scene(write(tmp_path / "a.tif", values))
    expected = np.ones((4, 4), bool)
    expected[[0, 1, 2], [0, 1, 2]] = False
    np.testing.assert_array_equal(scene.read(whole(scene)).valid, expected)


def test_alpha_is_the_mask_and_no_band(tmp_path: Path) -> None:
    values = noise(4, 6, 6, "uint16")
    values[3] = 65535
    values[3, :, :2] = 0
    path = write(tmp_path / "a.tif", values, colors=["blue", "green", "red", "alpha"])
    scene = open_scene(path)
    pixels = scene.read(Window(1, 1, 4, 4))
    assert scene.bands == (1, 2, 3)
    assert scene.colors == ("blue", "green", "red")
    np.testing.assert_array_equal(pixels.values, values[:3, 1:5, 1:5])
    np.testing.assert_array_equal(pixels.valid, values[3, 1:5, 1:5] > 0)


def test_alpha_and_nodata_are_both_heeded(tmp_path: Path) -> None:
    values = noise(2, 4, 4)
    values[1], values[1, 0, 0], values[0, 3, 3] = 255, 0, 200
    scene = open_scene(write(tmp_path / "a.tif", values, colors=["gray", "alpha"], nodata=200))
    expected = np.ones((4, 4), bool)
    expected[0, 0] = expected[3, 3] = False
    np.testing.assert_array_equal(scene.read(whole(scene)).valid, expected)


def test_a_band_tagged_alpha_is_taken_for_a_band_on_request(tmp_path: Path) -> None:
    values = noise(4, 6, 6)
    values[3, 0, 0] = 0
    path = write(tmp_path / "a.tif", values, colors=["red", "green", "blue", "alpha"])
    scene = open_scene(path, bands=["1", "2", "3", "4"], ignore_alpha_tag=True)
    pixels = scene.read(whole(scene))
    assert scene.colors[3] == "undefined"
    np.testing.assert_array_equal(pixels.values, values)
    assert pixels.valid.all()
    with pytest.raises(InputError, match=r"band 4 is tagged as alpha.*--ignore_alpha_tag"):
        open_scene(path, bands=["4"])


def test_an_internal_mask_is_heeded(tmp_path: Path) -> None:
    mask = np.full((6, 6), 255, np.uint8)
    mask[2, 3] = 0
    scene = open_scene(write(tmp_path / "a.tif", noise(3, 6, 6), mask=mask))
    np.testing.assert_array_equal(scene.read(Window(1, 1, 4, 4)).valid, mask[1:5, 1:5] > 0)


def test_bands_with_different_nodata_values_are_each_heeded(tmp_path: Path) -> None:
    values = noise(2, 4, 4)
    values[0, 0, 0], values[1, 1, 1] = 200, 201
    write(tmp_path / "a.tif", values)
    band = (
        '<VRTRasterBand dataType="Byte" band="{0}"><NoDataValue>{1}</NoDataValue><SimpleSource>'
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{0}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
    )
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4">'
        f"{band.format(1, 200)}{band.format(2, 201)}</VRTDataset>"
    )
    scene = open_scene(tmp_path / "a.vrt")
    expected = np.ones((4, 4), bool)
    expected[0, 0] = expected[1, 1] = False
    np.testing.assert_array_equal(scene.read(whole(scene)).valid, expected)


# Bands.


def test_bands_are_found_by_number_name_and_colour_in_the_order_asked_for(tmp_path: Path) -> None:
    values = noise(4, 4, 4)
    path = write(
        tmp_path / "a.tif",
        values,
        colors=["blue", "green", "red", "undefined"],
        names=["B02", "B03", "B04", "nir"],
    )
    scene = open_scene(path, bands=["NIR", "red", "b03", "1"])
    assert scene.bands == (4, 3, 2, 1)
    assert scene.names == ("nir", "B04", "B03", "B02")
    assert scene.colors == ("nir", "red", "green", "blue")
    np.testing.assert_array_equal(scene.read(whole(scene)).values, values[[3, 2, 1, 0]])


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (["swir"], r"no band 'swir' for --bands; there are 1 \(gray\), 2 \(undefined\)"),
        (["0"], "no band '0'"),
        (["4"], "no band '4'"),
        (["undefined"], "bands 2, 3 are all called 'undefined'"),
        (["1", "gray"], "band 1 is asked for twice"),
        ([], "no band is asked for"),
    ],
)
def test_bands_that_cannot_be_meant_are_refused(
    tmp_path: Path, bands: list[str], message: str
) -> None:
    path = write(tmp_path / "a.tif", noise(3, 4, 4), colors=["gray", "undefined", "undefined"])
    with pytest.raises(InputError, match=message):
        open_scene(path, bands=bands)


def test_complex_numbers_and_palettes_are_no_image(tmp_path: Path) -> None:
    path = write(tmp_path / "sar.tif", noise(1, 4, 4).astype("complex64"))
    with pytest.raises(InputError, match=r"sar\.tif: complex numbers \(complex64\).*intensity"):
        open_scene(path)
    path = write(tmp_path / "palette.tif", noise(1, 4, 4), photometric="palette")
    with pytest.raises(InputError, match=r"palette\.tif: a palette image.*-expand rgb"):
        open_scene(path)


# Place on the ground.


def test_the_footprint_of_a_rotated_scene_has_its_true_corners(tmp_path: Path) -> None:
    turned = Affine(8, 6, 1000, 6, -8, 2000)
    scene = open_scene(write(tmp_path / "a.tif", noise(1, 10, 20), transform=turned))
    assert scene.footprint() == ((1000, 2000), (1160, 2120), (1220, 2040), (1060, 1920))
    assert scene.footprint(Window(5, 0, 5, 10))[0] == (1030, 1960)
    assert scene.georeferenced
    assert scene.notes == ()
    assert scene.crs is not None
    assert rasterio.crs.CRS.from_wkt(scene.crs) == rasterio.crs.CRS.from_epsg(32652)


def test_a_png_works_and_its_missing_place_is_told(tmp_path: Path) -> None:
    values = noise(3, 12, 9)
    Image.fromarray(values.transpose(1, 2, 0)).save(tmp_path / "a.png")
    scene = open_scene(tmp_path / "a.png")
    np.testing.assert_array_equal(scene.read(Window(1, 2, 3, 4)).values, values[:, 1:4, 2:6])
    assert not scene.georeferenced
    assert scene.crs is None
    assert scene.notes == (f"{tmp_path / 'a.png'}: no georeference; used in pixel space",)
    assert scene.footprint()[2] == (9, 12)


def test_a_place_by_control_points_alone_or_without_crs_is_told(tmp_path: Path) -> None:
    points = [GroundControlPoint(row, col, col, -row) for row, col in ((0, 0), (0, 9), (9, 0))]
    path = write(tmp_path / "gcp.tif", noise(1, 10, 10), transform=None, crs=None)
    with rasterio.open(path, "r+") as file:
        file.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    (note,) = open_scene(path).notes
    assert "3 ground control points" in note
    (note,) = open_scene(write(tmp_path / "b.tif", noise(1, 4, 4), crs=None)).notes
    assert "no coordinate system" in note


# Broken files.


def test_a_truncated_file_names_itself_and_the_window(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.tif", noise(3, 256, 256), tiled=True, blockxsize=64, blockysize=64)
    path.write_bytes(path.read_bytes()[:100_000])
    scene = open_scene(path)
    scene.read(Window(0, 0, 64, 64))
    with pytest.raises(
        UnreadableWindowError, match=r"cut\.tif: cannot read rows 192 to 255, columns 128 to 255"
    ):
        scene.read(Window(192, 128, 64, 128))
    scene.read(Window(0, 0, 64, 64))


def test_damaged_blocks_are_an_input_error(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.tif", noise(1, 128, 128), compress="deflate")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    scene = open_scene(path)
    with pytest.raises(InputError, match=r"bad\.tif: cannot read rows 0 to 127"):
        scene.read(whole(scene))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.touch(), r"x\.tif: the file is empty \(0 bytes\)"),
        (lambda path: path.write_text("no raster"), r"x\.tif: not a raster that GDAL can read"),
        (lambda path: None, r"x\.tif: no such file"),
        (lambda path: path.mkdir(), r"x\.tif: a folder"),
    ],
    ids=["empty", "text", "missing", "folder"],
)
def test_what_is_no_raster_is_said_in_one_line(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "x.tif")
    with pytest.raises(InputError, match=message) as caught:
        open_scene(tmp_path / "x.tif")
    assert "\n" not in str(caught.value)


# Handles.


def test_a_scene_is_read_after_pickling_in_threads_and_in_forked_processes(tmp_path: Path) -> None:
    values = noise(2, 64, 64, "uint16")
    scene = open_scene(write(tmp_path / "Straße ü.tif", values, compress="deflate"))
    parent = handle(scene.path)
    copy = pickle.loads(pickle.dumps(scene))
    assert copy == scene
    seen: list[object] = []

    def work() -> None:
        np.testing.assert_array_equal(copy.read(whole(copy)).values, values)
        seen.append(handle(copy.path))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in (*seen, parent)}) == 4
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            for pixels in pool.map(scene.read, [whole(scene)] * 4):
                np.testing.assert_array_equal(pixels.values, values)
    assert not parent.closed
    np.testing.assert_array_equal(scene.read(whole(scene)).values, values)


def test_few_files_stay_open(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{k}.tif", noise(1, 2, 2))) for k in range(handles.MAX_OPEN + 3)]
    opened = [handle(path) for path in paths]
    assert [one.closed for one in opened] == [True] * 3 + [False] * handles.MAX_OPEN
    assert handle(paths[-1]) is opened[-1]
    assert not handle(paths[0]).closed


# Many rasters.


def test_folders_lists_and_files_are_found_once_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    b = write(tmp_path / "in" / "b.tif", noise(1, 4, 4))
    a = write(tmp_path / "in" / "sub" / "a.TIFF", noise(1, 4, 4))
    (tmp_path / "in" / ".hidden.tif").touch()
    (tmp_path / "in" / "read.me").touch()
    (tmp_path / "in" / "all.vrt").touch()
    (tmp_path / "list.txt").write_text("# tiles\nin/sub/a.TIFF\n\n/vsimem/x.tif\n")
    assert [scene.path for scene in open_scenes([tmp_path / "in"])] == [str(b), str(a)]
    assert [scene.path for scene in open_scenes([b, tmp_path / "in"])] == [str(b), str(a)]
    with pytest.raises(InputError, match=r"^/vsimem/x\.tif: not a raster"):
        open_scenes([tmp_path / "list.txt"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"values": noise(5, 4, 4)}, r"b\.tif has 5 bands but .*a\.tif has 3"),
        ({"values": noise(3, 4, 4, "uint16")}, r"b\.tif is uint16 but .*a\.tif is uint8"),
        (
            {"values": noise(3, 4, 4), "colors": ["blue", "green", "red"]},
            r"b\.tif has the bands blue, green, red but .*--bands red,green,blue",
        ),
    ],
)
def test_rasters_that_do_not_go_together_are_refused(
    tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    write(tmp_path / "a.tif", noise(3, 4, 4), colors=["red", "green", "blue"])
    write(tmp_path / "b.tif", **other)
    with pytest.raises(InputError, match=message):
        open_scenes([tmp_path])


def test_colours_bring_rasters_of_another_band_order_together(tmp_path: Path) -> None:
    values = noise(3, 4, 4)
    write(tmp_path / "a.tif", values, colors=["red", "green", "blue"])
    write(tmp_path / "b.tif", values[::-1], colors=["blue", "green", "red"])
    one, two = open_scenes([tmp_path], bands=["red", "green", "blue"])
    np.testing.assert_array_equal(one.read(whole(one)).values, two.read(whole(two)).values)


@pytest.mark.parametrize(
    ("text", "message"), [("", "names no raster"), (None, "no such list of rasters")]
)
def test_nothing_to_open_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_scenes([tmp_path / "list.txt"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="no raster in this folder"):
        open_scenes([tmp_path / "folder"])
    with pytest.raises(InputError, match="no raster is given"):
        open_scenes([])


def test_a_raster_inside_an_archive_is_read_in_place(tmp_path: Path) -> None:
    values = noise(1, 4, 4)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(write(tmp_path / "a.tif", values), "a.tif")
    (scene,) = open_scenes([f"/vsizip/{tmp_path / 'a.zip'}/a.tif"])
    np.testing.assert_array_equal(scene.read(whole(scene)).values, values)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    block=st.tuples(st.integers(1, 40), st.integers(1, 100)),
    pixels=st.integers(1, 3000),
)
def test_windows_along_blocks_hold_every_pixel_once_and_split_no_block(
    height: int, width: int, block: tuple[int, int], pixels: int
) -> None:
    seen = np.zeros((height, width), int)
    for row, col, rows, cols in blockwise(height, width, block=block, pixels=pixels):
        assert row % min(block[0], height) == 0
        assert col % min(block[1], width) == 0
        assert row + rows <= height
        assert col + cols <= width
        assert rows * cols <= max(pixels, block[0] * block[1])
        seen[row : row + rows, col : col + cols] += 1
    assert (seen == 1).all()


def test_slow_strips_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    options = {"sparse_ok": True, "count": 1, "dtype": "uint8", "crs": "EPSG:32652"}
    with rasterio.open(
        path, "w", driver="GTiff", height=2500, width=2500, transform=NORTH, **options
    ):
        pass
    (note,) = open_scene(path).notes
    assert "strips" in note
