from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_remote_sensing.views.geometry import Geometry, draw_crop, draw_flip, draw_turns, source_ids
from cl_remote_sensing.views.matching import check_region, default_region_size, select_regions

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "glcnet.npz")
FLIP = {1: "horizontal", 0: "vertical", -1: "both", 2: "none"}


def track(view: int) -> Geometry:
    row, col, height, width, flip, turns = GOLDEN[f"track{view}_params"].tolist()
    return Geometry(row, col, height, width, FLIP[flip], turns)


def ids_of(view: int) -> np.ndarray:
    return source_ids(
        track(view), GOLDEN["track_base_image"].shape[1], int(GOLDEN["track_out_size"])
    )


@pytest.mark.parametrize("view", range(4))
def test_a_view_knows_the_pixels_it_shows(view):
    assert np.array_equal(ids_of(view), GOLDEN[f"track{view}_ids"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("view", range(4))
def test_a_view_is_that_of_the_official_code(view, dtype):
    image = torch.from_numpy(GOLDEN["track_base_image"]).permute(2, 0, 1).to(dtype) / 255
    out = track(view).image(image, int(GOLDEN["track_out_size"])).permute(1, 2, 0) * 255
    assert np.abs(out.numpy() - GOLDEN[f"track{view}_image"]).max() <= 1


@pytest.mark.parametrize("view", range(4))
def test_masks_go_the_way_of_the_ids(view):
    size = int(GOLDEN["track_out_size"])
    plane = torch.arange(32 * 32).reshape(32, 32)
    assert np.array_equal(track(view).nearest(plane, size).numpy(), ids_of(view))


class Script:
    """Chooses the golden ids and keeps the candidates it was shown."""

    def __init__(self, chosen: np.ndarray) -> None:
        self.chosen = iter(chosen.tolist())
        self.seen: list[np.ndarray] = []

    def __call__(self, candidates: np.ndarray) -> int:
        self.seen.append(candidates)
        return next(self.chosen)


def corners(centers: np.ndarray, patch: int) -> np.ndarray:
    """Inclusive x1, y1, x2, y2 of the regions, as the official code has them."""
    row, col = centers.T
    h = patch // 2
    return np.stack([col - h, row - h, col + h - 1, row + h - 1], 1)


@pytest.mark.parametrize("case", [0, 1, 2, "exhausted"])
def test_regions_are_those_of_the_official_code(case):
    if case == "exhausted":
        name, ids1, ids2 = "exh", GOLDEN["exh_ids1"], GOLDEN["exh_ids2"]
        patch = int(GOLDEN["exh_patch"])
    else:
        name, patch = f"sel{case}", int(GOLDEN["sel_patch"])
        ids1, ids2 = (ids_of(v) for v in GOLDEN[f"{name}_views"])
    script = Script(GOLDEN[f"{name}_chosen"])
    count = len(GOLDEN[f"{name}_chosen"])
    regions = select_regions(ids1, ids2, region_size=patch, count=count, choose=script)
    assert regions is not None
    assert [len(s) for s in script.seen] == GOLDEN[f"{name}_cand_len"].tolist()
    assert np.array_equal(np.concatenate(script.seen), GOLDEN[f"{name}_cand_flat"])
    rois = GOLDEN[f"{name}_rois"]
    assert np.array_equal(corners(regions[0], patch), rois[:, 1:5])
    assert np.array_equal(corners(regions[1], patch), rois[:, 6:10])
    if case != "exhausted":
        assert np.array_equal(regions[0], GOLDEN[f"{name}_center1"])
        assert np.array_equal(regions[1], GOLDEN[f"{name}_center2"])


def slow_regions(ids1, ids2, patch, count, choose):
    """The rule with sets and loops over pixels."""
    h, size = patch // 2, len(ids1)
    inside = [(r, c) for r in range(h, size - h) for c in range(h, size - h)]
    candidates = {ids1[p] for p in inside} & {ids2[p] for p in inside}
    found: list[list[tuple[int, int]]] = [[], []]
    for _ in range(count):
        chosen = choose(np.array(sorted(candidates)))
        for ids, centers in zip((ids1, ids2), found, strict=True):
            fits = [
                (r, c)
                for r in range(size)
                for c in range(size)
                if ids[r, c] == chosen and h <= r <= size - h and h <= c <= size - h
            ]
            centers.append(fits[0])
        r, c = found[0][-1]
        rest = candidates - set(ids1[r - h : r + h, c - h : c + h].flatten().tolist())
        candidates = rest if len(rest) > 1 else candidates
    return np.array(found[0]), np.array(found[1])


def drawn_views(seed: int, tile: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    torch.manual_seed(seed)
    return tuple(  # type: ignore[return-value]
        source_ids(
            Geometry(*draw_crop(tile, tile, (0.4, 1)), draw_flip(), draw_turns()), tile, size
        )
        for _ in range(2)
    )


@given(st.integers(0, 10**6), st.integers(10, 26), st.sampled_from([2, 4, 6]))
@settings(deadline=None, max_examples=25)
def test_regions_equal_the_rule_with_loops(seed, tile, patch):
    ids1, ids2 = drawn_views(seed, tile, 18)
    generator = np.random.default_rng(seed)
    picks: list[int] = []

    def choose(candidates: np.ndarray) -> int:
        picks.append(int(generator.choice(candidates)))
        return picks[-1]

    regions = select_regions(ids1, ids2, region_size=patch, count=4, choose=choose)
    if regions is None:
        assert not picks
        return
    expected = slow_regions(ids1, ids2, patch, 4, Script(np.array(picks)))
    assert np.array_equal(regions[0], expected[0])
    assert np.array_equal(regions[1], expected[1])


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_regions_fit_and_show_the_same_ground(seed):
    ids1, ids2 = drawn_views(seed, 73, 64)
    regions = select_regions(ids1, ids2, region_size=14, count=4)
    assert regions is not None
    for a, b in zip(*regions, strict=True):
        assert ids1[tuple(a)] == ids2[tuple(b)]
        assert (a >= 7).all()
        assert (a <= 57).all()
        assert (b >= 7).all()
        assert (b <= 57).all()


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_strict_regions_overlap_in_neither_view(seed):
    ids1, ids2 = drawn_views(seed, 73, 64)
    regions = select_regions(ids1, ids2, region_size=14, count=3, strict_nonoverlap=True)
    if regions is None:
        return
    for centers in regions:
        for i in range(3):
            for j in range(i):
                assert np.abs(centers[i] - centers[j]).max() >= 14


def test_as_published_regions_may_overlap():
    overlaps = 0
    for seed in range(20):
        regions = select_regions(*drawn_views(seed, 73, 64), region_size=14, count=4)
        assert regions is not None
        a = regions[0]
        overlaps += any(np.abs(a[i] - a[j]).max() < 14 for i in range(4) for j in range(i))
    assert overlaps > 3


def test_views_without_common_ground_have_no_regions():
    left = source_ids(Geometry(0, 0, 20, 20), 40, 16)
    right = source_ids(Geometry(0, 20, 20, 20), 40, 16)
    assert select_regions(left, right, region_size=4, count=2) is None


def test_strict_regions_are_none_when_there_is_no_room():
    whole = source_ids(Geometry(0, 0, 16, 16), 16, 16)
    assert select_regions(whole, whole, region_size=8, count=9, strict_nonoverlap=True) is None


def test_candidates_are_equally_likely():
    torch.manual_seed(0)
    whole = source_ids(Geometry(0, 0, 6, 6), 6, 6)
    counts = np.zeros((6, 6))
    for _ in range(1600):
        regions = select_regions(whole, whole, region_size=2, count=1)
        assert regions is not None
        counts[tuple(regions[0][0])] += 1
    inner = counts[1:5, 1:5]  # the 16 centres
    assert inner.sum() == 1600
    assert np.abs(inner - 100).max() < 45


@pytest.mark.parametrize(
    ("region", "message"), [(5, "even"), (0, "at least 2"), (64, "smaller than the view of 64")]
)
def test_region_sizes_are_refused(region, message):
    with pytest.raises(ValueError, match=message):
        check_region(region, 64)


@pytest.mark.parametrize(("size", "region"), [(224, 48), (64, 14), (128, 28), (8, 2)])
def test_the_region_scales_with_the_view(size, region):
    assert default_region_size(size) == region


def test_crops_have_the_published_areas_and_ratios():
    torch.manual_seed(0)
    crops = np.array([draw_crop(256, 256, (0.4, 1.0)) for _ in range(4000)])
    row, col, height, width = crops.T
    assert (row >= 0).all()
    assert (row + height <= 256).all()
    assert (col >= 0).all()
    assert (col + width <= 256).all()
    assert (row + height == 256).any()  # the last offset is drawn
    share = height * width / 256**2
    assert share.min() == pytest.approx(0.4, abs=0.01)
    ratio = width / height
    assert ratio.max() == pytest.approx(4 / 3, abs=0.03)
    assert ratio.min() == pytest.approx(3 / 4, abs=0.03)
    assert np.mean(height > width) == pytest.approx(0.5, abs=0.04)
    whole = np.mean(share == 1)
    assert whole < 0.004  # five failures in a row, about 0.06 %


def test_a_crop_that_never_fits_is_the_largest_centred_square():
    assert draw_crop(30, 50, (1.0, 1.0)) == (0, 10, 30, 30)


def test_flips_and_turns_have_the_published_probabilities():
    torch.manual_seed(0)
    flips = [draw_flip() for _ in range(4000)]
    for flip, share in (("horizontal", 0.2), ("vertical", 0.2), ("both", 0.2), ("none", 0.4)):
        assert flips.count(flip) / 4000 == pytest.approx(share, abs=0.03)
    turns = [draw_turns() for _ in range(2000)]
    assert {k: round(turns.count(k) / 2000, 1) for k in range(4)}.keys() == {0, 1, 2, 3}
    assert min(turns.count(k) for k in range(4)) > 400
