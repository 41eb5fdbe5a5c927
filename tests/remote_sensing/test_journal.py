"""The record of finished rows: what is found again after a kill, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from cl_core.errors import InputError
from cl_remote_sensing.mapping.journal import Journal

KEY = {"model": "a", "size": (3, 4)}
TYPES = ("uint8", "float32")


def rows(seed, height=5, width=7):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 4, (height, width), np.uint8), rng.random((height, width), np.float32)]


def filled(path, *, panels=2):
    with Journal(path, KEY, TYPES, keep=True) as journal:
        for panel in range(panels):
            journal.append(panel, 0, rows(panel))
            journal.append(panel, 5, rows(panel + 10, height=3))
    return path


def test_layers_come_back_as_they_were_kept(tmp_path):
    path = filled(tmp_path / "map.partial")
    with Journal(path, KEY, TYPES, keep=True) as journal:
        assert len(journal) == 4
        for panel in range(2):
            for layer in range(2):
                np.testing.assert_array_equal(journal.read(panel, 0, layer), rows(panel)[layer])
                later = rows(panel + 10, height=3)[layer]
                np.testing.assert_array_equal(journal.read(panel, 5, layer), later)
            assert journal.next_row(panel, 0) == 8
        assert journal.next_row(2, 0) == 0
        journal.remove()
    assert not path.exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "more"])
def test_a_record_that_was_cut_short_or_damaged_is_dropped(tmp_path, damage):
    path = filled(tmp_path / "map.partial")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-3:]
    elif damage == "changed":
        data[-3] ^= 1
    else:
        data += b"\0" * 100
    path.write_bytes(data)
    with Journal(path, KEY, TYPES, keep=True) as journal:
        assert len(journal) == (4 if damage == "more" else 3)
        if damage != "more":
            assert journal.next_row(1, 0) == 5
            journal.append(1, 5, rows(11, height=3))
        assert journal.next_row(1, 0) == 8
    with Journal(path, KEY, TYPES, keep=True) as journal:
        assert len(journal) == 4
        np.testing.assert_array_equal(journal.read(1, 5, 1), rows(11, height=3)[1])


@pytest.mark.parametrize(
    ("key", "types", "keep"),
    [({**KEY, "model": "b"}, TYPES, True), (KEY, ("uint8",), True), (KEY, TYPES, False)],
)
def test_rows_of_another_job_are_dropped(tmp_path, key, types, keep):
    path = filled(tmp_path / "map.partial")
    with Journal(path, key, types, keep=keep) as journal:
        assert len(journal) == 0
    assert not path.exists()  # nothing worth keeping


def test_a_foreign_file_is_begun_anew_and_a_second_writer_refused(tmp_path):
    path = tmp_path / "map.partial"
    path.write_bytes(b"something else")
    with Journal(path, KEY, TYPES, keep=True) as journal:
        journal.append(0, 0, rows(0))
        with pytest.raises(InputError, match="another process is writing this map"):
            Journal(path, KEY, TYPES, keep=True)
        np.testing.assert_array_equal(journal.read(0, 0, 0), rows(0)[0])
    with pytest.raises(InputError, match="cannot write"):
        Journal(tmp_path / "no" / "map.partial", KEY, TYPES, keep=True)
