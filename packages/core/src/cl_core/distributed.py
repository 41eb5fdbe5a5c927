"""What the suite asks of the other processes; the only module that talks to the process group.

Every function also works without a process group, where this process is the whole world.

Gradients follow one rule. If every rank computes the loss of the joint batch, then backward
through these functions yields, on every rank, the gradient of the *sum* of the ranks' losses with
respect to that rank's tensors; ``DistributedDataParallel`` divides by the number of ranks, and the
result is the gradient that one process would get from the joint batch.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["gather_rows", "is_main", "rank", "sum_over_ranks", "world_size"]


def world_size() -> int:
    """Return the number of processes that train together, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return rank() == 0


def gather_rows(rows: Shaped[Tensor, "n ..."], *, grad: bool = True) -> Shaped[Tensor, "m ..."]:
    """Concatenate the rows of all ranks, in the order of the ranks.

    Args:
        rows: This rank's rows; every rank brings as many, of the same shape and type.
        grad: Whether gradients flow back, summed over the losses of all ranks. Backward is then a
            collective operation: every rank has to run it.

    Returns:
        The ``m = n * world_size()`` rows, the same on every rank; ``rows`` itself when alone.

    Raises:
        ValueError: If the ranks bring different numbers of rows; raised on every rank.
    """
    world = world_size()
    if world == 1:
        return rows if grad else rows.detach()
    counts = torch.zeros(world, dtype=torch.int64, device=rows.device)
    counts[rank()] = len(rows)
    dist.all_reduce(counts)
    if (counts != len(rows)).any():
        raise ValueError(
            f"gather_rows needs equally many rows on every rank, got {counts.tolist()}: drop the "
            "last incomplete batch or use a sampler that pads it"
        )
    if grad:
        return cast(Tensor, _GatherRows.apply(rows))
    return _all_gather(rows.detach())


def sum_over_ranks(value: Tensor) -> Tensor:
    """Add up one tensor over all ranks, differentiably.

    Args:
        value: This rank's part, of the same shape on every rank.

    Returns:
        The sum, the same on every rank; ``value`` itself when alone.
    """
    if world_size() == 1:
        return value
    return cast(Tensor, _SumOverRanks.apply(value))


def _all_gather(rows: Tensor) -> Tensor:
    world = world_size()
    gathered = rows.new_empty((world * len(rows), *rows.shape[1:]))
    dist.all_gather(list(gathered.chunk(world)), rows.contiguous())
    return gathered


def _all_sum(value: Tensor) -> Tensor:
    total = value.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _all_gather(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Each rank's loss holds a share of the gradient of every row.
        return _all_sum(grad).chunk(world_size())[rank()]


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _all_sum(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _all_sum(grad)
