"""Files of users: each read by one reader, each fault one line, nothing larger than told."""

import gzip
import io
import json
import struct
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutants import mutants

from cl_core.errors import InputError
from cl_core.tables.arrays import read_array, read_arrays
from cl_core.tables.documents import parse_json, parse_yaml, read_json, read_yaml
from cl_core.tables.files import read_table
from cl_core.tables.ids import find_owner, owners_rows
from cl_core.tables.labels import class_names, encode_labels, is_missing


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(table):
    return [list(column.cells) for column in table.columns]


# Documents


def bomb(levels=14):
    lines = ["a: &a {x: 1}"]
    for k in range(levels):
        one, before = chr(98 + k), chr(97 + k)
        lines.append(f"{one}: &{one} {{p: *{before}, q: *{before}, r: *{before}, s: *{before}}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(), "b.yaml unfolds to more than 2,000,000 values"),
        ("[" * 20_000, "b.yaml is nested more than 64 deep"),
        ("a: " * 3 + "1", "b.yaml is no YAML in line 1"),
        ("a: {b", "b.yaml is no YAML in line 1"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: " + "9" * 5000, "b.yaml is no YAML: Exceeds the limit"),
        ("a: 2026-13-45", "b.yaml is no YAML: month must be in 1..12"),
        ("&a [*a]", "b.yaml: .a stands inside itself"),
        ("a: \x07", "b.yaml is no YAML"),
        (b"caf\xe9: 1", "b.yaml is not UTF-8 text .byte 3.: save it as UTF-8"),
    ],
)
def test_yaml_of_strangers_ends_in_one_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        read_yaml(written(tmp_path / "b.yaml", text))
    assert "\n" not in str(error.value)


def test_yaml_that_is_meant_is_read(tmp_path):
    text = "\ufeffbase: &b {x: 1}\nmore: [*b, *b]\nnothing:\n"
    read = read_yaml(written(tmp_path / "b.yaml", text))
    assert read == {"base": {"x": 1}, "more": [{"x": 1}, {"x": 1}], "nothing": None}
    assert parse_yaml("", source="x") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "c.json is nested more than 64 deep"),
        ("[" * 100 + "]" * 100, "c.json is nested more than 64 deep"),
        ("{", "c.json is damaged or no JSON"),
        ('{"a": Infinity}', "Infinity is not JSON"),
        ("9" * 5000, "c.json is damaged or no JSON: Exceeds the limit"),
    ],
)
def test_json_of_strangers_ends_in_one_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_json(written(tmp_path / "c.json", text))


def test_json_that_is_meant_is_read():
    assert parse_json('{"a": [1, 2.5, null]}', source="x") == {"a": [1, 2.5, None]}


def test_what_is_no_file_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError):
            read_yaml(path)
        with pytest.raises(InputError):
            read_table(path)


def test_a_document_larger_than_told_is_refused(tmp_path, monkeypatch):
    from cl_core.tables import documents

    with pytest.raises(InputError, match="has 11 bytes, more than the 10 that are read"):
        documents.read_text(written(tmp_path / "x", "a" * 11), most=10)


# Arrays


def npy_header(shape, dtype="<f8"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_arrays_come_back_as_they_were_saved(tmp_path):
    x = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "x.npz", x=x, names=np.array(["a", "b"]))
    assert np.array_equal(read_array(tmp_path / "x.npy"), x)
    arrays = read_arrays(tmp_path / "x.npz")
    assert list(arrays) == ["x", "names"]
    assert np.array_equal(arrays["x"], x)
    assert arrays["names"].tolist() == ["a", "b"]


def test_an_archive_that_unpacks_to_more_than_told_is_refused_before_it_does(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(10**6), b=np.zeros(10**6))
    assert (tmp_path / "x.npz").stat().st_size < 20_000
    with pytest.raises(InputError, match=r"unpacks to more than the 0.0093.* GiB that are read"):
        read_arrays(tmp_path / "x.npz", max_bytes=10**7)
    assert len(read_arrays(tmp_path / "x.npz", max_bytes=16 * 10**6)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy_header((10**15,)), "unpacks to more than the 4 GiB"),
        (npy_header((10**6,)), "promises 8,000,000 bytes"),
        (npy_header((2,), "|O"), "pickled objects, which could run code"),
        (npy_header("'x'"), "cannot be read as a numpy array"),
        (b"\x93NUMPY", "cannot be read as a numpy array"),
        (b"not an array", "cannot be read as a numpy array"),
        (b"", "is empty"),
    ],
)
def test_a_damaged_array_is_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_array(written(tmp_path / "x.npy", content))
    if content:
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("x.npy", content)
        message = message.replace("a numpy array", "an npz of plain arrays")
        with pytest.raises(InputError, match=message):
            read_arrays(tmp_path / "x.npz")


def test_an_archive_of_other_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("run.py", "print(1)")
    with pytest.raises(InputError, match=r"run.py in it is no array"):
        read_arrays(tmp_path / "x.npz")
    with pytest.raises(InputError, match="cannot be read as an npz"):
        read_arrays(written(tmp_path / "y.npz", b"PK\x03\x04 half"))


