"""Matrix products in full precision by the faster of torch's two libraries.

For float32 on the processor torch calls MKL, which is two to four times slower than oneDNN on
processors not by Intel. oneDNN ships with torch too, but for float32 is reached only through an
operator meant for torch's compiler. Where a build lacks it, and on other devices and types, torch
chooses as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["add_product", "affine", "inner", "matmul"]


def affine(
    weight: Float[Tensor, "m k"], bias: Float[Tensor, " m"] | None = None
) -> Callable[[Tensor], Tensor]:
    """Return ``z -> z @ weight.T + bias``, without gradients.

    Args:
        weight: Rows that ``z``'s rows are multiplied with.
        bias: Added to every row of the product.
    """
    if _has_onednn(weight):
        linear = torch.ops.mkldnn._linear_pointwise
        return lambda z: cast(Tensor, linear(z, weight, bias, "none", [], ""))
    if bias is None:
        return lambda z: z @ weight.T
    return lambda z: torch.addmm(bias, z, weight.T)


def inner(
    a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], *, out: Float[Tensor, "n m"] | None = None
) -> Float[Tensor, "n m"]:
    """Multiply every row of ``a`` with every row of ``b``, without gradients.

    Args:
        a: Left rows.
        b: Right rows.
        out: Memory that may be used for the result.

    Returns:
        ``a @ b.T``, in ``out`` or elsewhere.
    """
    return affine(b)(a) if _has_onednn(a) else torch.mm(a, b.T, out=out)


def add_product(
    total: Float[Tensor, "n m"], a: Float[Tensor, "n k"], b: Float[Tensor, "k m"]
) -> None:
    """Add ``a @ b`` to ``total`` in place, without gradients."""
    if not _has_onednn(a):
        total.addmm_(a, b)
    elif a.is_contiguous():
        total.add_(affine(b.T)(a))
    else:  # a transposed factor is faster as the weight
        total.add_(affine(a)(b.T.contiguous()).T)


def matmul(a: Float[Tensor, "n k"], b: Float[Tensor, "k m"]) -> Float[Tensor, "n m"]:
    """Multiply two dense matrices, differentiably (once).

    Args:
        a: Left factor.
        b: Right factor, of the same type and on the same device.
    """
    if not _has_onednn(a) or torch.is_autocast_enabled("cpu"):
        return a @ b
    return cast(Tensor, _Matmul.apply(a, b))


def _has_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return affine(b.T)(a)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        grad_a = affine(b)(grad) if ctx.needs_input_grad[0] else None
        grad_b = affine(grad.T)(a.T) if ctx.needs_input_grad[1] else None
        return grad_a, grad_b
