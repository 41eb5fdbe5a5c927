import time
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as move

from cl_core.errors import InputError
from cl_remote_sensing.labels.legend import Legend, default_colors
from cl_remote_sensing.labels.scene_labels import open_labels
from cl_remote_sensing.rasters.raster import Scene, open_scene
from cl_remote_sensing.rasters.windows import grid
from cl_remote_sensing.tiles.build import TileIndex, merge
from cl_remote_sensing.tiles.ground import (
    Ground,
    components,
    overlapping,
    overlapping_within_scenes,
)
from cl_remote_sensing.tiles.splits import (
    class_counts,
    few_labels,
    keep_labelled,
    refuse_overlap,
    spatial_split,
)

GRID = Affine(10, 0, 300000, 0, -10, 4100000)


def scene(name="a.tif", height=64, width=64, *, transform=GRID, crs="EPSG:32652"):
    """A scene without a file: splits look at headers alone."""
    return Scene(
        path=name,
        height=height,
        width=width,
        bands=(1,),
        names=("band 1",),
        colors=("gray",),
        dtype="uint8",
        nodata=None,
        crs=crs and CRS.from_user_input(crs).to_wkt(),
        transform=tuple(transform)[:6],
        georeferenced=not transform.is_identity,
        block=(64, 64),
    )


def tiles(scenes, *, size=16, stride=16, split=""):
    number, windows = [], []
    for k, one in enumerate(scenes):
        found = grid(one.height, one.width, size=size, stride=stride)
        number += [k] * len(found)
        windows += found
    count = len(windows)
    return TileIndex(
        scenes=tuple(scenes),
        scene=np.array(number, dtype=np.int64),
        window=np.array(windows, dtype=np.int64),
        valid=np.ones(count),
        split=np.full(count, split),
    )


def pairs_of(index, **options):
    found = [tuple(pair) for part in overlapping(index, **options) for pair in part.tolist()]
    assert all(one < other for one, other in found)
    return set(found)


def agree_with_shapes(index):
    """Pairs of two scenes: deep overlap must be found, none must not; between lies the slack."""
    shapely = pytest.importorskip("shapely")
    ground, found = Ground.of(index), pairs_of(index)
    quads = [shapely.Polygon(corners) for corners in ground.corners]
    for k, one in enumerate(quads):
        for j in np.flatnonzero(index.scene[:k] != index.scene[k]).tolist():
            inset = -0.3 * min(ground.pixel[j], ground.pixel[k])  # 0.6 pixels deep together
            if one.buffer(inset).intersects(quads[j].buffer(inset)):
                assert (j, k) in found
            if not one.intersects(quads[j]):
                assert (j, k) not in found
    return found


def test_tiles_of_one_scene_overlap_where_they_share_pixels():
    index = tiles([scene(height=40, width=40)], size=16, stride=8)
    expected = set()
    for k, (row, col, h, w) in enumerate(index.window.tolist()):
        for j, (top, left, tall, wide) in enumerate(index.window[:k].tolist()):
            if row < top + tall and top < row + h and col < left + wide and left < col + w:
                expected.add((j, k))
    assert pairs_of(index) == expected
    assert {tuple(pair) for pair in overlapping_within_scenes(index).tolist()} == expected


def test_a_one_pixel_overlap_counts_and_touching_does_not():
    index = tiles([scene(height=16, width=31)], size=16, stride=16)
    assert pairs_of(index) == {(0, 1)}
    assert pairs_of(tiles([scene(height=16, width=32)], size=16, stride=16)) == set()


def test_non_square_pixels_make_no_difference():
    wide = Affine(80, 0, 300000, 0, -5, 4100000)
    index = tiles([scene(height=31, width=16, transform=wide)], size=16, stride=16)
    assert pairs_of(index) == {(0, 1)}


