"""Rows spread over the ranks, addressed as one matrix."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from cl_core.distributed import rank, sum_over_ranks, world_size
from cl_core.kmeans._assign import compute_dtype

__all__ = ["Shards"]


class Shards:
    """The rows of all ranks as one, or those of this process alone.

    Args:
        x: This rank's rows.
        gather: Whether there are other ranks' rows.
    """

    def __init__(self, x: Float[Tensor, "n d"], *, gather: bool) -> None:
        self.x = x
        self.gather = gather and world_size() > 1
        lengths = self.parts(torch.tensor(len(x), dtype=torch.float64, device=x.device))
        self.total = int(lengths.sum())
        self.start = int(lengths[: self.rank].sum())

    @property
    def rank(self) -> int:
        return rank() if self.gather else 0

    def sum(self, value: Tensor) -> Tensor:
        """Add up a tensor over the ranks."""
        return sum_over_ranks(value) if self.gather else value

    def parts(self, value: Tensor) -> Shaped[Tensor, "ranks ..."]:
        """Return every rank's tensor, stacked."""
        parts = value.new_zeros(world_size() if self.gather else 1, *value.shape)
        parts[self.rank] = value
        return self.sum(parts)

    def any(self, flag: Tensor) -> bool:
        """Return whether a flag is set on any rank."""
        return bool(self.sum(flag.to(torch.float64)) > 0)

    def rows(self, index: Tensor, mine: Tensor) -> Tensor:
        """Return local row ``index`` where ``mine``, and what other ranks bring elsewhere."""
        rows = self.x.new_zeros(len(index), self.x.shape[1], dtype=compute_dtype(self.x))
        rows[mine] = self.x[index[mine]].to(rows.dtype)
        return self.sum(rows)

    def rows_at(self, number: Tensor) -> Tensor:
        """Return the rows with these numbers, counted through all ranks."""
        local = number.to(self.x.device) - self.start
        return self.rows(local, (local >= 0) & (local < len(self.x)))
