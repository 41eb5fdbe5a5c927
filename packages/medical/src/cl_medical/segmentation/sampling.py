"""Which case each place of a batch is drawn from: domains in balance, cases uniformly.

The order is core's (:mod:`cl_core.orders`): a function of ``(seed, epoch, rank)``, the same after a
resume, other rows for each rank. Each case has several rows; some of them must show a structure.
Which slice or patch of the case it is, the data set draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from cl_core.orders import DomainWise, Order, Weighted
from cl_medical.segmentation.data import Source

__all__ = ["DomainOrder", "Sampling", "patches_of", "rows_of_cases", "sampling_order"]

Sampling = Literal["balanced", "proportional", "alternate"]

_ROWS = 10  # of a case: the share of forced ones is a tenth or a multiple


class DomainOrder(DomainWise):
    """Domains and cases equally often; an epoch as long as the largest domain needs.

    Args:
        domains: Of each row.
        cases: Of each row.
        items: Slices or patches of each domain.
        mixed: See :class:`~cl_core.orders.DomainWise`.
    """

    def __init__(
        self, domains: Sequence[int], cases: Sequence[int], items: Sequence[int], *, mixed: bool
    ) -> None:
        super().__init__(domains, cases=cases, mixed=mixed)
        self.items = tuple(items)

    def count(self, batch_size: int, world: int) -> int:
        """Steps until every item of the largest domain has come once on average."""
        return max(1, math.ceil(max(self.items) * len(self.items) / (batch_size * world)))


def rows_of_cases(sources: Sequence[Source], patch: Sequence[int], sampling: Sampling) -> list[int]:
    """How many rows of the data set each case has: as many each, or as many as it has patches."""
    if sampling != "proportional":
        return [_ROWS] * len(sources)
    return [_ROWS * math.ceil(patches_of(source, patch) / _ROWS) for source in sources]


def patches_of(source: Source, patch: Sequence[int]) -> int:
    """How many patches it takes to cover a case once along the slice axis and within slices."""
    shape = source.prepared.label.shape
    if len(patch) == 2:
        return int(shape[0])
    return math.prod(math.ceil(n / size) for n, size in zip(shape, patch, strict=True))


def sampling_order(
    sources: Sequence[Source],
    patch: Sequence[int],
    sampling: Sampling,
    *,
    steps: int | None,
) -> Order:
    """Make the order of a training.

    Args:
        sources: Cases, those of a domain together.
        patch: Size of a sample.
        sampling: ``balanced``: as many places a domain in every step, what is left over going
            round; ``alternate``: one domain a step; ``proportional``: every patch as often.
        steps: Of an epoch; by default until the largest domain has come once.
    """
    rows = rows_of_cases(sources, patch, sampling)
    domains = np.repeat([source.domain for source in sources], rows).tolist()
    cases = np.repeat(np.arange(len(sources)), rows).tolist()
    if sampling == "proportional":
        return Weighted(domains, power=1.0, batches=steps)
    mixed = sampling == "balanced"
    if steps is not None:
        return DomainWise(domains, cases=cases, mixed=mixed, batches=steps)
    count = max(source.domain for source in sources) + 1
    items = [sum(patches_of(s, patch) for s in sources if s.domain == k) for k in range(count)]
    return DomainOrder(domains, cases, items, mixed=mixed)
