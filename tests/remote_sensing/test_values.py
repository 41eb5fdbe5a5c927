"""Maps by value: codes, names, labels again, polygons; rasters beside a model's training."""

from __future__ import annotations

import gc
import pickle
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from affine import Affine
from rasterio.warp import transform as move

from cl_core.errors import InputError
from cl_remote_sensing.labels.discovery import discover
from cl_remote_sensing.labels.legend import Legend, default_colors
from cl_remote_sensing.labels.scene_labels import open_labels
from cl_remote_sensing.mapping.area import pixel_areas
from cl_remote_sensing.mapping.job import MapJob
from cl_remote_sensing.mapping.polygons import write_polygons
from cl_remote_sensing.mapping.scene_map import map_scene
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.rasters.memory import Raster
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import open_scene, open_scenes
from cl_remote_sensing.rasters.windows import Window
from cl_remote_sensing.saved import Training
from cl_remote_sensing.suited import check_bands, scaling_of, suit

PLACE = Affine(10, 0, 5e5, 0, -10, 5e6)
SCALING = Normalization(mode="uint8", low=(0.0,), high=(255.0,), mean=(9.0,), std=(9.0,))
TRAINING = Training(dtype="uint8", minimum=(0.0,), maximum=(255.0,), scales=(1.0,), offsets=(0.0,))


def write(path, values, **options):
    tags = {
        key: options.pop(key) for key in ("scales", "offsets", "descriptions") if key in options
    }
    count, height, width = values.shape
    profile = {"driver": "GTiff", "crs": "EPSG:32633", "transform": PLACE, **options}
    with rasterio.open(
        path, "w", count=count, height=height, width=width, dtype=values.dtype, **profile
    ) as file:
        file.write(values)
        for name, value in tags.items():
            setattr(file, name, value)
    return path


def model(**training):
    return SimpleNamespace(
        bands=("band 1",),
        colors=("gray",),
        normalization=SCALING,
        training=replace(TRAINING, **training),
    )


def mapped(tmp_path, legend, codes="legend", name="map.tif", **options):
    """A map whose classes are the image's values, by a legend; the first column has no data."""
    ids = np.kron(np.arange(16).reshape(4, 4) % len(legend), np.ones((16, 16))).astype(np.uint8)
    image = ids[None] + np.uint8(1)
    image[:, :, 0] = 0
    scene = open_scene(write(tmp_path / "image.tif", image, nodata=0))

    def predict(windows):
        k = (windows[:, 0] / 3.2 + 0.5).mul(255).round().long() - 1
        return (
            torch.nn.functional.one_hot(k.clamp(0, len(legend) - 1), len(legend))
            .movedim(-1, 1)
            .float()
        )

    values = MapValues.of_legend(legend, codes)
    job = MapJob(predict=predict, normalization=SCALING, values=values, tile=32, **options)
    return scene, ids, map_scene(job, scene, tmp_path / name), values


LEGENDS = {
    "sparse": Legend(("road", "field"), (30, 10), default_colors(2)),
    "from one": Legend(("a", "b", "c"), (1, 2, 3), default_colors(3), ignored=(0,)),
    "with 255": Legend(("a", "b"), (0, 255), default_colors(2)),
    "wide": Legend(("a", "b"), (1000, 7), default_colors(2)),
    "negative": Legend(("a", "b"), (-5, 70_000), default_colors(2)),
    "large": Legend(("a", "b"), (2**32 - 2, 1), default_colors(2)),
    "no codes": Legend(("a", "b"), None, default_colors(2)),
}


@pytest.mark.parametrize("which", LEGENDS)
@pytest.mark.parametrize("codes", ["legend", "index"])
def test_a_map_holds_codes_and_serves_as_labels_again(tmp_path, which, codes):
    legend = LEGENDS[which]
    scene, ids, result, values = mapped(tmp_path, legend, codes)
    wanted = range(len(legend)) if legend.codes is None or codes == "index" else legend.codes
    with rasterio.open(result.path) as file:
        stored = file.read(1)
        assert file.nodata == values.nodata
        assert np.dtype(file.dtypes[0]) == values.dtype
    expected = np.array(list(wanted))[ids]
    np.testing.assert_array_equal(stored[:, 1:], expected[:, 1:])
    assert (stored[:, 0] == values.nodata).all()
    assert values.nodata not in wanted
    assert result.counts == tuple((ids[:, 1:] == k).sum() for k in range(len(legend)))
    ids[:, 0] = 255
    whole = Window(0, 0, 64, 64)
    for back in (legend, discover([result.path])):
        assert back.names == legend.names
        np.testing.assert_array_equal(open_labels(scene, result.path, back).read(whole), ids)


