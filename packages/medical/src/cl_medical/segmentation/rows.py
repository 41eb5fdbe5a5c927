"""Which rows of a batch are whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Ids", "Rows", "domain_number", "rows_of"]

Ids = Tensor | Sequence[int] | Sequence[str] | int | str
"""Whose each row of a batch is, by number or name; one for all rows."""


@dataclass(frozen=True)
class Rows:
    """Which rows of a batch are whose, found out once for all layers.

    Attributes:
        domains: The domains present, ascending.
        counts: Rows of each.
        order: The rows domain by domain, each in the batch's order; ``None`` if they lie so.
        back: The inverse of ``order``.
    """

    domains: tuple[int, ...]
    counts: tuple[int, ...]
    order: Tensor | None = None
    back: Tensor | None = None

    @property
    def size(self) -> int | None:
        """Rows of the batch; ``None`` if one domain has however many there are."""
        return sum(self.counts) if self.counts else None

    def split(self, x: Tensor) -> list[tuple[int, Tensor]]:
        """The rows of each domain present, with its number."""
        if self.size is None:
            return [(self.domains[0], x)]
        if len(x) != self.size:
            raise ValueError(f"{self.size} domain ids were given for a batch of {len(x)} rows")
        if len(self.domains) == 1:
            return [(self.domains[0], x)]
        grouped = x if self.order is None else x[self.order.to(x.device)]
        return list(zip(self.domains, torch.split(grouped, list(self.counts)), strict=True))

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Put what :meth:`split` gave back into the batch's order."""
        if len(parts) == 1:
            return parts[0]
        joined = torch.cat(list(parts))
        return joined if self.back is None else joined[self.back.to(joined.device)]


def rows_of(ids: Ids, domains: Sequence[str]) -> Rows:
    """Group the rows of a batch by domain.

    Args:
        ids: A number or name a row, or one for all.
        domains: The names, in the order of the numbers.

    Raises:
        ValueError: If there is no such domain, or no row.
    """
    if isinstance(ids, (int, str)):
        return Rows((domain_number(ids, domains),), ())
    if isinstance(ids, Tensor):
        if ids.ndim != 1 or ids.is_floating_point() or ids.is_complex():
            raise ValueError(
                f"domain ids are whole numbers, one a row, got {tuple(ids.shape)} of {ids.dtype}"
            )
        given: Sequence[Any] = ids.tolist()
    else:
        given = ids
    numbers = [domain_number(one, domains) for one in given]
    if not numbers:
        raise ValueError("a batch without rows has no domain")
    present = tuple(sorted(set(numbers)))
    counts = tuple(numbers.count(k) for k in present)
    if numbers == sorted(numbers):
        return Rows(present, counts)
    order = torch.tensor(numbers).argsort(stable=True)
    return Rows(present, counts, order, order.argsort())


def domain_number(one: int | str, domains: Sequence[str]) -> int:
    """The number of a domain told by number or name.

    Raises:
        ValueError: If there is no such domain.
    """
    if isinstance(one, str):
        if one not in domains:
            raise ValueError(f"there is no domain {one!r}: there are {', '.join(domains)}")
        return list(domains).index(one)
    if not 0 <= one < len(domains):
        raise ValueError(
            f"domain ids of {len(domains)} domains lie between 0 and {len(domains) - 1}, got {one}"
        )
    return int(one)
