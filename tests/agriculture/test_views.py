"""Masked views: reference vectors, one geometry for both, what the background can tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cl_agriculture.hyper import ViewHyper
from cl_agriculture.views.attention import attend
from cl_agriculture.views.geometry import (
    around_plants,
    draw_accepted,
    least_plant,
    nearest_mask,
)
from cl_agriculture.views.plant_views import TrainingView, WholeView
from cl_core.transforms import IMAGENET, Geometry, Normalize, RandomResizedCrop, to_unit_range

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "claws.npz")
RGB = torch.from_numpy(GOLDEN["plant_rgb"]).permute(2, 0, 1)
MASK = torch.from_numpy(GOLDEN["plant_mask"])
X = to_unit_range(RGB)
NORMALIZE = Normalize(IMAGENET)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(("fill", "name"), [("zero", "mi_fill0"), ("mean", "mi_fillmean")])
def test_masked_input_equals_the_reference(fill, name):
    view = NORMALIZE(attend(X, MASK, fill=fill))
    np.testing.assert_allclose(view, GOLDEN[name], rtol=1e-6, atol=1e-6)


def test_filling_with_the_mean_is_exactly_zero_once_normalised():
    view = NORMALIZE(attend(X, MASK, fill="mean"))
    assert bool((view[:, ~MASK] == 0).all())


def test_a_crop_with_a_flip_equals_the_reference():
    top, left, height, width = GOLDEN["crop_box_tlhw"].tolist()
    geometry = Geometry(top, left, height, width, flip=bool(GOLDEN["crop_hflip"]))
    cut = geometry.apply(X, (height, width))
    mask = geometry.apply_mask(MASK, (height, width))
    view = NORMALIZE(attend(cut, mask))
    np.testing.assert_allclose(view, GOLDEN["crop_masked"], rtol=1e-6, atol=1e-6)
    assert mask.float().mean().item() == pytest.approx(float(GOLDEN["crop_fg"]), rel=1e-6)


def test_a_resized_crop_equals_the_reference():
    geometry = Geometry(*GOLDEN["crop_box_tlhw"].tolist())
    image, mask = geometry.apply(X, (16, 16)), nearest_mask(geometry, MASK, 16)
    np.testing.assert_allclose(image, GOLDEN["rc_image"], atol=1e-4)
    np.testing.assert_array_equal(mask.float(), GOLDEN["rc_mask"][0])
    np.testing.assert_allclose(attend(image, mask), GOLDEN["rc_masked"], atol=1e-4)


def test_image_and_mask_go_through_one_geometry():
    image = MASK.to(torch.float32).expand(3, -1, -1)  # a picture of its own mask
    for turns in range(4):
        for flip in (False, True):
            geometry = Geometry(2, 3, 18, 18, flip, not flip, turns)
            seen = geometry.apply(image, (18, 18))[0] > 0.5
            assert torch.equal(seen, nearest_mask(geometry, MASK, 18))


def test_a_change_of_background_pixels_alone_leaves_the_view_bit_identical():
    other = torch.where(MASK, RGB, torch.randint_like(RGB, 255))
    view = WholeView(24, ViewHyper(), "hard")
    # At the stored size no pixel of the plant is mixed with the background.
    seen, _ = view(RGB[:, :24, :24], MASK[:24, :24])
    assert torch.equal(seen, view(other[:, :24, :24], MASK[:24, :24])[0])


def test_the_background_is_one_colour_in_every_training_view():
    view = TrainingView(20, ViewHyper(), "hard")
    black = NORMALIZE(torch.zeros(3, 1, 1)).flatten()
    for _ in range(20):
        x, mask = view(RGB, MASK)
        outside = x[:, ~mask]
        assert torch.equal(outside, black[:, None].expand_as(outside))


def test_without_a_mask_or_with_attention_off_the_background_stays():
    torch.manual_seed(3)
    plain = TrainingView(20, ViewHyper(), "off")(RGB)
    assert plain.shape == (3, 20, 20)
    assert plain.std() > 0.1
    whole, mask = WholeView(24, ViewHyper(), "off")(RGB, MASK)
    assert torch.equal(whole, WholeView(24, ViewHyper(), "hard")(RGB))
    assert mask.shape == (24, 24)


def test_background_p_lets_some_views_keep_their_background():
    view = TrainingView(20, ViewHyper(background_p=0.5), "hard")
    black = NORMALIZE(torch.zeros(3, 1, 1))
    kept = 0
    for _ in range(60):
        x, mask = view(RGB, MASK)
        kept += not bool((x[:, ~mask] == black.flatten()[:, None]).all())
    assert 15 < kept < 45


def test_soft_attention_blends_over_the_edge():
    soft = attend(torch.ones(3, 24, 30), MASK, attention="soft", sigma=1.0)
    inner = (soft > 0.01) & (soft < 0.99)
    assert bool(inner.any())
    assert soft.max() <= 1 + 1e-6


def test_a_crop_must_hold_enough_of_the_plant():
    assert (least_plant(0.2), least_plant(0.04)) == (0.02, pytest.approx(0.01))
    mask = torch.zeros(100, 100, dtype=torch.bool)
    mask[:12, :12] = True
    crop = RandomResizedCrop(16, (0.05, 0.2))
    for _ in range(50):
        cut = draw_accepted(crop, mask).cut(mask)
        assert cut.float().mean() >= least_plant(0.0144)


def test_where_no_crop_holds_the_plant_the_box_around_it_is_taken():
    mask = torch.zeros(200, 200, dtype=torch.bool)
    mask[100:104, 60:70] = True
    crop = RandomResizedCrop(16, (0.0004, 0.0005))
    torch.manual_seed(1)
    geometry = draw_accepted(crop, mask)
    assert (geometry.height, geometry.width) == (12, 12)
    assert bool(geometry.cut(mask).sum() == 40)
    assert around_plants(torch.zeros(4, 6, dtype=torch.bool)) == (0, 1, 4, 4)


def test_a_mask_of_ones_accepts_the_first_crop():
    crop = RandomResizedCrop(16, (0.1, 0.2))
    torch.manual_seed(5)
    first = crop.draw(40, 40)
    torch.manual_seed(5)
    assert draw_accepted(crop, torch.ones(40, 40, dtype=torch.bool)) == first
