from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_core.errors import InputError
from cl_core.images import class_names, encode_labels, list_images, write_splits


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (value, 0, 0)).save(path)
    return path


def manifest(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def names(table) -> list[str]:
    return [table.name(row) for row in range(len(table))]


def test_a_folder_per_class_gives_classes_in_order_and_sorted_files(tmp_path):
    for name in ("rye/b.png", "oat/2.PNG", "oat/deep/1.jpg", "rye/a.jpeg"):
        picture(tmp_path / name)
    (tmp_path / "oat/readme.txt").write_text("no image")
    table = list_images(tmp_path)
    assert names(table) == ["oat/2.PNG", "oat/deep/1.jpg", "rye/a.jpeg", "rye/b.png"]
    assert table.classes == ("oat", "rye")
    assert table.labels.tolist() == [0, 0, 1, 1]
    assert table.groups is None
    assert table.splits is None


def test_a_flat_folder_has_no_labels(tmp_path):
    picture(tmp_path / "b.png")
    picture(tmp_path / "a.png")
    table = list_images(tmp_path)
    assert names(table) == ["a.png", "b.png"]
    assert table.labels.tolist() == [-1, -1]
    assert table.classes == ()


def test_numbered_class_folders_are_ordered_as_numbers(tmp_path):
    for name in ("10", "9", "2"):
        picture(tmp_path / name / "x.png")
    assert list_images(tmp_path).classes == ("2", "9", "10")


def test_unicode_and_spaces_in_names_work(tmp_path):
    root = tmp_path / "été 2025 畑"
    picture(root / "seigle d'été" / "image no 1 ü.png")
    table = list_images(root)
    assert names(table) == ["seigle d'été/image no 1 ü.png"]
    assert table.classes == ("seigle d'été",)


def test_train_and_test_folders_are_splits(tmp_path):
    for name in ("train/oat/1.png", "train/rye/2.png", "valid/oat/3.png", "test/rye/4.png"):
        picture(tmp_path / name)
    table = list_images(tmp_path)
    assert table.splits == ("test", "train", "train", "val")
    assert table.classes == ("oat", "rye")
    assert names(table.of_split("train")) == ["train/oat/1.png", "train/rye/2.png"]
    with pytest.raises(InputError, match=r"split 'dev' .the splits are test, train, val."):
        table.of_split("dev")


def test_images_beside_class_folders_are_refused_unless_told_what_they_are(tmp_path):
    picture(tmp_path / "oat/1.png")
    picture(tmp_path / "loose.png")
    with pytest.raises(InputError, match=r"1 images lie beside the class folders.*loose\.png"):
        list_images(tmp_path)
    assert list_images(tmp_path, labels="folder").labels.tolist() == [-1, 0]
    assert list_images(tmp_path, labels="none").labels.tolist() == [-1, -1]


def test_a_loop_of_links_ends_and_each_image_is_listed_once(tmp_path):
    picture(tmp_path / "oat/1.png")
    picture(tmp_path / "rye/2.png")
    (tmp_path / "oat" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "a rye").symlink_to("rye")  # sorted before the real folder, which still names it
    table = list_images(tmp_path)
    assert names(table) == ["oat/1.png", "rye/2.png"]
    assert table.classes == ("oat", "rye")


def test_links_to_what_lies_elsewhere_are_followed(tmp_path):
    pool = tmp_path / "pool"
    picture(pool / "1.png", 1)
    picture(pool / "field" / "2.png", 2)
    root = tmp_path / "root"
    (root / "oat").mkdir(parents=True)
    (root / "oat" / "one.png").symlink_to(pool / "1.png")
    (root / "rye").symlink_to(pool / "field")
    assert names(list_images(root)) == ["oat/one.png", "rye/2.png"]


def test_links_to_listed_images_and_broken_links_are_left_out_and_told(tmp_path):
    picture(tmp_path / "b.png")
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "c.png").symlink_to("gone.png")
    table = list_images(tmp_path)
    assert names(table) == ["b.png"]
    assert table.notes == (
        "1 broken links to images left out",
        "1 links to images already listed left out",
    )


def test_hidden_entries_are_left_out(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / ".thumbnails" / "a.png")
    picture(tmp_path / "._a.png")
    assert names(list_images(tmp_path)) == ["a.png"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no image in this folder or below it .*\.png"):
        list_images(tmp_path)


def test_a_missing_path_and_another_kind_of_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder or manifest"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither a folder of images nor a manifest"):
        list_images(picture(tmp_path / "a.png"))


