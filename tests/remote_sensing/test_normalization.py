"""Normalisation: the three modes by hand, invalid pixels, extremes, and its card."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_remote_sensing.rasters.normalization import Mode, Normalization
from cl_remote_sensing.rasters.raster import Pixels
from cl_remote_sensing.rasters.statistics import BandStatistics

MODES: tuple[Mode, ...] = ("zscore", "percentile", "uint8")


def statistics(**changes: Any) -> BandStatistics:
    figures: dict[str, Any] = {
        "count": (100, 100),
        "minimum": (0, 10),
        "maximum": (200, 250),
        "mean": (60, 100),
        "std": (20, 30),
        "low": (20, 40),
        "high": (120, 240),
    }
    return BandStatistics(**{**figures, **changes})


def pixels(values: Any, valid: Any = None, dtype: Any = np.uint8) -> Pixels:
    array = np.asarray(values, dtype)
    return Pixels(array, np.ones(array.shape[1:], bool) if valid is None else np.asarray(valid))


@pytest.mark.parametrize(
    ("mode", "unit", "standardised"),
    [
        ("uint8", [51 / 255, 204 / 255], [51 / 255 * 3.2 - 1.6, 204 / 255 * 3.2 - 1.6]),
        ("percentile", [31 / 100, 164 / 200], [31 / 100 * 3.2 - 1.6, 164 / 200 * 3.2 - 1.6]),
        ("zscore", [51 / 200, 194 / 240], [(51 - 60) / 20, (204 - 100) / 30]),
    ],
)
def test_each_mode_is_its_formula(mode: Mode, unit: list[float], standardised: list[float]) -> None:
    normalization = Normalization.fit(statistics(), mode)
    window = pixels([[[51]], [[204]]])
    found, valid = normalization.unit(window)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx(unit, rel=1e-6)
    assert normalization(window)[0].flatten().tolist() == pytest.approx(standardised, rel=1e-5)
    assert valid.tolist() == [[True]]


def test_percentile_and_uint8_clip_and_zscore_does_not() -> None:
    window = pixels([[[0, 255]], [[0, 255]]])
    for mode in ("percentile", "uint8"):
        unit, _ = Normalization.fit(statistics(), mode).unit(window)
        assert unit.tolist() == [[[0, 1]], [[0, 1]]]
    beyond = pixels([[[0, 500]], [[0, 500]]], dtype=np.int16)
    standardised, _ = Normalization.fit(statistics(), "zscore")(beyond)
    assert standardised[0, 0].tolist() == pytest.approx([-3, 22], rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -3.4e38, 7.0])
def test_invalid_pixels_become_the_bands_mean_whatever_they_hold(mode: Mode, bad: float) -> None:
    normalization = Normalization.fit(statistics(), mode)
    window = pixels([[[bad, 51]], [[bad, 204]]], [[False, True]], np.float32)
    of_mean, _ = normalization(pixels([[[60]], [[100]]]))
    clean, _ = normalization(pixels([[[51]], [[204]]]))
    found, valid = normalization(window)
    assert found[:, 0, 0].tolist() == pytest.approx(of_mean.flatten().tolist(), abs=1e-6)
    assert found[:, 0, 1].tolist() == pytest.approx(clean.flatten().tolist(), abs=1e-6)
    assert valid.tolist() == [[False, True]]


def test_zscore_fills_with_zero_and_leaves_the_callers_arrays_alone() -> None:
    values = np.full((2, 2, 2), 7, np.float32)
    window = Pixels(values, np.zeros((2, 2), bool))
    found, _ = Normalization.fit(statistics(), "zscore")(window)
    assert found.abs().max() < 1e-6
    assert (values == 7).all()


@settings(max_examples=20, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64"]),
    seed=st.integers(0, 999),
)
def test_the_pixel_alone_decides_not_its_neighbours_nor_its_type(
    mode: Mode, dtype: str, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (2, 3, 4))
    normalization = Normalization.fit(statistics(), mode)
    whole, _ = normalization(pixels(values, dtype=dtype))
    one, _ = normalization(pixels(values[:, 1:2, 2:3], dtype="float64"))
    torch.testing.assert_close(whole[:, 1:2, 2:3], one, rtol=1e-5, atol=1e-6)


def test_batches_are_standardised_as_single_images() -> None:
    for mode in MODES:
        normalization = Normalization.fit(statistics(), mode)
        batch = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
        alone = torch.stack([normalization.standardize(image) for image in batch])
        torch.testing.assert_close(normalization.standardize(batch), alone, rtol=0, atol=0)


def test_doubles_far_from_zero_keep_their_differences() -> None:
    offset = 1e9
    figures = statistics(
        minimum=(offset,) * 2,
        maximum=(offset + 1,) * 2,
        mean=(offset + 0.5,) * 2,
        std=(0.25,) * 2,
        low=(offset,) * 2,
        high=(offset + 1,) * 2,
    )
    window = pixels([[[offset + 0.25]], [[offset + 0.75]]], dtype=np.float64)
    cases: dict[Mode, list[float]] = {"zscore": [-1, 1], "percentile": [-0.8, 0.8]}
    for mode, expected in cases.items():
        found, _ = Normalization.fit(figures, mode)(window)
        assert found.flatten().tolist() == pytest.approx(expected, abs=1e-4)


def test_a_constant_band_becomes_finite_numbers() -> None:
    figures = statistics(
        minimum=(5, 5), maximum=(5, 5), mean=(5, 5), std=(0, 0), low=(5, 5), high=(5, 5)
    )
    for mode in MODES:
        normalization = Normalization.fit(figures, mode)
        unit, _ = normalization.unit(pixels([[[5]], [[6]]]))
        assert torch.isfinite(normalization.standardize(unit)).all()
        if mode != "uint8":
            assert unit[0].item() == 0


def test_coinciding_quantiles_give_way_to_the_extremes() -> None:
    normalization = Normalization.fit(statistics(low=(0, 40), high=(0, 240)), "percentile")
    assert normalization.low == (0, 40)
    assert normalization.high == (200, 240)


def test_uint8_refuses_values_of_another_range_and_bands_must_agree() -> None:
    with pytest.raises(ValueError, match="from 0 to 255, but the bands reach from -3 to 250"):
        Normalization.fit(statistics(minimum=(-3, 0)), "uint8")
    with pytest.raises(ValueError, match="from 0 to 4000; use percentile"):
        Normalization.fit(statistics(minimum=(0, 0), maximum=(200, 4000)), "uint8")
    with pytest.raises(ValueError, match="of 2 bands met 3"):
        Normalization.fit(statistics(), "uint8").unit(pixels(np.zeros((3, 2, 2))))


@pytest.mark.parametrize("mode", MODES)
def test_the_card_gives_the_normalisation_back(mode: Mode) -> None:
    normalization = Normalization.fit(statistics(), mode)
    card = json.loads(json.dumps(normalization.to_dict()))
    assert Normalization.from_dict(card) == normalization
