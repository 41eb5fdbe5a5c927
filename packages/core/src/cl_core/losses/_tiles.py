r"""Row-wise log-sums of a similarity matrix that never exists as a whole.

Every contrastive loss here needs $\log_2 Z_i = \log_2 \sum_k 2^{t_{ik}}$ with $T = A B^\top$; all
the rest is linear in the batch. ($2^t$ costs a quarter of $e^s$ on a CPU, so the rows come scaled
such that $t = s / \log 2$.) The matrix is visited in square tiles of constant size: forward keeps
only $\log_2 Z$, backward computes each tile again, turns it into $G = \partial\ell / \partial T$
and adds $G B$ and $G^\top A$ to the gradients. Memory is that of the embeddings plus a few tiles.

- Symmetric case, $B = A$ without the diagonal: only tiles on and above the diagonal are visited; a
  tile above it serves as rows and, transposed, as columns. It takes half the products of the
  full matrix.
- Bounded case, $|s| \le 32$: $e^s$ and its sums are normal numbers in float32, so that one
  exponential without a shift serves rows and columns. At colder temperatures each row and each
  column has its own running maximum.
- A matrix of one tile is kept for backward.
- Terms left out of the sums (a row's own, its partner's, what a `Choice` drops) are $-\infty$ in
  $T$.
- Tiles are float32 (or as wide as the rows); the sums of a row are added up in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cl_core.losses._rows import wide
from cl_core.matmul import add_product, inner

__all__ = ["Choice", "Terms", "gradients", "shapes", "sums"]


class Choice(NamedTuple):
    """Which columns belong to a row: told from their samples and classes, tile by tile.

    Attributes:
        keep: ``"same"`` keeps the columns of the row's own sample and of its class; ``"other"``
            keeps those of its own sample and of all other classes.
        samples: Number of the sample of each row.
        samples_of_columns: The same of each column.
        classes: Class of each row; None where ``mask`` says what is of a class.
        classes_of_columns: The same of each column.
        mask: Whether sample ``first_sample + i`` takes sample ``j`` for its own class.
        first_sample: The sample that the first row of the mask speaks of.
    """

    keep: Literal["same", "other"]
    samples: Tensor
    samples_of_columns: Tensor
    classes: Tensor | None = None
    classes_of_columns: Tensor | None = None
    mask: Tensor | None = None
    first_sample: int = 0

    def dropped(self, i: slice, j: slice) -> Tensor:
        """Return the tile's mask of what does not belong."""
        rows, columns = self.samples[i, None], self.samples_of_columns[j]
        if self.mask is not None:
            same = self.mask[rows - self.first_sample, columns]
        else:
            assert self.classes is not None
            assert self.classes_of_columns is not None
            same = self.classes[i, None] == self.classes_of_columns[j]
        if self.keep == "same":
            same.logical_not_()
        return same.logical_and_(rows != columns)


class Terms(NamedTuple):
    """The terms of the sums: all pairs of a row and a column but those named here.

    Attributes:
        diagonals: Row ``i`` leaves out column ``k + i`` for each ``k`` of these: itself, and its
            partner where that is as simple.
        partner: One more column that each row leaves out, -1 for none. In the symmetric case, and
            where the columns are summed too, the partner's partner is the row.
        choice: What else is left out.
    """

    diagonals: tuple[int, ...] = ()
    partner: Tensor | None = None
    choice: Choice | None = None


