"""Arrays of numpy and scipy that hold graphs: feature matrices, and sparse matrices checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.arrays import read_array, read_arrays, readable

__all__ = ["csr_matrix", "feature_array", "sparse_of"]


def csr_matrix(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Any:
    """Put together a scipy CSR matrix from its parts, checked.

    Args:
        arrays: ``<prefix>indices``, ``<prefix>indptr``, ``<prefix>shape`` and, unless all stored
            values are 1, ``<prefix>data``.
        prefix: What the names start with.

    Raises:
        KeyError: If a part is missing.
        ValueError: If an index points outside, which would crash whatever used the matrix.
    """
    import scipy.sparse as sp

    indices = arrays[f"{prefix}indices"]
    data = arrays.get(f"{prefix}data", np.ones(len(indices), dtype=np.float32))
    shape = tuple(int(size) for size in arrays[f"{prefix}shape"])
    matrix = sp.csr_matrix((data, indices, arrays[f"{prefix}indptr"]), shape)
    matrix.check_format(full_check=True)
    return matrix


def feature_array(path: Path) -> Any:
    """Read a feature matrix from ``.npy``, or from an ``.npz`` that holds one.

    Returns:
        Real numbers ``(n, d)``: a numpy array, or scipy CSR.

    Raises:
        InputError: If the file cannot be read or holds something else.
    """
    x = read_array(path) if path.suffix.lower() == ".npy" else _matrix_of_npz(path)
    if x.dtype.kind not in "iufb":
        raise InputError(f"{path} holds {x.dtype}, features must be real numbers")
    if x.ndim != 2:
        raise InputError(
            f"{path} has {x.ndim} dimension(s), features need two: a row per node, a column each"
        )
    return x


def sparse_of(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Any | None:
    """The matrix that ``scipy.sparse.save_npz`` wrote, as CSR; None if it did not write these.

    Raises:
        InputError: If the parts do not fit together.
    """
    if not {"format", "shape", "data"} <= set(arrays):
        return None
    import scipy.sparse as sp

    with readable(path, "a scipy sparse matrix"):
        kind, shape = arrays["format"].item(), tuple(int(size) for size in arrays["shape"])
        if kind == b"csr":
            return csr_matrix(arrays, "")
        if kind == b"csc":
            parts = (arrays["data"], arrays["indices"], arrays["indptr"])
            matrix = sp.csc_matrix(parts, shape)
            matrix.check_format(full_check=True)
            return matrix.tocsr()
        if kind == b"coo":
            # The constructor checks that no index points outside.
            return sp.csr_matrix((arrays["data"], (arrays["row"], arrays["col"])), shape)
        raise ValueError(f"its format is {kind!r}; save it as csr")


def _matrix_of_npz(path: Path) -> Any:
    arrays = read_arrays(path)
    matrix = sparse_of(path, arrays)
    if matrix is not None:
        return matrix
    for key in ("x", "features", *arrays):
        if key in arrays and (key in ("x", "features") or len(arrays) == 1):
            return arrays[key]
    raise InputError(
        f"{path} holds {', '.join(arrays) or 'nothing'}; name the feature matrix x or features"
    )
