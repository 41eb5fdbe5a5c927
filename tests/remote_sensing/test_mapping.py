"""Whole maps: no seams, no trace of panels, processes or interruptions; bad rasters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_files import map_scene
from rasterio.transform import Affine

from cl_core.errors import InputError
from cl_remote_sensing.mapping.area import area_table, count_rows, pixel_areas
from cl_remote_sensing.mapping.prediction import predictor
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import open_scene
from cl_remote_sensing.rasters.windows import Window

BANDS = 3
NAMES = ("water", "field", "forest", "city")
COLORS = ((0, 0, 255), (255, 255, 0), (0, 128, 0), (200, 0, 0))
NORMALIZATION = Normalization(
    mode="uint8", low=(0.0,) * 3, high=(255.0,) * 3, mean=(100.0,) * 3, std=(50.0,) * 3
)


def write_image(path, values, *, nodata=0, transform=None, crs="EPSG:32633", **options):
    """A GeoTIFF; ``values`` is (bands, rows, columns)."""
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width}
    if transform is None and crs:
        transform = Affine(10, 0, 5e5, 0, -10, 5e6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            **profile,
            dtype=values.dtype,
            nodata=nodata,
            crs=crs,
            transform=transform,
            **options,
        ) as file:
            file.write(values)
    return open_scene(path)


def image(height, width, seed=0, collar=True):
    """Smooth random bands of 1 to 255 with a slanted collar of zeros."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, BANDS, height // 9 + 2, width // 9 + 2, generator=g)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    values = (1 + 254 * fine).numpy().astype(np.uint8)
    if collar:
        row, col = np.indices((height, width))
        values[:, row + 2 * col < 0.3 * height] = 0
    return values


class Pointwise(torch.nn.Module):
    """A network that looks at one pixel at a time, so that windows cannot differ."""

    def __init__(self, kernel=1):
        super().__init__()
        torch.manual_seed(3)
        self.conv = torch.nn.Conv2d(BANDS, len(NAMES), kernel, padding=kernel // 2)
        torch.nn.init.normal_(self.conv.weight, std=2.0 / kernel)

    def forward(self, x):
        return self.conv(x)


def whole(network, scene):
    """Probabilities of the whole raster in one piece, and what is valid."""
    x, valid = NORMALIZATION(scene.read(Window(0, 0, scene.height, scene.width)))
    return predictor(network)(x[None])[0].numpy(), valid.numpy()


def make_map(network, scene, out, **options):
    options = {"tile": 32, "probabilities": "float32", "colors": COLORS} | options
    return map_scene(predictor(network), scene, NORMALIZATION, out, classes=NAMES, **options)


def read(path, bands=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return file.read(bands)


def test_a_pointwise_network_gives_the_map_of_the_whole_image(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(90, 130))
    result = make_map(Pointwise(), scene, tmp_path / "map.tif", batch_size=3)
    p, valid = whole(Pointwise(), scene)
    probabilities = read(result.probabilities)
    np.testing.assert_allclose(probabilities[:, valid], p[:, valid], atol=1e-5)
    assert np.isnan(probabilities[:, ~valid]).all()
    expected = np.where(valid, p.argmax(0), 255)
    ids = read(result.path, 1)
    assert (ids != expected).mean() < 1e-3  # equals to rounding
    np.testing.assert_array_equal(ids == 255, ~valid)
    assert result.counts == tuple((ids == k).sum() for k in range(4))
    assert result.nodata == (~valid).sum() > 0
    assert not (tmp_path / "map.tif.partial").exists()


def test_a_convolutional_network_leaves_no_seams(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(120, 150, collar=False))
    network = Pointwise(kernel=5)
    p, _ = whole(network, scene)
    inner = (slice(None), slice(2, -2), slice(2, -2))

    def deviation(overlap):
        out = tmp_path / f"{overlap}.tif"
        result = make_map(network, scene, out, tile=64, overlap=overlap)
        return np.abs(read(result.probabilities) - p)[inner].max()

    # The rim of a window, where the network sees padding, weighs least.
    assert deviation(0.5) < 1e-2
    assert deviation(0.0) > 0.2


@settings(deadline=None, max_examples=8)
@given(
    size=st.sampled_from([(40, 50), (65, 64), (20, 90), (90, 20), (7, 9)]),
    tile=st.sampled_from([16, 32]),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 0.75]),
)
def test_constant_logits_give_constant_probabilities(tmp_path_factory, size, tile, overlap):
    folder = tmp_path_factory.mktemp("constant")
    scene = write_image(folder / "image.tif", image(*size))
    p = torch.tensor([0.1, 0.2, 0.4, 0.3])

    def predict(windows):
        assert windows.shape[1:] == (BANDS, tile, tile)
        return p.view(1, -1, 1, 1).expand(len(windows), -1, tile, tile)

    result = map_scene(
        predict,
        scene,
        NORMALIZATION,
        folder / "map.tif",
        classes=NAMES,
        tile=tile,
        overlap=overlap,
        probabilities="float32",
    )
    values = read(result.probabilities)
    valid = ~np.isnan(values[0])
    assert np.abs(values[:, valid] - p.numpy()[:, None]).max(initial=0) < 1e-6
    assert set(np.unique(read(result.path))) <= {2, 255}