# Labels


@pytest.mark.parametrize(
    "cell", ["", " ", "unknown", "Unknown", "nan", "NaN", "NA", "n/a", "<NA>", "null", "-1", "-1.0"]
)
def test_a_missing_label_is_no_class(cell):
    assert is_missing(cell)
    assert class_names([cell, "a"]) == ("a",)
    assert encode_labels([cell, "a"]).tolist() == [-1, 0]
    assert encode_labels([cell, "1", "0.0"]).tolist() == [-1, 1, 0]


@pytest.mark.parametrize("cell", ["none", "0", "-0", "-0.0", "a", "-1.5", "-x", "nano", "?"])
def test_a_class_may_be_called_so(cell):
    assert not is_missing(cell)


@pytest.mark.parametrize("cell", ["none", "None", "?", "-", ".", "missing"])
def test_among_whole_numbers_a_word_for_missing_is_no_class(cell):
    assert class_names([cell, "3", "2.0"]) == ("2", "3")
    assert encode_labels([cell, "3", "2.0"]).tolist() == [-1, 1, 0]
    assert class_names([cell, "oak"]) == tuple(sorted([cell, "oak"]))
    with pytest.raises(InputError, match="are not among the 2 classes ash, oak"):
        encode_labels([cell], ["ash", "oak"])


def test_whole_numbers_are_classes_in_their_order():
    assert class_names(["10", "9", "2.0", "9."]) == ("2", "9", "10")
    assert encode_labels(["10", "9", "2.0", "9."]).tolist() == [2, 1, 0, 1]
    assert class_names(["10", "9", "b"]) == ("10", "9", "b")
    assert encode_labels(["3", "3.0"], ["3"]).tolist() == [0, 0]


def test_fractions_stay_text():
    assert class_names(["3.0", "3.5"]) == ("3.0", "3.5")
    assert encode_labels(["3.5", "3.0"]).tolist() == [1, 0]


def test_a_label_that_is_no_class_is_named_and_counted():
    message = r"y.csv: labels 'rye' \(2 rows\) are not among the 1 classes oat; correct them"
    with pytest.raises(InputError, match=message):
        encode_labels(["rye", "oat", "rye"], ["oat"], source="y.csv")


@given(st.lists(st.sampled_from(["a", "b", "7", "07", "1.0", "1", "", "nan", "-3"]), max_size=12))
def test_every_label_is_its_class_or_missing(labels):
    classes = class_names(labels)
    numbers = encode_labels(labels, classes)
    for cell, number in zip(labels, numbers.tolist(), strict=True):
        assert (number == -1) == is_missing(cell)
        if number >= 0 and not cell.replace(".", "").isdecimal():
            assert classes[number] == cell
    assert numbers.tolist() == encode_labels(labels).tolist()


# Tables


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("t.csv", "a,b\n1,x\n\n2,y\n", (("a", "b"), [["1", "2"], ["x", "y"]])),
        ("t.csv", "a;b\n1;x,z\n", (("a", "b"), [["1"], ["x,z"]])),
        (
            "t.csv",
            'a,b\n1,"x, y"\n2,"two\nlines"\n',
            (("a", "b"), [["1", "2"], ["x, y", "two\nlines"]]),
        ),
        ("t.tsv", "\ufeffa\tb\r\n1\t2\r\n", (("a", "b"), [["1"], ["2"]])),
        ("t.txt", "0 1\n2   3\n", (None, [["0", "2"], ["1", "3"]])),
        ("t.txt", "# no\n0,1\n% no\n2,3\n", (None, [["0", "2"], ["1", "3"]])),
        ("t.csv", "oak\nash\n", (None, [["oak", "ash"]])),
        ("t.csv", "Label\noak\n", (("Label",), [["oak"]])),
        ("t.csv", "0,1\n5,6\n", (None, [["0", "5"], ["1", "6"]])),
        ("t.csv", ",n\n0,5\n", (("", "n"), [["0"], ["5"]])),
    ],
)
def test_a_table_is_read_as_it_is_meant(tmp_path, name, text, expected):
    for path in (written(tmp_path / name, text), tmp_path / f"{name}.gz"):
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(text.encode()))
        table = read_table(path, known={"label"}, comments=True)
        assert (table.names, cells(table)) == expected
        assert len(table) == len(expected[1][0])


def test_a_cell_knows_its_line(tmp_path):
    table = read_table(written(tmp_path / "t.csv", "# c\na,b\n\n1,2\n3,4\n"), comments=True)
    assert [table.columns[0].place(k) for k in range(2)] == ["line 4", "line 5"]


def test_columns_are_found_in_any_case(tmp_path):
    table = read_table(written(tmp_path / "t.csv", "Node_ID,x\n1,2\n"))
    assert table.column("node_id").text == ["1"]
    assert table.column("y") is None
    assert table.without(0).names == ("x",)


