from __future__ import annotations

import numpy as np
import pyarrow.parquet
import pytest
import torch

from cl_core.runs import Run
from cl_core.runs.vectors import write_vectors

VECTORS = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def test_a_table_holds_what_is_known_of_a_row_before_its_vector(tmp_path):
    about = {"file": ["b.png", "a.png"], "label": ["cat", None]}
    with Run.create(tmp_path / "run", {}) as run:
        assert write_vectors(run, VECTORS, about, format="parquet") == ["embeddings.parquet"]
    table = pyarrow.parquet.read_table(tmp_path / "run" / "embeddings.parquet")
    assert table.column_names == ["file", "label", "e0", "e1", "e2"]
    assert table["file"].to_pylist() == ["b.png", "a.png"]
    assert table["label"].to_pylist() == ["cat", None]
    assert table["e1"].to_pylist() == [2.0, 5.0]


def test_a_column_without_any_value_is_text(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        write_vectors(run, VECTORS, {"id": [7, 3], "label": [None, None]}, format="parquet")
    table = pyarrow.parquet.read_table(tmp_path / "run" / "embeddings.parquet")
    assert table.schema.field("label").type == pyarrow.string()
    assert table.schema.field("id").type == pyarrow.int64()


def test_an_array_lies_beside_the_names_of_its_rows(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        names = write_vectors(run, VECTORS, {"id": [7, 3]}, format="npy")
    assert names == ["embeddings.npy", "ids.txt"]
    array = np.load(tmp_path / "run" / "embeddings.npy", allow_pickle=False)
    np.testing.assert_array_equal(array, VECTORS.numpy())
    assert (tmp_path / "run" / "ids.txt").read_text() == "7\n3\n"


def test_a_name_too_few_is_refused(tmp_path):
    with (
        Run.create(tmp_path / "run", {}) as run,
        pytest.raises(ValueError, match="2 vectors need as many of id, got 1"),
    ):
        write_vectors(run, VECTORS, {"id": [7]}, format="npy")
