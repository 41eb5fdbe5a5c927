"""Folders that are called like splits are splits, and what else may be meant is never guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_core.errors import InputError
from cl_core.images import list_images, rare_classes, split_by_group
from cl_core.images.split_names import split_name


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    return root


def filed(table) -> dict[str, tuple[str, str]]:
    """Split and class of each image by its name."""
    classes = [*table.classes, ""]
    splits = table.splits or ("",) * len(table)
    return {table.name(row): (splits[row], classes[table.labels[row]]) for row in range(len(table))}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("VAL", "val"),
        ("valid", "val"),
        ("Validation", "val"),
        ("dev", "val"),
        ("test", "test"),
        ("TESTING", "test"),
        ("training_set", "train"),
        ("seg_test", "test"),
        ("Valid-Images", "val"),
        ("trainset", "train"),
        ("val2017", "val"),
        ("trains", None),
        ("train_station", None),
        ("image set", None),
        ("oat", None),
    ],
)
def test_splits_have_several_names_in_any_case(tmp_path, name, split):
    assert split_name(name) == split
    table = list_images(fill(tmp_path, f"{name}/oat/1.png", f"{name}/rye/2.png"))
    assert (table.splits == (split,) * 2) if split else table.splits is None


def test_training_and_testing_are_splits_with_the_classes_in_them(tmp_path):
    sides = ("Training", "Testing")
    fill(tmp_path, *(f"{side}/{c}/{k}.png" for side in sides for c in "ab" for k in "01"))
    table = list_images(tmp_path)
    assert table.classes == ("a", "b")
    assert table.splits == ("test",) * 4 + ("train",) * 4
    assert table.notes == ()


def test_spellings_of_collections_are_told(tmp_path):
    fill(tmp_path, "training_set/cats/1.png", "test_set/cats/2.png")
    notes = list_images(tmp_path).notes
    assert notes == (
        "taken as splits: 'test_set' as test, 'training_set' as train (splits=none takes every "
        "folder as a class)",
    )
    assert list_images(tmp_path, splits="none").classes == ("test_set", "training_set")


def test_folders_that_repeat_or_hold_the_splits_are_passed(tmp_path):
    names = ("seg_train/seg_train/sea/1.png", "seg_test/seg_test/sea/2.png")
    expected = {names[0]: ("train", "sea"), names[1]: ("test", "sea")}
    assert filed(list_images(fill(tmp_path / "intel", *names))) == expected
    names = ("set/train/sea/1.png", "set/train/lake/2.png", "set/test/sea/3.png")
    table = list_images(fill(tmp_path / "below", *names))
    assert filed(table)[names[2]] == ("test", "sea")
    assert table.notes == ("the splits lie in 'set'",)


def test_splits_inside_every_class_are_asked_for(tmp_path):
    fill(tmp_path, "cat/train/1.png", "cat/test/2.png", "dog/train/3.png")
    with pytest.raises(InputError, match="'test', 'train' inside the folders 'cat', 'dog' are cal"):
        list_images(tmp_path)
    splits = filed(list_images(tmp_path, splits="folder"))
    assert splits["cat/test/2.png"] == ("test", "cat")
    assert splits["dog/train/3.png"] == ("train", "dog")
    assert list_images(tmp_path, splits="none").splits is None


def test_splits_beside_other_folders_are_asked_for_and_decided_by_an_option(tmp_path):
    fill(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "extra/4.png", "5.png")
    with pytest.raises(
        InputError,
        match=r"'test', 'train' are called like splits, but images lie in the folder itself, "
        r"'extra' too; say splits=folder .*the others are left out.* or splits=none",
    ):
        list_images(tmp_path)
    table = list_images(tmp_path, splits="folder")
    assert filed(table) == {
        "test/a/3.png": ("test", "a"),
        "train/a/1.png": ("train", "a"),
        "train/b/2.png": ("train", "b"),
    }
    assert "2 images in the folder itself, 'extra' left out" in table.notes[0]
    table = list_images(tmp_path, splits="none", labels="folder")
    assert table.splits is None
    assert table.classes == ("extra", "test", "train")


def test_a_class_may_be_called_train_or_test(tmp_path):
    fill(tmp_path, "train/1.png", "car/2.png", "boat/3.png")
    with pytest.raises(InputError, match="'train' are called like splits"):
        list_images(tmp_path)
    assert list_images(tmp_path, splits="none").classes == ("boat", "car", "train")
    other = fill(tmp_path / "two", "control/1.png", "test/2.png")
    with pytest.raises(InputError, match=r"'test' are called .*and the others are to train on"):
        list_images(other)
    assert list_images(other, splits="none").classes == ("control", "test")
    assert list_images(other, splits="folder").splits == ("train", "test")


def test_a_flat_test_folder_is_unlabelled_inside_splits_and_beside_classes(tmp_path):
    inside = fill(tmp_path / "in", "train/a/1.png", "train/b/2.png", "test/3.png", "test/4.png")
    table = list_images(inside)
    assert filed(table) == {
        "test/3.png": ("test", ""),
        "test/4.png": ("test", ""),
        "train/a/1.png": ("train", "a"),
        "train/b/2.png": ("train", "b"),
    }
    assert table.notes == ("the images of test lie in no class folder: no labels",)
    beside = fill(tmp_path / "by", "a/1.png", "b/2.png", "test/3.png")
    table = list_images(beside)
    assert filed(table) == {
        "a/1.png": ("train", "a"),
        "b/2.png": ("train", "b"),
        "test/3.png": ("test", ""),
    }
    assert "'test' taken as splits; 2 images in 'a', 'b' taken to train on" in table.notes[1]


def test_images_beside_class_folders_of_one_split_are_refused(tmp_path):
    fill(tmp_path, "train/a/1.png", "train/2.png", "test/3.png")
    with pytest.raises(InputError, match=r"1 images lie beside the class folders.*train/2\.png"):
        list_images(tmp_path)
    assert filed(list_images(tmp_path, labels="folder"))["train/2.png"] == ("train", "")


def test_a_class_that_only_the_test_has_is_told(tmp_path):
    fill(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/c/4.png", "val/b/5.png")
    assert list_images(tmp_path).notes == ("classes in test that train has not: c (1 images)",)
    fill(tmp_path, "flat/1.png", "flat/2.png", "flat/3.png")
    text = "image,label,split\n1.png,x,Training\n2.png,y,DEV\n3.png,x,other\n"
    (tmp_path / "flat/list.csv").write_text(text)
    table = list_images(tmp_path / "flat/list.csv")
    assert table.splits == ("train", "val", "other")
    assert table.notes == ("classes in val that train has not: y (1 images)",)
    assert list_images(tmp_path / "flat/list.csv", splits="none").splits is None


def test_an_unknown_choice_is_named(tmp_path):
    # a TypeError where the suite checks annotations at run time
    with pytest.raises((ValueError, TypeError), match="splits"):
        list_images(fill(tmp_path, "a/1.png"), splits="folders")


SHARES = {"train": 0.8, "test": 0.2}


def test_classes_of_too_few_groups_go_to_the_first_split():
    labels = np.array([0] * 20 + [1] * 20 + [2])
    with pytest.raises(InputError, match="1 classes have fewer groups than the 2 splits: 'rare'"):
        split_by_group(labels, None, SHARES, seed=0, classes=("a", "b", "rare"))
    splits = np.array(split_by_group(labels, None, SHARES, seed=0, rare="first"))
    assert splits[-1] == "train"
    assert [(splits[labels == k] == "test").sum() for k in (0, 1)] == [4, 4]
    assert rare_classes(labels, None, 2) == {2: 1}
    assert rare_classes(labels, None, 1) == {}


def test_a_group_with_a_rare_class_is_not_torn_and_leaves_the_other_classes_in_the_test():
    labels = [0] * 6 + [1] * 4 + [2]
    groups = ["p", "p", "q", "q", "r", "r", "p", "q", "s", "t", "p"]
    for seed in range(10):
        splits = split_by_group(labels, groups, SHARES, seed=seed, rare="first")
        sides = dict(zip(groups, splits, strict=True))
        assert [sides[group] for group in groups] == list(splits)
        assert sides["p"] == "train"
        for label in (0, 1):
            held = {s for s, own in zip(splits, labels, strict=True) if own == label}
            assert held == {"train", "test"}
    assert rare_classes(labels, groups, 2) == {2: 1}
