"""Which case each place of a batch is drawn from: domains in balance, cases uniformly.

An epoch is a function of ``(seed, epoch)`` and the number of ranks, so it is the same after a
resume, and each rank has places of its own. Of every domain the cases are dealt like cards: all of
them once in a random order, then again in another, so that small domains come round more often.
Every second place of a domain (on average) must show a structure. Which slice or patch of the case
it is, the data set draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from cl_core.seeding import derive_seed

__all__ = ["DomainOrder", "Sampling", "steps_of_epoch"]

Sampling = Literal["balanced", "proportional", "alternate"]


def steps_of_epoch(items: Sequence[int], batch_size: int, world: int = 1) -> int:
    """Steps until every item of the largest domain has come once on average.

    Args:
        items: Slices or patches of each domain.
        batch_size: On each rank.
        world: Ranks.
    """
    return max(1, math.ceil(max(items) * len(items) / (batch_size * world)))


@dataclass(frozen=True, kw_only=True)
class DomainOrder:
    """The places of an epoch's batches.

    A place is a row of the data set: ``2 * case``, plus one where the draw must show a structure.

    Attributes:
        cases: Cases of each domain, numbered on through the domains.
        items: Slices or patches of each domain; for ``proportional``.
        batch_size: Places of a step, on each rank.
        steps: Of an epoch.
        sampling: ``balanced``: as many places a domain in every step, the rest rotating over the
            domains; ``proportional``: by their numbers of items, at least one; ``alternate``: one
            domain a step, in turn.
        forced: Share of places that must show a structure.
        seed: Of the run.
    """

    cases: tuple[int, ...]
    items: tuple[int, ...]
    batch_size: int
    steps: int
    sampling: Sampling = "balanced"
    forced: float = 0.5
    seed: int = 0

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def shares(self, step: int) -> list[int]:
        """Places of each domain in a step of one rank."""
        count, size = len(self.cases), self.batch_size
        if self.sampling == "alternate":
            return [size if k == step % count else 0 for k in range(count)]
        if self.sampling == "balanced" or size < count:
            each, rest = divmod(size, count)
            # The rest goes round: over a few steps every domain gets as much.
            late = {(step * rest + j) % count for j in range(rest)}
            return [each + (k in late) for k in range(count)]
        total = sum(self.items)
        exact = [1 + (size - count) * n / total for n in self.items]
        shares = [math.floor(one) for one in exact]
        by_rest = sorted(range(count), key=lambda k: (shares[k] - exact[k], k))
        for k in by_rest[: size - sum(shares)]:
            shares[k] += 1
        return shares

    def epoch(self, number: int, world: int = 1) -> list[int]:
        """The rows of an epoch for all ranks; the row at ``i`` belongs to rank ``i % world``.

        The rows of a rank's batch stand domain by domain.
        """
        shares = [self.shares(step) for step in range(self.steps)]
        decks = []
        first = 0
        for k, count in enumerate(self.cases):
            needed = world * sum(step[k] for step in shares)
            decks.append(iter(self._deck(number, k, count, first, needed)))
            first += count
        rows = []
        for step in shares:
            drawn = [
                [next(deck) for _ in range(n * world)] for deck, n in zip(decks, step, strict=True)
            ]
            # Place j of rank r is that of the joint batch at j * world + r, in either order.
            rows += [row for domain in drawn for row in domain]
        return rows

    def _deck(self, number: int, domain: int, count: int, first: int, needed: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, number, domain))
        dealt: list[int] = []
        while len(dealt) < needed:
            dealt += torch.randperm(count, generator=generator).tolist()
        forced = torch.rand(needed, generator=generator) < self.forced
        return [
            2 * (first + case) + int(must)
            for case, must in zip(dealt, forced.tolist(), strict=False)
        ]
