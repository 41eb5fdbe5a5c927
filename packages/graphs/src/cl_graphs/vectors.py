"""Embeddings as files: a Parquet table, or an array beside the list of its ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from cl_core.runs import Run, write_atomic

__all__ = ["write_vectors"]


def write_vectors(
    run: Run,
    vectors: Tensor,
    ids: Sequence[int] | Sequence[str],
    *,
    format: Literal["parquet", "npy"],
) -> list[str]:
    """Write one vector per id into a run directory.

    Args:
        run: Where to.
        vectors: ``(n, d)``.
        ids: What the owner calls each row.
        format: ``parquet``: columns ``id``, ``e0``, ``e1``, ...; ``npy``: ``embeddings.npy``
            beside ``ids.txt``, a line per row.

    Returns:
        The names of the files.
    """
    array = vectors.detach().cpu().numpy()
    if format == "parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {"id": list(ids)} | {f"e{k}": column for k, column in enumerate(array.T)}
        with write_atomic(run.output("embeddings.parquet")) as temporary:
            pyarrow.parquet.write_table(pyarrow.table(columns), temporary)
        return ["embeddings.parquet"]
    import numpy as np

    with write_atomic(run.output("embeddings.npy")) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    with write_atomic(run.output("ids.txt")) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in ids), "utf-8")
    return ["embeddings.npy", "ids.txt"]
