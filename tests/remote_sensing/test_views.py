from __future__ import annotations

import math
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.views.geometry import source_ids
from cl_remote_sensing.views.two_views import TwoViews, ViewPair

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "glcnet.npz")
RGB = ("red", "green", "blue")


def tile(bands: int = 3, edge: int = 73, seed: int = 0) -> tuple[Tensor, Tensor]:
    unit = torch.rand(bands, edge, edge, generator=torch.Generator().manual_seed(seed))
    return unit, torch.ones(edge, edge, dtype=torch.bool)


def small(**options) -> TwoViews:
    return TwoViews(**({"size": 64, "tile": 73, "colors": RGB} | options))


def test_values_are_scaled_as_in_the_official_code():
    # Flat tiles keep their value through crop and flip; view 1 changes no colour.
    unit = torch.from_numpy(GOLDEN["norm_in"]).float() / 255
    make = TwoViews(size=8, tile=8, region_size=2, colors=("undefined",))
    for value, expected in zip(unit[::15], GOLDEN["norm_out"][::15], strict=True):
        view = make(value.expand(1, 8, 8), torch.ones(8, 8, dtype=torch.bool)).view1
        torch.testing.assert_close(view, torch.full((1, 8, 8), expected.item()), atol=1e-5, rtol=0)


def test_a_pair_collates_and_travels_to_workers():
    make = pickle.loads(pickle.dumps(small(regions=3)))
    torch.manual_seed(0)
    batch = default_collate([make(*tile(seed=seed)) for seed in range(4)])
    assert isinstance(batch, ViewPair)
    assert batch.view1.shape == batch.view2.shape == (4, 3, 64, 64)
    assert batch.centers1.shape == batch.centers2.shape == (4, 3, 2)
    assert batch.centers1.dtype == torch.int64


def test_matched_centres_show_the_same_ground_in_the_pictures():
    # The bands hold row and column; with view 2's colours untouched both views tell the place.
    row, col = torch.meshgrid(torch.arange(73.0), torch.arange(73.0), indexing="ij")
    unit = torch.stack([row, col]) / 72
    make = small(colors=("undefined",) * 2)
    make.recolor = lambda x: x
    torch.manual_seed(0)
    turned = 0
    for _ in range(20):
        pair = make(unit, torch.ones(73, 73, dtype=torch.bool))
        for a, b in zip(pair.centers1, pair.centers2, strict=True):
            here = pair.view1[:, a[0], a[1]]
            there = pair.view2[:, b[0], b[1]]
            assert (here - there).abs().max() * 72 / 3.2 < 1.5  # pixels: nearest against bilinear
        turned += bool((pair.view2[0, 0] - pair.view2[0, -1]).abs().mean() < 0.5)
    assert 3 < turned < 17


def test_only_view_2_is_augmented_unless_both_are_wanted():
    unit = torch.linspace(0, 1, 73).expand(1, 73, 73).contiguous()  # rises along the columns

    def turned(which: int, **options) -> int:
        make = small(colors=("undefined",), **options)
        torch.manual_seed(0)
        views = [make(unit, torch.ones(73, 73, dtype=torch.bool))[which][0] for _ in range(30)]
        return sum(bool(view.diff(dim=1).median() <= 0) for view in views)

    assert turned(0) == 0
    assert turned(1) > 10
    assert turned(0, augment_both=True) > 10


def test_pixels_without_data_stay_so():
    unit, valid = tile(bands=4)
    valid[20:50, 30:73] = False
    mean = torch.tensor([0.1, 0.2, 0.3, 0.4])
    unit[:, ~valid] = mean[:, None]
    make = small(colors=(*RGB, "nir"))
    for seed in range(20):
        torch.manual_seed(seed)
        pair = make(unit, valid)
        torch.manual_seed(seed)
        make._crop_tile(unit, valid)  # the same draws
        first, second, _ = make.draw(73, 73)
        for view, geometry in ((pair.view1, first), (pair.view2, second)):
            hidden = ~valid.flatten()[torch.from_numpy(source_ids(geometry, 73, 64))]
            assert hidden.any()
            assert torch.equal(view[:, hidden], (mean * 3.2 - 1.6)[:, None].expand(4, hidden.sum()))
            assert view[:, ~hidden].std() > 0.1


def test_views_are_standardised_by_the_training_statistics():
    normalization = Normalization(
        mode="zscore", low=(0.0,) * 3, high=(10.0,) * 3, mean=(4.0,) * 3, std=(2.0,) * 3
    )
    torch.manual_seed(0)
    plain = small()(*tile())
    torch.manual_seed(0)
    scaled = small(normalization=normalization)(*tile())
    expected = ((plain.view2 + 1.6) / 3.2 * 10 - 4) / 2
    torch.testing.assert_close(scaled.view2, expected, atol=1e-5, rtol=1e-5)


def test_larger_tiles_are_cropped_anywhere_and_smaller_ones_taken_whole():
    row, col = torch.meshgrid(torch.arange(200.0), torch.arange(200.0), indexing="ij")
    make = small(colors=("undefined",) * 2, scale=(1.0, 1.0))  # no crop fits: the whole tile
    torch.manual_seed(0)
    unit, valid = torch.stack([row, col]) / 200, torch.ones(200, 200, dtype=torch.bool)
    starts = torch.stack([(make(unit, valid).view1[:, 0, 0] + 1.6) / 3.2 * 200 for _ in range(60)])
    assert starts.min() < 20
    assert starts.max() > 107  # of 127
    pair = make(unit[:, :40, :30], valid[:40, :30])
    assert pair.view1.shape == (2, 64, 64)


def test_crops_that_share_no_place_are_drawn_again_and_then_made_the_same():
    # Of two crops of a hundredth of the tile few share the place for a region.
    make = small(scale=(0.01, 0.01), region_size=20)
    same = 0
    for seed in range(30):
        torch.manual_seed(seed)
        first, second, (centers1, centers2) = make.draw(73, 73)
        ids1, ids2 = source_ids(first, 73, 64), source_ids(second, 73, 64)
        assert (ids1[tuple(centers1.T)] == ids2[tuple(centers2.T)]).all()
        same += first[:4] == second[:4]
    assert 10 < same < 30  # both ways were taken


def test_more_strict_regions_than_fit_do_not_hang():
    make = small(region_size=30, regions=9, strict_nonoverlap=True)
    torch.manual_seed(0)
    assert make(*tile()).centers1.shape == (9, 2)


def test_draws_follow_torchs_generator_alone():
    make = small()
    torch.manual_seed(7)
    a, b = make(*tile()), make(*tile())
    np.random.seed(1)
    torch.manual_seed(7)
    again = make(*tile())
    for one, other in zip(a, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(a.view1, b.view1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region_size": 64}, "smaller than the view"),
        ({"region_size": 13}, "even"),
        ({"regions": 0}, "positive"),
        ({"scale": (0.0, 1.0)}, "scale must rise"),
    ],
)
def test_impossible_options_are_refused_before_any_tile(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_a_pair_is_made_fast():
    torch.set_num_threads(1)
    make = TwoViews(colors=(*RGB, "nir"))
    unit, valid = tile(4, 256)
    make(unit, valid)
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        for _ in range(4):
            make(unit, valid)
        best = min(best, (time.process_time() - start) / 4)
    assert best < 0.060  # 4 ms on the machine this was written on; loops over pixels take 500
