"""Files a user names, opened with care: nothing in them can run code, every fault is one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError

__all__ = ["csr_matrix", "existing_file", "plain_array", "plain_arrays", "readable"]


def existing_file(path: str | Path) -> Path:
    """Return ``path`` if it is a file with something in it.

    Raises:
        InputError: If it does not exist, is a folder or is empty.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file")
    if not path.is_file():
        raise InputError(f"{path} does not exist; correct the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; give a file with data")
    return path


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a damaged file provokes in a reader into one line about that file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "allow_pickle" in reason:
            reason = "it holds pickled objects, which could run code; save plain arrays"
        raise InputError(f"{path} cannot be read as {what}: {reason}") from error


def plain_array(path: Path) -> NDArray[Any]:
    """Read a ``.npy`` file; a pickle in it is refused, not run."""
    with readable(path, "a numpy array"):
        with path.open("rb") as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def plain_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of a ``.npz`` file; a pickle in it is refused, not run."""
    with (
        readable(path, "an npz of plain arrays"),
        path.open("rb") as stream,  # numpy leaves a broken archive open that it opened itself
        np.load(stream, allow_pickle=False) as file,
    ):
        return {key: file[key] for key in file.files}


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
