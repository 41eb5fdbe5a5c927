from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cl_remote_sensing.labels.legend import IGNORE
from cl_remote_sensing.views.augment import (
    FineTuneAugment,
    ViewColors,
    jitter_bands,
    jitter_hsv,
    rgb_bands,
)
from cl_remote_sensing.views.radiometry import (
    BLUR_KERNELS,
    blur,
    brightness_contrast,
    copy_band,
    replace_pixels,
    shift_hsv,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "glcnet.npz")
RGBN = ("red", "green", "blue", "nir")


def tile(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(GOLDEN["aug_image"]).permute(2, 0, 1).to(dtype) / 255


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def steps_off(x: Tensor, expected: str) -> float:
    """The largest difference from an 8-bit image, in its steps."""
    image = (x * 255).round().movedim(0, -1).numpy()
    return float(np.abs(image - GOLDEN[expected].astype(float)).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_blur_is_that_of_the_official_code(kernel, dtype):
    assert steps_off(blur(tile(dtype), kernel), f"aug_blur_k{kernel}") <= 1


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_blur_keeps_a_flat_image_and_spreads_a_point_by_the_kernel(kernel):
    flat = torch.full((2, 9, 8), 0.3)
    torch.testing.assert_close(blur(flat, kernel), flat, rtol=0, atol=1e-6)
    point = torch.zeros(1, 11, 11)
    point[0, 5, 5] = 1
    weights = BLUR_KERNELS[kernel]
    whole = torch.tensor([*weights[:0:-1], *weights])
    r = len(weights) - 1
    spread = blur(point, kernel)[0, 5 - r : 6 + r, 5 - r : 6 + r]
    torch.testing.assert_close(spread, torch.outer(whole, whole))


def test_copy_band_is_the_official_grey():
    grey = copy_band(tile(), int(GOLDEN["aug_gray_band"]))
    assert steps_off(grey, "aug_gray") == 0


@pytest.mark.parametrize("case", range(3))
def test_brightness_and_contrast_follow_the_official_code(case):
    factors = torch.from_numpy(GOLDEN[f"aug_bc{case}_factors"])
    x = brightness_contrast(tile()[:1], *factors[:, None])[0] * 255
    # The official code rounds between the two, by at most half a step times the contrast.
    assert np.abs(x.numpy() - GOLDEN[f"aug_bc{case}_float"]).max() <= 0.56
    assert np.abs(np.trunc(x.numpy()) - GOLDEN[f"aug_bc{case}_uint8"]).max() <= 1


def test_brightness_and_contrast_are_each_bands_own():
    x = noise(3, 4, 4)
    b, c = torch.tensor([0.9, 1.1, 1.0]), torch.tensor([1.0, 0.9, 1.1])
    out = brightness_contrast(x, b, c)
    torch.testing.assert_close(out[0], 0.9 * x[0])
    torch.testing.assert_close(out[1], 0.9 * (0.9 * x[1] + 0.1))
    torch.testing.assert_close(out[2], (1.1 * x[2]).clamp(max=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", range(3))
def test_hue_saturation_and_value_in_whole_units_are_opencvs(case, dtype):
    shift = GOLDEN[f"aug_hsv{case}_shift"].tolist()
    shifted = shift_hsv(tile(dtype)[:3], *shift, eight_bit=True)
    assert steps_off(shifted, f"aug_hsv{case}_rgb_mod180") <= 1
    # Without rounding in between, the hue alone is off by up to half of two degrees.
    assert steps_off(shift_hsv(tile(dtype)[:3], *shift), f"aug_hsv{case}_rgb_mod180") <= 5


OPENCV = [  # RGB -> HSV of cv2.cvtColor 5.0 -> RGB, in 8 bits
    ((2, 174, 242), (99, 253, 242), (2, 170, 242)),
    ((200, 13, 250), (144, 242, 250), (203, 13, 250)),
    ((254, 255, 3), (30, 252, 255), (255, 255, 3)),
    ((90, 120, 60), (45, 128, 120), (90, 120, 60)),
    ((7, 7, 8), (120, 32, 8), (7, 7, 8)),
    ((1, 0, 0), (0, 255, 1), (1, 0, 0)),
    ((255, 255, 255), (0, 0, 255), (255, 255, 255)),
    ((0, 0, 0), (0, 0, 0), (0, 0, 0)),
]


@pytest.mark.parametrize(("rgb", "hsv", "back"), OPENCV)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_units_are_rounded_as_opencv_does(rgb, hsv, back, dtype):
    x = torch.tensor(rgb, dtype=dtype)[:, None, None] / 255
    out = shift_hsv(x, 0, 0, 0, eight_bit=True).flatten() * 255
    assert (out.round() - torch.tensor(back)).abs().max() <= 1
    h, s, v = hsv
    grey = shift_hsv(x, 0, -255, 0, eight_bit=True).flatten() * 255  # the value alone is left
    torch.testing.assert_close(grey, torch.full((3,), float(v), dtype=dtype))
    pure = colorsys.hsv_to_rgb(h / 180, s / 255, 1)
    full = shift_hsv(x, 0, 0, 255, eight_bit=True).flatten()
    torch.testing.assert_close(full, torch.tensor(pure, dtype=dtype), rtol=0, atol=1e-5)


def test_whole_units_are_right_within_one_on_a_grid_of_all_colours():
    r, g, b = rgb = np.stack(np.meshgrid(*[np.arange(0, 256, 5)] * 3, indexing="ij")).reshape(3, -1)
    v, d = rgb.max(0), np.ptp(rgb, axis=0)
    place = np.where(v == r, g - b, np.where(v == g, b - r + 2 * d, r - g + 4 * d))
    hue = np.rint((180 << 12) / (6.0 * np.maximum(d, 1))).astype(int) * place + 2048 >> 12
    chroma = np.rint((255 << 12) / (1.0 * np.maximum(v, 1))).astype(int) * d + 2048 >> 12
    k = np.clip(np.abs((hue / 30 + [[0], [4], [2]]) % 6 - 3) - 1, 0, 1)
    exact = np.rint(((k - 1) * chroma / 255 + 1) * v)
    x = torch.from_numpy(rgb[:, :, None]) / 255
    ours = (shift_hsv(x, 0, 0, 0, eight_bit=True) * 255).round().numpy()[..., 0]
    assert np.abs(ours - exact).max() <= 1


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.integers(-30, 30),
    st.floats(-5, 5),
    st.floats(-15, 15),
)
@settings(deadline=None, max_examples=60)
def test_hue_saturation_and_value_are_those_of_the_standard_library(rgb, hue, saturation, value):
    h, s, v = colorsys.rgb_to_hsv(*rgb)
    expected = colorsys.hsv_to_rgb(
        (h + hue / 180) % 1,
        min(max(s + saturation / 255, 0), 1),
        min(max(v + value / 255, 0), 1),
    )
    x = torch.tensor(rgb, dtype=torch.float64)[:, None, None]
    out = shift_hsv(x, hue, saturation, value).flatten()
    # The hue of a nearly black or grey pixel hangs on its last digits.
    if max(rgb) - min(rgb) > 1e-6:
        torch.testing.assert_close(out, torch.tensor(expected).double(), rtol=0, atol=1e-6)


def test_the_hue_is_a_circle():
    # The official arithmetic makes (20, 200, 68) of it, a green.
    red = torch.tensor([200.0, 30, 20])[:, None, None] / 255
    shifted = (shift_hsv(red, -10, 0, 0) * 255).round().flatten().tolist()
    assert shifted == pytest.approx([200, 20, 68], abs=3)
    torch.testing.assert_close(shift_hsv(red, 180, 0, 0), red)


@pytest.mark.parametrize("probability", [0.001, 0.2])
def test_replaced_values_are_as_many_as_their_probability_says(probability):
    torch.manual_seed(0)
    x = torch.full((4, 250, 200), 2.0)
    out = replace_pixels(x, probability)
    changed = out[out != 2.0]
    n = x.numel()
    assert abs(len(changed) - n * probability) < 5 * (n * probability) ** 0.5
    assert (x == 2).all()
    assert 0 <= changed.min() < 0.05
    assert 0.95 < changed.max() <= 1
    assert abs(changed.mean() - 0.5) < 0.05 + 1 / len(changed) ** 0.5
    # Everywhere: the first and the last tenth get their share.
    flat = (out != 2).flatten().double()
    for part in (flat[: n // 10], flat[-n // 10 :]):
        assert part.mean() == pytest.approx(probability, rel=0.6)


def test_colours_are_found_wherever_they_lie():
    assert rgb_bands(("nir", "blue", "green", "red")) == (3, 2, 1)
    assert rgb_bands(("red", "green", "nir")) is None


def test_hue_moves_the_tagged_bands_only_and_in_their_order():
    x = tile(torch.float32)
    torch.manual_seed(3)
    plain = jitter_hsv(x, (0, 1, 2))
    torch.manual_seed(3)
    mixed = jitter_hsv(x[[3, 2, 1, 0]], (3, 2, 1))
    assert torch.equal(plain[3], x[3])
    assert not torch.equal(plain[:3], x[:3])
    torch.testing.assert_close(mixed, plain[[3, 2, 1, 0]])


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
def test_any_number_of_bands_stays_in_range(bands):
    x = noise(bands, 20, 20)
    before = x.clone()
    change = ViewColors(["undefined"] * bands)
    torch.manual_seed(0)
    seen = [change(x) for _ in range(30)]
    assert torch.equal(x, before)
    assert all(out.shape == x.shape and out.min() >= 0 and out.max() <= 1 for out in seen)
    assert len({round(float(out.sum()), 6) for out in seen}) > 20


def test_three_bands_are_jittered_unless_the_official_code_is_asked_for():
    x = noise(3, 20, 20)

    def shares(*, jitter_rgb: bool) -> float:
        change = ViewColors(("undefined",) * 3, jitter_rgb=jitter_rgb)
        torch.manual_seed(0)
        return sum(torch.equal(change(x), x) for _ in range(300)) / 300

    # Left as it is: no colour (0.2 or always), no grey (0.9), no blur (0.5).
    assert shares(jitter_rgb=True) == pytest.approx(0.2 * 0.9 * 0.5, abs=0.06)
    assert shares(jitter_rgb=False) == pytest.approx(0.9 * 0.5, abs=0.09)


def test_band_factors_differ_between_bands():
    torch.manual_seed(0)
    x = torch.full((4, 50, 50), 0.5)
    middle = jitter_bands(x, 0.1, noise=1e-6).flatten(1).median(1).values
    assert len(set(middle.tolist())) == 4
    assert ((middle > 0.4) & (middle < 0.62)).all()


def labelled(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A tile whose bands and labels tell the same quantity: label / 250."""
    label = torch.randint(0, 250, (height, width), generator=torch.Generator().manual_seed(1))
    unit = (label / 250).expand(5, -1, -1).contiguous()
    return unit, torch.ones(height, width, dtype=torch.bool), label.to(torch.uint8)


def test_fine_tuning_crops_and_keeps_labels_of_the_image_and_255_outside():
    unit, valid, label = labelled(40, 40)
    change = FineTuneAugment(size=32, colors=("undefined",) * 5, fill=(0.25,) * 5)
    torch.manual_seed(0)
    moved = 0
    for _ in range(40):
        x, v, y = change(unit, valid, label)
        assert x.shape == (5, 32, 32)
        assert y.dtype == torch.uint8
        assert ((y == IGNORE) == ~v).all()
        assert (x[:, ~v] == 0.25).all()
        assert set(y[v].tolist()) <= set(label.flatten().tolist())
        if v.all():
            # Not moved (or inwards only): band and label are still of the same pixel.
            error = (x[0] - y / 250).abs()
            moved += bool(error.median() > 0.02)
        else:
            moved += 1
    assert 8 < moved < 32  # half the time


def test_labels_and_image_move_alike_in_fine_tuning():
    # A smooth image, so that nearest and bilinear differ by less than a pixel's slope.
    row, col = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    unit = torch.stack([row, col, row + col]) / 128
    label = (row * 3).to(torch.uint8)
    change = FineTuneAugment(size=64, colors=("undefined",) * 3)
    torch.manual_seed(1)
    filled = 0
    for _ in range(30):
        x, v, y = change(unit, torch.ones(64, 64, dtype=torch.bool), label)
        error = (x[0] * 128 - y.float() / 3).abs()[v]
        assert error.quantile(0.99) < 3.0  # a percent of band jitter and half a pixel
        filled += int((~v).any())
    assert 5 < filled < 25


def test_pixels_without_data_stay_so_in_fine_tuning():
    unit, valid, label = labelled(48, 48)
    valid[10:20, 5:30] = False
    unit[:, ~valid] = torch.arange(5.0)[:, None] / 10
    label[~valid] = IGNORE
    change = FineTuneAugment(size=48, colors=(*RGBN, "undefined"))
    torch.manual_seed(2)
    for _ in range(20):
        x, v, y = change(unit, valid, label)
        assert not v.all()
        assert (y[~v] == IGNORE).all()
        assert (x[:, ~v] == torch.arange(5.0)[:, None] / 10).all()


def test_fine_tuning_sees_all_eight_orientations():
    change = FineTuneAugment(size=4, colors=("undefined",))
    label = torch.arange(16, dtype=torch.uint8).reshape(4, 4)
    torch.manual_seed(0)
    seen = set()
    for _ in range(400):
        _, v, y = change(torch.zeros(1, 4, 4), torch.ones(4, 4, dtype=torch.bool), label)
        if v.all() and len(set(y.flatten().tolist())) == 16:
            seen.add(tuple(y.flatten().tolist()))
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 0}, "size must be positive"), ({"fill": (0.1,)}, "1 numbers for 4 bands")],
)
def test_fine_tuning_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        FineTuneAugment(colors=RGBN, **options)