def test_a_gis_reads_names_and_codes(tmp_path):
    _, _, result, _ = mapped(tmp_path, LEGENDS["sparse"])
    rasterio.shutil.copy(result.path, tmp_path / "seen.vrt", driver="VRT")  # GDAL's own reading
    root = ElementTree.parse(tmp_path / "seen.vrt").getroot()
    names = [one.text for one in root.iter("Category")]
    assert len(names) == 31
    assert (names[30], names[10]) == ("road", "field")
    rows = [[cell.text for cell in row.iter("F")] for row in root.iter("Row")]
    assert [row[:2] for row in rows] == [["30", "road"], ["10", "field"]]
    assert [int(part) for part in rows[0][2:]] == list(LEGENDS["sparse"].colors[0])


@pytest.mark.parametrize("codes", [(1, 1), (-1, 2**32 - 1), (1,)])
def test_codes_that_no_map_can_hold_are_refused(codes):
    with pytest.raises(ValueError, match=r"one code|no type of a raster|at least one class"):
        MapValues.of(("a", "b"), codes)


def test_polygons_hold_every_pixel_once_with_name_and_code(tmp_path):
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    _, ids, result, values = mapped(tmp_path, LEGENDS["wide"])
    for window in (2048, 24):
        out = tmp_path / f"{window}.gpkg"
        count = write_polygons(result.path, out, values, window=window)
        meta, _, binary, (names, codes) = pyogrio.raw.read(out)
        assert len(names) == count
        assert meta["crs"] == "EPSG:32633"
        shapes = shapely.from_wkb(binary)
        for k, name in enumerate(LEGENDS["wide"].names):
            area = sum(shape.area for shape, one in zip(shapes, names, strict=True) if one == name)
            assert area == (ids[:, 1:] == k).sum() * 100
            assert set(codes[names == name]) == {LEGENDS["wide"].codes[k]}
        assert shapely.union_all(shapes).area == 64 * 63 * 100  # none overlap
    assert count > 8


@pytest.mark.parametrize(
    ("crs", "lon", "lat", "pixel"),
    [("EPSG:3857", 10, 60, 10), ("EPSG:32633", 18.3, 47, 10), ("EPSG:3413", -45, 80, 30)],
)
def test_hectares_are_those_of_the_ground_in_any_projection(crs, lon, lat, pixel):
    x, y = move("EPSG:4326", crs, [lon], [lat])
    scene = open_scene(
        Raster(np.ones((1, 64, 64), np.uint8), Affine(pixel, 0, x[0], 0, -pixel, y[0]), crs)
    )
    corners = np.array(scene.footprint()).T
    # The same outline in an equal-area projection, by the shoelace formula.
    east, north = np.array(move(crs, "EPSG:6933", *corners))
    outline = abs(np.dot(east, np.roll(north, 1)) - np.dot(north, np.roll(east, 1))) / 2
    assert 64 * pixel_areas(scene)[0].sum() == pytest.approx(outline, rel=1e-3)


def test_an_equal_area_projection_keeps_its_own_areas():
    place = Affine(100, 0, 4.3e6, 0, -100, 3.2e6)
    scene = open_scene(Raster(np.ones((1, 32, 32), np.uint8), place, "EPSG:3035"))
    np.testing.assert_allclose(pixel_areas(scene)[0], 1e4, rtol=1e-6)


def test_another_type_is_refused_unless_allowed(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint16)))
    with pytest.raises(InputError, match=r"a\.tif is uint16, but .* trained on uint8.*--any_dtype"):
        suit([scene], model(), tmp_path)
    assert suit([scene], model(), tmp_path, any_dtype=True)[0].path == scene.path


def test_pixels_of_another_size_are_told(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint8)))
    assert suit([scene], model(pixel=9.5), tmp_path)[0].notes == ()
    (note,) = suit([scene], model(pixel=30.0), tmp_path)[0].notes
    assert "has pixels of 10 m, the model was trained at 30 m" in note


