"""The papers' views: their numbers, any channels and depth, torch's generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cl_vision.methods.views import directclr, hcsc_multi_crop, moco_v1, moco_v2, simclr


def image(channels: int = 3, size: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.rand(channels, size, size, generator=torch.Generator().manual_seed(seed))


def photograph(size: int = 256) -> torch.Tensor:
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(smooth)).permute(2, 0, 1)


RECIPES = {
    "simclr": lambda **o: [simclr(96, **o)],
    "moco_v1": lambda **o: [moco_v1(96, **o)],
    "moco_v2": lambda **o: [moco_v2(96, **o)],
    "directclr": lambda **o: list(directclr(96, **o)),
    "multi_crop": lambda **o: hcsc_multi_crop(96, sizes=(96,) * 5, **o),
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
    s = steps(simclr(224, strength=0.5))
    assert s["RandomResizedCrop"].scale == (0.08, 1.0)
    assert s["RandomResizedCrop"].ratio == (3 / 4, 4 / 3)
    assert (s["RandomResizedCrop"].flip, s["RandomResizedCrop"].turn) == (0.5, False)
    assert s["ColorJitter"].strengths == (0.4, 0.4, 0.4, 0.1)
    assert s["ColorJitter"].p == 0.8
    assert (s["Grayscale"].p, s["GaussianBlur"].p, s["GaussianBlur"].sigma) == (
        0.2,
        0.5,
        (0.1, 2.0),
    )
    s = steps(moco_v2(224))
    assert s["RandomResizedCrop"].scale == (0.2, 1.0)
    assert (s["ColorJitter"].strengths, s["ColorJitter"].p) == ((0.4, 0.4, 0.4, 0.1), 0.8)
    v1 = moco_v1(224)
    assert [type(step).__name__ for step in v1][1:3] == ["Grayscale", "ColorJitter"]
    assert (steps(v1)["ColorJitter"].strengths, steps(v1)["ColorJitter"].p) == ((0.4,) * 4, 1.0)
    one, two = map(steps, directclr(224))
    assert one["ColorJitter"].strengths == two["ColorJitter"].strengths == (0.4, 0.4, 0.2, 0.1)
    assert (one["GaussianBlur"].p, two["GaussianBlur"].p) == (1.0, 0.1)
    assert (one["Solarize"].p, two["Solarize"].p) == (0.0, 0.2)
    crops = [steps(crop)["RandomResizedCrop"] for crop in hcsc_multi_crop()]
    assert [crop.size[0] for crop in crops] == [224, 224, 192, 160, 128, 96]
    assert [crop.scale for crop in crops[2:]] == [
        (0.172, 0.86), (0.143, 0.715), (0.114, 0.571), (0.086, 0.429),
    ]  # fmt: skip


def test_recipes_for_32_pixels_have_no_blur():
    for recipe in (simclr(32), moco_v2(32), *directclr(32)):
        assert not {"GaussianBlur", "Solarize"} & set(steps(recipe))
        assert recipe(photograph(32)).shape == (3, 32, 32)


def test_an_image_smaller_than_the_view_is_enlarged_by_a_recipe():
    assert simclr(224)(photograph(17)).shape == (3, 224, 224)
    assert simclr(64)(image(3, size=1)).shape == (3, 64, 64)


def test_a_scale_per_size_is_asked_for():
    with pytest.raises(ValueError, match="a minimum and a maximum scale per size"):
        hcsc_multi_crop(sizes=(96,))