def test_a_manifest_gives_labels_groups_and_splits(tmp_path):
    for name in ("photos/a.png", "photos/b.png", "c.png"):
        picture(tmp_path / name)
    path = manifest(
        tmp_path,
        "\ufeffsplit, image ,label,group,age\n"
        "train,photos/a.png, rye ,p1,3\n"
        "test,photos/b.png,oat,p2,\n"
        "train,c.png,unknown,p1,4\n",
    )
    table = list_images(path)
    assert [Path(file) for file in table.files] == [
        tmp_path / "photos/a.png",
        tmp_path / "photos/b.png",
        tmp_path / "c.png",
    ]
    assert table.classes == ("oat", "rye")
    assert table.labels.tolist() == [1, 0, -1]
    assert table.groups == ("p1", "p2", "p1")
    assert table.splits == ("train", "test", "train")


def test_columns_can_have_other_names_and_paths_other_roots_and_no_extension(tmp_path):
    picture(tmp_path / "part1/ISIC_1.jpg")
    picture(tmp_path / "part2/ISIC_2.jpg")
    path = manifest(tmp_path, "image_id;dx;lesion_id\nISIC_1;mel;L1\nISIC_2;nv;L2\n")
    table = list_images(
        path,
        root=[tmp_path / "part1", tmp_path / "part2"],
        columns={"image": "image_id", "label": "dx", "group": "lesion_id"},
    )
    assert [Path(file).name for file in table.files] == ["ISIC_1.jpg", "ISIC_2.jpg"]
    assert table.classes == ("mel", "nv")
    assert table.groups == ("L1", "L2")


