"""GeoTIFFs of maps: grid, tags, colours, overviews; refusals, full disks, pictures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from raster_files import map_scene
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from cl_core.errors import InputError
from cl_remote_sensing.mapping.quicklook import quicklook, shrunk_image, shrunk_map
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.mapping.writer import create_geotiff, refuse_input, to_cog
from cl_remote_sensing.rasters.mosaic import write_vrt
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import open_scene

NAMES = ("Wald", "Wiese", "Straße")
COLORS = ((0, 100, 0), (120, 220, 60), (90, 90, 90))
VALUES = MapValues.of(NAMES, colors=COLORS)
NORTH_UP = Affine(10, 0, 5e5, 0, -10, 5e6)
ROTATED = Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10)


def write_image(path, values, *, transform=NORTH_UP, crs="EPSG:32633", **options):
    count, height, width = values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=values.dtype,
            transform=transform,
            crs=crs,
            **options,
        ) as file:
            file.write(values)
    return open_scene(path)


def noise(height, width, bands=1, seed=0):
    return np.random.default_rng(seed).integers(1, 255, (bands, height, width), dtype=np.uint8)


def make_map(scene, out, *, k=3, **options):
    """A map whose class follows from the first band's value, so that it is known."""

    def predict(windows):
        ids = (windows[:, 0] * 1000).long() % k
        return torch.nn.functional.one_hot(ids, k).movedim(-1, 1).float() * 0.8 + 0.2 / k

    flat = (0.0,) * len(scene.bands)
    normalization = Normalization(
        mode="uint8", low=flat, high=(255.0,) * len(flat), mean=flat, std=(1.0,) * len(flat)
    )
    options = {"classes": NAMES, "colors": COLORS, "tile": 64} | options
    return map_scene(predict, scene, normalization, out, **options)


@pytest.mark.parametrize(
    ("transform", "crs"), [(NORTH_UP, "EPSG:32633"), (ROTATED, "EPSG:32633"), (ROTATED, None)]
)
def test_the_map_lies_on_the_grid_of_the_image(tmp_path, transform, crs):
    scene = write_image(tmp_path / "image.tif", noise(600, 70), transform=transform, crs=crs)
    result = make_map(scene, tmp_path / "map.tif", probabilities="float32")
    with rasterio.open(scene.path) as image:
        for path in (result.path, result.probabilities):
            with rasterio.open(path) as file:
                assert file.transform == image.transform
                assert file.crs == image.crs
                assert file.shape == image.shape


def test_an_image_without_place_gives_a_map_without_and_that_is_told(tmp_path):
    scene = write_image(tmp_path / "image.png.tif", noise(50, 70), transform=None, crs=None)
    result = make_map(scene, tmp_path / "map.tif")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        file = rasterio.open(result.path)
    with file:
        assert file.crs is None
        assert file.transform.is_identity
        assert file.shape == (50, 70)
    assert any("no georeference" in note for note in result.notes)


def test_a_class_map_says_what_it_is(tmp_path):
    values = noise(600, 700)
    values[:, :30] = 0
    scene = write_image(tmp_path / "image.tif", values, nodata=0)
    result = make_map(scene, tmp_path / "карта.tif", model="abc123")
    with rasterio.open(result.path) as file:
        profile = file.profile
        expected = {"driver": "GTiff", "dtype": "uint8", "nodata": 255, "count": 1}
        expected |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
        assert {name: profile[name] for name in expected} == expected
        assert file.descriptions == ("class",)
        table = file.colormap(1)
        assert [table[k] for k in range(3)] == [(*color, 255) for color in COLORS]
        assert table[255][3] == 0
        assert file.colorinterp == (ColorInterp.palette,)
        tags = file.tags()
        assert json.loads(tags["classes"]) == {"0": "Wald", "1": "Wiese", "2": "Straße"}
        assert tags["model"] == "abc123"
        assert tags["software"].startswith("cl-remote-sensing ")
        ids = file.read(1)
    assert (ids[:30] == 255).all()
    assert set(np.unique(ids[30:])) <= {0, 1, 2}


def test_probabilities_are_scaled_to_bytes_or_kept(tmp_path):
    scene = write_image(tmp_path / "image.tif", noise(70, 90))
    whole = make_map(scene, tmp_path / "a.tif", probabilities="float32")
    small = make_map(scene, tmp_path / "b.tif", probabilities="uint8")
    best = make_map(scene, tmp_path / "c.tif", probabilities="confidence")
    with rasterio.open(whole.probabilities) as file:
        p = file.read()
        assert file.dtypes == ("float32",) * 3
        assert np.isnan(file.nodata)
        assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        assert file.descriptions[2] == "probability of Straße"
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)
    with rasterio.open(small.probabilities) as file:
        assert file.dtypes == ("uint8",) * 3
        assert file.nodata == 255
        np.testing.assert_allclose(file.read() * file.scales[0], p, atol=1 / 500 + 1e-6)
    with rasterio.open(best.probabilities) as file:
        assert file.count == 1
        np.testing.assert_allclose(file.read(1) * file.scales[0], p.max(0), atol=1 / 500 + 1e-6)


