"""Embeddings as files: a Parquet table, or an array beside the list of its rows' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from cl_core.runs import Run, write_atomic

__all__ = ["write_vectors"]


def write_vectors(
    run: Run,
    vectors: Tensor,
    about: Mapping[str, Sequence[Any]],
    *,
    format: Literal["parquet", "npy"],
) -> list[str]:
    """Write one vector a row into a run directory.

    Args:
        run: Where to.
        vectors: ``(n, d)``.
        about: Columns of a table, ``n`` values each; the first one names the rows.
        format: ``parquet``: those columns, then ``e0``, ``e1``, ...; ``npy``: ``embeddings.npy``
            beside the first column, a line a row, as ``ids.txt`` for a column ``id``.

    Returns:
        The names of the files.

    Raises:
        ValueError: If a column has another length than there are vectors.
    """
    array = vectors.detach().cpu().numpy()
    for name, values in about.items():
        if len(values) != len(array):
            raise ValueError(f"{len(array)} vectors need as many of {name}, got {len(values)}")
    if format == "parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {
            name: pyarrow.array(list(values), type=_text(pyarrow, values))
            for name, values in about.items()
        } | {f"e{k}": pyarrow.array(column) for k, column in enumerate(array.T)}
        with write_atomic(run.output("embeddings.parquet")) as temporary:
            pyarrow.parquet.write_table(pyarrow.table(columns), temporary)
        return ["embeddings.parquet"]
    import numpy as np

    with write_atomic(run.output("embeddings.npy")) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    first, names = next(iter(about.items()))
    with write_atomic(run.output(f"{first}s.txt")) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names), "utf-8")
    return ["embeddings.npy", f"{first}s.txt"]


def _text(pyarrow: Any, values: Sequence[Any]) -> Any:
    """Text for a column without any value, whose type could not be told."""
    return pyarrow.string() if all(value is None for value in values) else None