def sums(
    a: Tensor, b: Tensor | None, terms: Terms, with_columns: bool, bounded: bool, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the base-2 log-sums of the rows, those of the columns, and a tile to keep.

    ``b`` None is the symmetric case. Columns that are not asked for, and the tile if the matrix
    has several, are empty.
    """
    symmetric, other = b is None, a if b is None else b
    rows, columns, none = shapes(a, b, with_columns, bounded, 0)
    # Base-2 logarithms where a shift is needed, plain sums where not.
    rows.fill_(0.0 if bounded else -math.inf)
    columns.fill_(0.0 if bounded else -math.inf)
    buffer = _buffer(a, other, size)
    keep = _is_kept(a, other, bounded, size)
    kept = none
    with torch.autocast(a.device.type, enabled=False):
        for i, j in _places(len(a), len(other), size, symmetric):
            tile = _tile(a, other, i, j, terms, bounded, buffer)
            _accumulate(rows[i], tile, 1, bounded)
            if symmetric and i != j:
                _accumulate(rows[j], tile, 0, bounded)
            elif with_columns:
                _accumulate(columns[j], tile, 0, bounded)
            kept = tile if keep else none
            del tile  # or two would be alive while the next is made
    if bounded:
        rows.log2_()
        columns.log2_()
    return rows, columns, kept


def shapes(
    a: Tensor, b: Tensor | None, with_columns: bool, bounded: bool, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tensors of the shapes and types that `sums` returns, of any content."""
    other = a if b is None else b
    kept = (len(a), len(other)) if _is_kept(a, other, bounded, size) else (0, 0)
    columns = len(other) if with_columns else 0
    return (
        a.new_empty(len(a), dtype=wide(a)),
        a.new_empty(columns, dtype=wide(a)),
        a.new_empty(kept),
    )


def gradients(
    a: Tensor,
    b: Tensor | None,
    terms: Terms,
    with_columns: bool,
    bounded: bool,
    size: int,
    saved: tuple[Tensor, ...],
    grads: tuple[Tensor, Tensor],
    needs_b: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``a`` and ``b`` (empty if not needed).

    Args:
        a: As it was given to `sums`, as are all arguments up to ``size``.
        b: As given.
        terms: As given.
        with_columns: As given.
        bounded: As given.
        size: As given.
        saved: What `sums` returned.
        grads: The gradients of the rows' and the columns' log-sums.
        needs_b: Whether ``b`` wants its gradient.
    """
    rows, columns, kept = saved
    grad_rows, grad_columns = grads
    symmetric, other = b is None, a if b is None else b
    of_rows = _scales(rows, grad_rows, bounded, a.dtype)
    of_columns = None
    if symmetric:
        of_columns = of_rows
    elif with_columns:
        of_columns = _scales(columns, grad_columns, bounded, a.dtype)
    grad_a = torch.zeros_like(a)
    grad_b = torch.zeros_like(other) if needs_b and not symmetric else a.new_empty(0, 0)
    target = grad_a if symmetric else grad_b
    first, second = _buffer(a, other, size), _buffer(a, other, size)
    keep = _is_kept(a, other, bounded, size)
    with torch.autocast(a.device.type, enabled=False):
        for i, j in _places(len(a), len(other), size, symmetric):
            tile = kept if keep else _tile(a, other, i, j, terms, bounded, first)
            g = _gradient(tile, of_rows, of_columns, i, j, bounded, second)
            del tile
            add_product(grad_a[i], g, other[j])
            # A symmetric tile on the diagonal holds both directions already.
            if (symmetric and i != j) or (needs_b and not symmetric):
                add_product(target[j], g.T, a[i])
    return grad_a, grad_b


def _is_kept(a: Tensor, b: Tensor, bounded: bool, size: int) -> bool:
    return bounded and max(len(a), len(b)) <= size


def _places(n: int, m: int, size: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    for i in range(0, n, size):
        for j in range(i if symmetric else 0, m, size):
            yield slice(i, min(i + size, n)), slice(j, min(j + size, m))


def _buffer(a: Tensor, b: Tensor, size: int) -> Tensor:
    return a.new_empty(min(size, len(a)) * min(size, len(b)))


def _tile(
    a: Tensor, b: Tensor, i: slice, j: slice, terms: Terms, bounded: bool, buffer: Tensor
) -> Tensor:
    """Return $T$ (or $2^T$ where bounded) of one tile, without the terms left out."""
    rows, columns = a[i], b[j]
    out = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
    t = inner(rows, columns, out=out)
    for k in terms.diagonals:
        t.diagonal(k + i.start - j.start).fill_(-math.inf)
    if terms.partner is not None:
        column = terms.partner[i, None] - j.start
        inside = (column >= 0) & (column < len(columns))
        column = column.clamp(0, len(columns) - 1)
        t.scatter_(1, column, t.gather(1, column).masked_fill_(inside, -math.inf))
    if terms.choice is not None:
        t.masked_fill_(terms.choice.dropped(i, j), -math.inf)
    return t.exp2_() if bounded else t


def _accumulate(totals: Tensor, tile: Tensor, dim: int, bounded: bool) -> None:
    """Add a tile's sums; where not bounded, both are base-2 logarithms."""
    if bounded:
        totals += tile.sum(dim)
        return
    # A row of a tile may hold nothing but terms left out.
    top = tile.amax(dim, keepdim=True).clamp_min_(torch.finfo(tile.dtype).min)
    log = (tile - top).exp2_().sum(dim).to(totals.dtype).log2_() + top.squeeze(dim)
    torch.logaddexp2(totals, log, out=totals)


def _scales(log: Tensor, grad: Tensor, bounded: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r"""Return $h$ and $w$ with $w 2^{t - h} = g 2^t / Z$, $h$ exact in the tile's type.

    An empty sum has the logarithm $-\infty$ and the gradient 0: any finite one serves as well.
    """
    if bounded:  # h = 0
        weight = log.clamp_min(-100).neg_().exp2_().mul_(grad).to(dtype)
        return weight, weight
    log = log.clamp_min(-(2.0**60))
    shift = log.to(dtype)
    return shift, (shift - log).exp2_().mul_(grad).to(dtype)


def _gradient(
    tile: Tensor,
    rows: tuple[Tensor, Tensor],
    columns: tuple[Tensor, Tensor] | None,
    i: slice,
    j: slice,
    bounded: bool,
    buffer: Tensor,
) -> Tensor:
    """Return $G$ of one tile, the sum of what its rows' and its columns' log-sums contribute."""
    g = buffer[: tile.numel()].view(tile.shape)
    if bounded:
        if columns is None:
            return torch.mul(tile, rows[1][i, None], out=g)
        return torch.add(rows[1][i, None], columns[1][j], out=g).mul_(tile)
    torch.sub(tile, rows[0][i, None], out=g).exp2_().mul_(rows[1][i, None])
    if columns is not None:
        g.add_(tile.sub_(columns[0][j]).exp2_().mul_(columns[1][j]))
    return g