@pytest.mark.parametrize("crs", ["EPSG:32652", "EPSG:32651", "EPSG:4326", "EPSG:3857"])
def test_dates_grids_and_systems_are_compared_on_the_ground(crs):
    """The second scene shows the first one's lower right quarter, in another system."""
    first = scene("a.tif")
    x, y = move("EPSG:32652", crs, [300320, 300960], [4099680, 4099040])
    size = ((x[1] - x[0]) / 64, (y[1] - y[0]) / 64)
    second = scene("b.tif", transform=Affine(size[0], 0, x[0], 0, size[1], y[0]), crs=crs)
    index = tiles([first, second])
    across = {
        (one, other)
        for one, other in agree_with_shapes(index)
        if index.scene[one] != index.scene[other]
    }
    assert {index.window[one, 0].item() for one, _ in across} >= {32, 48}


@given(st.floats(0, 360), st.floats(-40, 40), st.floats(-40, 40), st.floats(0.3, 4))
@settings(deadline=None, max_examples=25)
def test_rotated_scenes_overlap_where_their_polygons_do(angle, right, down, scale):
    turned = GRID @ Affine.translation(right, down) @ Affine.rotation(angle) @ Affine.scale(scale)
    index = tiles([scene("a.tif", 48, 48), scene("b.tif", 40, 40, transform=turned)])
    agree_with_shapes(index)


def test_less_than_half_a_pixel_between_two_grids_is_touching():
    near = scene("b.tif", transform=GRID @ Affine.translation(63.8, 0))
    assert pairs_of(tiles([scene("a.tif"), near], size=64, stride=64)) == set()
    far = scene("b.tif", transform=GRID @ Affine.translation(63.2, 0))
    assert pairs_of(tiles([scene("a.tif"), far], size=64, stride=64)) == {(0, 1)}


def test_a_gap_makes_neighbours_meet():
    index = tiles([scene(height=16, width=64)], size=16, stride=24)  # columns 0, 24, 48
    assert index.window[:, 1].tolist() == [0, 24, 48]
    assert pairs_of(index, gap=8) == set()
    assert pairs_of(index, gap=9) == {(0, 1), (1, 2)}


def test_scenes_without_georeference_share_no_ground():
    plain = [scene(name, transform=Affine.identity(), crs=None) for name in ("a.png", "b.png")]
    index = tiles(plain, size=64, stride=64)
    assert pairs_of(index) == set()


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39))))
@settings(deadline=None, max_examples=60)
def test_components_are_those_of_a_walk(count, edges):
    edges = [(a % count, b % count) for a, b in edges]
    number = components(iter([np.array(edges, dtype=np.int64).reshape(-1, 2)]), count)
    neighbours = {k: {k} for k in range(count)}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    for start in range(count):
        seen, todo = set(), [start]
        while todo:
            here = todo.pop()
            if here not in seen:
                seen.add(here)
                todo += neighbours[here]
        assert number[start] == min(seen)


@given(
    st.sampled_from([8, 12, 16]),
    st.integers(17, 60),
    st.integers(0, 6),
    st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=25)
def test_no_ground_lies_in_two_splits_whatever_the_stride(stride, block, gap, seed):
    later = scene("b.tif", 90, 90, transform=GRID @ Affine.translation(20.3, -30.7))
    index = tiles([scene("a.tif", 110, 100), later], stride=stride)
    try:
        split = spatial_split(index, block=block, seed=seed, gap=gap)
    except InputError as error:
        assert "no tile is left" in str(error)  # noqa: PT017
        return
    refuse_overlap(split)
    for pairs in overlapping(split, gap=gap):
        assert (split.split[pairs[:, 0]] == split.split[pairs[:, 1]]).all()
    assert set(split.split.tolist()) == {"train", "val", "test"}