def test_the_panel_width_and_the_batch_leave_no_trace(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(150, 1300), tiled=True, compress="deflate")
    network = Pointwise(kernel=5)
    maps = [
        make_map(network, scene, tmp_path / f"{block}.tif", tile=64, block=block, batch_size=batch)
        for block, batch in ((None, 8), (512, 5), (1000, 1))
    ]
    first = read(maps[0].probabilities)
    for other in maps[1:]:
        values = read(other.probabilities)
        np.testing.assert_array_equal(np.isnan(values), np.isnan(first))
        assert np.nanmax(np.abs(values - first)) < 1e-5
        np.testing.assert_array_equal(read(other.path), read(maps[0].path))
    # One more column of windows at each border between panels.
    rows = 4
    assert maps[1].windows + maps[1].skipped - maps[0].windows - maps[0].skipped == 2 * rows


def test_windows_without_data_never_reach_the_network(tmp_path):
    values = image(64, 640)
    values[:, :, 200:500] = 0
    scene = write_image(tmp_path / "image.tif", values)
    seen = []

    def predict(windows):
        seen.append(len(windows))
        return torch.full((len(windows), 4, 32, 32), 0.25)

    result = map_scene(
        predict, scene, NORMALIZATION, tmp_path / "map.tif", classes=NAMES, tile=32, batch_size=4
    )
    assert sum(seen) == result.windows
    assert max(seen) == 4
    assert result.skipped >= 3 * 16
    assert set(np.unique(read(result.path))) == {0, 255}  # ties go to the lowest class


def test_invalid_pixels_are_fed_as_the_bands_mean(tmp_path):
    values = image(20, 24)
    scene = write_image(tmp_path / "image.tif", values)
    seen = []

    def predict(windows):
        seen.append(windows.clone())
        return torch.full((len(windows), 4, 32, 32), 0.25)

    map_scene(predict, scene, NORMALIZATION, tmp_path / "map.tif", classes=NAMES, tile=32)
    (window,) = seen
    mean = 100 / 255 * 3.2 - 1.6
    invalid = (values == 0).all(0)
    assert invalid.any()
    assert (window[0, :, :20, :24][:, invalid] - mean).abs().max() < 1e-5
    assert (window[0, :, 20:] - mean).abs().max() < 1e-5  # beyond a raster below the window's size
    assert (window[0, :, :, 24:] - mean).abs().max() < 1e-5
    expected = values[:, ~invalid] / 255 * 3.2 - 1.6
    np.testing.assert_allclose(window[0, :, :20, :24][:, ~invalid], expected, atol=1e-5)


def test_an_image_without_a_valid_pixel_gives_an_empty_map_and_a_note(tmp_path):
    scene = write_image(tmp_path / "image.tif", np.zeros((3, 50, 40), np.uint8))
    result = make_map(Pointwise(), scene, tmp_path / "map.tif")
    assert (read(result.path) == 255).all()
    assert result.windows == 0
    assert any("no valid pixel" in note for note in result.notes)


