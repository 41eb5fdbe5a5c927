from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cl_core.errors import InputError
from cl_core.images import (
    fold_by_group,
    list_images,
    refuse_shared_groups,
    refuse_shared_pixels,
    split_by_group,
    write_splits,
)

THIRDS = {"train": 0.8, "val": 0.1, "test": 0.1}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 12)), min_size=1, max_size=80),
    st.integers(0, 2**31 - 1),
)
def test_no_group_is_ever_torn(rows, seed):
    labels = [label for label, _ in rows]
    groups = [f"g{group}" for _, group in rows]
    splits = split_by_group(labels, groups, THIRDS, seed=seed, allow_missing=True)
    sides = {}
    for group, split in zip(groups, splits, strict=True):
        assert sides.setdefault(group, split) == split
    assert set(splits) <= set(THIRDS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(3, 20), min_size=1, max_size=5), st.integers(0, 2**31 - 1))
def test_a_class_with_as_many_groups_as_splits_is_in_each(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    splits = np.array(split_by_group(labels, None, THIRDS, seed=seed))
    for label in range(len(sizes)):
        assert set(splits[labels == label]) == set(THIRDS)


def test_classes_are_spread_by_the_fractions():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, size=600, p=[0.7, 0.25, 0.05])
    splits = np.array(split_by_group(labels, None, {"a": 0.5, "b": 0.3, "c": 0.2}, seed=1))
    for label in range(3):
        counts = Counter(splits[labels == label].tolist())
        for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2)):
            assert abs(counts[name] - share * (labels == label).sum()) <= 1


def test_large_groups_are_balanced_too():
    rng = np.random.default_rng(1)
    groups = [f"field{k}" for k in rng.integers(0, 60, 1000)]
    label = {group: int(group[5:]) % 3 for group in groups}
    labels = np.array([label[group] for group in groups])
    splits = np.array(split_by_group(labels, groups, THIRDS, seed=0))
    for k in range(3):
        share = (splits[labels == k] == "train").mean()
        assert 0.7 < share < 0.87


def test_the_seed_decides_and_repeats():
    labels = [0, 1] * 30
    one = split_by_group(labels, None, THIRDS, seed=1)
    assert one == split_by_group(labels, None, THIRDS, seed=1)
    assert one != split_by_group(labels, None, THIRDS, seed=2)


def test_images_without_a_group_stand_alone_and_without_a_label_are_spread():
    splits = split_by_group([-1] * 10, [""] * 10, {"train": 0.7, "test": 0.3}, seed=0)
    assert Counter(splits) == {"train": 7, "test": 3}


def test_a_class_with_too_few_groups_is_named_unless_allowed():
    labels, groups = [0, 0, 0, 1, 1, 1], ["a", "b", "c", "d", "d", "e"]
    with pytest.raises(InputError, match=r"1 classes have fewer groups than the 3 splits: 'mel'"):
        split_by_group(labels, groups, THIRDS, seed=0, classes=["nv", "mel"])
    splits = split_by_group(labels, groups, THIRDS, seed=0, allow_missing=True)
    assert splits[3] == splits[4]


def test_a_class_that_cannot_be_in_every_split_is_told():
    # three classes, each in two of three groups: no way to deal the groups to two splits
    labels, groups = [0, 0, 1, 1, 2, 2], ["a", "b", "b", "c", "c", "a"]
    with pytest.raises(
        InputError, match=r"split '(one|two)' has no image of class \d, whose groups"
    ):
        split_by_group(labels, groups, {"one": 0.5, "two": 0.5}, seed=0)


def test_fractions_and_lengths_are_checked():
    for fractions in ({}, {"a": 0.5, "b": 0.6}, {"a": 1.2, "b": -0.2}):
        with pytest.raises(ValueError, match="fractions must be positive and sum to 1"):
            split_by_group([0], None, fractions, seed=0)
    with pytest.raises(ValueError, match="one group per image: got 1 groups, 2 labels"):
        split_by_group([0, 0], ["a"], THIRDS, seed=0)


def test_folds_have_equal_shares_of_each_class_and_whole_groups():
    labels = np.repeat([0, 1], [40, 10])
    groups = [f"{k // 2}" for k in range(50)]
    folds = fold_by_group(labels, groups, 5, seed=0)
    assert Counter(folds[labels == 1].tolist()) == dict.fromkeys(range(5), 2)
    assert Counter(folds[labels == 0].tolist()) == dict.fromkeys(range(5), 8)
    assert (folds[::2] == folds[1::2]).all()
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        fold_by_group(labels, groups, 1, seed=0)


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["image,label,group"]
    for k in range(12):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k:02}.png")
        rows.append(f"{k:02}.png,{'oat' if k < 6 else ''},p{k // 2}")
    (tmp_path / "all.csv").write_text("\n".join(rows))
    return list_images(tmp_path / "all.csv")


def test_a_saved_split_is_a_manifest(table, tmp_path):
    (tmp_path / "out").mkdir()
    splits = split_by_group(
        table.labels, table.groups, {"train": 0.5, "test": 0.5}, seed=4, classes=table.classes
    )
    write_splits(tmp_path / "out" / "splits.csv", table, splits, seed=4)
    back = list_images(tmp_path / "out" / "splits.csv")
    assert [tmp_path.joinpath(file).resolve() for file in back.files] == [
        tmp_path / f"{k:02}.png" for k in range(12)
    ]
    assert back.splits == splits
    assert back.groups == table.groups
    assert back.labels.tolist() == table.labels.tolist()
    refuse_shared_groups(back)
    assert "seed" in (tmp_path / "out" / "splits.csv").read_text().splitlines()[0]


def test_a_group_on_both_sides_of_the_users_split_is_refused(table, tmp_path):
    splits = ["train"] * 5 + ["test"] * 7  # p2 is images 4 and 5
    write_splits(tmp_path / "torn.csv", table, splits, seed=0)
    with pytest.raises(InputError, match="1 groups lie in more than one split, first 'p2' in test"):
        refuse_shared_groups(list_images(tmp_path / "torn.csv"))


def test_equal_pixels_under_two_names_in_two_splits_are_refused(table, tmp_path):
    splits = ["train"] * 6 + ["test"] * 6
    write_splits(tmp_path / "s.csv", table, splits, seed=0)
    refuse_shared_pixels(list_images(tmp_path / "s.csv"))
    Image.open(tmp_path / "01.png").save(tmp_path / "09.png", compress_level=0)
    with pytest.raises(InputError, match=r"1 images repeat one .* 01\.png .train. and 09\.png"):
        refuse_shared_pixels(list_images(tmp_path / "s.csv"))
    same_side = list_images(tmp_path / "s.csv").select([0, 1, 2])
    refuse_shared_pixels(same_side)