def test_shares_of_a_large_mosaic_are_met():
    split = spatial_split(tiles([scene(height=768, width=768)]), block=64, seed=1)
    share = {name: (split.split == name).mean() for name in ("train", "val", "test")}
    assert len(split) == 2304  # touching tiles: nothing is left out
    assert share["test"] == pytest.approx(0.2, abs=0.02)
    assert share["val"] == pytest.approx(0.1, abs=0.02)
    cells = {tuple(row) for row in (split.window[:, :2] // 64).tolist()}
    for cell in cells:  # a block is of one split
        here = (split.window[:, :2] // 64 == cell).all(axis=1)
        assert len(set(split.split[here].tolist())) == 1


def test_the_seed_decides_and_repeats():
    index = tiles([scene(height=300, width=300)])
    draws = [spatial_split(index, block=50, seed=seed).split.tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_dates_of_one_place_stay_together_and_nothing_is_lost():
    places = [(0, 0), (500, 0), (0, 500), (500, 500), (1000, 0)]
    scenes = [
        scene(f"{date}_{k}.tif", transform=GRID @ Affine.translation(x + 3 * date, y))
        for k, (x, y) in enumerate(places)
        for date in range(2)
    ]
    index = tiles(scenes, size=64, stride=64)
    split = spatial_split(index, block=80, seed=0, test=0.2, val=0.2)
    assert len(split) == 10
    assert split.notes == ()
    assert (split.split[::2] == split.split[1::2]).all()


def test_tiles_at_a_cut_are_left_out_and_told():
    index = tiles([scene(height=200, width=200)], size=16, stride=8)
    split = spatial_split(index, block=64, seed=0)
    assert len(split) < len(index)
    assert f"{len(index) - len(split)} of {len(index)} tiles left out" in split.notes[-1]


def test_a_split_of_no_share_is_not_made():
    split = spatial_split(tiles([scene(height=200, width=200)]), block=32, seed=0, val=0)
    assert set(split.split.tolist()) == {"train", "test"}


def test_too_few_blocks_are_told():
    with pytest.raises(InputError, match=r"16 tiles lie in 1 blocks of 64 pixels, too few"):
        spatial_split(tiles([scene()]), block=64, seed=0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"test": 0.8, "val": 0.2}, "leave some for train"),
        ({"test": -0.1}, "leave some for train"),
        ({"block": 0}, "block is at least 1"),
        ({"gap": -1}, "gap at least 0"),
    ],
)
def test_bad_numbers_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        spatial_split(tiles([scene()]), **{"block": 8, "seed": 0, **options})


def test_shipped_splits_that_share_ground_are_refused():
    later = scene("later.tif", transform=GRID @ Affine.translation(40, 40))
    beside = scene("beside.tif", transform=GRID @ Affine.translation(64, 0))
    first = tiles([scene("a.tif")])
    refuse_overlap(merge({"train": first, "test": tiles([beside])}))
    refuse_overlap(merge({"": first, "test": tiles([later])}))  # no split, no leak
    with pytest.raises(InputError, match=r"^9 pairs .* share ground") as caught:
        refuse_overlap(merge({"train": first, "test": tiles([later])}))
    assert "a.tif at row 32, column 32 (train)" in str(caught.value)
    assert "later.tif at row 0, column 0 (test)" in str(caught.value)


def test_many_tiles_take_time_in_proportion():
    """100,000 tiles: a comparison of all pairs would be 5e9."""
    rng = np.random.default_rng(0)
    count = 100_000
    corner = rng.integers(0, 40_000, (count, 2))
    index = TileIndex(
        scenes=tuple(scene(name, 40_016, 40_016) for name in ("a.tif", "b.tif")),
        scene=rng.integers(0, 2, count),
        window=np.hstack([corner, np.full((count, 2), 64)]),
        valid=np.ones(count),
        split=np.full(count, ""),
    )
    start = time.process_time()
    split = spatial_split(index, block=2000, seed=0)
    refuse_overlap(split)
    assert time.process_time() - start < 20  # about 2 s
    assert len(split) > 0.8 * count


def labelled(tmp_path, values, size=8):
    """One scene and its labels: a class per pixel, 255 for none."""
    for name, content in (("i.tif", np.ones_like(values)), ("l.tif", values)):
        with rasterio.open(
            tmp_path / name,
            "w",
            driver="GTiff",
            height=values.shape[0],
            width=values.shape[1],
            count=1,
            dtype="uint8",
            crs="EPSG:32652",
            transform=GRID,
            nodata=255 if name == "l.tif" else None,
        ) as file:
            file.write(content, 1)
    one = open_scene(tmp_path / "i.tif")
    legend = Legend(tuple("abcd"), (0, 1, 2, 3), default_colors(4))
    return tiles([one], size=size, stride=size), [open_labels(one, tmp_path / "l.tif", legend)]


def rare_classes():
    """40 x 80 pixels of class 0; 1 in two tiles, 2 in one, 3 in none; two tiles unlabelled."""
    values = np.zeros((40, 80), np.uint8)
    values[0, 0] = values[39, 79] = 1
    values[20, 41] = 2
    values[:8, 64:80] = 255
    return values


def test_class_counts_are_those_of_each_window(tmp_path):
    values = np.random.default_rng(0).choice(np.uint8([0, 1, 3, 255]), (40, 80))
    index, labels = labelled(tmp_path, values)
    counts = class_counts(index, labels)
    assert counts.shape == (50, 4)
    for row, (_, window) in enumerate(index.windows()):
        part = values[window.row :, window.col :][:8, :8]
        assert counts[row].tolist() == [(part == k).sum() for k in range(4)]


@pytest.mark.parametrize(("amount", "drawn"), [(0.01, 1), (0.1, 5), (0.5, 25), (7, 7), (1.0, 48)])
def test_few_labels_are_a_share_or_a_number_of_the_tiles(tmp_path, amount, drawn):
    index, labels = labelled(tmp_path, rare_classes())
    few = few_labels(index, amount, seed=0, labels=labels)
    assert len(few) == drawn
    assert class_counts(few, labels).any(axis=1).all()
    rows = [index.windows().index(window) for window in few.windows()]
    assert rows == sorted(set(rows))


def test_few_labels_hold_every_class_there_is(tmp_path):
    index, labels = labelled(tmp_path, rare_classes())
    draws = set()
    for seed in range(10):
        few = few_labels(index, 5, seed=seed, labels=labels)
        assert (class_counts(few, labels).sum(axis=0)[:3] > 0).all()
        assert few.notes == ()
        draws.add(tuple(few.windows()))
    assert len(draws) == 10
    again = few_labels(index, 5, seed=3, labels=labels)
    assert tuple(again.windows()) in draws


def test_too_few_for_all_classes_take_the_rarest_and_tell(tmp_path):
    index, labels = labelled(tmp_path, rare_classes())
    few = few_labels(index, 0.02, seed=0, labels=labels)
    assert class_counts(few, labels)[0, 2] == 1
    assert few.notes == ("the 1 labelled tiles drawn hold no pixel of b",)


def test_few_tiles_can_be_drawn_without_reading_labels():
    index = tiles([scene(height=160, width=160)])
    one, other = (few_labels(index, 0.05, seed=seed) for seed in (0, 1))
    assert len(one) == 5
    assert one.windows() != other.windows()


@pytest.mark.parametrize("amount", [0, -1, 2.5])
def test_an_amount_is_a_share_or_a_number(amount):
    with pytest.raises(ValueError, match="a share in"):
        few_labels(tiles([scene()]), amount, seed=0)


def test_more_than_there_are_and_none_at_all_are_told(tmp_path):
    index, labels = labelled(tmp_path, rare_classes())
    with pytest.raises(InputError, match="49 labelled tiles are asked for, there are 48"):
        few_labels(index, 49, seed=0, labels=labels)
    nothing = np.full((16, 16), 255, np.uint8)
    (tmp_path / "none").mkdir()
    index, labels = labelled(tmp_path / "none", nothing)
    for draw in (keep_labelled, lambda *given: few_labels(given[0], 1, seed=0, labels=given[1])):
        with pytest.raises(InputError, match="none of the 4 tiles has a label"):
            draw(index, labels)


def test_tiles_without_a_label_are_left_out_and_told(tmp_path):
    index, labels = labelled(tmp_path, rare_classes())
    kept = keep_labelled(index, labels)
    assert len(kept) == 48
    assert "2 of 50 tiles without a label left out" in kept.notes[-1]
    assert keep_labelled(kept, labels).notes == kept.notes
    with pytest.raises(ValueError, match="got 1 labels for 2 scenes"):
        class_counts(replace(index, scenes=index.scenes * 2), labels)
