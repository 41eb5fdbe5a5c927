"""One draw serves an image and its mask, and is torchvision's in every figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as reference

from cl_core.transforms import Geometry, RandomResizedCrop


def picture(h: int, w: int, *, seed: int = 0, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (h, w, 3), generator=generator, dtype=torch.uint8)
    image = pixels.permute(2, 0, 1)  # strided as a decoded file
    return image if dtype == torch.uint8 else image / 255


BOXES = st.tuples(st.integers(5, 60), st.integers(5, 60)).flatmap(
    lambda edges: st.tuples(
        st.just(edges),
        st.integers(0, edges[0] - 1).flatmap(
            lambda t: st.tuples(st.just(t), st.integers(1, edges[0] - t))
        ),
        st.integers(0, edges[1] - 1).flatmap(
            lambda t: st.tuples(st.just(t), st.integers(1, edges[1] - t))
        ),
    )
)


@settings(max_examples=60, deadline=None)
@given(
    BOXES,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from(["bilinear", "bicubic"]),
)
def test_image_and_mask_follow_torchvisions_functions(box, size, flip, upside, turns, mode):
    (h, w), (top, rows), (left, columns) = box
    image = picture(h, w)
    mask = torch.arange(h * w, dtype=torch.int32).reshape(h, w)
    geometry = Geometry(top, left, rows, columns, flip, upside, turns)

    def expected(x, interpolation):
        cut = (top, left, rows, columns)
        x = reference.resized_crop(
            x, *cut, list(size), interpolation=interpolation, antialias=interpolation != NEAREST
        )
        x = reference.horizontal_flip(x) if flip else x
        x = reference.vertical_flip(x) if upside else x
        return torch.rot90(x, turns, (-2, -1))

    view = geometry.apply(image, size, mode)
    assert view.dtype == torch.uint8
    # One grey level: where a processor has no fast bytes torchvision rounds floats instead.
    assert (view.int() - expected(image, InterpolationMode(mode)).int()).abs().max() <= 1
    assert torch.equal(geometry.apply_mask(mask, size), expected(mask[None], NEAREST)[0])


NEAREST = InterpolationMode.NEAREST_EXACT


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_a_mask_pixel_is_the_one_its_centre_falls_on(have, want):
    mask = torch.arange(have, dtype=torch.float64)[None]
    got = Geometry(0, 0, 1, have).apply_mask(mask, (1, want))[0]
    exact = torch.tensor([((2 * k + 1) * have) // (2 * want) for k in range(want)])
    border = torch.tensor([((2 * k + 1) * have) % (2 * want) == 0 for k in range(want)])
    off = exact - got.long()  # a centre on the border of two pixels falls on either
    assert bool(((off == 0) | (border & (off == 1))).all())


def test_the_mask_stays_on_its_object():
    torch.manual_seed(0)
    image = torch.zeros(3, 80, 100, dtype=torch.uint8)
    mask = torch.zeros(80, 100, dtype=torch.bool)
    image[:, 30:60, 20:70] = 255
    mask[30:60, 20:70] = True
    crop = RandomResizedCrop(48, flip=0.5, flip_vertical=0.5, turn=True)
    for _ in range(50):
        view, cut = crop(image, mask)
        assert view.shape == (3, 48, 48)
        # Where the image is wholly bright or dark the mask agrees: only edges are mixed.
        assert cut[view[0] == 255].all()
        assert not cut[view[0] == 0].any()


def test_floats_of_bicubic_views_stay_in_range_and_the_argument_stays():
    image = picture(20, 30, dtype=torch.float32)
    before = image.clone()
    torch.manual_seed(0)
    for _ in range(20):
        view = RandomResizedCrop(40, interpolation="bicubic", flip=1.0)(image)
        assert view.min() >= 0
        assert view.max() <= 1
    assert torch.equal(image, before)


def draws(kind, edges: tuple[int, int], n: int = 4000) -> np.ndarray:
    """Columns top, left, height, width of n boxes."""
    torch.manual_seed(3)
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    if kind == "ours":
        crop = RandomResizedCrop(8, scale, ratio)
        return np.array([crop.draw(*edges)[:4] for _ in range(n)])
    theirs = v2.RandomResizedCrop(8, scale, ratio, antialias=True)
    image = torch.zeros(3, *edges, dtype=torch.uint8)
    boxes = (theirs.make_params([image]) for _ in range(n))
    return np.array([[b[k] for k in ("top", "left", "height", "width")] for b in boxes])


@pytest.mark.parametrize("edges", [(40, 40), (30, 90), (90, 12)])
def test_boxes_have_the_distribution_of_torchvisions(edges):
    ours, theirs = draws("ours", edges), draws("theirs", edges)
    # The spread of a coordinate is below 30 % of its edge; five standard errors of a difference
    # of two means of 4000 are 5 * 0.3 * sqrt(2 / 4000) = 3.4 % of it.
    room = 0.034 * np.array([edges[0], edges[1], edges[0], edges[1]])
    assert (np.abs(ours.mean(0) - theirs.mean(0)) <= room).all()
    assert (np.abs(ours.std(0) - theirs.std(0)) <= room).all()
    assert (ours.min(0) == theirs.min(0)).sum() >= 2
    assert (ours[:, 0] + ours[:, 2] <= edges[0]).all()
    assert (ours[:, 1] + ours[:, 3] <= edges[1]).all()


def test_flips_and_turns_have_their_probabilities():
    torch.manual_seed(1)
    crop = RandomResizedCrop(8, flip=0.3, flip_vertical=0.8, turn=True)
    seen = [crop.draw(20, 20) for _ in range(4000)]
    # Five standard errors of a share of 4000.
    assert np.mean([g.flip for g in seen]) == pytest.approx(0.3, abs=0.037)
    assert np.mean([g.flip_vertical for g in seen]) == pytest.approx(0.8, abs=0.032)
    assert np.bincount([g.turns for g in seen]) / 4000 == pytest.approx(0.25, abs=0.035)
    plain = [RandomResizedCrop(8).draw(20, 20)[4:] for _ in range(50)]
    assert set(plain) == {(False, False, 0)}


def test_a_box_that_never_fits_becomes_the_largest_central_one():
    wide = RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(0.75, 4 / 3))
    torch.manual_seed(0)
    assert wide.draw(30, 300)[:4] == (0, 130, 30, 40)
    assert wide.draw(300, 30)[:4] == (130, 0, 40, 30)


def test_the_draw_is_torchs_alone_and_the_same_with_and_without_a_mask():
    crop = RandomResizedCrop((12, 20), flip=0.5)
    image = picture(50, 40)
    torch.manual_seed(7)
    view, mask = crop(image, image[0])
    after = torch.rand(())
    torch.manual_seed(7)
    assert torch.equal(crop(image), view)
    assert torch.rand(()) == after
    assert mask.shape == (12, 20)


def test_a_box_of_the_right_size_is_not_resampled():
    image = picture(20, 20)
    view = Geometry(3, 4, 8, 8).apply(image, (8, 8))
    assert torch.equal(view, image[:, 3:11, 4:12])
    assert torch.equal(view, F.interpolate(view[None], (8, 8), mode="bilinear", antialias=True)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size, scale and ratio must be positive"),
        ({"size": 8, "scale": (0.5, 0.2)}, "must be positive and rise"),
        ({"size": 8, "ratio": (0.0, 1.0)}, "must be positive and rise"),
        ({"size": 8, "flip": 1.5}, r"probabilities in \[0, 1\], got 1.5"),
        ({"size": (8, 9), "turn": True}, "a quarter turn needs a square size"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RandomResizedCrop(**options)
