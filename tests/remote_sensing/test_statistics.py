"""Band statistics against golden vectors and numpy, in windows of any cut, and their limits."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling

from cl_core.errors import InputError
from cl_remote_sensing.rasters import statistics
from cl_remote_sensing.rasters.raster import Scene, open_scene
from cl_remote_sensing.rasters.statistics import BandStatistics, band_statistics
from cl_remote_sensing.rasters.windows import Window, grid

GOLDEN = Path(__file__).parents[1] / "golden" / "glcnet.npz"
NORTH = Affine(10, 0, 500_000, 0, -10, 4_000_000)


def scene_of(path: Path, values: np.ndarray, **options: Any) -> Scene:
    mask = options.pop("mask", None)
    shape = dict(zip(("count", "height", "width"), values.shape, strict=True))
    profile = {"driver": "GTiff", "crs": "EPSG:32652", "transform": NORTH, **shape, **options}
    with rasterio.open(path, "w", dtype=values.dtype, **profile) as file:
        file.write(values)
        if mask is not None:
            file.write_mask(mask)
    return open_scene(path)


def windows_of(scene: Scene, size: int) -> list[tuple[int, Window]]:
    return [(0, window) for window in grid(scene.height, scene.width, size=size, stride=size)]


def test_golden_vectors(tmp_path: Path) -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        data, valid = golden["stat_data"], golden["stat_valid"].astype(bool)
        scene = scene_of(tmp_path / "a.tif", data, mask=valid.astype(np.uint8) * 255)
        found = band_statistics([scene])
        np.testing.assert_array_equal(found.count, golden["stat_count"])
        np.testing.assert_array_equal(found.minimum, golden["stat_min"])
        np.testing.assert_array_equal(found.maximum, golden["stat_max"])
        np.testing.assert_allclose(found.mean, golden["stat_mean"], rtol=1e-12)
        np.testing.assert_allclose(found.std, golden["stat_std"], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_every_type_agrees_with_numpy(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(1)
    limits = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535)}
    low, high = limits.get(dtype, (-30_000, 30_000))
    values = rng.integers(low, high + 1, (2, 60, 70)).astype(dtype)
    mask = np.where(rng.random((60, 70)) < 0.3, 0, 255).astype(np.uint8)
    scene = scene_of(tmp_path / "a.tif", values, mask=mask)
    found = band_statistics([scene], windows_of(scene, 10))
    kept = values[:, mask > 0].astype(np.float64)
    assert found.count == (kept.shape[1],) * 2
    np.testing.assert_array_equal(found.minimum, kept.min(axis=1))
    np.testing.assert_array_equal(found.maximum, kept.max(axis=1))
    np.testing.assert_allclose(found.mean, kept.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.std, kept.std(axis=1), rtol=1e-12)
    method: Any = "linear" if dtype in ("int32", "float32") else "inverted_cdf"
    quantiles = np.quantile(kept, [0.02, 0.98], axis=1, method=method)
    np.testing.assert_allclose([found.low, found.high], quantiles, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 50), dtype=st.sampled_from(["int16", "float64"]))
def test_the_cut_into_windows_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, size: int, dtype: str
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.tif"
    # Far from zero, where summing squares would lose the variance.
    values = (np.random.default_rng(2).integers(0, 9, (2, 37, 41)) + 30_000).astype(dtype)
    scene = scene_of(path, values)
    whole = band_statistics([scene])
    tiles = [
        Window(row, col, min(size, 37 - row), min(size, 41 - col))
        for row in range(0, 37, size)
        for col in range(0, 41, size)
    ]
    cut = band_statistics([scene], [(0, window) for window in tiles])
    np.testing.assert_allclose(cut.std, whole.std, rtol=1e-11)
    np.testing.assert_allclose(cut.std, values.astype(float).std(axis=(1, 2)), rtol=1e-11)
    np.testing.assert_allclose(cut.mean, whole.mean, rtol=1e-12)
    assert cut.count == whole.count == (37 * 41,) * 2
    assert (cut.low, cut.high) == (whole.low, whole.high)


def test_two_scenes_are_pooled(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (1, 20, 20)).astype(np.float32)
    other = rng.normal(5, 2, (1, 10, 30)).astype(np.float32)
    scenes = [scene_of(tmp_path / "a.tif", values), scene_of(tmp_path / "b.tif", other)]
    pooled = np.concatenate([values.ravel(), other.ravel()]).astype(float)
    found = band_statistics(scenes)
    assert found.mean == pytest.approx((pooled.mean(),), rel=1e-9)
    assert found.std == pytest.approx((pooled.std(),), rel=1e-9)


def test_quantiles_of_a_large_float_raster_come_from_a_bounded_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SAMPLE", 4000)
    # A ramp, so that windows differ: a sample that forgot the early ones would be far off.
    values = np.linspace(0, 1, 600 * 600, dtype=np.float32).reshape(1, 600, 600)
    scene = scene_of(tmp_path / "a.tif", values)
    found = band_statistics([scene], windows_of(scene, 50))
    assert found.low[0] == pytest.approx(0.02, abs=0.01)  # 4.5 sigma of 4,000 draws
    assert found.high[0] == pytest.approx(0.98, abs=0.01)
    assert found.low[0] != pytest.approx(0.02, abs=1e-6)
    assert found == band_statistics([scene], windows_of(scene, 50))


def test_an_approximation_reads_the_overviews_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "APPROXIMATE_PIXELS", 1000)
    values = np.full((1, 128, 128), 10, np.uint8)
    scene = scene_of(tmp_path / "a.tif", values)
    with rasterio.open(scene.path, "r+") as file:
        file.build_overviews([2, 4, 8], Resampling.nearest)
    with rasterio.open(scene.path, "r+") as file:
        file.write(values + np.uint8(5))  # the overviews keep the old pixels, and give them away
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes())
    scene = open_scene(tmp_path / "b.tif")
    found = band_statistics([scene], approximate=True)
    assert found.count == (32 * 32,)
    assert found.mean == (10,)
    assert found.notes == (f"{scene.path}: statistics from the overview 1:4",)
    assert band_statistics([scene]).mean == (15,)
    assert band_statistics([scene]).notes == ()


def test_an_approximation_without_overviews_takes_an_even_choice_of_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "APPROXIMATE_PIXELS", 1000)
    values = np.repeat(np.arange(64, dtype=np.uint8), 64).reshape(1, 64, 64)
    scene = scene_of(tmp_path / "a.tif", values)
    found = band_statistics([scene], windows_of(scene, 8), approximate=True)
    assert found.count == (1024,)
    assert found.mean[0] == pytest.approx(31.5, abs=4)
    assert found.notes == (f"{scene.path}: statistics from every 4th window, without overviews",)


def test_progress_counts_the_windows(tmp_path: Path) -> None:
    scene = scene_of(tmp_path / "a.tif", np.ones((1, 20, 20), np.uint8))
    seen: list[tuple[int, int]] = []
    band_statistics([scene], windows_of(scene, 10), progress=lambda *at: seen.append(at))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_scene_without_a_valid_pixel_is_refused(tmp_path: Path, dtype: str) -> None:
    scene = scene_of(tmp_path / "void.tif", np.zeros((2, 20, 20), dtype), nodata=0)
    with pytest.raises(InputError, match=r"void\.tif: no valid pixel in 4 windows"):
        band_statistics([scene], windows_of(scene, 10))


def test_constant_bands_are_named_and_json_gives_everything_back(tmp_path: Path) -> None:
    values = np.stack([np.full((5, 5), 7.5), np.arange(25).reshape(5, 5)]).astype(np.float32)
    found = band_statistics([scene_of(tmp_path / "a.tif", values)])
    assert found.constant == (0,)
    assert found.std[0] == 0
    assert BandStatistics.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_memory_does_not_grow_with_the_raster(tmp_path: Path, dtype: str) -> None:
    peaks = []
    for side in (1500, 4500):
        path = tmp_path / f"{dtype}{side}.tif"
        options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
        size = {"height": side, "width": side, "count": 2, "sparse_ok": True}
        with rasterio.open(
            path, "w", driver="GTiff", dtype=dtype, transform=NORTH, **size, **options
        ):
            pass
        scene = open_scene(path)
        tracemalloc.start()
        band_statistics([scene])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 80e6