def test_tags_of_scale_and_offset_are_brought_to_those_of_the_training(tmp_path):
    values = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    scene = open_scene(write(tmp_path / "a.tif", values, scales=(0.5,), offsets=(-3.0,)))
    assert "scale 0.5 and offset -3" in scene.notes[0]
    suited = suit([scene], model(), tmp_path)[0]
    assert "brought to those of the training" in suited.notes[-1]
    whole = Window(0, 0, 8, 8)
    unit = scaling_of(suited, model()).unit(suited.read(whole))[0]
    expected = np.clip((values * 0.5 - 3) / 255, 0, 1)
    np.testing.assert_allclose(unit.numpy(), expected, atol=1e-6)
    other = write(tmp_path / "b.tif", values)
    with pytest.raises(InputError, match="their values differ in meaning"):
        open_scenes([tmp_path / "a.tif", other])


def test_bands_in_another_order_are_moved_and_others_refused(tmp_path):
    values = np.stack([np.full((8, 8), k, np.uint8) for k in (4, 3, 2)])
    scene = open_scene(write(tmp_path / "a.tif", values, descriptions=("B04", "B03", "b02")))
    trained = SimpleNamespace(bands=("B02", "B03", "B04"), colors=("gray",) * 3)
    (moved,) = check_bands([scene], trained, tmp_path)
    assert moved.read(Window(0, 0, 1, 1)).values.ravel().tolist() == [2, 3, 4]
    assert "are put in the order of the model" in moved.notes[-1]
    other = SimpleNamespace(bands=("B02", "B03", "B08"), colors=("gray",) * 3)
    with pytest.raises(InputError, match="name the bands in that order with --bands"):
        check_bands([scene], other, tmp_path)
    (kept,) = check_bands([scene], other, tmp_path, trusted=True)
    assert kept.bands == (1, 2, 3)
    assert "as --bands says" in kept.notes[-1]


def test_many_values_outside_the_scaling_are_told_with_their_share(tmp_path):
    _, _, result, _ = mapped(tmp_path, LEGENDS["sparse"])
    assert not any("outside the range" in note for note in result.notes)
    scene = open_scene(write(tmp_path / "b.tif", np.full((1, 64, 64), 200, np.uint8)))
    narrow = replace(SCALING, high=(100.0,))
    job = MapJob(
        predict=lambda x: torch.full((len(x), 2, 32, 32), 0.5),
        normalization=narrow,
        values=MapValues.of(("a", "b")),
        tile=32,
    )
    result = map_scene(job, scene, tmp_path / "other.tif")
    assert "about 100% of its values lie outside the range" in result.notes[-1]


def test_arrays_and_open_data_sets_are_rasters_too(tmp_path):
    values = np.arange(128, dtype=np.int16).reshape(2, 8, 8)
    path = write(tmp_path / "a.tif", values, nodata=5)
    whole = Window(0, 0, 8, 8)
    masked = np.ma.masked_equal(values, 5)
    with rasterio.open(path) as file, rasterio.MemoryFile(path.read_bytes()) as memory:
        with memory.open() as held:
            scenes = [open_scene(one) for one in (file, held)]
        scenes.append(open_scene(Raster(values, PLACE, "EPSG:32633", nodata=5)))
        scenes.append(open_scene(Raster(masked, tuple(PLACE)[:6], 32633, names=("a", "b"))))
    for scene in scenes:
        pixels = scene.read(whole)
        np.testing.assert_array_equal(pixels.values, values)
        np.testing.assert_array_equal(pixels.valid, (values != 5).all(0))
        assert scene.transform == tuple(PLACE)[:6]
        copy = pickle.loads(pickle.dumps(scene))
        np.testing.assert_array_equal(copy.read(whole).values, values)
    assert scenes[3].names == ("a", "b")
    first, second = (open_scene(Raster(values, PLACE)) for _ in range(2))
    del first, copy
    gc.collect()
    np.testing.assert_array_equal(second.read(whole).values, values)  # not gone with its twin
    assert not open_scene(values).georeferenced
    with pytest.raises(ValueError, match=r"an array \(c, h, w\)"):
        open_scene(np.zeros(5))
