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

__all__ = ["SparseMatrix", "WeightedMatrix"]


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


BLOCK_ENTRIES = 2**22
"""Numbers held at once while the gradient of a matrix's entries is computed: 16 MiB in float32."""


@dataclass(frozen=True, eq=False)
class WeightedMatrix(SparseMatrix):
    """A symmetric matrix whose entries have gradients too, in memory linear in their number.

    ``matrix`` and ``transpose`` are one COO tensor that is differentiable in its values.
    """

    @classmethod
    def symmetric(
        cls, index: Int64[Tensor, "2 e"], values: Float[Tensor, " e"], size: int
    ) -> WeightedMatrix:
        """Build the matrix from distinct entries in row-major order.

        Args:
            index: Row and column of each entry; with ``(i, j)`` also ``(j, i)``, of equal value.
            values: The entries, differentiable.
            size: Rows and columns.
        """
        matrix = _ordered(index, values, (size, size))
        return cls(matrix, matrix)

    def __matmul__(self, dense: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
        product: Tensor = _WeightedProduct.apply(
            dense, self.matrix.values(), self.matrix.indices(), len(self.matrix)
        )
        return product


class _WeightedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, values: Tensor, index: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(dense, values, index)
        ctx.size = size
        return _multiply(_ordered(index, values, (size, size)), dense)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        dense, values, index = ctx.saved_tensors
        grad_dense = grad_values = None
        if ctx.needs_input_grad[0]:
            grad_dense = _multiply(_ordered(index, values, (ctx.size, ctx.size)), grad)
        if ctx.needs_input_grad[1]:
            rows = max(1, BLOCK_ENTRIES // dense.shape[1])
            ends = (torch.split(end, rows) for end in index)
            grad_values = torch.cat(
                [(grad[i] * dense[j]).sum(1) for i, j in zip(*ends, strict=True)]
            )
        return grad_dense, grad_values, None, None


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
