"""A constant sparse matrix that multiplies dense ones, with its gradient.

Torch's own backward of a sparse product sorts the transpose again at every call; here the
transpose is kept, so a product costs its non-zeros and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["SparseMatrix"]


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A constant ``(n, m)`` matrix; ``a @ dense`` is differentiable in ``dense``.

    Attributes:
        matrix: The matrix as a coalesced COO tensor.
        transpose: Its transpose, likewise; the same object when the matrix is symmetric.
    """

    matrix: Tensor
    transpose: Tensor

    @classmethod
    def from_entries(
        cls,
        index: Int64[Tensor, "2 e"],
        values: Float[Tensor, " e"],
        shape: tuple[int, int],
        *,
        symmetric: bool = False,
    ) -> SparseMatrix:
        """Build the matrix from its entries; repeated positions add up.

        Args:
            index: Row and column of each entry, any order.
            values: The entries.
            shape: ``(n, m)``.
            symmetric: The caller knows that the matrix equals its transpose.
        """
        matrix = _coalesced(index, values, shape)
        if symmetric:
            return cls(matrix, matrix)
        return cls(matrix, _coalesced(index.flip(0), values, (shape[1], shape[0])))

    @classmethod
    def from_dense(cls, dense: Float[Tensor, "n m"]) -> SparseMatrix:
        """Take the non-zeros of a dense matrix."""
        index = dense.nonzero().T
        values = dense[index[0], index[1]]
        order = index[1].argsort(stable=True)
        n, m = dense.shape
        return cls(
            _ordered(index, values, (n, m)),
            _ordered(index[:, order].flip(0), values[order], (m, n)),
        )

    def scale_columns(self, factors: Float[Tensor, " m"]) -> SparseMatrix:
        """Multiply column ``j`` by ``factors[j]``; zeros stay stored."""
        matrix, transpose = self.matrix, self.transpose
        index, flipped = matrix.indices(), transpose.indices()
        return SparseMatrix(
            _ordered(index, matrix.values() * factors[index[1]], matrix.shape),
            _ordered(flipped, transpose.values() * factors[flipped[0]], transpose.shape),
        )

    @property
    def shape(self) -> torch.Size:
        return self.matrix.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    def __matmul__(self, dense: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
        product: Tensor = _Product.apply(dense, self.matrix, self.transpose)
        return product


def _coalesced(index: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=False).coalesce()


def _ordered(index: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Like `_coalesced` for entries that are already sorted and distinct."""
    return torch.sparse_coo_tensor(index, values, shape, is_coalesced=True, check_invariants=False)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.transpose = transpose
        return _multiply(matrix, dense)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _multiply(ctx.transpose, grads[0]), None, None


def _multiply(matrix: Tensor, dense: Tensor) -> Tensor:
    # Sparse kernels know no half precision: under autocast the product stays in the matrix's type.
    with torch.autocast(dense.device.type, enabled=False):
        product: Tensor = torch.sparse.mm(matrix, dense.to(matrix.dtype))
        return product
