r"""Row-wise log-sums of a similarity matrix that never exists as a whole.

Every contrastive loss here needs $\log Z_i = \log \sum_k 2^{t_{ik}}$ with $T = A B^\top$; all the
rest is linear in the batch. ($2^t$ costs a quarter of $e^s$ on a CPU, so the rows come scaled such
that $t = s / \log 2$.) The matrix is visited in square tiles of constant size: forward keeps only
$\log Z$, backward computes each tile again, turns it into $G = \partial\ell / \partial T$ and adds
$G B$ and $G^\top A$ to the gradients. Memory is that of the embeddings plus a few tiles.

- Symmetric case, $B = A$ without the diagonal: only tiles on and above the diagonal are visited; a
  tile above it serves as rows and, transposed, as columns. It takes half the products of the
  full matrix.
- Bounded case, $|s| \le 32$: $e^s$ and its sums are normal numbers in float32, so that one
  exponential without a shift serves rows and columns. At colder temperatures each row and each
  column has its own running maximum.
- A matrix of one tile is kept for backward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from cl_core.matmul import add_product, inner

__all__ = ["BOUND", "cross_log_sums", "log_sums", "self_log_sums"]

BOUND = 32.0  # largest |s| of the bounded case
_ROWS_OF_TILE = {"cpu": 2048}  # 16 MB in float32; 1024 gains 10 % on idle cores, loses on busy ones
_ROWS_OF_DEVICE_TILE = 4096  # 64 MB in float32: enough work to hide the launches


def self_log_sums(
    z: Float[Tensor, "n d"], *, bounded: bool, block_size: int | None
) -> Float[Tensor, " n"]:
    r"""Return $\log \sum_{k \ne i} 2^{z_i^\top z_k}$ for every row."""
    return _log_sums(z, None, 0, False, bounded, block_size)[0]


def log_sums(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    *,
    bounded: bool,
    block_size: int | None,
    own: int | None = None,
) -> Float[Tensor, " n"]:
    r"""Return $\log \sum_k 2^{a_i^\top b_k}$ for every row of ``a``.

    With ``own``, row ``i`` of ``a`` is itself row ``own + i`` of ``b`` and that term is left out.
    """
    return _log_sums(a, b, own, False, bounded, block_size)[0]


def cross_log_sums(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], *, bounded: bool, block_size: int | None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    r"""Return the log-sums over the rows and over the columns of $2^{A B^\top}$ from one visit."""
    rows, columns = _log_sums(a, b, None, True, bounded, block_size)
    assert columns is not None
    return rows, columns


def _log_sums(
    a: Tensor,
    b: Tensor | None,
    own: int | None,
    with_columns: bool,
    bounded: bool,
    block_size: int | None,
) -> tuple[Tensor, Tensor | None]:
    if block_size is None:
        block_size = _ROWS_OF_TILE.get(a.device.type, _ROWS_OF_DEVICE_TILE)
    elif block_size < 1:
        raise ValueError(f"block_size must be at least 1 row, got {block_size}")
    result = _LogSums.apply(a, b, own, with_columns, bounded, block_size)
    return cast("tuple[Tensor, Tensor | None]", result)


class _LogSums(torch.autograd.Function):
    """Log-sums over the rows and, if asked for, over the columns; ``b`` None is the symmetric case.

    There the columns' sums and gradients are the same tensors as those of the rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor | None,
        own: int | None,
        with_columns: bool,
        bounded: bool,
        size: int,
    ) -> tuple[Tensor, Tensor | None]:
        symmetric, other = b is None, a if b is None else b
        # Base-2 logarithms where a shift is needed, plain sums where not.
        start = 0.0 if bounded else -math.inf
        rows = a.new_full((len(a),), start)
        columns = a.new_full((len(other),), start) if with_columns else None
        buffer = _buffer(a, other, size)
        tile = None
        with torch.autocast(a.device.type, enabled=False):
            for i, j in _places(len(a), len(other), size, symmetric):
                tile = _tile(a, other, i, j, own, bounded, buffer)
                _accumulate(rows[i], tile, 1, bounded)
                if symmetric and i != j:
                    _accumulate(rows[j], tile, 0, bounded)
                elif columns is not None:
                    _accumulate(columns[j], tile, 0, bounded)
        if bounded:
            rows.log2_()
            columns = None if columns is None else columns.log2_()
        one_tile = bounded and max(len(a), len(other)) <= size
        ctx.save_for_backward(a, b, rows, columns, tile if one_tile else None)
        ctx.own, ctx.bounded, ctx.size = own, bounded, size
        return rows * math.log(2), None if columns is None else columns * math.log(2)

    @staticmethod
    def backward(
        ctx: Any, grad_rows: Tensor, grad_columns: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        # `once_differentiable` looks at grad_rows alone: where that is a constant, as under a mean,
        # it would let a wrong second derivative pass.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this loss can be differentiated once only: call backward without create_graph=True"
            )
        a, b, rows, columns, kept = ctx.saved_tensors
        symmetric, other = b is None, a if b is None else b
        row_weights = _weights(rows, grad_rows, ctx.bounded)
        if symmetric:
            columns, column_weights = rows, row_weights
        elif columns is not None and grad_columns is not None:
            column_weights = _weights(columns, grad_columns, ctx.bounded)
        grad_a = torch.zeros_like(a)
        grad_b = grad_a if symmetric else torch.zeros_like(b) if ctx.needs_input_grad[1] else None
        first, second = _buffer(a, other, ctx.size), _buffer(a, other, ctx.size)
        with torch.autocast(a.device.type, enabled=False):
            for i, j in _places(len(a), len(other), ctx.size, symmetric):
                tile = kept
                if tile is None:
                    tile = _tile(a, other, i, j, ctx.own, ctx.bounded, first)
                of_rows = (rows[i, None], row_weights[i, None])
                of_columns = None if columns is None else (columns[j], column_weights[j])
                g = _gradient(tile, of_rows, of_columns, ctx.bounded, second)
                add_product(grad_a[i], g, other[j])
                # A symmetric tile on the diagonal holds both directions already.
                if grad_b is not None and not (symmetric and i == j):
                    add_product(grad_b[j], g.T, a[i])
        return grad_a, None if symmetric else grad_b, None, None, None, None


