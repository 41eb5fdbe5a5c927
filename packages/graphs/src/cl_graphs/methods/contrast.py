"""The contrastive loss against a view that stays fixed: what an attacker evaluates at each step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.losses import nt_xent
from cl_core.matmul import add_product, inner

__all__ = ["FixedViewLoss"]

BLOCK_ENTRIES = 2**20
"""Similarities held at once: 4 MiB in float32."""

BOUND = 32.0
"""Largest 1 / temperature whose exponentials need no shift in float32."""


class FixedViewLoss:
    r"""GRACE's loss (NT-Xent over $2n$ rows) of a fixed view and a moving one.

    Equal to ``grace_loss(h1, h, temperature)``, but what concerns the fixed view alone is computed
    once, and the gradient is that of $h$ only: together half the work. Similarities are visited in
    blocks of rows, so memory is linear in ``n``.

    Args:
        h1: Projections of the fixed view.
        temperature: $\tau > 0$; below 1/32 the loss is left to `nt_xent`, which shifts.
        anchors: Rows that the loss is of; default all.
    """

    def __init__(
        self,
        h1: Float[Tensor, "n d"],
        temperature: float,
        anchors: Int64[Tensor, " a"] | None = None,
    ) -> None:
        self.h1 = h1.detach() if anchors is None else h1.detach()[anchors]
        self.anchors = anchors
        self.temperature = temperature
        self.rows = max(1, BLOCK_ENTRIES // len(self.h1))
        if self._bounded:
            self.a = self._scaled(self.h1)
            self.own = _others(self.a, self.rows)

    def __call__(self, h: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        h = h if self.anchors is None else h[self.anchors]
        if not self._bounded:
            return nt_xent(self.h1, h, self.temperature)
        loss: Tensor = _Loss.apply(self._scaled(h), self.a, self.own, self.rows)
        return loss

    @property
    def _bounded(self) -> bool:
        return self.temperature * BOUND >= 1

    def _scaled(self, h: Tensor) -> Tensor:
        scaled: Tensor = F.normalize(h) * self.temperature**-0.5
        return scaled


def _others(z: Tensor, rows: int) -> Tensor:
    """Sum exp(z_i . z_k) over k != i."""
    sums = []
    for start in range(0, len(z), rows):
        block = inner(z[start : start + rows], z).exp_()
        block.diagonal(start).zero_()
        sums.append(block.sum(1))
    return torch.cat(sums)


class _Loss(torch.autograd.Function):
    """Value and gradient together; the gradient waits for its factor."""

    @staticmethod
    def forward(ctx: Any, b: Tensor, a: Tensor, own: Tensor, rows: int) -> Tensor:
        n = len(b)
        starts = range(0, n, rows)
        sums_a, sums_b = own.clone(), torch.zeros_like(own)
        kept = []
        for start in starts:
            part = slice(start, start + rows)
            cross, among = inner(b[part], a).exp_(), inner(b[part], b).exp_()
            among.diagonal(start).zero_()
            sums_a += cross.sum(0)
            sums_b[part] = cross.sum(1) + among.sum(1)
            kept = [(cross, among)] if len(starts) == 1 else []
        gradient = torch.zeros_like(b)
        share_a, share_b = sums_a.reciprocal(), sums_b.reciprocal()
        for start in starts:
            part = slice(start, start + rows)
            if kept:
                cross, among = kept[0]
            else:
                cross, among = inner(b[part], a).exp_(), inner(b[part], b).exp_()
                among.diagonal(start).zero_()
            cross.mul_(share_b[part, None] + share_a)
            among.mul_(share_b[part, None] + share_b)
            add_product(gradient[part], cross, a)
            add_product(gradient[part], among, b)
        ctx.save_for_backward(gradient.sub_(a, alpha=2).div_(2 * n))
        return (sums_a.log().mean() + sums_b.log().mean()) / 2 - (a * b).sum(1).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None, None