def test_lines_may_be_cells(tmp_path):
    table = read_table(written(tmp_path / "t.txt", "a b, c\nd\n"), split=False)
    assert cells(table) == [["a b, c", "d"]]


def test_parquet_keeps_numbers_and_tells_rows(tmp_path):
    columns = {"x": [1.5, 2.0], "k": [1, None], "s": ["a ", None], "w": [True, False]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.names == ("x", "k", "s", "w")
    assert table.column("x").cells.tolist() == [1.5, 2.0]
    assert [column.text for column in table.columns] == [
        ["1.5", "2"],
        ["1", ""],
        ["a", ""],
        ["True", "False"],
    ]
    assert table.columns[0].place(1) == "row 2"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "a,b\n1,2\n3\n", "t.csv, line 3: 1 cells where line 1 has 2"),
        ("t.csv", "a,a\n1,2\n", "two columns are called 'a'"),
        ("t.csv", "", "is empty"),
        ("t.csv", "\n \n", "has no rows"),
        ("t.csv", "label\n", "has a header and no rows"),
        ("t.csv", b"a,b\n\xff,1\n", "is not UTF-8"),
        ("t.csv", 'a,b\n1,"' + "x" * 200_000, "field larger than field limit"),
        ("t.csv.gz", b"\x1f\x8b half", "cannot be unpacked"),
        ("t.csv.gz", b"plain", "cannot be unpacked"),
        ("t.parquet", b"PAR1 half", "cannot be read as Parquet"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message) as error:
        read_table(written(tmp_path / name, content), known={"label"})
    assert "\n" not in str(error.value)


def test_a_table_that_unpacks_to_more_than_told_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cl_core.tables.files.LARGEST_TABLE", 1000)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 300))
    with pytest.raises(InputError, match="unpacks to more than the 1,000 bytes"):
        read_table(tmp_path / "t.csv.gz")
    pyarrow.parquet.write_table(pyarrow.table({"x": np.arange(1000)}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="unpacks to more than the 1,000 bytes"):
        read_table(tmp_path / "t.parquet")


# Owners


def table_of(tmp_path, text):
    return read_table(written(tmp_path / "y.csv", text), known={"label"})


@pytest.mark.parametrize("name", ["id", "node", "Node_ID", "NAME", "vertex", "image", "File"])
def test_an_owner_is_found_by_its_name(tmp_path, name):
    table = table_of(tmp_path, f"label,{name}\na,7\nb,5\n")
    owner = find_owner(table)
    assert owner == (1, "")
    assert owners_rows(table, owner, ["5", "6", "7"]).tolist() == [2, 0]


def test_an_index_without_name_is_an_owner_and_told(tmp_path):
    for head in ("", "Unnamed: 0"):
        owner = find_owner(table_of(tmp_path, f"{head},label\n1,a\n0,b\n"))
        assert owner.column == 0
        assert "nameless first column" in owner.told


def test_a_first_column_of_ids_is_an_owner_and_told(tmp_path):
    table = table_of(tmp_path, "who,label\nb,1\na,0\n")
    assert "first column ('who') holds ids" in find_owner(table, ["a", "b", "c"]).told
    assert find_owner(table, ["a", "c"]) is None
    assert find_owner(table) is None
    assert find_owner(table_of(tmp_path, "who,label\nb,1\nb,0\n"), ["a", "b"]) is None


def test_rows_of_nobody_and_twice_the_same_are_refused(tmp_path):
    table = table_of(tmp_path, "id,label\na,1\nx,0\n")
    with pytest.raises(
        InputError, match=r"y.csv, line 3: 'x' is not one of the 2 ids .such as 'a'"
    ):
        owners_rows(table, find_owner(table), ["a", "b"])
    table = table_of(tmp_path, "id,label\na,1\na,0\n")
    with pytest.raises(InputError, match=r"y.csv, line 3: 'a' has a label already in line 2"):
        owners_rows(table, find_owner(table), ["a", "b"], what="label")


def _samples():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.arange(20.0), y=np.arange(3))
    array = io.BytesIO()
    np.save(array, np.arange(20.0))
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"x": [1.5, 2], "s": ["a", None]}), parquet)
    text = "id,label,x\n1,a,0.5\n2,b,nan\n"
    return {
        "t.csv": (text.encode(), read_table),
        "t.csv.gz": (gzip.compress(text.encode()), read_table),
        "t.parquet": (parquet.getvalue(), read_table),
        "x.npy": (array.getvalue(), read_array),
        "x.npz": (buffer.getvalue(), read_arrays),
        "a.yaml": (b"a: &x {b: [1, 2.5, text]}\nc: *x\n", read_yaml),
        "a.json": (json.dumps({"a": [1, None, {"b": "c"}]}).encode(), read_json),
    }


@pytest.mark.parametrize("name", list(_samples()))
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, name, mutations):
    content, read = _samples()[name]
    for mutant in mutants(content, mutations, seed=0):
        try:
            read(written(tmp_path / name, mutant))
        except InputError as error:
            assert "\n" not in str(error), mutant  # noqa: PT017
