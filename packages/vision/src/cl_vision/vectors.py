"""Representations as files: a Parquet table, or an array beside the list of its images."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from cl_core.runs import Run, write_atomic
from cl_vision.data import Images

__all__ = ["write_vectors"]


def write_vectors(
    run: Run, vectors: Float[Tensor, "n d"], images: Images, *, format: Literal["parquet", "npy"]
) -> list[str]:
    """Write one vector per image into a run directory.

    Args:
        run: Where to.
        vectors: A row an image.
        images: Whose.
        format: ``parquet``: columns ``file``, ``label`` (the class, empty for none), ``e0``,
            ``e1``, ...; ``npy``: ``embeddings.npy`` beside ``files.txt``, a line per row.

    Returns:
        The names of the files.
    """
    array = vectors.detach().cpu().numpy()
    if format == "parquet":
        import pyarrow
        import pyarrow.parquet

        classes = images.table.classes
        labels = [classes[k] if k >= 0 else None for k in images.table.labels.tolist()]
        columns = {
            "file": pyarrow.array(images.names),
            "label": pyarrow.array(labels, type=pyarrow.string()),
        } | {f"e{k}": pyarrow.array(column) for k, column in enumerate(array.T)}
        with write_atomic(run.output("embeddings.parquet")) as temporary:
            pyarrow.parquet.write_table(pyarrow.table(columns), temporary)
        return ["embeddings.parquet"]
    import numpy as np

    with write_atomic(run.output("embeddings.npy")) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    with write_atomic(run.output("files.txt")) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in images.names), "utf-8")
    return ["embeddings.npy", "files.txt"]
