"""Which rows are an anchor's positives, as sums over them: no pair of rows is ever compared."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

__all__ = ["Positives", "of_classes", "of_mask"]

_ROWS = 2048  # of the mask at a time: booleans must become numbers to be multiplied


class Positives(NamedTuple):
    """What a loss needs of the positives of each anchor.

    Attributes:
        total: Sum of their rows, ``(n, d)``.
        number: How many there are.
        partner: The column of the one positive, -1 where there are none or several.
    """

    total: Tensor
    number: Tensor
    partner: Tensor


def of_classes(
    anchors: Tensor, candidates: Tensor, own: int, classes: Tensor, num_classes: int
) -> Positives:
    """Return the other rows of the anchor's class.

    Args:
        anchors: Rows ``own``, ``own + 1``, ... of the candidates.
        candidates: All rows.
        own: The first anchor's row.
        classes: Class of each candidate, from 0 on.
        num_classes: How many there are.
    """
    row = torch.arange(len(candidates), device=classes.device)
    total = candidates.new_zeros(num_classes, candidates.shape[1])
    total = total.index_add(0, classes, candidates)
    zeros = row.new_zeros(num_classes)
    size = zeros.index_add(0, classes, torch.ones_like(row))
    rows = zeros.index_add(0, classes, row)
    mine = slice(own, own + len(anchors))
    label = classes[mine]
    count = size[label] - 1
    partner = (rows[label] - row[mine]).masked_fill(count != 1, -1)
    return Positives(total[label] - anchors, count, partner)


def of_mask(
    anchors: Tensor,
    candidates: Tensor,
    own: int,
    samples: Tensor,
    mask: Tensor,
    first_sample: int,
    views: int,
) -> Positives:
    """Return the rows of the samples that the mask gives to the anchor's, without the anchor.

    Args:
        anchors: Rows ``own``, ``own + 1``, ... of the candidates, view by view.
        candidates: All rows.
        own: The first anchor's row.
        samples: Sample of each candidate, from 0 on.
        mask: Whether sample ``first_sample + i`` has sample ``j`` for a positive.
        first_sample: The first anchor's sample.
        views: Rows of a sample.
    """
    n = len(mask)
    of_sample = candidates.new_zeros(mask.shape[1], candidates.shape[1])
    of_sample = of_sample.index_add(0, samples, candidates)
    row = torch.arange(len(anchors), device=mask.device)
    sample = row % n
    itself = mask.diagonal(first_sample)[sample]
    count = views * mask.sum(1)[sample] - itself.long()
    total = cast(Tensor, _MaskedSum.apply(mask, of_sample))[sample]
    total = total - itself[:, None].to(total.dtype) * anchors
    if views == 1:
        others = mask & ~torch.eye(*mask.shape, dtype=torch.bool, device=mask.device).roll(
            first_sample, 1
        )
        partner = others.to(torch.uint8).argmax(1)
    elif views == 2:  # a sample is two rows, so that the one positive is the sample's other view
        partner = own + (row + n) % (2 * n)
    else:
        partner = torch.full_like(row, -1)
    return Positives(total, count, partner.masked_fill(count != 1, -1))


class _MaskedSum(torch.autograd.Function):
    """``mask @ rows``, some rows of the mask at a time in both directions."""

    generate_vmap_rule = True

    @staticmethod
    def forward(mask: Tensor, rows: Tensor) -> Tensor:
        return torch.cat([mask[i].to(rows.dtype) @ rows for i in _parts(mask)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (mask,) = ctx.saved_tensors
        total = mask.new_zeros(mask.shape[1], grad.shape[1], dtype=grad.dtype)
        for i in _parts(mask):
            total = total + mask[i].to(grad.dtype).T @ grad[i]
        return None, total


def _parts(mask: Tensor) -> list[slice]:
    return [slice(i, i + _ROWS) for i in range(0, len(mask), _ROWS)]
