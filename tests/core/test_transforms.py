from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from cl_core.errors import InputError
from cl_core.transforms import (
    IMAGENET,
    CenterCrop,
    ColorJitter,
    GaussianBlur,
    Grayscale,
    Normalize,
    Resize,
    Solarize,
    Statistics,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    crop_and_flip,
    evaluation,
    evaluation_view,
    gaussian_blur,
    luminance,
    to_unit_range,
)


def image(channels: int = 3, size: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.rand(channels, size, size, generator=torch.Generator().manual_seed(seed))


def photograph(size: int = 256) -> torch.Tensor:
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(smooth)).permute(2, 0, 1)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 3), st.floats(-0.5, 0.5), st.integers(0, 1000))
def test_on_rgb_each_colour_change_is_torchvisions(factor, turn, seed):
    x = image(seed=seed)
    for ours, theirs, amount in (
        (adjust_brightness, reference.adjust_brightness, factor),
        (adjust_contrast, reference.adjust_contrast, factor),
        (adjust_saturation, reference.adjust_saturation, factor),
        (adjust_hue, reference.adjust_hue, turn),
    ):
        # 3e-4: torchvision rounds the weight of red to .2989, and 1 - factor is at most 2 off
        torch.testing.assert_close(ours(x, amount), theirs(x, amount), atol=3e-4, rtol=0)


@pytest.mark.parametrize("change", [adjust_brightness, adjust_contrast, adjust_saturation])
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_factor_one_changes_nothing_and_batches_equal_single_images(change, channels):
    x = torch.stack([image(channels, seed=k) for k in range(3)])
    before = x.clone()
    torch.testing.assert_close(change(x, 1.0), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(change(x, 0.3), torch.stack([change(one, 0.3) for one in x]))
    assert torch.equal(x, before)


def test_other_channel_counts_follow_the_stated_formulas():
    x = image(13)
    grey = x.mean(0)
    assert torch.allclose(adjust_saturation(x, 0.0), grey.expand_as(x), atol=1e-6)
    assert torch.allclose(adjust_contrast(x, 0.0), grey.mean().expand_as(x), atol=1e-6)
    assert torch.allclose(adjust_contrast(x, 0.5), x / 2 + grey.mean() / 2, atol=1e-6)
    assert torch.equal(adjust_saturation(image(1), 0.0), image(1))
    assert luminance(image(4)).shape == (1, 20, 20)


def test_hue_keeps_grey_and_two_half_turns_return():
    x = image()
    grey = torch.full((3, 4, 4), 0.4)
    assert torch.allclose(adjust_hue(grey, 0.3), grey)
    assert torch.allclose(adjust_hue(adjust_hue(x, 0.5), 0.5), x, atol=1e-5)
    red = torch.tensor([1.0, 0, 0])[:, None, None]
    assert adjust_hue(red, 1 / 3).flatten().tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    with pytest.raises(ValueError, match="hue is defined for 3 channels, got 13: use hue=0"):
        adjust_hue(image(13), 0.1)


def test_the_jitter_draws_the_range_torchvision_draws():
    torch.manual_seed(0)
    jitter = ColorJitter(brightness=1.5)  # U[0, 2.5], not U[-0.5, 2.5]
    grey = torch.full((1, 1, 1), 0.2)
    factors = torch.tensor([float(jitter(grey)) / 0.2 for _ in range(4000)])
    assert 0 <= factors.min() < 0.01
    assert 2.49 < factors.max() <= 2.5
    assert factors.mean().item() == pytest.approx(1.25, abs=0.05)


def test_the_jitter_has_the_distribution_of_torchvisions():
    ours, theirs = ColorJitter(0.8, 0.8, 0.8, 0.2), v2.ColorJitter(0.8, 0.8, 0.8, 0.2)
    x = image(size=8)
    torch.manual_seed(1)
    a = torch.stack([ours(x) for _ in range(1500)]).flatten(1)
    b = torch.stack([theirs(x) for _ in range(1500)]).flatten(1)
    # Standard error of a mean of 1500 draws with spread 0.3 is 0.008: five of them.
    assert (a.mean(0) - b.mean(0)).abs().max() < 0.055
    assert (a.std(0) - b.std(0)).abs().max() < 0.04


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_the_jitter_takes_any_channels_without_hue(channels):
    torch.manual_seed(0)
    x = (image(channels) * 255).to(torch.uint8)
    before = x.clone()
    y = ColorJitter(0.4, 0.4, 0.4)(x)
    assert y.dtype == torch.float32
    assert y.shape == x.shape
    assert not torch.allclose(y, to_unit_range(x))
    assert torch.equal(x, before)


def test_a_probability_is_that_share_of_draws():
    torch.manual_seed(0)
    x = image()
    for p, transform in (
        (0.8, ColorJitter(0.4, p=0.8)),
        (0.2, Grayscale(0.2)),
        (0.5, GaussianBlur()),
    ):
        share = np.mean([not torch.equal(transform(x), x) for _ in range(2000)])
        assert share == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / 2000))


