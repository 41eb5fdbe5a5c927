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

    @property
    def shape(self) -> torch.Size:
        return self.matrix.shape

    def __matmul__(self, dense: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
        product: Tensor = _Product.apply(dense, self.matrix, self.transpose)
        return product


def _coalesced(index: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=False).coalesce()


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
