import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_files import write

from cl_core.loader import make_loader
from cl_remote_sensing.data import LabelledTiles, UnlabelledTiles, super_window
from cl_remote_sensing.labels.legend import Legend, default_colors
from cl_remote_sensing.labels.scene_labels import IGNORE, open_labels
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import Scene, open_scene
from cl_remote_sensing.rasters.windows import Window
from cl_remote_sensing.tiles.build import build_index

LEGEND = Legend(("a", "b", "c"), (10, 30, 50), default_colors(3))


def counting(folder, height=96, width=128, hole=None, name="i.tif"):
    """Bands that tell where a pixel lies: its row and its column, both from 1; 0 is nodata."""
    row, col = np.mgrid[1 : height + 1, 1 : width + 1].astype(np.uint16)
    values = np.stack([row, col])
    if hole:
        values[:, hole[0] : hole[2], hole[1] : hole[3]] = 0
    options = {"tiled": True, "blockxsize": 32, "blockysize": 16}
    return open_scene(write(folder / name, values, nodata=0, **options))


def scaled(high=200.0):
    """Row and column divided by ``high``; the mean is row 50, column 60."""
    return Normalization(
        mode="percentile", low=(0.0, 0.0), high=(high, high), mean=(50.0, 60.0), std=(9.0, 9.0)
    )


def pair(unit, valid):
    return unit, valid


def corner(unit):
    """The window's first row and column, read off the pixels."""
    return round(unit[0, 0, 0].item() * 200) - 1, round(unit[1, 0, 0].item() * 200) - 1


def test_without_jitter_tiles_lie_where_the_index_says(tmp_path):
    index = build_index([counting(tmp_path)], size=32, stride=20)
    data = UnlabelledTiles(index, scaled(), pair, jitter=False)
    assert len(data) == len(index)
    for k, (_, window) in enumerate(index.windows()):
        unit, valid = data[k]
        assert unit.shape == (2, 32, 32)
        assert valid.all()
        assert corner(unit) == (window.row, window.col)


def test_jitter_stays_in_the_super_window_and_reaches_all_of_it(tmp_path):
    scene = counting(tmp_path)
    index = build_index([scene], size=24, stride=24)
    data = UnlabelledTiles(index, scaled(), pair, jitter=True)
    torch.manual_seed(0)
    for k in (0, 7, len(index) - 1):
        _, window = index.at(k)
        area = super_window(window, scene)
        places = [corner(data[k][0]) for _ in range(300)]
        rows, cols = {row for row, _ in places}, {col for _, col in places}
        assert (min(rows), max(rows)) == (area.row, area.row + area.height - 24)
        assert min(cols) <= area.col + 2
        assert max(cols) >= area.col + area.width - 26
        assert max(cols) <= area.col + area.width - 24


def test_jitter_follows_the_global_generator(tmp_path):
    index = build_index([counting(tmp_path)], size=24, stride=24)
    data = UnlabelledTiles(index, scaled(), pair, jitter=True)
    draws = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        draws.append([corner(data[k][0]) for k in range(len(data))])
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_a_moved_tile_keeps_the_share_of_valid_pixels(tmp_path):
    scene = counting(tmp_path, hole=(0, 40, 96, 128))  # valid: the first 40 columns
    index = build_index([scene], size=24, stride=8, min_valid=0.5)
    data = UnlabelledTiles(index, scaled(), pair, jitter=True, min_valid=0.5)
    torch.manual_seed(0)
    moved = 0
    for k in range(len(index)):
        for _ in range(20):
            unit, valid = data[k]
            assert valid.float().mean() >= 0.5
            moved += corner(unit) != tuple(index.window[k, :2])
    assert moved > 10 * len(index)


def test_invalid_pixels_hold_the_mean(tmp_path):
    scene = counting(tmp_path, hole=(0, 0, 8, 8))
    index = build_index([scene], size=24, stride=24)
    unit, valid = UnlabelledTiles(index, scaled(), pair, jitter=False)[0]
    assert not valid[:8, :8].any()
    assert valid.sum() == 24 * 24 - 64
    np.testing.assert_allclose(unit[0, :8, :8], 0.25)
    np.testing.assert_allclose(unit[1, :8, :8], 0.3, rtol=1e-6)