def _places(n: int, m: int, size: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    for i in range(0, n, size):
        for j in range(i if symmetric else 0, m, size):
            yield slice(i, min(i + size, n)), slice(j, min(j + size, m))


def _buffer(a: Tensor, b: Tensor, size: int) -> Tensor:
    return a.new_empty(min(size, len(a)) * min(size, len(b)))


def _tile(
    a: Tensor, b: Tensor, i: slice, j: slice, own: int | None, bounded: bool, buffer: Tensor
) -> Tensor:
    """Return $T$ (or $2^T$ where bounded) of one tile, without the rows' own terms."""
    rows, columns = a[i], b[j]
    out = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
    t = inner(rows, columns, out=out)
    if own is not None:
        t.diagonal(own + i.start - j.start).fill_(-math.inf)
    return t.exp2_() if bounded else t


def _accumulate(sums: Tensor, tile: Tensor, dim: int, bounded: bool) -> None:
    """Add a tile's sums; where not bounded, both are base-2 logarithms."""
    if bounded:
        sums += tile.sum(dim)
        return
    # A row of a tile may hold nothing but its own, excluded term.
    top = tile.amax(dim, keepdim=True).clamp_min_(torch.finfo(tile.dtype).min)
    log = (tile - top).exp2_().sum(dim).log2_() + top.squeeze(dim)
    torch.logaddexp2(sums, log, out=sums)


def _weights(log: Tensor, grad: Tensor, bounded: bool) -> Tensor:
    weights = grad * math.log(2)
    return weights.mul_((-log).exp2_()) if bounded else weights


def _gradient(
    tile: Tensor,
    rows: tuple[Tensor, Tensor],
    columns: tuple[Tensor, Tensor] | None,
    bounded: bool,
    buffer: Tensor,
) -> Tensor:
    """Return $G$ of one tile, the sum of what its rows' and its columns' log-sums contribute."""
    g = buffer[: tile.numel()].view(tile.shape)
    if bounded:
        if columns is None:
            return torch.mul(tile, rows[1], out=g)
        return torch.add(rows[1], columns[1], out=g).mul_(tile)
    torch.sub(tile, rows[0], out=g).exp2_().mul_(rows[1])
    if columns is not None:
        g.add_(tile.sub_(columns[0]).exp2_().mul_(columns[1]))
    return g