def test_more_than_255_classes_take_two_bytes(tmp_path):
    values = noise(64, 64)
    values[:, 0, 0] = 0
    scene = write_image(tmp_path / "image.tif", values, nodata=0)
    names = [f"class {k}" for k in range(300)]

    def predict(windows):
        return torch.eye(300)[299].view(1, -1, 1, 1).expand(len(windows), -1, 64, 64)

    normalization = Normalization(mode="uint8", low=(0.0,), high=(255.0,), mean=(0.0,), std=(1.0,))
    result = map_scene(predict, scene, normalization, tmp_path / "map.tif", classes=names, tile=64)
    with rasterio.open(result.path) as file:
        assert file.dtypes == ("uint16",)
        ids = file.read(1)
    assert ids[0, 0] == 65535
    assert set(np.unique(ids)) == {299, 65535}
    assert result.counts[299] == 64 * 64 - 1


@pytest.mark.parametrize("compress", ["zstd", "lzw"])
def test_other_compressions(tmp_path, compress):
    scene = write_image(tmp_path / "image.tif", noise(60, 60))
    plain = make_map(scene, tmp_path / "a.tif")
    other = make_map(scene, tmp_path / "b.tif", compress=compress)
    with rasterio.open(plain.path) as a, rasterio.open(other.path) as b:
        assert b.profile["compress"] == compress
        np.testing.assert_array_equal(a.read(), b.read())


def test_a_cloud_optimised_map_has_overviews_of_classes_that_occur(tmp_path):
    values = np.repeat(np.repeat(noise(70, 80), 20, 1), 20, 2)
    scene = write_image(tmp_path / "image.tif", values)
    plain = make_map(scene, tmp_path / "a.tif", tile=256, model="abc")
    cog = make_map(
        scene, tmp_path / "b.tif", tile=256, model="abc", cog=True, probabilities="uint8"
    )
    with rasterio.open(plain.path) as a, rasterio.open(cog.path) as b:
        np.testing.assert_array_equal(a.read(), b.read())
        assert b.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert b.overviews(1) == [2, 4]
        assert b.colormap(1) == a.colormap(1)
        assert b.nodata == 255
        assert b.descriptions == ("class",)
        assert b.tags()["classes"] == a.tags()["classes"]
        assert b.profile["blockxsize"] == 512
        assert b.profile["compress"] == "deflate"
        small = b.read(1, out_shape=(350, 400))
        assert set(np.unique(small)) <= {0, 1, 2}
        assert (small == a.read(1)[2::4, 2::4]).mean() > 0.95
    with rasterio.open(cog.probabilities) as file:
        assert file.overviews(1) == [2, 4]
        assert file.scales[0] == pytest.approx(1 / 250)


