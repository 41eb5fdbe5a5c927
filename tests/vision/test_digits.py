"""The built-in digits: a fixed split, and views that differ as they should."""

from __future__ import annotations

import pytest
import torch

from cl_core.loader import make_loader
from cl_vision.digits import DIGITS, DigitImages, DigitViews, load_digits, transform_digits


@pytest.fixture(scope="module")
def digits() -> DigitImages:
    return load_digits()


def test_the_split_is_fixed_and_every_class_is_on_both_sides(digits):
    train, test = load_digits("train"), load_digits("test")
    assert (len(digits), len(train), len(test)) == (1797, 1437, 360)
    assert not set(train.table.files) & set(test.table.files)
    for part in (train, test):
        counts = torch.bincount(torch.from_numpy(part.table.labels))
        assert len(counts) == 10
        assert counts.min() / counts.max() > 0.9
    assert train.table.files == load_digits("train").table.files


def test_rows_keep_image_name_and_label_together(digits):
    test = digits.of_split("test")
    for row in (0, 100, 359):
        place = int(test.table.files[row].removeprefix("digit"))
        sample = test[row]
        assert torch.equal(sample.views[0], digits[place].views[0])
        assert (sample.label, sample.row) == (digits[place].label, row)


def test_the_statistics_are_those_of_the_training_digits():
    images = load_digits("train").images
    assert images.min() == 0
    assert images.max() == 1
    assert DIGITS.mean[0] == pytest.approx(float(images.mean()), abs=5e-4)
    assert DIGITS.std[0] == pytest.approx(float(images.std(correction=0)), abs=5e-4)


def test_a_loader_gives_new_views_every_epoch_and_the_same_for_the_same_seed():
    data = load_digits("test").views(2, DigitViews())

    def epoch(seed, number):
        loader = make_loader(data, batch_size=90, shuffle=False, workers=0, seed=seed)
        loader.batch_sampler.set_epoch(number)
        return [batch.views for batch in loader]

    first, again, later = epoch(0, 0), epoch(0, 0), epoch(0, 1)
    assert first[0][0].shape == (90, 1, 8, 8)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], later[0][0])
    assert not torch.equal(first[0][0], first[0][1])  # two views
    same = data.images[:1].expand(90, -1, -1, -1)
    torch.manual_seed(0)
    views = DigitViews()(same)
    assert len(torch.unique(views.flatten(1), dim=0)) == 90  # no two alike


def test_a_quarter_turn_is_exact():
    x = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    turned = transform_digits(x, degrees=torch.full((3,), 90.0))
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    still = transform_digits(x, degrees=torch.zeros(3))
    torch.testing.assert_close(still, x, atol=1e-6, rtol=0)


def test_each_image_is_shifted_and_scaled_by_its_own_amount():
    x = torch.zeros(2, 1, 8, 8)
    x[:, 0, 4, 4] = 1
    shift = torch.tensor([[1.0, 0.0], [0.0, -2.0]])  # the window goes right, then up
    moved = transform_digits(x, degrees=torch.zeros(2), shift=shift)
    assert moved[0, 0, 4, 3] == pytest.approx(1, abs=1e-5)
    assert moved[1, 0, 6, 4] == pytest.approx(1, abs=1e-5)
    ones = torch.ones(2, 1, 8, 8)
    shown = transform_digits(ones, degrees=torch.zeros(2), scale=torch.tensor([0.5, 2.0]))
    assert shown[0].min() == 1
    assert shown[1].mean() == pytest.approx(0.25, abs=0.02)  # the image fills a quarter


def test_views_keep_their_images_and_have_the_promised_range():
    images = load_digits("test").images
    before = images.clone()
    torch.manual_seed(0)
    views = DigitViews(None)(images)
    assert torch.equal(images, before)
    assert (views == 0).flatten(1).any(1).float().mean() == pytest.approx(0.5, abs=0.1)  # erased
    noise = DigitViews(None)(torch.zeros(400, 1, 8, 8))  # nothing to turn or to brighten
    assert noise[noise != 0].std() == pytest.approx(0.15, abs=0.005)
    assert (noise == 0).sum((1, 2, 3)).unique().tolist() == [0, 9]
    bright = DigitViews(None)(torch.ones(800, 1, 8, 8))
    whole = bright[(bright != 0).flatten(1).all(1)]
    gain = whole[:, 0, 2:6, 2:6].mean((1, 2))  # sixteen pixels: noise of 0.04
    assert 0.5 < gain.min() < 0.65
    assert 1.35 < gain.max() < 1.5


def test_a_table_of_another_length_is_refused():
    images = load_digits("test")
    with pytest.raises(ValueError, match="360 and 10"):
        DigitImages(images.images[:10], images.table)
    with pytest.raises(ValueError, match="2 views need"):
        images.views(2, [DigitViews()])
