r"""Row-wise log-sum-exp of a similarity matrix that never exists as a whole.

Every contrastive loss here needs $\log Z_i = \log \sum_k e^{s_{ik}}$ with $s = A B^\top$; all the
rest is linear in the batch. The matrix is visited in square tiles of constant size: forward keeps
only $\log Z$, backward computes each tile again, turns it into $G = \partial\ell / \partial s$ and
adds $G B$ and $G^\top A$ to the gradients. Memory is that of the embeddings plus a few tiles.

- $A = B$ (every row against all others): only tiles on and above the diagonal are visited; a tile
  above it serves as rows of $A$ and, transposed, as rows of $B$.
- ``bounded``: if $|s| \le 32$, then $e^s$ and its sums are normal numbers in float32, so the
  exponential is taken once without a shift and shared by rows, columns and both passes. Otherwise
  (colder temperatures) each row has its own running maximum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["BOUND", "cross_log_sums", "log_sums", "self_log_sums"]

BOUND = 32.0
_TILE = {"cpu": 512}  # rows of a tile that stays in a core's cache; see benchmarks/losses.py
_DEVICE_TILE = 4096  # 64 MB in float32: enough work to hide the launches


def self_log_sums(
    z: Float[Tensor, "n d"], *, bounded: bool, block_size: int | None
) -> Float[Tensor, " n"]:
    r"""Return $\log \sum_{k \ne i} e^{z_i^\top z_k}$ for every row."""
    return _apply(z, None, 0, False, bounded, block_size)[0]


def log_sums(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    *,
    bounded: bool,
    block_size: int | None,
    own: int | None = None,
) -> Float[Tensor, " n"]:
    r"""Return $\log \sum_k e^{a_i^\top b_k}$ for every row of ``a``.

    With ``own``, row ``i`` of ``a`` is itself row ``own + i`` of ``b`` and that term is left out.
    """
    return _apply(a, b, own, False, bounded, block_size)[0]


def cross_log_sums(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], *, bounded: bool, block_size: int | None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    r"""Return the log-sums over the rows and over the columns of $e^{A B^\top}$ from one visit."""
    rows, columns = _apply(a, b, None, True, bounded, block_size)
    assert columns is not None
    return rows, columns


def _apply(
    a: Tensor,
    b: Tensor | None,
    own: int | None,
    columns: bool,
    bounded: bool,
    block_size: int | None,
) -> tuple[Tensor, Tensor | None]:
    if block_size is None:
        block_size = _TILE.get(a.device.type, _DEVICE_TILE)
    elif block_size < 1:
        raise ValueError(f"block_size must be at least 1 row, got {block_size}")
    result = _LogSums.apply(a, b, own, columns, bounded, block_size)
    return cast("tuple[Tensor, Tensor | None]", result)


def _tiles(n: int, m: int, size: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    for i in range(0, n, size):
        for j in range(i if symmetric else 0, m, size):
            yield slice(i, min(i + size, n)), slice(j, min(j + size, m))


class _LogSums(torch.autograd.Function):
    """Log-sums over rows (and columns); ``b is None`` means ``b = a`` without the diagonal.

    In that case the sums over columns and the gradient of ``b`` are the same tensors as those over
    rows and of ``a``, so one code serves both cases.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor | None,
        own: int | None,
        columns: bool,
        bounded: bool,
        size: int,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.own, ctx.bounded, ctx.size = own, bounded, size
        symmetric = b is None
        other = a if b is None else b
        start = 0.0 if bounded else float("-inf")
        rows = a.new_full((len(a),), start)
        cols = rows if symmetric else other.new_full((len(other),), start) if columns else None
        scratch = _scratch(a, other, size)
        with torch.autocast(a.device.type, enabled=False):
            for i, j in _tiles(len(a), len(other), size, symmetric):
                tile = _tile(a, other, i, j, own, bounded, scratch)
                _accumulate(rows[i], tile, 1, bounded)
                if cols is not None and not (symmetric and i == j):
                    _accumulate(cols[j], tile, 0, bounded)
        if bounded:
            rows.log_()
            if cols is not None and not symmetric:
                cols.log_()
        cols = None if symmetric else cols
        ctx.save_for_backward(a, b, rows, cols)
        return rows, cols

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_rows: Tensor, grad_cols: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        a, b, rows, cols = ctx.saved_tensors
        symmetric = b is None
        other = a if symmetric else b
        if symmetric:
            cols, grad_cols = rows, grad_rows
        grad_a = torch.zeros_like(a)
        grad_b = grad_a if symmetric else torch.zeros_like(b) if ctx.needs_input_grad[1] else None
        scratch = _scratch(a, other, ctx.size)
        with torch.autocast(a.device.type, enabled=False):
            for i, j in _tiles(len(a), len(other), ctx.size, symmetric):
                tile = _tile(a, other, i, j, ctx.own, ctx.bounded, scratch)
                g = _share(tile, rows[i, None], grad_rows[i, None], ctx.bounded)
                if grad_cols is not None and not (symmetric and i == j):
                    g = g + _share(tile, cols[j], grad_cols[j], ctx.bounded)
                grad_a[i].addmm_(g, other[j])
                if grad_b is not None:
                    grad_b[j].addmm_(g.T, a[i])
        return grad_a, None if symmetric else grad_b, None, None, None, None


def _scratch(a: Tensor, b: Tensor, size: int) -> Tensor:
    return a.new_empty(min(size, len(a)) * min(size, len(b)))


def _tile(
    a: Tensor, b: Tensor, i: slice, j: slice, own: int | None, bounded: bool, scratch: Tensor
) -> Tensor:
    """Return $s$ (or $e^s$ where bounded) of one tile, without the rows' own terms."""
    rows, columns = a[i], b[j].T
    s = scratch[: len(rows) * columns.shape[1]].view(len(rows), columns.shape[1])
    torch.mm(rows, columns, out=s)
    if own is not None:
        s.diagonal(own + i.start - j.start).fill_(float("-inf"))
    return s.exp_() if bounded else s


def _accumulate(sums: Tensor, tile: Tensor, dim: int, bounded: bool) -> None:
    if bounded:
        sums += tile.sum(dim)
    else:
        torch.logaddexp(sums, tile.logsumexp(dim), out=sums)


def _share(tile: Tensor, log_sums: Tensor, weight: Tensor, bounded: bool) -> Tensor:
    if bounded:
        return tile * (weight * (-log_sums).exp())
    return (tile - log_sums).exp_().mul_(weight)
