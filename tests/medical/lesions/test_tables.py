"""Tables of every convention to one table, splits by lesion, and what splits share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lesion_files import write_images, write_table
from PIL import Image

from cl_core.errors import InputError
from cl_core.images import ImageTable
from cl_medical.lesions.leaks import find_overlaps, read_pixels
from cl_medical.lesions.split import deal, deal_folds, joined, with_splits
from cl_medical.lesions.subgroups import age_band, default_subgroups, members, subgroup_rows
from cl_medical.lesions.tables import ID, Naming, read_lesions, relabelled

NAMES = [f"ISIC_{number:04d}" for number in range(6)]


def labels_of(table: ImageTable) -> list[str]:
    return [table.classes[k] if k >= 0 else "" for k in table.labels.tolist()]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", NAMES)
    return tmp_path / "images"


CONVENTIONS = {
    "isic2020": {
        "image_name": NAMES,
        "patient_id": ["p0", "p0", "p1", "p1", "p2", "p3"],
        "sex": ["male"] * 6,
        "diagnosis": ["nevus"] * 6,
        "benign_malignant": ["benign"] * 5 + ["malignant"],
        "target": [0, 0, 0, 0, 0, 1],
    },
    "isic2019": {
        "image": NAMES,
        "MEL": ["0.0"] * 5 + ["1.0"],
        "NV": ["1.0"] * 5 + ["0.0"],
        "UNK": ["0.0"] * 6,
    },
    "ham10000": {
        "lesion_id": ["l0", "l0", "l1", "l2", "l3", "l4"],
        "image_id": NAMES,
        "dx": ["nv"] * 5 + ["mel"],
        "dx_type": ["histo"] * 6,
    },
    "supercon": {"image": NAMES, " label": [0] * 5 + [1]},
    "prepared": {
        "image": [f"{name}.jpg" for name in NAMES],
        "label": ["nv"] * 5 + ["mel"],
        "group": ["g"] * 6,
        "split": ["train"] * 4 + ["val", "test"],
    },
}


@pytest.mark.parametrize("named", ["by name", "recognised"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_is_read(convention, named, images, tmp_path):
    path = write_table(tmp_path / "table.csv", CONVENTIONS[convention])
    naming = Naming(convention=convention if named == "by name" else "auto")
    table = read_lesions(path, roots=[images], naming=naming)
    assert table.column(ID) == tuple(NAMES)
    assert all(Path(file).is_file() for file in table.files)
    rare = {"isic2020": "1", "isic2019": "MEL", "supercon": "1"}.get(convention, "mel")
    assert labels_of(table)[5] == rare
    assert len(set(labels_of(table)[:5])) == 1
    groups = {
        "isic2020": ("p0", "p0", "p1", "p1", "p2", "p3"),
        "ham10000": ("l0", "l0", "l1", "l2", "l3", "l4"),
        "prepared": ("g",) * 6,
    }.get(convention)
    assert table.groups == groups


def test_images_are_found_in_several_folders_and_below_them(tmp_path):
    write_images(tmp_path / "part_1", NAMES[:3])
    write_images(tmp_path / "more" / "part_2", NAMES[3:], seed=1)
    path = write_table(tmp_path / "t" / "ham.csv", CONVENTIONS["ham10000"])
    table = read_lesions(path, roots=[tmp_path / "part_1", tmp_path / "more"])
    assert [Path(file).parent.name for file in table.files] == ["part_1"] * 3 + ["part_2"] * 3


def test_metadata_is_joined_by_the_image(images, tmp_path):
    path = write_table(tmp_path / "truth.csv", CONVENTIONS["isic2019"])
    about = write_table(
        tmp_path / "meta.csv",
        {"image": NAMES[::-1], "lesion_id": list("fedcba"), "sex": ["male"] * 3 + ["female"] * 3},
    )
    table = read_lesions(path, roots=[images], metadata=[about])
    assert table.groups == tuple("abcdef")
    assert table.column("sex") == ("female",) * 3 + ("male",) * 3


def test_metadata_that_say_two_things_of_an_image_are_refused(images, tmp_path):
    path = write_table(tmp_path / "truth.csv", CONVENTIONS["isic2019"])
    columns = {"image": [*NAMES, NAMES[0]], "sex": ["male"] * 6 + ["female"]}
    about = write_table(tmp_path / "meta.csv", columns)
    with pytest.raises(InputError, match=r"1 rows say other things of an image.*'ISIC_0000'"):
        read_lesions(path, roots=[images], metadata=[about])


def test_a_name_that_two_different_files_have_is_refused_and_copies_are_not(tmp_path):
    write_images(tmp_path / "d" / "one", NAMES)
    write_images(tmp_path / "d" / "two", NAMES)
    path = write_table(tmp_path / "ham.csv", CONVENTIONS["ham10000"])
    assert len(read_lesions(path, roots=[tmp_path / "d"])) == 6
    write_images(tmp_path / "d" / "two", NAMES[2:3], seed=5)
    with pytest.raises(InputError, match="1 images lie in several files that differ, 'ISIC_0002'"):
        read_lesions(path, roots=[tmp_path / "d"])
    assert len(read_lesions(path, roots=[tmp_path / "d" / "two"])) == 6


def test_images_of_unknown_lesions_do_not_belong_together(images, tmp_path):
    columns = CONVENTIONS["ham10000"] | {"lesion_id": ["unknown", "nan", "", "l2", " l2", "NA"]}
    table = read_lesions(write_table(tmp_path / "t.csv", columns), roots=[images])
    assert table.groups == ("", "", "", "l2", "l2", "")


def test_labels_are_renamed_and_left_out_by_a_mapping():
    mapping = {"mel": 1, "UNK": None, "*": 0}
    assert relabelled(["mel", "nv", "UNK", ""], mapping, "a.csv") == ["1", "0", None, ""]
    with pytest.raises(InputError, match="--mapping has no name for the labels 'nv'"):
        relabelled(["mel", "nv"], {"mel": 1}, "a.csv")


def test_class_folders_are_classes_and_a_name_in_two_of_them_is_told_with_its_splits(tmp_path):
    for place, names in {
        "Train/nevus": ["a", "b", "x", "y"],
        "Train/keratosis": ["c", "x"],
        "Test/nevus": ["d"],
        "Test/keratosis": ["e", "y"],
    }.items():
        write_images(tmp_path / "d" / place, names, seed=len(place))
    with pytest.raises(
        InputError,
        match=r"2 images stand under two labels, 2 under keratosis and nevus.*1 of them in two spl",
    ):
        read_lesions(tmp_path / "d")
    table = read_lesions(tmp_path / "d", conflicts="drop")
    assert sorted(table.column(ID)) == list("abcde")
    assert "2 images stand under two labels" in " ".join(table.notes)


def change(column: str, row: int, value: object) -> dict[str, list[object]]:
    columns = {name: list(cells) for name, cells in CONVENTIONS["ham10000"].items()}
    columns[column][row] = value
    return columns


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (change("image_id", 2, "ISIC_9"), "1 of 6 images are missing, first 'ISIC_9'"),
        (change("dx", 1, "NaN"), "1 images have no label, 'ISIC_0001'"),
        ({"who": NAMES, "dx": ["nv"] * 6}, "none of the columns 'who', 'dx' names the images"),
        ({"image": NAMES, "sex": ["m"] * 6}, "none of the columns 'image', 'sex' holds labels"),
        (
            {"image": NAMES, "MEL": [0, 1, 1, 1, 1, 1], "NV": [0, 1, 0, 0, 0, 0]},
            r"2 rows have not exactly one 1 .*'ISIC_0000 \(0\)', 'ISIC_0001 \(2\)'",
        ),
        (
            {"image": [*NAMES, NAMES[5]], "dx": ["nv"] * 5 + ["mel", "nv"]},
            "1 images stand under two labels, 1 under mel and nv, first 'ISIC_0005'",
        ),
    ],
)
def test_faults_of_a_table_are_told(columns, message, images, tmp_path):
    path = write_table(tmp_path / "table.csv", columns)
    with pytest.raises(InputError, match=message):
        read_lesions(path, roots=[images])


def test_repeated_rows_are_dropped_and_counted(images, tmp_path):
    columns = {"image": [*NAMES, NAMES[5]], "dx": ["nv"] * 5 + ["mel", "mel"]}
    table = read_lesions(write_table(tmp_path / "t.csv", columns), roots=[images])
    assert len(table) == 6
    assert "1 rows that repeat an image left out" in table.notes


def test_what_is_missing_is_left_out_on_request(images, tmp_path):
    path = write_table(tmp_path / "t.csv", change("image_id", 2, "ISIC_9"))
    table = read_lesions(path, roots=[images], on_error="skip")
    assert len(table) == 5
    assert "1 of 6 images are missing" in " ".join(table.notes)


def listed(ids, labels, groups, source="list") -> ImageTable:
    return ImageTable(
        source=source,
        root=".",
        files=tuple(ids),
        labels=np.asarray(labels, dtype=np.int64),
        classes=("0", "1"),
        groups=tuple(groups),
        columns={ID: tuple(ids)},
    )


def test_lists_of_the_published_structure_are_found_to_leak_exactly_as_published():
    """Independent draws of 26,500 and 6,626 of ISIC 2020: the counts of the official lists."""
    train_ids = [f"a{number}" for number in range(26_500)]
    test_ids = [*train_ids[:5_310], *(f"b{number}" for number in range(6_626 - 5_310))]
    train_y = [1] * 93 + [0] * 5_217 + [1] * (467 - 93) + [0] * (26_500 - 5_310 - 467 + 93)
    test_y = [1] * 93 + [0] * 5_217 + [1] * (117 - 93) + [0] * (6_626 - 5_310 - 24)
    # 1,699 patients on both sides, two images of the test list of two patients of their own
    train_groups = [f"p{number % 2_054}" for number in range(26_500)]
    test_groups = [f"p{number % 1_699}" for number in range(6_624)] + ["new0", "new1"]
    table = joined(
        listed(train_ids, train_y, train_groups), test=listed(test_ids, test_y, test_groups)
    )
    (overlap,) = find_overlaps(table, pixels=None)
    assert (overlap.images, overlap.of_images) == (5_310, 6_626)
    assert overlap.classes["1"] == (93, 117)
    assert (overlap.groups, overlap.of_groups, overlap.unseen) == (1_699, 1_701, 2)
    assert "5,310 of its 6,626 images" in overlap.told()
    assert "93 of 117 of class 1" in overlap.told()


def test_equal_pixels_under_two_names_are_found(tmp_path):
    write_images(tmp_path, ["a", "b", "c"])
    Image.open(tmp_path / "a.jpg").save(tmp_path / "d.png")
    files = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg", "d.png")]
    table = ImageTable(
        source="t",
        root=str(tmp_path),
        files=tuple(files),
        labels=np.array([0, 0, 1, 0]),
        classes=("x", "y"),
        splits=("train", "train", "test", "test"),
        columns={ID: ("a", "b", "c", "d")},
    )
    (overlap,) = find_overlaps(table, pixels=read_pixels(table))
    assert overlap.twins == 1
    assert overlap.example == "a and d"
    assert not overlap.images


def grouped(count: int = 120) -> ImageTable:
    labels = [0] * (count * 3 // 4) + [1] * (count // 4)
    return listed([f"i{k}" for k in range(count)], labels, [f"g{k // 2}" for k in range(count)])


def test_no_lesion_is_torn_apart_and_every_class_is_everywhere():
    table = deal(grouped(), {"train": 0.6, "val": 0.15, "test": 0.25}, seed=0)
    sides = {}
    for group, split in zip(table.groups, table.splits, strict=True):
        sides.setdefault(group, set()).add(split)
    assert all(len(split) == 1 for split in sides.values())
    for split in ("train", "val", "test"):
        rows = np.asarray(table.splits) == split
        assert set(table.labels[rows].tolist()) == {0, 1}
    assert not any(find_overlaps(table, pixels=None))


def test_folds_are_dealt_and_one_of_them_is_tested_on():
    table = deal_folds(grouped(), 4, seed=0)
    assert sorted(set(table.splits)) == ["0", "1", "2", "3"]
    divided = with_splits(table, (0.6, 0.2, 0.2), seed=0, fold=3)
    assert {s: divided.splits.count(s) for s in ("test", "val")} == {
        "test": table.splits.count("3"),
        "val": table.splits.count("0"),
    }
    with pytest.raises(InputError, match="say which to test on, as --fold 0"):
        with_splits(table, (0.6, 0.2, 0.2), seed=0)
    with pytest.raises(InputError, match="--fold 9"):
        with_splits(table, (0.6, 0.2, 0.2), seed=0, fold=9)


def test_a_class_of_too_few_lesions_is_refused_by_name():
    table = listed(["a", "b", "c", "d"], [0, 0, 0, 1], ["g", "h", "i", "j"])
    with pytest.raises(InputError, match=r"'1' \(1\)"):
        deal(table, {"train": 0.5, "val": 0.25, "test": 0.25}, seed=0)


def test_validation_images_are_set_aside_where_a_table_names_none():
    from dataclasses import replace

    table = replace(grouped(), splits=("train",) * 100 + ("test",) * 20)
    divided = with_splits(table, (0.6, 0.15, 0.25), seed=0)
    assert divided.splits.count("val") == pytest.approx(20, abs=2)
    assert "set aside as val" in " ".join(divided.notes)


def test_subgroups_go_by_value_and_by_age_band_and_small_ones_lose_their_interval():
    table = grouped(40).with_column("sex", ["male"] * 30 + ["female"] * 10)
    table = table.with_column("age_approx", ["35.0"] * 39 + ["nan"])
    assert default_subgroups(table) == ("sex", "age_approx")
    assert set(members(table, "age_approx")) == {"20 to 39", "unknown"}
    assert age_band("79") == "60 to 79"
    rows = subgroup_rows(table, ["sex"], lambda rows, sure: {"interval": sure}, fewest=20)
    assert [(row["value"], row["images"], row["interval"]) for row in rows] == [
        ("female", 10, False),
        ("male", 30, True),
    ]