def test_progress_counts_every_window_and_times_are_told(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(100, 70))
    told = []
    result = make_map(
        Pointwise(), scene, tmp_path / "map.tif", progress=lambda *done: told.append(done)
    )
    assert told[-1][0] == told[-1][1] == result.windows + result.skipped
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    parts = result.seconds
    assert parts["total"] >= sum(parts.values()) - parts["total"] > 0


KILLED = """
    import importlib.util, sys
    from pathlib import Path
    sys.path.insert(0, str(Path({file!r}).parents[1]))
    spec = importlib.util.spec_from_file_location("t", {file!r})
    t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)
    network = t.predictor(t.Pointwise(5))
    calls = 0
    def predict(x):
        global calls
        calls += len(x)
        print(calls, flush=True)
        return network(x)
    t.map_scene(
        predict, t.open_scene({image!r}), t.NORMALIZATION, Path({out!r}), classes=t.NAMES,
        tile=128, block=512, probabilities="float32", model="m",
    )
"""


def test_a_killed_mapping_goes_on_where_it_was(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(1200, 600), tiled=True)
    out = tmp_path / "map.tif"
    code = textwrap.dedent(KILLED).format(file=__file__, image=scene.path, out=str(out))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if int(line) > 110:  # of 18 x 8 in the first panel; 512 rows are finished after 64
            child.send_signal(signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert not out.exists()
    partial = tmp_path / "map.tif.partial"
    with partial.open("ab") as file:
        file.write(b"half a record")
    counted = []
    network = predictor(Pointwise(5))

    def predict(windows):
        counted.append(len(windows))
        return network(windows)

    options = {"classes": NAMES, "tile": 128, "block": 512, "probabilities": "float32"}
    options["model"] = "m"
    result = map_scene(predict, scene, NORMALIZATION, out, **options)
    assert result.resumed
    assert sum(counted) == result.windows
    fresh = map_scene(network, scene, NORMALIZATION, tmp_path / "fresh.tif", **options)
    assert not fresh.resumed
    assert result.windows < fresh.windows - 40
    np.testing.assert_array_equal(read(out), read(fresh.path))
    np.testing.assert_array_equal(read(result.probabilities), read(fresh.probabilities))
    assert result.counts == fresh.counts
    assert not partial.exists()
    again = map_scene(predict, scene, NORMALIZATION, out, **options)  # nothing is left to do
    assert again.windows == 0
    assert again.counts == fresh.counts


def interrupted(scene, out, model_hash):
    """Map until the second panel begins."""

    def predict(windows):
        seen.append(len(windows))
        if sum(seen) > 40:
            raise KeyboardInterrupt
        return torch.full((len(windows), 4, 32, 32), 0.25)

    seen = []
    with pytest.raises(KeyboardInterrupt):
        map_scene(
            predict,
            scene,
            NORMALIZATION,
            out,
            classes=NAMES,
            tile=32,
            overlap=0.0,
            block=512,
            model=model_hash,
        )


@pytest.mark.parametrize(("change", "resumed"), [({}, True), ({"model": "b"}, False)])
def test_rows_of_another_model_or_on_request_are_not_used(tmp_path, change, resumed):
    scene = write_image(tmp_path / "image.tif", image(32, 1300, collar=False))
    out = tmp_path / "map.tif"
    interrupted(scene, out, "a")
    assert (tmp_path / "map.tif.partial").exists()
    options = {"tile": 32, "overlap": 0.0, "block": 512, "model": "a", "probabilities": "none"}
    result = make_map(Pointwise(), scene, out, **(options | change))
    assert result.resumed == resumed
    interrupted(scene, tmp_path / "other.tif", "a")
    result = make_map(Pointwise(), scene, tmp_path / "other.tif", **options, resume=False)
    assert not result.resumed


def test_processes_share_the_rows_and_a_vrt_shows_one_map(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(1400, 90), transform=None)
    network = Pointwise(kernel=5)
    single = make_map(network, scene, tmp_path / "one.tif")
    parts = [make_map(network, scene, tmp_path / "map.tif", shard=(r, 2)) for r in (1, 0)]
    assert [part.path.name for part in parts] == ["map_2of2.tif", "map_1of2.tif"]
    assert parts[0].vrt is None
    assert parts[1].vrt == tmp_path / "map.vrt"
    np.testing.assert_array_equal(read(parts[1].vrt), read(single.path))
    joined = read(tmp_path / "map_probability.vrt")
    assert np.nanmax(np.abs(joined - read(single.probabilities))) < 1e-5
    with rasterio.open(parts[1].vrt) as file, rasterio.open(single.path) as one:
        assert file.transform == one.transform
        assert file.crs == one.crs
        assert file.nodata == one.nodata == 255
        assert file.colormap(1) == one.colormap(1)
        assert file.tags()["classes"] == one.tags()["classes"]
    assert np.add(parts[0].counts, parts[1].counts).tolist() == list(single.counts)
    assert parts[0].first_row == 512 * 1
    table = area_table(parts[0].row_counts, scene, NAMES, first_row=parts[0].first_row)
    assert table.pixels == parts[0].counts


def test_more_processes_than_strips_and_images_without_place_leave_some_idle(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(60, 50))
    results = [make_map(Pointwise(), scene, tmp_path / "a.tif", shard=(r, 3)) for r in range(3)]
    assert results[0].path == tmp_path / "a.tif"
    assert results[0].windows > 0
    assert [r.windows for r in results[1:]] == [0, 0]
    assert sum(results[1].counts) == 0
    flat = write_image(tmp_path / "flat.tif", image(600, 50), crs=None)
    result = make_map(Pointwise(), flat, tmp_path / "b.tif", shard=(0, 2))
    assert read(result.path, 1).shape == (600, 50)
    assert make_map(Pointwise(), flat, tmp_path / "b.tif", shard=(1, 2)).windows == 0


def truncated(tmp_path):
    values = image(1100, 700, collar=False)
    noise = np.random.default_rng(0).integers(1, 255, values.shape, dtype=np.uint8)
    path = tmp_path / "image.tif"
    write_image(path, noise, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)
    return open_scene(path)


def test_a_truncated_image_is_named_or_mapped_around_its_hole(tmp_path):
    scene = truncated(tmp_path)
    with pytest.raises(InputError, match=r"image\.tif: cannot read rows .* truncated or damaged"):
        make_map(Pointwise(), scene, tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()
    result = make_map(Pointwise(), scene, tmp_path / "map.tif", skip_damaged=True)
    assert any("could not be read" in note for note in result.notes)
    ids = read(result.path, 1)
    assert (ids[:256, :256] != 255).all()
    assert 0 < result.nodata < ids.size // 2
    lost = (ids == 255)[:1024:256, :512:256]  # whole blocks are lost, no more
    np.testing.assert_array_equal(np.kron(lost, np.ones((256, 256), bool)), ids[:1024, :512] == 255)


def test_other_bands_than_the_models_are_listed(tmp_path):
    scene = write_image(tmp_path / "image.tif", np.ones((2, 30, 30), np.uint8))
    with pytest.raises(InputError, match=r"has 2 bands \(band 1, band 2\).* trained on 3"):
        make_map(Pointwise(), scene, tmp_path / "map.tif")


def test_strange_options_and_predictions_are_refused(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(30, 30))
    for options, message in (
        ({"overlap": 1.0}, "overlap in"),
        ({"block": 0}, "block must be positive"),
        ({"shard": (2, 2)}, "shard is"),
        ({"colors": COLORS[:2]}, "a color for each"),
    ):
        with pytest.raises(ValueError, match=message):
            make_map(Pointwise(), scene, tmp_path / "map.tif", **options)
    with pytest.raises(ValueError, match=r"predict must give \(1, 4, 32, 32\)"):
        map_scene(lambda x: x, scene, NORMALIZATION, tmp_path / "map.tif", classes=NAMES, tile=32)


def test_test_time_averaging_is_applied(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(40, 40, collar=False))
    seen = []

    def predict(windows):
        seen.append(windows)
        return torch.full((len(windows), 4, 40, 40), 0.25)

    map_scene(predict, scene, NORMALIZATION, tmp_path / "m.tif", classes=NAMES, tile=40, tta=True)
    assert len(seen) == 8
    assert all(not torch.equal(seen[0], other) for other in seen[1:])


def test_areas_are_hectares_on_the_plane_and_on_the_ellipsoid(tmp_path):
    plane = write_image(tmp_path / "plane.tif", image(40, 30))
    make_map(Pointwise(), plane, tmp_path / "map.tif")
    counts = count_rows(tmp_path / "map.tif", MapValues.of(NAMES))
    table = area_table(counts, plane, NAMES)
    assert table.unit == "ha"
    # On the central meridian a metre of the plane is 1 / 0.9996 m of ground.
    ground = [pixels * 0.01 / 0.9996**2 for pixels in table.pixels]
    assert table.areas == pytest.approx(ground, rel=1e-5)
    assert sum(table.shares()) == pytest.approx(1)
    turned = Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -20)
    rotated = write_image(tmp_path / "rotated.tif", image(20, 20), transform=turned)
    np.testing.assert_allclose(pixel_areas(rotated)[0], 200.0 / 0.9996**2, rtol=1e-5)
    globe = write_image(
        tmp_path / "globe.tif",
        image(180, 360),
        crs="EPSG:4326",
        transform=Affine(1, 0, -180, 0, -1, 90),
    )
    areas, note = pixel_areas(globe)
    assert 360 * areas.sum() == pytest.approx(5.10065621724e14, rel=1e-9)  # the whole Earth
    assert "WGS 84" in note
    np.testing.assert_allclose(areas, areas[::-1])
    flat = write_image(tmp_path / "flat.tif", image(20, 20), crs=None)
    table = area_table(np.ones((20, 4), np.int64), flat, NAMES)
    assert table.unit == "pixels"
    assert table.areas == (20.0,) * 4


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(tmp_path):
    code = """
        import sys, torch
        from peak_memory import peak_bytes
        from pathlib import Path
        from cl_remote_sensing.mapping.job import MapJob
        from cl_remote_sensing.mapping.scene_map import map_scene
        from cl_remote_sensing.mapping.values import MapValues
        from cl_remote_sensing.rasters.normalization import Normalization
        from cl_remote_sensing.rasters.raster import open_scene
        norm = Normalization(
            mode="uint8", low=(0.0,), high=(255.0,), mean=(100.0,), std=(50.0,)
        )
        def predict(x):
            return torch.full((len(x), 4, 256, 256), 0.25)
        job = MapJob(predict=predict, normalization=norm, values=MapValues.of("abcd"), block=1024,
                     overlap=0.25)
        map_scene(job, open_scene(sys.argv[1]), Path(sys.argv[2]))
        print(peak_bytes() // 2**20)
    """
    peaks = []
    for height, width in ((1024, 2048), (6144, 2048)):
        path = tmp_path / f"{height}.tif"
        write_image(path, np.ones((1, height, width), np.uint8), tiled=True, compress="deflate")
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(path), str(path) + ".map.tif"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"GDAL_CACHEMAX": "16", "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        peaks.append(int(done.stdout))
    # Held whole, the larger one's bands alone are 48 MB, its sums 192 MB; GDAL caches 16 MB.
    assert peaks[1] - peaks[0] < 40


def test_a_second_process_is_kept_off(tmp_path):
    scene = write_image(tmp_path / "image.tif", image(40, 40))
    begin = time.perf_counter()

    def predict(windows):
        with pytest.raises(InputError, match="another process is writing this map"):
            make_map(Pointwise(), scene, tmp_path / "map.tif", probabilities="none")
        return torch.full((len(windows), 4, 32, 32), 0.25)

    map_scene(predict, scene, NORMALIZATION, tmp_path / "map.tif", classes=NAMES, tile=32)
    assert time.perf_counter() - begin < 60
