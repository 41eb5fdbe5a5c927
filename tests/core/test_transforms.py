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

from cl_core import transforms
from cl_core.errors import InputError
from cl_core.transforms import (
    IMAGENET,
    CenterCrop,
    ColorJitter,
    GaussianBlur,
    Grayscale,
    Normalize,
    Statistics,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
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


RECIPES = {
    "simclr": lambda **o: [transforms.simclr(96, **o)],
    "moco_v1": lambda **o: [transforms.moco_v1(96, **o)],
    "moco_v2": lambda **o: [transforms.moco_v2(96, **o)],
    "supercon": lambda **o: [transforms.supercon(96, **o)],
    "directclr": lambda **o: list(transforms.directclr(96, **o)),
    "multi_crop": lambda **o: transforms.hcsc_multi_crop(96, sizes=(96,) * 5, **o),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_every_recipe_takes_any_channels_and_depth_and_leaves_its_argument(name, channels, kind):
    torch.manual_seed(0)
    x = image(channels, size=120)
    x = (
        (x * 255).to(torch.uint8).permute(1, 2, 0).contiguous().permute(2, 0, 1)
        if kind == "uint8"
        else x
    )
    before = x.clone()
    for transform in RECIPES[name](channels=channels):
        for _ in range(4):
            y = transform(x)
            assert y.shape == (channels, 96, 96)
            assert y.dtype == torch.float32
            assert y.min() >= 0
            assert y.max() <= 1
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_draw_from_torchs_generator_alone(name):
    x = photograph()
    (transform, *_) = RECIPES[name]()
    torch.manual_seed(5)
    one, two = transform(x), transform(x)
    torch.manual_seed(5)
    assert torch.equal(transform(x), one)
    assert not torch.equal(one, two)


def steps(recipe) -> dict[str, object]:
    return {type(step).__name__: step for step in recipe}


def test_the_papers_numbers():
    s = steps(transforms.simclr(224, strength=0.5))
    assert s["RandomResizedCrop"].scale == (0.08, 1.0)
    assert s["RandomResizedCrop"].ratio == (3 / 4, 4 / 3)
    assert s["ColorJitter"].strengths == (0.4, 0.4, 0.4, 0.1)
    assert s["ColorJitter"].p == 0.8
    assert (s["Grayscale"].p, s["GaussianBlur"].p, s["GaussianBlur"].sigma) == (
        0.2,
        0.5,
        (0.1, 2.0),
    )
    s = steps(transforms.moco_v2(224))
    assert s["RandomResizedCrop"].scale == (0.2, 1.0)
    assert (s["ColorJitter"].strengths, s["ColorJitter"].p) == ((0.4, 0.4, 0.4, 0.1), 0.8)
    v1 = transforms.moco_v1(224)
    assert [type(step).__name__ for step in v1][2:4] == ["Grayscale", "ColorJitter"]
    assert (steps(v1)["ColorJitter"].strengths, steps(v1)["ColorJitter"].p) == ((0.4,) * 4, 1.0)
    one, two = map(steps, transforms.directclr(224))
    assert one["ColorJitter"].strengths == two["ColorJitter"].strengths == (0.4, 0.4, 0.2, 0.1)
    assert (one["GaussianBlur"].p, two["GaussianBlur"].p) == (1.0, 0.1)
    assert (one["RandomSolarize"].p, two["RandomSolarize"].p) == (0.0, 0.2)
    s = steps(transforms.supercon(224))
    assert (s["ColorJitter"].strengths, s["ColorJitter"].p) == ((0.8, 0.8, 0.8, 0.2), 0.3)
    assert (s["GaussianBlur"].p, s["GaussianBlur"].sigma, s["GaussianBlur"].radius) == (
        0.2,
        (1, 2),
        1,
    )
    crops = [steps(crop)["RandomResizedCrop"] for crop in transforms.hcsc_multi_crop()]
    assert [crop.size[0] for crop in crops] == [224, 224, 192, 160, 128, 96]
    assert [crop.scale for crop in crops[2:]] == [
        (0.172, 0.86), (0.143, 0.715), (0.114, 0.571), (0.086, 0.429),
    ]  # fmt: skip


def test_solarisation_inverts_from_128_on():
    _, view = transforms.directclr(224)
    solarize = steps(view)["RandomSolarize"]
    solarize.p = 1.0
    x = to_unit_range(torch.tensor([[[0, 127, 128, 255]]], dtype=torch.uint8))
    assert (solarize(x) * 255).round().flatten().tolist() == [0, 127, 127, 0]


def test_recipes_for_32_pixels_have_no_blur():
    for recipe in (transforms.simclr(32), transforms.moco_v2(32), *transforms.directclr(32)):
        assert not {"GaussianBlur", "RandomSolarize"} & set(steps(recipe))
        assert recipe(photograph(32)).shape == (3, 32, 32)


def test_an_image_smaller_than_the_view_is_enlarged_by_a_recipe():
    assert transforms.simclr(224)(photograph(17)).shape == (3, 224, 224)
    assert transforms.evaluation(224)(photograph(17)).shape == (3, 224, 224)
    assert transforms.simclr(64)(image(3, size=1)).shape == (3, 64, 64)


def test_evaluation_has_no_chance_and_cuts_the_centre():
    x = photograph(512)[:, :, :300]
    expected = reference.center_crop(reference.resize(x, [256], antialias=True), [224, 224])
    assert torch.equal(transforms.evaluation(224)(x), to_unit_range(expected))
    square = reference.resize(x, [224, 224], antialias=True)
    assert torch.equal(transforms.evaluation(224, resize="square")(x), to_unit_range(square))
    centre = to_unit_range(reference.center_crop(x, [200, 200]))
    assert torch.equal(transforms.evaluation(200, resize=None)(x), centre)
    with pytest.raises(ValueError, match="resize must be at least the crop of 224 pixels, got 200"):
        transforms.evaluation(224, resize=200)


def test_a_crop_larger_than_the_image_is_refused_in_one_line():
    with pytest.raises(
        InputError, match="the image is 30 x 20 pixels, smaller than the crop of 32"
    ):
        CenterCrop(32)(torch.zeros(3, 20, 30))
    assert CenterCrop(20)(torch.zeros(3, 20, 30)).shape == (3, 20, 20)


def test_normalisation_is_the_last_step_and_only_on_request():
    torch.manual_seed(0)
    x = photograph(32)
    plain = transforms.evaluation(32, resize=None)(x)
    y = transforms.evaluation(32, resize=None, statistics=IMAGENET)(x)
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
    with pytest.raises(ValueError, match="a minimum and a maximum scale per size"):
        transforms.hcsc_multi_crop(sizes=(96,))
