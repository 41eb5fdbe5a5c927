import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_files import write

from cl_core.errors import InputError
from cl_remote_sensing.rasters.raster import open_scene
from cl_remote_sensing.rasters.windows import Window, grid
from cl_remote_sensing.tiles.build import TileIndex, build_index, merge, read_windows


def holey(height, width, seed=0, share=0.4):
    """Two bands with round holes of nodata (0)."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 200, (2, height, width), dtype=np.uint8)
    row, col = np.mgrid[:height, :width]
    while (values[0] == 0).mean() < share:
        hole = (row - rng.integers(height)) ** 2 + (col - rng.integers(width)) ** 2 < 64
        values[:, hole] = 0
    return values


def test_valid_shares_equal_those_of_each_window_read_alone(tmp_path):
    values = holey(70, 90)
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate"}
    scene = open_scene(write(tmp_path / "a.tif", values, nodata=0, **tiled))
    index = build_index([scene], size=24, stride=10, min_valid=0.6)
    expected = {
        window: float((values[0, window.row :, window.col :][:24, :24] > 0).mean())
        for window in grid(70, 90, size=24, stride=10)
    }
    kept = {window: share for window, share in expected.items() if share >= 0.6}
    assert 0 < len(kept) < len(expected)
    assert dict(zip((w for _, w in index.windows()), index.valid, strict=True)) == kept
    assert [w for _, w in index.windows()] == list(kept)  # row-major
    assert f"{len(expected) - len(kept)} of {len(expected)} tiles left out" in index.notes[0]
    assert "fewer than 60% valid pixels" in index.notes[0]


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(2, 200),
)
@settings(deadline=None, max_examples=40)
def test_shares_do_not_depend_on_the_pieces_that_are_read(
    tmp_path_factory, height, width, size, stride, pixels
):
    folder = tmp_path_factory.mktemp("pieces")
    rng = np.random.default_rng(height * 61 + width)
    values = rng.integers(0, 2, (1, height, width), dtype=np.uint8)
    values[0, 0, 0] = 1
    scene = open_scene(write(folder / "a.tif", values, nodata=0, blockysize=3))
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr("cl_remote_sensing.tiles.build._CHUNK", pixels)
        index = build_index([scene], size=size, stride=stride, min_valid=0)
    windows = grid(height, width, size=size, stride=stride)
    shares = [values[0, w.row :, w.col :][: w.height, : w.width].mean() for w in windows]
    assert [w for _, w in index.windows()] == [w for w, s in zip(windows, shares, strict=True) if s]
    np.testing.assert_allclose(index.valid, [share for share in shares if share], atol=1e-12)


def test_a_tile_without_a_valid_pixel_never_enters(tmp_path):
    values = np.ones((1, 20, 40), np.uint8)
    values[:, :, 20:] = 0
    scene = open_scene(write(tmp_path / "a.tif", values, nodata=0))
    index = build_index([scene], size=20, stride=20, min_valid=0)
    assert index.windows() == [(0, Window(0, 0, 20, 20))]
    assert "1 of 2 tiles left out, having no valid pixel" in index.notes[0]


def test_scenes_of_nodata_alone_are_told(tmp_path):
    scenes = [
        open_scene(write(tmp_path / f"{k}.tif", np.zeros((1, 9, 9), np.uint8), nodata=0))
        for k in range(2)
    ]
    with pytest.raises(InputError, match=r"0\.tif and 1 more: every tile of 4 pixels has fewer"):
        build_index(scenes, size=4, stride=4)


def test_a_raster_smaller_than_a_tile_gives_one_as_small(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", np.ones((1, 9, 30), np.uint8)))
    index = build_index([scene], size=16, stride=16)
    assert [w for _, w in index.windows()] == [Window(0, 0, 9, 16), Window(0, 14, 9, 16)]


def test_a_damaged_scene_is_named(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 255, (1, 300, 300), dtype=np.uint8)
    path = write(tmp_path / "a.tif", values, tiled=True, blockxsize=128, blockysize=128)
    scene = open_scene(path)
    path.write_bytes(path.read_bytes()[:40000])
    with pytest.raises(InputError, match=r"a\.tif: (cannot read rows|not a raster)"):
        build_index([scene], size=64, stride=64)


def test_progress_ends_at_all_pixels(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", np.ones((1, 30, 20), np.uint8)))
    told = []
    build_index([scene, scene], size=8, stride=8, progress=lambda *state: told.append(state))
    assert told[-1] == (1200, 1200)


def test_bad_numbers_are_refused(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", np.ones((1, 9, 9), np.uint8)))
    with pytest.raises(ValueError, match="min_valid is a share"):
        build_index([scene], size=4, stride=4, min_valid=1.5)
    with pytest.raises(ValueError, match="at least 1"):
        build_index([scene], size=4, stride=0)
    with pytest.raises(ValueError, match="at least one scene"):
        build_index([], size=4, stride=4)


def two_scenes(folder):
    (folder / "images").mkdir()
    return [
        open_scene(write(folder / "images" / name, holey(50, 60, seed), nodata=0))
        for seed, name in enumerate(("a.tif", "b.tif"))
    ]


def same(one, other):
    assert [scene.path for scene in one.scenes] == [scene.path for scene in other.scenes]
    for field in ("scene", "window", "valid", "split"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_an_index_survives_its_file(tmp_path):
    scenes = two_scenes(tmp_path)
    index = build_index(scenes, size=16, stride=9, min_valid=0.4)
    names = np.array(["train", "", "test"])[np.arange(len(index)) % 3]
    parts = [index.take(names == name) for name in ("train", "", "test")]
    index = merge({"train": parts[0], "": parts[1], "test": parts[2]})
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "tiles.csv"
    index.save(path)
    same(TileIndex.load(path, scenes), index)
    opened = TileIndex.load(path)
    np.testing.assert_array_equal(opened.window, index.window)
    assert [Path(scene.path).resolve() for scene in opened.scenes] == [
        Path(scene.path).resolve() for scene in scenes
    ]
    head = path.read_text().splitlines()[:2]
    assert head[0] == "image,row_off,col_off,height,width,valid,split"
    assert head[1].startswith("../images/a.tif,")


def test_a_scene_inside_an_archive_keeps_its_name(tmp_path):
    write(tmp_path / "a.tif", holey(20, 20))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "a.tif")
    index = build_index([open_scene(f"/vsizip/{tmp_path}/a.zip/a.tif")], size=10, stride=10)
    index.save(tmp_path / "tiles.csv")
    same(TileIndex.load(tmp_path / "tiles.csv"), index)
    same(TileIndex.load(tmp_path / "tiles.csv", index.scenes), index)


def test_labels_are_written_beside_the_images(tmp_path):
    scenes = two_scenes(tmp_path)
    index = build_index(scenes, size=25, stride=25, min_valid=0)
    index.save(tmp_path / "few.csv", labels=[tmp_path / "x.tif", tmp_path / "y.tif"])
    rows = (tmp_path / "few.csv").read_text().splitlines()
    assert rows[0] == "image,label,row_off,col_off,height,width,valid,split"
    assert rows[1].startswith("images/a.tif,x.tif,0,0,25,25,")
    assert rows[-1].startswith("images/b.tif,y.tif,")


def test_a_shipped_list_of_windows_is_read_with_its_valid_shares(tmp_path):
    scenes = two_scenes(tmp_path)
    (tmp_path / "splits").mkdir()
    path = tmp_path / "splits" / "few.csv"
    path.write_text(
        "image,label,row_off,col_off,height,width\n"
        "images/b.tif,labels/b.tif,8,16,20,30\nimages/a.tif,labels/a.tif,0,0,50,60\n"
    )
    index = read_windows(path, scenes)
    assert index.windows() == [(1, Window(8, 16, 20, 30)), (0, Window(0, 0, 50, 60))]
    shares = [(holey(50, 60, 1)[0, 8:28, 16:46] > 0).mean(), (holey(50, 60, 0)[0] > 0).mean()]
    np.testing.assert_allclose(index.valid, shares)
    assert index.split.tolist() == ["", ""]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("images/c.tif,0,0,8,8", "'images/c.tif' is neither in"),
        ("images/a.tif,45,0,8,8", r"entry 1: window \(45, 0, 8, 8\) leaves"),
        ("images/a.tif,-1,0,8,8", "leaves"),
        ("images/a.tif,0,0,0,8", "leaves"),
        ("images/a.tif,0,0.5,8,8", "must be whole pixels"),
        ("images/a.tif,0,,8,8", "entry 1 has no 'col_off'"),
    ],
)
def test_a_bad_window_is_told(tmp_path, row, told):
    scenes = two_scenes(tmp_path)
    path = tmp_path / "few.csv"
    path.write_text(f"image,row_off,col_off,height,width\n{row}\n")
    with pytest.raises(InputError, match=told):
        read_windows(path, scenes)


def test_a_listed_image_must_be_given(tmp_path):
    scenes = two_scenes(tmp_path)
    path = tmp_path / "few.csv"
    path.write_text("image,row_off,col_off,height,width\nimages/b.tif,0,0,8,8\n")
    with pytest.raises(InputError, match=r"lists 'images/b\.tif', which is not among the 1"):
        read_windows(path, scenes[:1])


def test_a_split_is_selected_or_told(tmp_path):
    index = build_index(two_scenes(tmp_path), size=16, stride=16, min_valid=0)
    with pytest.raises(InputError, match="no tile has a split yet"):
        index.select("train")
    both = merge({"train": index.take(range(3)), "val": index.take([5])})
    assert both.select("val").windows() == [index.windows()[5]]
    with pytest.raises(InputError, match="the splits are train, val"):
        both.select("test")


def test_merged_indexes_share_their_scenes(tmp_path):
    a, b = two_scenes(tmp_path)
    one = build_index([a, b], size=16, stride=16, min_valid=0)
    other = build_index([b], size=8, stride=8, min_valid=0)
    both = merge({"train": one, "test": other})
    assert both.scenes == (a, b)
    assert both.windows() == [*one.windows(), *((1, window) for _, window in other.windows())]
    assert both.split.tolist() == ["train"] * len(one) + ["test"] * len(other)


def test_block_order_visits_each_block_once(tmp_path):
    values = np.ones((1, 128, 160), np.uint8)
    options = {"tiled": True, "blockxsize": 64, "blockysize": 32}
    scenes = [open_scene(write(tmp_path / f"{k}.tif", values, **options)) for k in range(2)]
    index = build_index(scenes, size=16, stride=16)
    ordered = index.in_block_order()
    blocks = [(scene, w.row // 32, w.col // 64) for scene, w in ordered.windows()]
    runs = [block for k, block in enumerate(blocks) if k == 0 or block != blocks[k - 1]]
    assert len(runs) == len(set(runs)) == 2 * 4 * 3
    assert runs == sorted(runs)
    assert sorted(ordered.windows()) == sorted(index.windows())


def test_an_index_is_small_and_travels(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", np.ones((1, 9, 9), np.uint8)))
    index = build_index([scene], size=3, stride=1)
    same(pickle.loads(pickle.dumps(index)), index)
    assert len(pickle.dumps(index)) < 100 * len(index) + 4000