def test_grey_is_the_luminance_in_every_channel():
    x = image()
    y = Grayscale()(x)
    expected = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    assert torch.allclose(y, expected.expand(3, -1, -1), atol=1e-6)
    assert torch.allclose(Grayscale()(image(5)), image(5).mean(0).expand(5, -1, -1), atol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_the_blur_is_torchvisions_with_simclrs_kernel(sigma):
    x = image(size=48)
    theirs = reference.gaussian_blur(x, [23, 23], [sigma, sigma])
    assert (gaussian_blur(x, sigma) - theirs).abs().max() < 2e-4
    narrow = reference.gaussian_blur(x, [3, 3], [sigma, sigma])
    torch.testing.assert_close(gaussian_blur(x, sigma, radius=1), narrow, atol=1e-5, rtol=0)


def test_the_blur_has_the_radius_pillow_means():
    x = photograph(96)
    pillow = Image.fromarray(x.permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(2))
    theirs = torch.from_numpy(np.array(pillow)).permute(2, 0, 1) / 255
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert (gaussian_blur(to_unit_range(x), 2.0)[inner] - theirs[inner]).abs().max() < 0.015


def test_the_blur_keeps_flat_images_and_works_on_tiny_ones():
    flat = torch.full((2, 3, 5, 5), 0.7)
    assert torch.allclose(gaussian_blur(flat, 2.0), flat)
    assert gaussian_blur(image(13, size=3), 2.0).shape == (13, 3, 3)
    assert torch.allclose(gaussian_blur(torch.full((1, 1, 1), 0.3), 1.0), torch.tensor(0.3))
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        gaussian_blur(flat, 0.0)


def test_evaluation_has_no_chance_and_cuts_the_centre():
    x = photograph(512)[:, :, :300]
    expected = reference.center_crop(reference.resize(x, [256], antialias=True), [224, 224])
    assert torch.equal(evaluation(224)(x), to_unit_range(expected))
    square = reference.resize(x, [224, 224], antialias=True)
    assert torch.equal(evaluation(224, resize="square")(x), to_unit_range(square))
    centre = to_unit_range(reference.center_crop(x, [200, 200]))
    assert torch.equal(evaluation(200, resize=None)(x), centre)
    with pytest.raises(ValueError, match="resize must be at least the crop of 224 pixels, got 200"):
        evaluation(224, resize=200)


def test_a_crop_larger_than_the_image_is_refused_in_one_line():
    with pytest.raises(
        InputError, match="the image is 30 x 20 pixels, smaller than the crop of 32"
    ):
        CenterCrop(32)(torch.zeros(3, 20, 30))
    assert CenterCrop(20)(torch.zeros(3, 20, 30)).shape == (3, 20, 20)


def test_normalisation_is_the_last_step_and_only_on_request():
    torch.manual_seed(0)
    x = photograph(32)
    plain = evaluation(32, resize=None)(x)
    y = evaluation(32, resize=None, statistics=IMAGENET)(x)
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    assert torch.allclose(y, (plain - mean) / std)
    with pytest.raises(ValueError, match="the image has 4 channels, the statistics have 3"):
        Normalize(IMAGENET)(image(4))
    with pytest.raises(ValueError, match="a positive std per channel"):
        Normalize(Statistics((0.5,), (0.0,)))


def test_values_of_unknown_range_are_refused():
    with pytest.raises(ValueError, match=r"uint8 or a float image, got torch\.int16"):
        to_unit_range(torch.zeros(1, 2, 2, dtype=torch.int16))


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="hue lies in"):
        ColorJitter(hue=0.6)
    with pytest.raises(ValueError, match="need 0 < sigma"):
        GaussianBlur(0.5, (2.0, 0.1))


@pytest.mark.parametrize("edges", [(40, 40), (30, 61), (61, 30), (7, 9)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [20, 50, (12, 33)])
def test_resizing_is_torchvisions(edges, mode, size):
    x = photograph(64)[:, : edges[0], : edges[1]]
    sizes = list(size) if isinstance(size, tuple) else [size]
    theirs = reference.resize(x, sizes, v2.InterpolationMode(mode), antialias=True)
    ours = Resize(size, mode)(x)
    assert ours.dtype == torch.uint8
    # One grey level: where a processor has no fast bytes torchvision rounds floats instead.
    assert (ours.int() - theirs.int()).abs().max() <= 1


def test_small_images_are_measured_as_they_are_and_others_by_the_centre():
    x = photograph(32)
    assert torch.equal(evaluation_view(32, None)(x), to_unit_range(x))
    assert torch.equal(evaluation_view(96, None)(photograph(200)), evaluation(96)(photograph(200)))


def test_solarisation_inverts_from_128_on():
    x = to_unit_range(torch.tensor([[[0, 127, 128, 255]]], dtype=torch.uint8))
    assert (Solarize(1.0)(x) * 255).round().flatten().tolist() == [0, 127, 127, 0]
    torch.testing.assert_close(
        Solarize(1.0, threshold=0.3)(image()), reference.solarize(image(), 0.3)
    )
    torch.manual_seed(0)
    share = np.mean([not torch.equal(Solarize(0.2)(x), x) for _ in range(2000)])
    assert share == pytest.approx(0.2, abs=4.5 * math.sqrt(0.16 / 2000))


def test_a_probe_is_trained_on_crops_and_flips_alone():
    x = photograph(64)
    torch.manual_seed(0)
    views = torch.stack([crop_and_flip(32)(x) for _ in range(20)])
    assert views.shape == (20, 3, 32, 32)
    assert len({float(view.sum()) for view in views}) == 20
    (crop, last) = crop_and_flip(32, scale=(0.3, 1.0))
    assert (crop.scale, crop.flip, crop.size) == ((0.3, 1.0), 0.5, (32, 32))
    assert torch.equal(last(x), to_unit_range(x))
