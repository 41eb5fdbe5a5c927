"""The feature matrix of a graph: checked, in float32, sparse when dense would not fit a laptop."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.errors import InputError

__all__ = [
    "DEGREE",
    "csr_entries",
    "degree_names",
    "dense_rows",
    "feature_matrix",
    "one_hot_degrees",
    "reordered",
]

DEGREE = "degree"
"""The value of ``features`` that asks for one-hot degrees."""


DENSE_LIMIT = 2**26
"""Entries of the feature matrix (256 MiB as float32) up to which it is held dense."""


def feature_matrix(name: str, x: Any, *, normalize: bool = False) -> Tensor:
    """Bring features to float32, sparse if a dense matrix would be large and mostly zero.

    Args:
        name: Where they come from, for messages.
        x: Numbers ``(n, d)``: a numpy array or a scipy sparse matrix.
        normalize: Divide each row by the sum of its absolute values; zero rows stay.

    Returns:
        Dense, or ``torch.sparse_csr`` if dense would pass 256 MiB and under a tenth is filled.

    Raises:
        InputError: If a value is NaN, infinite or beyond float32.
    """
    import scipy.sparse as sp

    sparse = sp.issparse(x)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and is refused below
        values: Any = x.tocsr().astype(np.float32) if sparse else np.asarray(x, dtype=np.float32)
    bad = ~np.isfinite(values.data if sparse else values)
    if bad.any():
        found = values.tocoo() if sparse else None
        rows, columns = (found.row[bad], found.col[bad]) if found is not None else np.nonzero(bad)
        raise InputError(
            f"{name}: {len(rows):,} feature values are NaN or infinite, the first in row "
            f"{rows[0]}, column {columns[0]} (from 0); replace them"
        )
    if normalize:
        size = np.asarray(abs(values).sum(axis=1)).reshape(-1, 1)
        scale = 1 / np.where(size > 0, size, 1).astype(np.float32)
        values = values.multiply(scale).tocsr() if sparse else values * scale
    filled = values.nnz if sparse else np.count_nonzero(values)
    entries = values.shape[0] * values.shape[1]
    if entries <= DENSE_LIMIT or filled * 10 > entries:
        return torch.from_numpy(values.toarray() if sparse else np.ascontiguousarray(values))
    matrix = sp.csr_matrix(values)
    matrix.sum_duplicates()
    with warnings.catch_warnings():
        # torch calls CSR beta once a process; what is used of it here is tested.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data),
            size=matrix.shape,
            check_invariants=True,
        )


def one_hot_degrees(
    edge_index: Int64[Tensor, "2 e"], num_nodes: int, *, width: int = 65
) -> Float[Tensor, "n d"]:
    """Make features of node degrees, where a graph has nothing else.

    Args:
        edge_index: Both directions of each edge.
        num_nodes: ``n``.
        width: Columns; the last one also takes all larger degrees.

    Returns:
        Rows with a single 1, in column ``min(degree, width - 1)``.
    """
    degrees = torch.bincount(edge_index[0], minlength=num_nodes).clamp(max=width - 1)
    return torch.nn.functional.one_hot(degrees, width).float()


def degree_names(width: int = 65) -> tuple[str, ...]:
    """What the columns of `one_hot_degrees` are called."""
    return (*(f"degree {k}" for k in range(width - 1)), f"degree {width - 1} or more")


def reordered(x: Float[Tensor, "n d"], order: Int64[Tensor, " d"]) -> Float[Tensor, "n d"]:
    """Put the columns of a dense or sparse feature matrix into another order.

    Args:
        x: Strided or ``torch.sparse_csr``.
        order: A permutation; column ``j`` of the result is column ``order[j]`` of ``x``.
    """
    if x.layout == torch.strided:
        return x[:, order].contiguous()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            x.crow_indices(), place[x.col_indices()], x.values(), size=x.shape
        )


def dense_rows(x: Float[Tensor, "n d"], nodes: Int64[Tensor, " k"]) -> Float[Tensor, "k d"]:
    """Take rows of a dense or sparse feature matrix, always as a dense matrix.

    Args:
        x: Strided or ``torch.sparse_csr``.
        nodes: Row numbers, any order.

    Returns:
        ``x[nodes]``; only those rows are ever dense.
    """
    if x.layout == torch.strided:
        return x[nodes]
    entries, owner = csr_entries(x.crow_indices(), nodes)
    rows = torch.zeros(len(nodes), x.shape[1], dtype=x.dtype)
    rows[owner, x.col_indices()[entries]] = x.values()[entries]
    return rows


def csr_entries(
    pointers: Int64[Tensor, " n_plus_1"], rows: Int64[Tensor, " k"]
) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
    """Find what some rows of a compressed sparse row matrix hold.

    Args:
        pointers: Where each row's entries start, with the total at the end, ``(n + 1,)``.
        rows: Row numbers, any order.

    Returns:
        The positions of the entries, row after row, and for each the index into ``rows``.
    """
    starts = pointers[rows]
    lengths = pointers[rows + 1] - starts
    owner = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    first = lengths.cumsum(0) - lengths  # where each row's entries begin in the answer
    return torch.arange(len(owner)) - first[owner] + starts[owner], owner
