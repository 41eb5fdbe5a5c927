import builtins
import json
import pickle
import socket
from contextlib import suppress

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import mutants
from raster_files import GRID, write
from rasterio.warp import transform as move

from cl_core.errors import InputError
from cl_remote_sensing.labels.discovery import discover
from cl_remote_sensing.labels.legend import Legend, default_colors
from cl_remote_sensing.labels.scene_labels import IGNORE, open_labels, pair_labels
from cl_remote_sensing.rasters.raster import open_scene
from cl_remote_sensing.rasters.windows import Window

LEGEND = Legend(
    ("building", "road", "field"), (10, 30, 50), ((255, 0, 0), (90, 90, 90), (0, 0, 255))
)


def image(path, height=40, width=50, **options):
    rng = np.random.default_rng(0)
    return open_scene(
        write(path, rng.integers(1, 255, (3, height, width), dtype=np.uint8), **options)
    )


def codes(height=40, width=50, seed=0):
    return np.random.default_rng(seed).choice(np.uint8([10, 30, 50]), (height, width))


def ids_of(values):
    """Train ids by a loop over classes."""
    ids = np.full(values.shape, IGNORE, np.uint8)
    for k, code in enumerate(LEGEND.codes):
        ids[values == code] = k
    return ids


def whole(scene):
    return Window(0, 0, scene.height, scene.width)