def test_small_rasters_are_filled_up_to_the_others_size(tmp_path):
    scenes = [counting(tmp_path), counting(tmp_path, 10, 40, name="small.tif")]
    index = build_index(scenes, size=32, stride=32)
    data = UnlabelledTiles(index, scaled(), pair, jitter=True)
    unit, valid = data[len(index) - 1]
    assert unit.shape == (2, 32, 32)
    assert valid[:10].all()
    assert not valid[10:].any()
    np.testing.assert_allclose(unit[0, 10:], 0.25)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 50),
    st.data(),
)
@settings(deadline=None, max_examples=80)
def test_a_super_window_is_whole_blocks_around_the_tile(tall, wide, height, width, size, data):
    scene = Scene(
        path="x.tif",
        height=height,
        width=width,
        bands=(1,),
        names=("band 1",),
        colors=("gray",),
        dtype="uint8",
        nodata=None,
        crs=None,
        transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        georeferenced=False,
        block=(tall, wide),
    )
    sides = min(size, height), min(size, width)
    row = data.draw(st.integers(0, height - sides[0]))
    col = data.draw(st.integers(0, width - sides[1]))
    area = super_window(Window(row, col, *sides), scene)
    for first, length, block, start, side, limit in (
        (area.row, area.height, tall, row, sides[0], height),
        (area.col, area.width, wide, col, sides[1], width),
    ):
        assert first % block == 0
        assert (first + length) % block == 0 or first + length == limit
        assert first <= start
        assert start + side <= first + length <= limit
        assert length >= min(side + side // 2, limit)


def codes(height=96, width=128, seed=0):
    return np.random.default_rng(seed).choice(np.uint8([10, 30, 50]), (height, width))


def labelled(folder, *, size=32, stride=32, hole=None, **options):
    scene, values = counting(folder, hole=hole), codes()
    labels = open_labels(scene, write(folder / "l.tif", values[None]), LEGEND)
    index = build_index([scene], size=size, stride=stride, min_valid=0)
    return LabelledTiles(index, [labels], scaled(), **options), values


def test_images_and_labels_lie_over_one_another(tmp_path):
    data, values = labelled(tmp_path)
    for k, (_, window) in enumerate(data.index.windows()):
        image, label = data[k]
        assert image.dtype == torch.float32
        assert label.dtype == torch.int64
        unit = (image + 1.6) / 3.2  # undo x * 3.2 - 1.6
        assert corner(unit) == (window.row, window.col)
        expected = (values[window.row :, window.col :][:32, :32] - 10) // 20
        np.testing.assert_array_equal(label, expected)


def test_pixels_without_image_have_no_label(tmp_path):
    data, _ = labelled(tmp_path, hole=(0, 0, 5, 6))
    image, label = data[0]
    assert (label[:5, :6] == IGNORE).all()
    assert (label != IGNORE).sum() == 32 * 32 - 30
    np.testing.assert_allclose(image[0, :5, :6], 0.25 * 3.2 - 1.6, rtol=1e-6)


def test_filled_up_pixels_have_no_label(tmp_path):
    scenes = [counting(tmp_path), counting(tmp_path, 10, 40, name="small.tif")]
    labels = [
        open_labels(scene, write(tmp_path / f"l{k}.tif", codes(*size)[None]), LEGEND)
        for k, (scene, size) in enumerate(zip(scenes, [(96, 128), (10, 40)], strict=True))
    ]
    data = LabelledTiles(build_index(scenes, size=32, stride=32), labels, scaled())
    image, label = data[len(data) - 1]
    assert image.shape == (2, 32, 32)
    assert (label[10:] == IGNORE).all()
    assert (label[:10] != IGNORE).all()


def test_a_transform_gets_and_gives_all_three(tmp_path):
    def flip(unit, valid, label):
        assert unit.min() >= 0
        assert unit.max() <= 1
        assert label.dtype == torch.uint8
        return unit.flip(-1), valid.flip(-1), label.flip(-1)

    plain, _ = labelled(tmp_path)
    turned = LabelledTiles(plain.index, plain.labels, scaled(), flip)
    for one, other in zip(plain[3], turned[3], strict=True):
        np.testing.assert_allclose(one.flip(-1), other, rtol=1e-6)


@pytest.mark.parametrize(("size", "stride"), [(32, 20), (40, 40), (50, 13)])
def test_counted_once_each_pixel_of_a_scene_has_one_label(tmp_path, size, stride):
    data, values = labelled(tmp_path, size=size, stride=stride, count_once=True)
    seen = np.zeros(values.shape, int)
    for k, (_, w) in enumerate(data.index.windows()):
        label = data[k][1].numpy()
        seen[w.row : w.row + w.height, w.col : w.col + w.width] += label != IGNORE
    assert (seen == 1).all()
    often, _ = labelled(tmp_path, size=size, stride=stride)
    total = sum(int((often[k][1] != IGNORE).sum()) for k in range(len(often)))
    assert total > values.size


def test_a_pixel_seen_before_as_invalid_is_not_lost(tmp_path):
    """Overlapping tiles of one scene have the same valid pixels: none is hidden by an earlier."""
    data, values = labelled(tmp_path, size=40, stride=30, hole=(20, 20, 60, 60), count_once=True)
    total = sum(int((data[k][1] != IGNORE).sum()) for k in range(len(data)))
    assert total == values.size - 1600


def test_labels_are_given_per_scene(tmp_path):
    data, _ = labelled(tmp_path)
    with pytest.raises(ValueError, match="got 2 for 1 scenes"):
        LabelledTiles(data.index, [*data.labels] * 2, scaled())


def test_data_sets_travel_to_workers_and_draw_anew_each_epoch(tmp_path):
    index = build_index([counting(tmp_path)], size=24, stride=24)
    data = UnlabelledTiles(index, scaled(), pair, jitter=True)
    pickle.loads(pickle.dumps(data))
    epochs = []
    for workers in (0, 2):
        loader = make_loader(data, batch_size=4, shuffle=True, workers=workers, seed=3)
        epochs.append([torch.cat([unit for unit, _ in loader]) for _ in range(2)])
    assert torch.equal(epochs[0][0], epochs[1][0])  # any number of workers
    assert torch.equal(epochs[0][1], epochs[1][1])
    assert not torch.equal(epochs[0][0], epochs[0][1])


def test_labelled_tiles_are_the_same_in_workers(tmp_path):
    data, _ = labelled(tmp_path, count_once=True, stride=20)
    batches = [
        list(make_loader(data, batch_size=3, shuffle=False, workers=workers, seed=0))
        for workers in (0, 2)
    ]
    for (image, label), (same, also) in zip(*batches, strict=True):
        assert torch.equal(image, same)
        assert torch.equal(label, also)
