"""The log-sums of `_tiles` as differentiable functions, also for ``torch.func`` and the compiler.

The tiles are written and read in place, which neither functorch nor the compiler can follow.
``torch.func`` therefore meets functions of its own kind, whose ``vmap`` takes one element after
the other; the compiler meets two operators that it calls without looking inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from cl_core.losses._tiles import Choice, Terms, gradients, shapes, sums

__all__ = ["cross_log_sums", "log_sums", "self_log_sums"]

_ROWS_OF_TILE = {"cpu": 2048}  # 16 MB in float32; 1024 gains 10 % on idle cores, loses on busy ones
_ROWS_OF_DEVICE_TILE = 4096  # 64 MB in float32: enough work to hide the launches


def self_log_sums(
    z: Float[Tensor, "n d"],
    *,
    bounded: bool,
    block_size: int | None,
    diagonals: tuple[int, ...] = (0,),
    partner: Integer[Tensor, " n"] | None = None,
    choice: Choice | None = None,
) -> Float[Tensor, " n"]:
    r"""Return $\log \sum_{k \ne i} 2^{z_i^\top z_k}$ for every row.

    The other arguments leave out more, as those of `log_sums`.
    """
    return _log_sums(z, None, Terms(diagonals, partner, choice), False, bounded, block_size)[0]


def log_sums(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    *,
    bounded: bool,
    block_size: int | None,
    diagonals: tuple[int, ...] = (),
    partner: Integer[Tensor, " n"] | None = None,
    choice: Choice | None = None,
) -> Float[Tensor, " n"]:
    r"""Return $\log \sum_k 2^{a_i^\top b_k}$ for every row of ``a``.

    Row ``i`` of ``a`` leaves out the terms of the rows ``k + i`` of ``b`` for each ``k`` of
    ``diagonals``, that of row ``partner[i]`` unless it is -1, and those that ``choice`` drops.
    """
    return _log_sums(a, b, Terms(diagonals, partner, choice), False, bounded, block_size)[0]


def cross_log_sums(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "n d"],
    *,
    bounded: bool,
    block_size: int | None,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    r"""Return the log-sums over rows and over columns of $2^{A B^\top}$ without its diagonal."""
    return _log_sums(a, b, Terms((0,)), True, bounded, block_size)


def _log_sums(
    a: Tensor,
    b: Tensor | None,
    terms: Terms,
    with_columns: bool,
    bounded: bool,
    block_size: int | None,
) -> tuple[Tensor, Tensor]:
    if block_size is None:
        block_size = _ROWS_OF_TILE.get(a.device.type, _ROWS_OF_DEVICE_TILE)
    elif block_size < 1:
        raise ValueError(f"block_size must be at least 1 row, got {block_size}")
    rows, columns, _ = _LogSums.apply(a, b, *_flat(terms), with_columns, bounded, block_size)
    return rows * math.log(2), columns * math.log(2) if with_columns else columns


# Functions and operators take tensors and numbers only, in a row: `Terms`, flat, amid the others.
_INPUTS = (
    "Tensor a, Tensor? b, int[] diagonals, Tensor? partner, str? keep, Tensor? samples, "
    "Tensor? samples_of_columns, Tensor? classes, Tensor? classes_of_columns, Tensor? mask, "
    "int first_sample, bool with_columns, bool bounded, int size"
)
_SAVED = "Tensor rows, Tensor columns, Tensor tile"


def _flat(terms: Terms) -> tuple[Any, ...]:
    return (terms.diagonals, terms.partner, *(terms.choice or (None,) * 6 + (0,)))


def _terms(diagonals: Sequence[int], partner: Tensor | None, *choice: Any) -> Terms:
    return Terms(tuple(diagonals), partner, None if choice[0] is None else Choice(*choice))


def _forward(a: Tensor, b: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return sums(a, b, _terms(*rest[:9]), *rest[9:])


def _backward(a: Tensor, b: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    with_columns, bounded, size, *saved, grad_rows, grad_columns, needs_b = rest[9:]
    grads = (grad_rows, grad_columns)
    return gradients(
        a, b, _terms(*rest[:9]), with_columns, bounded, size, tuple(saved), grads, needs_b
    )


_forward_operator = torch.library.custom_op(
    "cl_core::log_sums",
    _forward,
    mutates_args=(),
    schema=f"({_INPUTS}) -> (Tensor, Tensor, Tensor)",
)
_backward_operator = torch.library.custom_op(
    "cl_core::log_sums_backward",
    _backward,
    mutates_args=(),
    schema=f"({_INPUTS}, {_SAVED}, Tensor grad_rows, Tensor grad_columns, bool needs_b)"
    " -> (Tensor, Tensor)",
)


@_forward_operator.register_fake
def _(a: Tensor, b: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return shapes(a, b, *rest[9:])


@_backward_operator.register_fake
def _(a: Tensor, b: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    grad_b = a.new_empty(0, 0) if b is None or not rest[-1] else torch.empty_like(b)
    return torch.empty_like(a), grad_b


class _LogSums(torch.autograd.Function):
    """`sums` with the gradients of its first two arguments."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        return (_forward_operator if torch.compiler.is_compiling() else _forward)(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[2])
        tensors = [x if isinstance(x, Tensor) else None for x in inputs]
        ctx.save_for_backward(*tensors, *output)
        ctx.numbers = [None if isinstance(x, Tensor) else x for x in inputs]

    @staticmethod
    def backward(
        ctx: Any, grad_rows: Tensor | None, grad_columns: Tensor | None, _: Any
    ) -> tuple[Tensor | None, ...]:
        *tensors, rows, columns, tile = ctx.saved_tensors
        inputs = [x if y is None else y for x, y in zip(tensors, ctx.numbers, strict=True)]
        grad_rows = torch.zeros_like(rows) if grad_rows is None else grad_rows
        grad_columns = torch.zeros_like(columns) if grad_columns is None else grad_columns
        args = (*inputs, rows, columns, tile, grad_rows, grad_columns, ctx.needs_input_grad[1])
        if torch.is_grad_enabled():  # create_graph=True, and always under torch.func
            grad_a, grad_b = _Gradients.apply(*args)
        else:
            grad_a, grad_b = _Gradients.forward(*args)
        needs_b = inputs[1] is not None and ctx.needs_input_grad[1]
        return grad_a, grad_b if needs_b else None, *[None] * (len(inputs) - 2)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _one_by_one(_LogSums.apply, info.batch_size, in_dims, args)


class _Gradients(torch.autograd.Function):
    """`gradients`, which have none themselves."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, Tensor]:
        return (_backward_operator if torch.compiler.is_compiling() else _backward)(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(
            "this loss can be differentiated once only: its second derivative is not implemented"
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _one_by_one(_Gradients.apply, info.batch_size, in_dims, args)


def _one_by_one(
    function: Callable[..., tuple[Tensor, ...]],
    count: int,
    in_dims: tuple[Any, ...],
    args: tuple[Any, ...],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Call a function on every element of a vmap in turn, so that memory stays that of one."""
    pairs = list(zip(args, in_dims, strict=True))
    results = [
        function(*[x.select(d, i) if isinstance(d, int) else x for x, d in pairs])
        for i in range(count)
    ]
    stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)