def square(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def geojson(path, features, crs="EPSG:32652", field="class"):
    collection = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {field: value},
                "geometry": ring and {"type": "Polygon", "coordinates": [ring]},
            }
            for ring, value in features
        ],
    }
    if crs:
        collection["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(collection))
    return path


def test_sparse_codes_become_train_ids(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes()
    labels = open_labels(scene, write(tmp_path / "l.tif", values), LEGEND)
    np.testing.assert_array_equal(labels.read(Window(3, 7, 20, 30)), ids_of(values)[3:23, 7:37])
    assert labels.read(whole(scene)).dtype == np.uint8
    assert labels.counts == tuple((values == code).sum() for code in LEGEND.codes)
    assert labels.unlabelled == 0
    assert labels.notes == ()


def test_nodata_and_ignored_codes_are_unlabelled(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes()
    values[:5], values[5:9] = 0, 99
    legend = Legend(LEGEND.names, LEGEND.codes, LEGEND.colors, ignored=(99,))
    labels = open_labels(scene, write(tmp_path / "l.tif", values, nodata=0), legend)
    read = labels.read(whole(scene))
    assert (read[:9] == IGNORE).all()
    np.testing.assert_array_equal(read[9:], ids_of(values)[9:])
    assert labels.unlabelled == 9 * 50
    assert "labels 77.5% of" in labels.notes[0]


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float32"])
def test_codes_of_every_type_are_read(tmp_path, dtype):
    scene, values = image(tmp_path / "i.tif"), codes().astype(dtype) * 100
    values[0, 0] = -9999 if dtype != "uint16" else 9999
    legend = Legend(LEGEND.names, (1000, 3000, 5000), LEGEND.colors)
    path = write(tmp_path / "l.tif", values, nodata=values[0, 0].item())
    expected = ids_of(values // 100)
    expected[0, 0] = IGNORE
    np.testing.assert_array_equal(open_labels(scene, path, legend).read(whole(scene)), expected)


def test_nan_is_unlabelled_and_a_fraction_is_refused(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes().astype(np.float32)
    values[2, 3] = np.nan
    labels = open_labels(scene, write(tmp_path / "l.tif", values), LEGEND)
    assert labels.read(whole(scene))[2, 3] == IGNORE
    values[7, 7] = 10.5
    with pytest.raises(InputError, match=r"not whole, such as 10\.5"):
        open_labels(scene, write(tmp_path / "m.tif", values), LEGEND)


def test_a_code_outside_the_legend_is_refused_by_code_and_file(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes()
    values[3, 4] = 77
    path = write(tmp_path / "l.tif", values)
    with pytest.raises(InputError, match=r"l\.tif: code 77 \(1\) not in the legend") as caught:
        open_labels(scene, path, LEGEND)
    assert "10 building, 30 road, 50 field" in str(caught.value)
    labels = open_labels(scene, path, LEGEND, tolerance=0.001)
    assert labels.read(whole(scene))[3, 4] == IGNORE
    assert labels.unknown == (("code 77", 1),)
    assert "code 77 (1)" in labels.notes[0]


def test_a_palette_counts_by_its_index(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes()
    palette = {10: (1, 1, 1, 255), 30: (2, 2, 2, 255), 50: (3, 3, 3, 255)}
    labels = open_labels(scene, write(tmp_path / "l.tif", values, palette=palette), LEGEND)
    np.testing.assert_array_equal(labels.read(whole(scene)), ids_of(values))


def test_a_legend_without_codes_knows_a_palette_by_its_colors(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes()
    palette = dict(zip(LEGEND.codes, ((*color, 255) for color in LEGEND.colors), strict=True))
    path = write(tmp_path / "l.tif", values, palette=palette)
    labels = open_labels(scene, path, Legend(LEGEND.names, None, LEGEND.colors))
    np.testing.assert_array_equal(labels.read(whole(scene)), ids_of(values))


def test_a_legend_without_codes_takes_a_plain_raster_for_train_ids(tmp_path):
    scene, values = image(tmp_path / "i.tif"), ids_of(codes())
    path = write(tmp_path / "l.tif", values)
    labels = open_labels(scene, path, Legend(LEGEND.names, None, LEGEND.colors))
    np.testing.assert_array_equal(labels.read(whole(scene)), values)


def colored(values, legend=LEGEND):
    picture = np.zeros((3, *values.shape), np.uint8)
    for code, color in zip(legend.codes, legend.colors, strict=True):
        picture[:, values == code] = np.uint8(color)[:, None]
    return picture


def test_colors_are_looked_up_exactly_and_few_unknown_ones_are_told(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes()
    picture = colored(values)
    picture[:, 0, 0] = 255, 0, 1  # one off red
    labels = open_labels(scene, write(tmp_path / "l.tif", picture), LEGEND)
    expected = ids_of(values)
    expected[0, 0] = IGNORE
    np.testing.assert_array_equal(labels.read(whole(scene)), expected)
    assert labels.unknown == (("color 255 0 1", 1),)
    picture[:, 1, :2] = np.uint8([[255], [0], [1]])  # 3 of 2000 pixels
    with pytest.raises(InputError, match=r"color 255 0 1 \(3\).* 0\.15% of the pixels"):
        open_labels(scene, write(tmp_path / "m.tif", picture), LEGEND)


def test_alpha_says_where_colors_are_labels(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes()
    alpha = np.full((1, 40, 50), 255, np.uint8)
    alpha[0, :3] = 0
    picture = np.concatenate([colored(values), alpha])
    path = write(tmp_path / "l.tif", picture, photometric="RGB", alpha="yes")
    labels = open_labels(scene, path, LEGEND)
    expected = ids_of(values)
    expected[:3] = IGNORE
    np.testing.assert_array_equal(labels.read(whole(scene)), expected)


def test_four_bands_are_no_labels(tmp_path):
    scene = image(tmp_path / "i.tif")
    path = write(tmp_path / "l.tif", np.zeros((4, 40, 50), np.uint16))
    with pytest.raises(InputError, match="has 4 bands of uint16; a label raster has one band"):
        open_labels(scene, path, LEGEND)


def test_a_shifted_and_cropped_grid_is_warped_onto_the_image(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes(30, 30)
    shifted = GRID @ Affine.translation(-5, 20)
    labels = open_labels(scene, write(tmp_path / "l.tif", values, transform=shifted), LEGEND)
    expected = np.full((40, 50), IGNORE, np.uint8)
    expected[20:40, :25] = ids_of(values)[:20, 5:]
    np.testing.assert_array_equal(labels.read(whole(scene)), expected)
    assert "another size" in labels.notes[0]
    assert "warped onto its grid by nearest neighbour" in labels.notes[0]


def test_a_coarser_grid_is_repeated_and_nodata_stays_unlabelled(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes(8, 10)
    values[0, 0] = 0
    path = write(tmp_path / "l.tif", values, transform=GRID @ Affine.scale(5), nodata=0)
    labels = open_labels(scene, path, LEGEND)
    expected = np.repeat(np.repeat(ids_of(values), 5, 0), 5, 1)
    np.testing.assert_array_equal(labels.read(whole(scene)), expected)


@pytest.mark.parametrize("marked", ["alpha", "internal mask", "nodata"])
def test_masked_labels_stay_unlabelled_when_they_are_warped(tmp_path, marked):
    scene, values, path = image(tmp_path / "i.tif"), codes(), tmp_path / "l.tif"
    seen = np.ones((40, 50), np.uint8) * 255
    seen[:20, 7:] = 0
    shifted = GRID @ Affine.translation(-5, -5)
    if marked == "alpha":
        write(path, np.stack([values, seen]), transform=shifted, alpha="yes")
    elif marked == "nodata":
        write(path, np.where(seen, values, 9).astype(np.uint8), transform=shifted, nodata=9)
    else:
        write(path, values, transform=shifted)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(seen)
    expected = np.full((40, 50), IGNORE, np.uint8)
    expected[:35, :45] = np.where(seen, ids_of(values), IGNORE)[5:, 5:]
    read = open_labels(scene, path, LEGEND).read(whole(scene))
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("target", ["EPSG:4326", "EPSG:3857", "EPSG:32651"])
def test_labels_in_another_crs_follow_the_ground(tmp_path, target):
    """A chessboard of large fields, sampled at pixel centres by coordinates alone."""
    scene = image(tmp_path / "i.tif", 120, 130)
    corners = np.array(scene.footprint()).T
    x, y = move("EPSG:32652", target, *corners)
    step = (max(x) - min(x)) / 300
    north = Affine(step, 0, min(x) - 20 * step, 0, -step, max(y) + 20 * step)
    height = int((max(y) - min(y)) / step) + 40
    rows, cols = np.mgrid[:height, :340]
    values = np.where((rows // 60 + cols // 60) % 2, 10, 30).astype(np.uint8)
    path = write(tmp_path / "l.tif", values, transform=north, crs=target)
    labels = open_labels(scene, path, LEGEND)
    assert "another coordinate system" in labels.notes[0]
    row, col = np.mgrid[:120, :130] + 0.5
    x, y = GRID @ (col.ravel(), row.ravel())
    back = ~north @ np.array(move("EPSG:32652", target, x, y))
    picked = ids_of(values[back[1].astype(int), back[0].astype(int)]).reshape(120, 130)
    read = labels.read(whole(scene))
    assert set(np.unique(read)) == {0, 1}  # nearest: no code is invented
    assert (read != picked).mean() < 0.01  # GDAL may be an eighth of a pixel off


def test_windows_of_warped_labels_are_cuts_of_the_whole(tmp_path):
    scene, values = image(tmp_path / "i.tif", 90, 70), codes(100, 100)
    path = write(tmp_path / "l.tif", values, transform=GRID @ Affine.translation(-3.3, -2.6))
    labels = open_labels(scene, path, LEGEND)
    full = labels.read(whole(scene))
    for window in (Window(0, 0, 33, 70), Window(31, 17, 59, 53), Window(89, 69, 1, 1)):
        row, col, height, width = window
        part = full[row : row + height, col : col + width]
        np.testing.assert_array_equal(labels.read(window), part)


def test_a_rotated_image_takes_rotated_and_upright_labels(tmp_path):
    turned = GRID @ Affine.rotation(30)
    scene, values = image(tmp_path / "i.tif", transform=turned), codes()
    same = open_labels(scene, write(tmp_path / "l.tif", values, transform=turned), LEGEND)
    np.testing.assert_array_equal(same.read(whole(scene)), ids_of(values))
    assert same.notes == ()
    upright = write(
        tmp_path / "u.tif", codes(120, 120), transform=GRID @ Affine.translation(-40, -40)
    )
    labels = open_labels(scene, upright, LEGEND)
    row, col = np.mgrid[:40, :50] + 0.5
    x, y = turned @ (col.ravel(), row.ravel())
    back = ~(GRID @ Affine.translation(-40, -40)) @ np.array((x, y))
    picked = ids_of(codes(120, 120))[back[1].astype(int), back[0].astype(int)].reshape(40, 50)
    assert (labels.read(whole(scene)) != picked).mean() < 0.12  # 1/8 pixel at random codes


def test_rounding_in_the_file_is_the_same_grid(tmp_path):
    scene = image(tmp_path / "i.tif")
    close = GRID @ Affine.translation(1e-4, -1e-4)
    labels = open_labels(scene, write(tmp_path / "l.tif", codes(), transform=close), LEGEND)
    assert labels.notes == ()


def test_no_overlap_names_both_bounds(tmp_path):
    scene = image(tmp_path / "i.tif")
    far = GRID @ Affine.translation(1000, 0)
    with pytest.raises(InputError, match="does not overlap") as caught:
        open_labels(scene, write(tmp_path / "l.tif", codes(), transform=far), LEGEND)
    assert "x 310000 to 310500, y 4099600 to 4100000" in str(caught.value)
    assert "the image x 300000 to 300500, y 4099600 to 4100000" in str(caught.value)


def test_touching_is_no_overlap(tmp_path):
    scene = image(tmp_path / "i.tif")
    beside = GRID @ Affine.translation(50, 0)
    with pytest.raises(InputError, match="does not overlap"):
        open_labels(scene, write(tmp_path / "l.tif", codes(), transform=beside), LEGEND)


@pytest.mark.parametrize(("one", "other"), [("EPSG:32652", None), (None, "EPSG:32652")])
def test_a_crs_on_one_side_only_is_refused(tmp_path, one, other):
    scene = image(tmp_path / "i.tif", crs=one)
    path = write(tmp_path / "l.tif", codes(), crs=other)
    lacking = "i" if one is None else "l"
    with pytest.raises(InputError, match=rf"{lacking}\.tif: has no coordinate system but"):
        open_labels(scene, path, LEGEND)


def test_without_any_crs_the_size_must_agree_and_this_is_told(tmp_path):
    scene = image(tmp_path / "i.tif", crs=None)
    labels = open_labels(scene, write(tmp_path / "l.tif", codes(), crs=None), LEGEND)
    assert "taken as aligned" in labels.notes[0]
    with pytest.raises(InputError, match=r"has 39 x 50 pixels but .* 40 x 50"):
        open_labels(scene, write(tmp_path / "m.tif", codes(39), crs=None), LEGEND)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("crs", [None, "EPSG:32652"])
@pytest.mark.parametrize("lacking", ["labels", "image"])
def test_a_mask_of_equal_size_without_georeference_is_taken_as_aligned(tmp_path, crs, lacking):
    bare = {"transform": None, "crs": crs}
    scene = image(tmp_path / "i.tif", **(bare if lacking == "image" else {}))
    path = write(tmp_path / "l.tif", codes(), **(bare if lacking == "labels" else {}))
    labels = open_labels(scene, path, LEGEND)
    np.testing.assert_array_equal(labels.read(whole(scene)), ids_of(codes()))
    name = "l" if lacking == "labels" else "i"
    assert labels.notes[0].endswith(f"{name}.tif: has no georeference; taken as aligned")
    other = write(tmp_path / "m.tif", codes(39), **(bare if lacking == "labels" else {}))
    with pytest.raises(InputError, match=r"39 x 50 pixels but the image 40 x 50; without a place"):
        open_labels(scene, other, LEGEND)


@pytest.mark.parametrize("shift", [0, 5])
def test_the_legend_beats_the_nodata_value_of_the_file(tmp_path, shift):
    scene, values = image(tmp_path / "i.tif"), codes()
    moved = GRID @ Affine.translation(-shift, -shift)
    path = write(tmp_path / "l.tif", values, nodata=30, transform=moved)
    labels = open_labels(scene, path, LEGEND)
    expected = np.full((40, 50), IGNORE, np.uint8)
    expected[: 40 - shift, : 50 - shift] = ids_of(values)[shift:, shift:]
    np.testing.assert_array_equal(labels.read(whole(scene)), expected)
    assert "its nodata value 30 is the class road of the legend" in labels.notes[0]


def test_a_black_class_beats_black_as_nodata(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes()
    legend = Legend(LEGEND.names, None, ((0, 0, 0), (90, 90, 90), (0, 0, 255)))
    picture = np.uint8(legend.colors)[ids_of(values)].transpose(2, 0, 1)
    labels = open_labels(scene, write(tmp_path / "l.tif", picture, nodata=0), legend)
    np.testing.assert_array_equal(labels.read(whole(scene)), ids_of(values))


def test_without_a_legend_255_beyond_counting_codes_is_no_label_and_told(tmp_path):
    scene, values = image(tmp_path / "i.tif"), ids_of(codes())
    values[:4] = 255
    path = write(tmp_path / "l.tif", values)
    legend = discover([path])
    assert legend.codes == (0, 1, 2)
    labels = open_labels(scene, path, legend)
    assert labels.unlabelled == 4 * 50
    assert "200 pixels marked as no label (255)" in labels.notes[-1]
    two = write(tmp_path / "m.tif", np.where(values == 0, 0, 255).astype(np.uint8))
    assert discover([two]).codes == (0, 255)  # a mask: both are classes


def test_a_replaced_label_file_is_read_anew(tmp_path):
    scene = image(tmp_path / "i.tif")
    shifted = {"transform": GRID @ Affine.translation(-5, -5)}
    for options in ({}, shifted):
        path = write(tmp_path / "l.tif", np.full((40, 50), 10, np.uint8), **options)
        first = open_labels(scene, path, LEGEND)
        write(path, np.full((40, 50), 50, np.uint8), **options)
        assert first.read(Window(0, 0, 3, 3)).tolist() == [[2] * 3] * 3
        assert open_labels(scene, path, LEGEND).counts[0] == 0


def test_the_image_is_not_its_own_label(tmp_path):
    scene = image(tmp_path / "i.tif")
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match="is the image itself"):
        open_labels(scene, tmp_path / "sub" / ".." / "i.tif", LEGEND)


def test_a_truncated_label_file_is_told_with_its_window(tmp_path):
    scene, path = image(tmp_path / "i.tif", 300, 300), tmp_path / "l.tif"
    write(path, codes(300, 300), compress="deflate", tiled=True, blockxsize=128, blockysize=128)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(InputError, match=r"l\.tif: (cannot read the labels of rows|not a raster)"):
        open_labels(scene, path, LEGEND)


def test_a_scene_without_a_label_is_told(tmp_path):
    scene = image(tmp_path / "i.tif")
    empty = write(tmp_path / "l.tif", np.zeros((40, 50), np.uint8), nodata=0)
    labels = open_labels(scene, empty, LEGEND)
    assert labels.counts == (0, 0, 0)
    assert "labels no pixel" in labels.notes[0]


def test_a_window_beyond_the_scene_is_refused(tmp_path):
    scene = image(tmp_path / "i.tif")
    labels = open_labels(scene, write(tmp_path / "l.tif", codes()), LEGEND)
    with pytest.raises(ValueError, match="expected a window inside"):
        labels.read(Window(0, 40, 10, 11))


def test_labels_travel_to_other_processes(tmp_path):
    scene, values = image(tmp_path / "i.tif"), codes()
    shifted = GRID @ Affine.translation(-1, -1)
    polygon = geojson(tmp_path / "l.geojson", [(square(300100, 4099900, 300200, 4099800), 10)])
    for labels in (
        open_labels(scene, write(tmp_path / "l.tif", values), LEGEND),
        open_labels(scene, write(tmp_path / "w.tif", values, transform=shifted), LEGEND),
        open_labels(scene, polygon, LEGEND),
    ):
        again = pickle.loads(pickle.dumps(labels))
        np.testing.assert_array_equal(again.read(whole(scene)), labels.read(whole(scene)))


def test_polygons_take_the_pixels_whose_centres_they_cover(tmp_path):
    scene = image(tmp_path / "i.tif")
    ring = square(300104, 4099896, 300156, 4099844)  # columns 10.4 to 15.6, rows 10.4 to 15.6
    labels = open_labels(scene, geojson(tmp_path / "l.geojson", [(ring, "road")]), LEGEND)
    expected = np.full((40, 50), IGNORE, np.uint8)
    expected[10:16, 10:16] = 1  # centres 10.5 to 15.5
    np.testing.assert_array_equal(labels.read(whole(scene)), expected)
    assert labels.counts == (0, 36, 0)


def test_later_polygons_win_and_windows_are_cuts_of_the_whole(tmp_path):
    scene = image(tmp_path / "i.tif")
    rng = np.random.default_rng(3)
    features = []
    for _ in range(30):
        x, y = 300000 + rng.uniform(0, 500), 4100000 - rng.uniform(0, 400)
        features.append((square(x, y, x + 90, y - 70), int(rng.choice(LEGEND.codes))))
    labels = open_labels(scene, geojson(tmp_path / "l.geojson", features), LEGEND)
    full = labels.read(whole(scene))
    expected = np.full((40, 50), IGNORE, np.uint8)
    for ring, code in features:
        (left, top), (right, bottom) = ring[0], ring[2]
        x, y = 300005 + 10 * np.arange(50), 4099995 - 10 * np.arange(40)
        inside = (x > left) & (x < right) & ((y < top) & (y > bottom))[:, None]
        expected[inside] = LEGEND.codes.index(code)
    np.testing.assert_array_equal(full, expected)
    np.testing.assert_array_equal(labels.read(Window(11, 13, 20, 30)), full[11:31, 13:43])


def test_geojson_without_crs_is_in_longitude_and_latitude(tmp_path):
    scene = image(tmp_path / "i.tif")
    ring = square(300100, 4099900, 300200, 4099800)
    lon, lat = move("EPSG:32652", "EPSG:4326", *np.array(ring).T)
    degrees = geojson(
        tmp_path / "d.geojson", [(np.stack([lon, lat], 1).tolist(), "field")], crs=None
    )
    metres = geojson(tmp_path / "m.geojson", [(ring, "field")])
    one, other = (open_labels(scene, path, LEGEND).read(whole(scene)) for path in (degrees, metres))
    assert (one == 2).sum() == 100
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
def test_geopackage_and_shapefile_equal_geojson(tmp_path, suffix):
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    scene = image(tmp_path / "i.tif")
    rings = [square(300100, 4099900, 300300, 4099800), square(300200, 4099850, 300400, 4099700)]
    names = ["road", "field"]
    pyogrio.raw.write(
        tmp_path / f"l{suffix}",
        shapely.to_wkb([shapely.Polygon(ring) for ring in rings]),
        [np.array(names, dtype=object)],
        ["class"],
        geometry_type="Polygon",
        crs="EPSG:32652",
    )
    features = list(zip(rings, names, strict=True))
    plain = open_labels(scene, geojson(tmp_path / "l.geojson", features), LEGEND)
    other = open_labels(scene, tmp_path / f"l{suffix}", LEGEND)
    assert min(plain.counts[1:]) > 0
    np.testing.assert_array_equal(other.read(whole(scene)), plain.read(whole(scene)))


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch):
    scene, path = image(tmp_path / "i.tif"), tmp_path / "l.gpkg"
    path.touch()
    real = builtins.__import__

    def without(name, *args, **options):
        if name in ("pyogrio", "shapely"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"cl-remote-sensing\[vectors\]"):
        open_labels(scene, path, LEGEND)


def test_the_class_field_is_found_or_asked_for(tmp_path):
    scene = image(tmp_path / "i.tif")
    ring = square(300100, 4099900, 300200, 4099800)
    path = geojson(tmp_path / "l.geojson", [(ring, "road")])
    text = path.read_text()
    path.write_text(text.replace('{"class": "road"}', '{"name": "plot 7", "use": "road"}'))
    assert open_labels(scene, path, LEGEND).counts == (0, 100, 0)
    assert open_labels(scene, path, LEGEND, field="use").counts == (0, 100, 0)
    with pytest.raises(InputError, match="has no field 'kind'; its fields are name, use"):
        open_labels(scene, path, LEGEND, field="kind")
    path.write_text(text.replace('{"class": "road"}', '{"a": "road", "b": "field"}'))
    with pytest.raises(InputError, match="cannot tell which field holds the class"):
        open_labels(scene, path, LEGEND)


def test_a_field_that_counts_features_is_not_guessed_to_be_the_class(tmp_path):
    scene = image(tmp_path / "i.tif")
    path = geojson(tmp_path / "l.geojson", [(square(300100, 4099900, 300200, 4099800), "Ruhr")])
    text, code = path.read_text(), LEGEND.codes[1]
    path.write_text(text.replace('{"class": "Ruhr"}', f'{{"fid": {code}, "class": "Ruhr"}}'))
    with pytest.raises(InputError, match="cannot tell which field holds the class; its fields are"):
        open_labels(scene, path, LEGEND)
    assert open_labels(scene, path, LEGEND, field="fid").counts == (0, 100, 0)
    path.write_text(text.replace('{"class": "Ruhr"}', f'{{"fid": {code}}}'))  # the only one
    assert open_labels(scene, path, LEGEND).counts == (0, 100, 0)


def test_names_of_classes_may_be_in_other_capitals(tmp_path):
    scene = image(tmp_path / "i.tif")
    path = geojson(tmp_path / "l.geojson", [(square(300100, 4099900, 300200, 4099800), " ROAD")])
    assert open_labels(scene, path, LEGEND).counts == (0, 100, 0)
    two = Legend(("road", "Road"), (1, 2), ((0, 0, 0), (9, 9, 9)))
    with pytest.raises(InputError, match=r"ROAD \(1\) not in the legend"):
        open_labels(scene, path, two)


def test_an_unknown_class_of_a_polygon_is_refused_or_ignored(tmp_path):
    scene = image(tmp_path / "i.tif")
    under, over = square(300000, 4100000, 300500, 4099600), square(300100, 4099900, 300200, 4099800)
    path = geojson(tmp_path / "l.geojson", [(under, "road"), (over, "lake")])
    with pytest.raises(InputError, match=r"lake \(1\) not in the legend, 50\.00% of the features"):
        open_labels(scene, path, LEGEND, field="class")
    labels = open_labels(scene, path, LEGEND, field="class", tolerance=0.5)
    assert labels.counts == (0, 1900, 0)  # what lies under the lake is unlabelled


@pytest.mark.parametrize("none", [None, float("nan"), "", "NA", "unknown"])
def test_a_polygon_without_a_class_is_unlabelled_and_told(tmp_path, none):
    scene = image(tmp_path / "i.tif")
    ring = square(300100, 4099900, 300200, 4099800)
    features = [(ring, "road"), (square(300300, 4099900, 300400, 4099800), none)]
    path = geojson(tmp_path / "l.geojson", features)
    path.write_text(path.read_text().replace("NaN", "null"))
    labels = open_labels(scene, path, LEGEND)
    assert labels.counts == (0, 100, 0)
    assert "1 features without a class" in labels.notes[0]
    assert discover([path]).names == ("road",)


def test_a_few_features_of_an_unwanted_class_are_unlabelled_and_told(tmp_path):
    scene = image(tmp_path / "i.tif")
    rings = [square(300000 + x, 4099900, 300050 + x, 4099850) for x in (0, 100, 200)]
    values = ["road", "field", "cloud"]
    path = geojson(tmp_path / "l.geojson", list(zip(rings, values, strict=True)))
    text = path.read_text()
    for k, value in enumerate(values):  # a second field, of which the legend knows nothing
        text = text.replace(f'{{"class": "{value}"}}', f'{{"id": {k}, "use": "{value}"}}')
    path.write_text(text)
    labels = open_labels(scene, path, LEGEND)
    assert labels.counts == (0, 25, 25)
    assert "not in the legend, so unlabelled: cloud (1)" in labels.notes[0]
    named = Legend(LEGEND.names, LEGEND.codes, LEGEND.colors, ignored_names=("cloud",))
    assert "cloud" not in " ".join(open_labels(scene, path, named).notes)


def test_features_without_geometry_are_counted(tmp_path):
    scene = image(tmp_path / "i.tif")
    ring = square(300100, 4099900, 300200, 4099800)
    labels = open_labels(scene, geojson(tmp_path / "l.geojson", [(ring, 10), (None, 30)]), LEGEND)
    assert "1 features without a geometry" in labels.notes[0]
    with pytest.raises(InputError, match="holds no polygon"):
        open_labels(scene, geojson(tmp_path / "m.geojson", [(None, 30)]), LEGEND)


def test_polygons_off_the_image_or_without_its_crs_are_refused(tmp_path):
    scene = image(tmp_path / "i.tif")
    far = geojson(tmp_path / "l.geojson", [(square(1, 3, 2, 2), 10)])
    with pytest.raises(InputError, match=r"does not overlap .*labels cover x 1 to 2, y 2 to 3"):
        open_labels(scene, far, LEGEND)
    plain = image(tmp_path / "p.tif", crs=None)
    with pytest.raises(InputError, match=r"p\.tif: has no coordinate system but .*l\.geojson has"):
        open_labels(plain, far, LEGEND)


def test_geojson_may_be_one_feature_or_features_line_by_line(tmp_path):
    scene = image(tmp_path / "i.tif")
    rings = [square(300100, 4099900, 300200, 4099800), square(300300, 4099900, 300400, 4099800)]
    move_back = [
        np.stack(move("EPSG:32652", "EPSG:4326", *np.array(r).T), 1).tolist() for r in rings
    ]
    both = geojson(
        tmp_path / "c.geojson", list(zip(move_back, ["road", "field"], strict=True)), None
    )
    features = json.loads(both.read_text())["features"]
    (tmp_path / "one.geojson").write_text(json.dumps(features[0]))
    assert open_labels(scene, tmp_path / "one.geojson", LEGEND).counts == (0, 100, 0)
    lines = [json.dumps(feature) for feature in features]
    for name, text in {
        "a.geojsonl": "\n".join(lines),
        "b.geojson": "\n".join(lines) + "\n",
        "c.ndjson": "\r\n".join(["", *lines]),
        "d.geojsons": "".join(f"\x1e{line}\n" for line in lines),
        "e.geojson": json.dumps(json.loads(both.read_text()), indent=2),
    }.items():
        (tmp_path / name).write_text(text)
        assert open_labels(scene, tmp_path / name, LEGEND).counts == (0, 100, 100), name


def test_coordinates_that_do_not_fit_their_system_are_told_so(tmp_path):
    scene = image(tmp_path / "i.tif")
    ring = square(300100, 4099900, 300200, 4099800)
    metres = geojson(tmp_path / "m.geojson", [(ring, 10)], crs=None)
    with pytest.raises(
        InputError,
        match=r"\(x 300100 to 300200, y 4099800 to 4099900\) are no longitudes .* names no coord",
    ):
        open_labels(scene, metres, LEGEND)
    said = geojson(tmp_path / "s.geojson", [(ring, 10)], crs="EPSG:4326")
    with pytest.raises(InputError, match="no longitudes and latitudes, but it says longitude"):
        open_labels(scene, said, LEGEND)
    degrees = geojson(tmp_path / "d.geojson", [(square(126.7, 37.1, 126.8, 37.0), 10)])
    with pytest.raises(
        InputError, match=r"does not overlap .*those of the labels look like degrees"
    ):
        open_labels(scene, degrees, LEGEND)


@pytest.mark.parametrize(
    "crs",
    ["EPSG:99999999", "http://127.0.0.1:9/x.prj", "/etc/hostname", "WGS 84", "EPSG:" + "9" * 400],
)
def test_an_odd_coordinate_system_is_told_in_one_line(tmp_path, crs, capfd):
    path = geojson(tmp_path / "l.geojson", [(square(1, 3, 2, 2), 10)], crs=crs)
    with pytest.raises(InputError, match=r"l\.geojson: its crs is not known") as caught:
        open_labels(image(tmp_path / "i.tif"), path, LEGEND)
    assert len(str(caught.value)) < 600
    assert capfd.readouterr().err == ""


def shapefile(path, crs="EPSG:32652"):
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    pyogrio.raw.write(
        path,
        shapely.to_wkb([shapely.box(300100, 4099800, 300300, 4099900)]),
        [np.array(["road"], dtype=object)],
        ["class"],
        geometry_type="Polygon",
        crs=crs,
    )
    return path


def test_a_ring_that_is_not_closed_is_told(tmp_path):
    path = shapefile(tmp_path / "l.shp")
    data = bytearray(path.read_bytes())
    data[-8:] = np.float64(4099850).tobytes()
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"l\.shp: 1 of its shapes are damaged, first number 1"):
        open_labels(image(tmp_path / "i.tif"), path, LEGEND)


@pytest.mark.parametrize("suffix", [".shp", ".gpkg", ".fgb", ".gml"])
@pytest.mark.parametrize(
    "text",
    [
        '<OGRVRTDataSource><OGRVRTLayer name="l"><SrcDataSource>{url}</SrcDataSource></OGRVRTLayer>'
        "</OGRVRTDataSource>",
        "<OGRWFSDataSource><URL>{url}/wfs?</URL></OGRWFSDataSource>",
        "<GDAL_WMS><ServerUrl>{url}</ServerUrl>opengis.net/gml FeatureCollection <OGR</GDAL_WMS>",
    ],
)
def test_a_vector_file_is_what_its_ending_says(tmp_path, suffix, text):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        path = tmp_path / f"l{suffix}"
        path.write_text(text.format(url=f"http://127.0.0.1:{server.getsockname()[1]}"))
        with pytest.raises(InputError, match="does not begin as a"):
            open_labels(image(tmp_path / "i.tif"), path, LEGEND)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_damaged_vector_files_are_read_or_told_in_one_line(tmp_path, mutations, capfd):
    scene = image(tmp_path / "i.tif")
    ring = square(300100, 4099900, 300200, 4099800)
    sound = [geojson(tmp_path / "l.geojson", [(ring, "road"), (ring, 50)])]
    sound += [shapefile(tmp_path / f"l{suffix}") for suffix in (".shp", ".gpkg", ".fgb")]
    sound += [tmp_path / "l.dbf", tmp_path / "l.prj"]
    capfd.readouterr()
    for number, file in enumerate(sound):
        content = file.read_bytes()
        read = file if file.suffix not in (".dbf", ".prj") else tmp_path / "l.shp"
        for mutant in mutants(content, mutations, seed=number):
            file.write_bytes(mutant)
            with suppress(InputError):
                open_labels(scene, read, LEGEND, tolerance=1.0)
        file.write_bytes(content)
    assert "Traceback" not in capfd.readouterr().err


def test_a_damaged_label_raster_is_read_or_told_in_one_line(tmp_path, mutations):
    scene, path = image(tmp_path / "i.tif"), write(tmp_path / "l.tif", codes(), compress="deflate")
    for mutant in mutants(path.read_bytes(), mutations, seed=1):
        path.write_bytes(mutant)
        with suppress(InputError):
            open_labels(scene, path, LEGEND, tolerance=1.0).read(whole(scene))


@pytest.mark.parametrize("text", ["", "[]", '{"features": 3}', '{"type": "FeatureCollection"}'])
def test_what_is_not_geojson_is_told(tmp_path, text):
    (tmp_path / "l.geojson").write_text(text)
    with pytest.raises(InputError, match=r"l\.geojson: is not GeoJSON"):
        open_labels(image(tmp_path / "i.tif"), tmp_path / "l.geojson", LEGEND)


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), unique=True, min_size=1, max_size=9),
    st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=15)
def test_any_codes_are_looked_up_as_a_loop_would(tmp_path_factory, chosen, seed):
    folder = tmp_path_factory.mktemp("codes")
    rng = np.random.default_rng(seed)
    pool = np.int32([*chosen, 7])
    legend = Legend(tuple(map(str, chosen)), tuple(chosen), default_colors(len(chosen)))
    values = rng.choice(pool, (6, 8))
    scene = image(folder / "i.tif", 6, 8)
    labels = open_labels(scene, write(folder / "l.tif", values), legend, tolerance=1.0)
    expected = [
        [chosen.index(v) if v in chosen else IGNORE for v in row] for row in values.tolist()
    ]
    np.testing.assert_array_equal(labels.read(whole(scene)), expected)


def scenes_named(folder, names):
    folder.mkdir()
    for name in names:
        write(folder / name, np.ones((3, 4, 4), np.uint8))
    return [open_scene(folder / name) for name in names]


def label_files(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write(folder / name, np.ones((4, 4), np.uint8))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["a.tif", "b.tif"], ["a.tif", "b.tif"]),
        (
            ["202309_patchN_7.tif", "202412_patchN_7.tif"],
            ["202309_mask_7.tif", "202412_mask_7.tif"],
        ),
        (["north_image.tif", "south_image.tif"], ["north_mask.tif", "south_mask.tif"]),
        (["img_1.tif", "img_2.tif"], ["1_gt.tif", "2_gt.tif"]),
        (["s2-2020-plotB.tif", "s2-2021-plotB.tif"], ["S2_2020_cover.tif", "S2_2021_cover.tif"]),
    ],
)
def test_labels_are_paired_by_name(tmp_path, images, labels):
    scenes = scenes_named(tmp_path / "images", images)
    label_files(tmp_path / "labels", [*labels, "other_place_99.tif"])
    paired = pair_labels(scenes, tmp_path / "labels")
    assert [path.name for path in paired] == labels


def test_a_lone_label_belongs_to_a_lone_image(tmp_path):
    scenes = scenes_named(tmp_path / "images", ["image.tif"])
    label_files(tmp_path / "labels", ["mask.tif"])
    (tmp_path / "labels" / "mask.json").write_text("{}")
    assert pair_labels(scenes, tmp_path / "labels") == [tmp_path / "labels" / "mask.tif"]


def test_equal_names_in_several_folders_are_paired_by_folder(tmp_path):
    (tmp_path / "images").mkdir()
    scenes = [
        scene
        for town in ("east", "west")
        for scene in scenes_named(tmp_path / "images" / town, ["1.tif"])
    ]
    for town in ("east", "west"):
        label_files(tmp_path / "labels" / town, ["1.tif"])
    paired = pair_labels(scenes, tmp_path / "labels")
    assert [path.parent.name for path in paired] == ["east", "west"]


def test_images_and_labels_may_lie_in_one_folder(tmp_path):
    scenes = scenes_named(tmp_path / "all", ["1_image.tif", "2_image.tif"])
    label_files(tmp_path / "all", ["1_label.tif", "2_label.tif"])
    names = [path.name for path in pair_labels(scenes, tmp_path / "all")]
    assert names == ["1_label.tif", "2_label.tif"]


def test_an_image_without_a_label_is_named(tmp_path):
    scenes = scenes_named(tmp_path / "images", ["a.tif", "c.tif"])
    label_files(tmp_path / "labels", ["a.tif", "b.tif"])
    with pytest.raises(InputError, match=r"labels .*c\.tif \(1 of 2 images\)"):
        pair_labels(scenes, tmp_path / "labels")


def test_ambiguous_names_are_refused(tmp_path):
    scenes = scenes_named(tmp_path / "images", ["a_image.tif", "b_image.tif"])
    label_files(tmp_path / "labels", ["a_mask.tif", "a_label.tif", "b_mask.tif"])
    with pytest.raises(InputError, match="cannot tell which of its 3 files"):
        pair_labels(scenes, tmp_path / "labels")


def test_one_label_file_serves_every_scene(tmp_path):
    scenes = scenes_named(tmp_path / "images", ["a.tif", "b.tif"])
    label_files(tmp_path / "labels", ["all.tif"])
    assert pair_labels(scenes, tmp_path / "labels" / "all.tif") == [tmp_path / "labels/all.tif"] * 2


@pytest.mark.parametrize("place", ["", "splits"])
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_a_list_pairs_images_with_labels(tmp_path, place, suffix):
    scenes = scenes_named(tmp_path / "images", ["a.tif", "b.tif"])
    label_files(tmp_path / "labels", ["x.tif", "y.tif"])
    (tmp_path / place).mkdir(exist_ok=True)
    rows = [("images/b.tif", "labels/x.tif"), ("images/a.tif", "labels/y.tif")]
    between = "," if suffix == ".csv" else " "
    head = ["image,label"] if suffix == ".csv" else ["# image label"]
    path = tmp_path / place / f"pairs{suffix}"
    path.write_text("\n".join([*head, *map(between.join, rows)]))
    assert [label.name for label in pair_labels(scenes, path)] == ["y.tif", "x.tif"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image,label\nimages/a.tif,labels/x.tif\n", "lists no label for .*b.tif"),
        ("image,label\nimages/a.tif,labels/none.tif\n", "'labels/none.tif' is neither in"),
        ("image\nimages/a.tif\n", "has no column 'label'"),
        ("image,label\nimages/a.tif,\n", "entry 1 has no 'label'"),
        ("image,label\n", "lists nothing"),
        (
            "image,label\nimages/a.tif,labels/x.tif\nimages/a.tif,labels/y.tif\n",
            "with two labels",
        ),
    ],
)
def test_a_bad_list_is_told(tmp_path, text, told):
    scenes = scenes_named(tmp_path / "images", ["a.tif", "b.tif"])
    label_files(tmp_path / "labels", ["x.tif", "y.tif"])
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=told):
        pair_labels(scenes, tmp_path / "pairs.csv")


def test_a_missing_label_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="no such label file or folder"):
        pair_labels([image(tmp_path / "i.tif")], tmp_path / "none")