def test_the_image_is_never_written_over(tmp_path):
    path = tmp_path / "image.tif"
    scene = write_image(path, noise(60, 60))
    before = path.read_bytes()
    (tmp_path / "same.tif").hardlink_to(path)
    (tmp_path / "link.tif").symlink_to(path)
    write_vrt([path], tmp_path / "mosaic.vrt")
    mosaic = open_scene(tmp_path / "mosaic.vrt")
    for source, out in (
        (scene, path),
        (scene, tmp_path / "same.tif"),
        (scene, tmp_path / "link.tif"),
        (scene, tmp_path / ".." / tmp_path.name / "image.tif"),
        (mosaic, path),
        (mosaic, tmp_path / "mosaic.vrt"),
    ):
        with pytest.raises(InputError, match="is the image itself"):
            make_map(source, out)
    assert path.read_bytes() == before
    refuse_input(tmp_path / "map.tif", scene)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    scene = write_image(tmp_path / "image.tif", noise(60, 60))
    out = tmp_path / "map.tif"
    out.write_text("old")

    def write_badly():
        with create_geotiff(out, scene, dtype="uint8", nodata=255) as file:
            file.write(np.zeros((60, 60), np.uint8), 1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_badly()
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tif", "map.tif"]
    with pytest.raises(InputError, match="cannot write"):
        make_map(scene, tmp_path / "no" / "map.tif")


def test_a_raster_that_is_none_is_named(tmp_path):
    (tmp_path / "bad.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"bad\.tif: cannot be read as a raster"):
        to_cog(tmp_path / "bad.tif", tmp_path / "cog.tif", kind="classes")


FULL = """
    import importlib.util, os, sys
    from pathlib import Path
    sys.path.insert(0, str(Path({file!r}).parents[1]))
    spec = importlib.util.spec_from_file_location("t", {file!r})
    t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)
    folder, scene = Path({folder!r}), t.open_scene({image!r})
    out, filler = folder / "map.tif", folder / "filler"

    def leave(free):
        filler.unlink(missing_ok=True)
        disk = os.statvfs(folder)
        with open(filler, "wb") as file:
            file.write(bytes(max(0, disk.f_bavail * disk.f_frsize - free)))

    def attempt():
        try:
            result = t.make_map(scene, out)
            print("done", result.resumed, result.windows)
        except t.InputError as error:
            print("refused", error)
        print(sorted(path.name for path in folder.iterdir()), flush=True)

    attempt()
    size = out.stat().st_size
    out.unlink()
    (folder / "map.tif.aux.xml").unlink()
    leave(size // 4)
    attempt()  # not even the rows fit
    leave(size * 3 // 2)
    attempt()  # the rows fit, the map does not
    filler.unlink()
    attempt()  # there is room again
"""


def in_small_tmpfs(folder, *command):
    """The command in a mount namespace where ``folder`` is a disk of 2 MB, if that may be."""
    folder.mkdir()
    mount = f'mount -t tmpfs -o size=2m tmpfs {folder} && exec "$@"'
    for unshare in (["unshare", "-Urm"], ["unshare", "-m"]):
        if shutil.which(unshare[0]) is None:
            break
        probe = subprocess.run([*unshare, "sh", "-c", mount, "sh", "true"], capture_output=True)
        if probe.returncode == 0:
            whole = [*unshare, "sh", "-c", mount, "sh", *command]
            return subprocess.run(whole, capture_output=True, text=True)
    pytest.skip("neither root nor user namespaces: no disk can be filled")


def test_a_full_disk_is_told_in_one_line_and_leaves_no_half_file(tmp_path):
    scene = write_image(tmp_path / "image.tif", noise(1100, 600))
    folder = tmp_path / "disk"
    code = textwrap.dedent(FULL).format(file=__file__, folder=str(folder), image=scene.path)
    done = in_small_tmpfs(folder, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # GDAL's own lines would drown ours
    lines = done.stdout.splitlines()
    assert lines[0].startswith("done False")
    assert lines[2].startswith(f"refused cannot write {folder}/map.tif.partial: No space left")
    assert lines[3] == "['filler']"
    assert lines[4].startswith(f"refused cannot write {folder}/map.tif: ")
    assert "MB are free there" in lines[4]
    assert lines[5] == "['filler', 'map.tif.partial']"
    assert lines[6] == "done True 0"
    assert lines[7] == "['map.tif', 'map.tif.aux.xml']"


def test_a_quicklook_shows_image_map_and_legend(tmp_path):
    values = np.zeros((3, 300, 500), np.uint16)
    values[0] = 500
    values[0, :, :250] = 4000
    values[2] = 700
    values[1] = np.linspace(1000, 3000, 500)
    values[:, :40] = 0
    scene = write_image(tmp_path / "image.tif", values, nodata=0, photometric="RGB")
    result = make_map(scene, tmp_path / "map.tif")
    picture = shrunk_image(scene, edge=100)
    assert picture.shape == (60, 100, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    np.testing.assert_allclose(picture[:8], 0.93, atol=1e-6)  # no data
    assert picture[30, 10, 0] > picture[30, 90, 0]  # red is left
    shown = shrunk_map(result.path, VALUES, edge=100)
    with rasterio.open(result.path) as file:
        ids = file.read(1)
    assert shown.shape == (60, 100, 3)
    np.testing.assert_allclose(shown[30, 10] * 255, COLORS[ids[152, 52]], atol=1e-4)
    quicklook(result.path, tmp_path / "look.png", scene=scene, values=VALUES, edge=100)
    data = (tmp_path / "look.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 300_000


def test_a_quicklook_of_one_grey_band_without_a_valid_pixel(tmp_path):
    scene = write_image(tmp_path / "image.tif", np.zeros((1, 40, 20), np.float32), nodata=0)
    make_map(scene, tmp_path / "map.tif")
    np.testing.assert_allclose(shrunk_image(scene), np.full((40, 20, 3), 0.93), atol=1e-6)
    np.testing.assert_allclose(shrunk_map(tmp_path / "map.tif", VALUES), 0.93, atol=1e-6)