def test_parquet_is_read_like_csv(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    columns = {"image": ["a.png", "b.png", "c.png"], "label": [10.0, 9.0, None]}
    parquet.write_table(pa.table(columns), tmp_path / "list.parquet")
    table = list_images(tmp_path / "list.parquet")
    assert table.classes == ("9", "10")
    assert table.labels.tolist() == [1, 0, -1]


def test_a_missing_column_is_told_with_those_present(tmp_path):
    path = manifest(tmp_path, "file,dx\na.png,mel\n")
    with pytest.raises(InputError, match="no column 'image' for the image; the columns are file, "):
        list_images(path)
    with pytest.raises(InputError, match=r"no column 'diagnosis' for the label; .* file, dx"):
        list_images(path, columns={"image": "file", "label": "diagnosis"})


@pytest.mark.parametrize("text", ["image,label\n", "", "\n\n"])
def test_an_empty_manifest_is_refused(tmp_path, text):
    with pytest.raises(
        InputError, match=r"list\.csv (is empty|has no rows|has a header and no rows)"
    ):
        list_images(manifest(tmp_path, text))


def test_a_missing_file_is_named_or_skipped(tmp_path):
    picture(tmp_path / "a.png")
    path = manifest(tmp_path, "image\na.png\ngone.png\n")
    with pytest.raises(InputError, match=r"1 of 2 images are missing, first 'gone\.png'"):
        list_images(path)
    table = list_images(path, on_error="skip")
    assert names(table) == ["a.png"]
    assert "gone.png" in table.notes[0]


def test_a_repeated_row_is_dropped_and_a_contradicting_one_refused(tmp_path):
    picture(tmp_path / "a.png")
    table = list_images(manifest(tmp_path, "image,label\na.png,oat\n./a.png,oat\n"))
    assert len(table) == 1
    assert table.notes == ("1 repeated rows left out",)
    path = manifest(tmp_path, "image,label\na.png,oat\na.png,rye\n")
    with pytest.raises(
        InputError, match="line 2 and line 3 with two values of label, 'oat' and 'rye'"
    ):
        list_images(path)


def test_a_ragged_row_and_a_strange_encoding_are_named(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="line 2: 3 cells where line 1 has 2"):
        list_images(manifest(tmp_path, "image,label\na.png,oat,rye\n"))
    (tmp_path / "latin.csv").write_bytes("image,label\na.png,blé\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        list_images(tmp_path / "latin.csv")
    (tmp_path / "x.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        list_images(tmp_path / "x.parquet")


def test_labels_outside_the_checkpoints_classes_are_named(tmp_path):
    assert encode_labels(["b", "", "a"], ["a", "b"]).tolist() == [1, -1, 0]
    with pytest.raises(InputError, match=r"labels 'c' \(2 rows\) are not among the 2 classes a, b"):
        encode_labels(["a", "c", "c"], ["a", "b"])
    for name in ("oat/1.png", "rye/2.png"):
        picture(tmp_path / name)
    table = list_images(tmp_path)
    assert table.with_classes(["rye", "corn", "oat"]).labels.tolist() == [2, 0]
    with pytest.raises(InputError, match=r"'rye' .1 rows. are not among"):
        table.with_classes(["oat", "corn"])


def test_one_class_where_two_are_needed_is_refused(tmp_path):
    picture(tmp_path / "oat/1.png")
    with pytest.raises(InputError, match="images of at least 2 classes, found oat"):
        list_images(tmp_path).require_classes(2)
    picture(tmp_path / "rye/1.png")
    table = list_images(tmp_path)
    table.require_classes(2)
    with pytest.raises(InputError, match="found rye"):
        table.select([1]).require_classes(2)


def test_no_label_has_several_spellings():
    assert class_names(["3", "-1", "", "nan", "Unknown", "12"]) == ("3", "12")
    assert class_names(["b", "a", "-1"]) == ("a", "b")


def test_a_selection_keeps_rows_together(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    text = "image,label,group,split\na.png,x,g1,s1\nb.png,y,g2,s2\nc.png,x,g3,s3\n"
    part = list_images(manifest(tmp_path, text)).select(np.array([2, 0]))
    assert names(part) == ["c.png", "a.png"]
    assert (part.labels.tolist(), part.groups, part.splits) == ([0, 0], ("g3", "g1"), ("s3", "s1"))


SITES = """image,label,Patient,site,age
a.png,x,p1,leg,30
b.png,y,p1,,31
c.png,x,p2,arm,
"""


def sites(folder: Path):
    for name in ("a.png", "b.png", "c.png"):
        picture(folder / name)
    return list_images(manifest(folder, SITES), columns={"group": "Patient"})


def test_every_column_of_a_manifest_is_kept_by_name(tmp_path):
    table = sites(tmp_path)
    assert list(table.columns) == ["label", "Patient", "site", "age"]
    assert table.column("site") == ("leg", "", "arm")
    assert table.column("patient") == table.groups == ("p1", "p1", "p2")
    with pytest.raises(
        InputError, match=r"no column 'sex' \(the columns are label, Patient, site, age\)"
    ):
        table.column("sex")
    with pytest.raises(InputError, match=r"no column 'sex' \(it has none\).*give a manifest"):
        list_images(tmp_path).column("sex")


def test_columns_follow_a_selection_and_a_split(tmp_path):
    table = sites(tmp_path)
    part = table.select([2, 0])
    assert part.column("site") == ("arm", "leg")
    assert part.column("age") == ("", "30")
    further = part.with_column("sex", ["f", "m"])
    assert further.column("sex") == ("f", "m")
    assert further.select([1]).column("sex") == ("m",)
    text = (
        SITES.replace("age\n", "split\n").replace(",30\n", ",train\n").replace(",31\n", ",test\n")
    )
    split = list_images(manifest(tmp_path, text.replace("arm,", "arm,train")))
    assert split.of_split("train").column("site") == ("leg", "arm")
    with pytest.raises(ValueError, match="2 images, but 1 cells of 'sex'"):
        part.with_column("sex", ["f"])


def test_what_repeated_rows_hold_besides_is_told(tmp_path):
    picture(tmp_path / "a.png")
    table = list_images(manifest(tmp_path, "image,label,age\na.png,oat,3\na.png,oat,4\n"))
    assert table.column("age") == ("3",)
    assert table.notes == ("1 repeated rows left out; of what they hold in age the first counts",)


def test_a_saved_split_keeps_the_columns_and_finds_their_files(tmp_path):
    for name in ("a.png", "b.png", "m/a.png"):
        picture(tmp_path / name)
    text = "image,mask,site\na.png,m/a.png,leg\nb.png,,arm\n"
    table = list_images(manifest(tmp_path, text))
    (tmp_path / "out").mkdir()
    write_splits(tmp_path / "out/splits.csv", table, ["train", "test"], seed=0)
    back = list_images(tmp_path / "out/splits.csv")
    assert back.column("site") == ("leg", "arm")
    assert back.column("mask")[1] == ""
    assert (tmp_path / "out" / back.column("mask")[0]).resolve() == tmp_path / "m/a.png"


def test_a_list_of_names_with_blanks_and_a_packed_manifest_are_read(tmp_path):
    picture(tmp_path / "image no 1.png")
    table = list_images(manifest(tmp_path, "image\nimage no 1.png\n", "list.txt"))
    assert names(table) == ["image no 1.png"]
    by_blanks = manifest(tmp_path, "IMAGE  Label\na.png oat\n", "two.txt")
    picture(tmp_path / "a.png")
    assert list_images(by_blanks).classes == ("oat",)
    with gzip.open(tmp_path / "list.csv.gz", "wt") as file:
        file.write("image;label\na.png;rye\n")
    assert list_images(tmp_path / "list.csv.gz").classes == ("rye",)


def test_whole_numbers_with_points_and_missing_labels_follow_the_rule_of_all_tables(tmp_path):
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
    text = "image,label\na,1.0\nb,0.0\nc,-1.0\nd,NA\n"
    table = list_images(manifest(tmp_path, text))
    assert table.classes == ("0", "1")
    assert table.labels.tolist() == [1, 0, -1, -1]
