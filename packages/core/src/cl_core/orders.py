"""In which order rows are trained on, where plain shuffling does not do.

Rare classes hardly ever meet in a batch of shuffled rows, and a large domain drowns a small one.
An :class:`Order` says instead which rows each batch holds; give one to
:func:`cl_core.loader.make_loader`. All are functions of ``(seed, epoch, rank)`` alone, so that a
resumed run repeats them, and the ranks of a run share out what one process would read in batches
as large as theirs together. Rows that are needed more often than they are there are used in
passes: each pass is a new permutation, and a batch holds no row twice if its class has enough.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from cl_core.seeding import derive_seed

__all__ = ["Balanced", "DomainWise", "Order", "Stratified", "Weighted"]

Rows = NDArray[np.int64]
Labels = Sequence[Hashable] | NDArray[np.generic]


class Order(ABC):
    """Which rows of a data set the batches of an epoch hold.

    Args:
        labels: Class, or domain, of each row: numbers or names. -1, no label, counts as a class.
        batches: Of an epoch, on each rank; by default as told by the order.

    Raises:
        ValueError: If there is no row, or ``batches`` is not positive.
    """

    def __init__(self, labels: Labels, *, batches: int | None = None) -> None:
        names, kinds = np.unique(np.asarray(labels), return_inverse=True)
        if not len(kinds) or (batches is not None and batches < 1):
            raise ValueError(f"an order needs rows and batches, got {len(kinds)} and {batches}")
        self.names: list[Hashable] = names.tolist()
        self.members: list[Rows] = [np.flatnonzero(kinds == k) for k in range(len(names))]
        self.rows = len(kinds)
        self._batches = batches

    def count(self, batch_size: int, world: int) -> int:
        """Batches of an epoch on each of ``world`` ranks; by default as many as hold each row once.

        Raises:
            ValueError: If ``batch_size`` does not suit the order.
        """
        return self._batches or max(1, self.rows // (batch_size * world))

    @abstractmethod
    def batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int, world: int
    ) -> list[Rows]:
        """The rows of each batch of one rank."""


class Weighted(Order):
    r"""Each class as often as $n_c^{\,power}$ tells, $n_c$ its number of rows.

    1 is the natural frequency, 0 is :class:`Balanced`, and 0.5 lies between (a row of class $c$
    has the weight $n_c^{-1/2}$). Over an epoch the shares are kept within one row, and the rows of
    each class are spread evenly over it, so that a batch has its share within two.

    Args:
        labels: As of :class:`Order`.
        power: From 0 to 1.
        batches: As of :class:`Order`.
    """

    def __init__(self, labels: Labels, *, power: float = 0.5, batches: int | None = None) -> None:
        super().__init__(labels, batches=batches)
        if not 0 <= power <= 1:
            raise ValueError(f"power must lie in [0, 1], got {power}")
        self.power = power

    def batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int, world: int
    ) -> list[Rows]:
        rng = np.random.default_rng(derive_seed(seed, epoch))
        steps, joint = self.count(batch_size, world), batch_size * world
        weights = np.array([len(rows) for rows in self.members]) ** float(self.power)
        times, drawn = [], []
        for rows, draws in zip(self.members, _shared_out(weights, steps * joint), strict=True):
            drawn.append(_passes(rows, np.ones(draws, dtype=np.int64), rng))
            times.append((np.arange(draws) + rng.random(draws)) / max(draws, 1))
        order = np.concatenate(drawn)[np.argsort(np.concatenate(times), kind="stable")]
        return list(order.reshape(steps, world, batch_size)[:, rank])


class Balanced(Weighted):
    """Each class equally often, however many rows it has.

    Args:
        labels: As of :class:`Order`.
        batches: As of :class:`Order`.
    """

    def __init__(self, labels: Labels, *, batches: int | None = None) -> None:
        super().__init__(labels, power=0.0, batches=batches)


class Stratified(Order):
    r"""Every batch alike: $\mathrm{round}(B p_c)$ rows of class $c$, but at least ``least``.

    $p_c$ is the share of the class. What rounding and ``least`` add is taken from the classes that
    are furthest above their share, and what is missing given to those furthest below.

    Args:
        labels: As of :class:`Order`.
        least: Rows of each class in a batch; 2 lets each meet another of its class.
        batches: As of :class:`Order`.
    """

    def __init__(self, labels: Labels, *, least: int = 2, batches: int | None = None) -> None:
        super().__init__(labels, batches=batches)
        if least < 0:
            raise ValueError(f"least must be 0 or more, got {least}")
        self.least = least

    def quotas(self, batch_size: int) -> Rows:
        """Rows of each class in a batch, in the order of ``names``."""
        need = self.least * len(self.names)
        if need > batch_size:
            raise ValueError(
                f"batch_size {batch_size} cannot hold {self.least} rows of each of the "
                f"{len(self.names)} classes: it must be at least {need}"
            )
        exact = batch_size * np.array([len(rows) / self.rows for rows in self.members])
        held = np.maximum(self.least, np.floor(exact + 0.5).astype(np.int64))
        while surplus := int(held.sum()) - batch_size:
            sign = 1 if surplus > 0 else -1
            gap = sign * (held - exact)
            gap[(held <= self.least) & (sign > 0)] = -np.inf
            held[gap.argmax()] -= sign
        return held

    def count(self, batch_size: int, world: int) -> int:
        self.quotas(batch_size)
        return super().count(batch_size, world)

    def batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int, world: int
    ) -> list[Rows]:
        rng = np.random.default_rng(derive_seed(seed, epoch))
        steps = self.count(batch_size, world)
        parts = []
        for rows, quota in zip(self.members, self.quotas(batch_size).tolist(), strict=True):
            sizes = np.full(steps, quota)
            drawn = _passes(rows, _windows(len(rows), sizes, world), rng)
            parts.append(drawn.reshape(steps, world, quota))
        joint = rng.permuted(np.concatenate(parts, axis=2), axis=2)
        return list(joint[:, rank])


class DomainWise(Order):
    """Domains equally often; within a domain each case equally often, then its rows.

    ``mixed`` batches hold as many rows of each domain, grouped by domain in the order of
    ``names``; what a batch cannot divide goes to one domain after the other. Else a batch is of
    one domain, the same on all ranks, and each domain comes once in as many batches as there are
    domains. An epoch has the batches in which the largest domain is read once.

    Args:
        domains: Of each row.
        cases: Patient, volume or other unit of each row, to be drawn before the row; by default
            every row is a case.
        mixed: See above.
        batches: As of :class:`Order`.

    Raises:
        ValueError: Also if ``cases`` are not one a row.
    """

    def __init__(
        self,
        domains: Labels,
        *,
        cases: Labels | None = None,
        mixed: bool = True,
        batches: int | None = None,
    ) -> None:
        super().__init__(domains, batches=batches)
        if cases is not None and len(cases) != self.rows:
            raise ValueError(f"one case per row: got {len(cases)} cases, {self.rows} rows")
        names = np.arange(self.rows) if cases is None else np.asarray(cases)
        self.mixed = mixed
        # The same name in two domains is two cases.
        self._cases = [
            [rows[names[rows] == case] for case in np.unique(names[rows])]
            if cases is not None
            else [rows[k : k + 1] for k in range(len(rows))]
            for rows in self.members
        ]

    def count(self, batch_size: int, world: int) -> int:
        if self._batches:
            return self._batches
        largest, domains = max(map(len, self.members)), len(self.members)
        if self.mixed:
            return -(-largest * domains // (batch_size * world))
        return domains * -(-largest // (batch_size * world))

    def batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int, world: int
    ) -> list[Rows]:
        rng = np.random.default_rng(derive_seed(seed, epoch))
        sizes = self._sizes(batch_size, self.count(batch_size, world), rng)
        out: list[list[Rows]] = [[] for _ in sizes]
        for domain, cases in enumerate(self._cases):
            held = sizes[:, domain]
            chosen = _passes(np.arange(len(cases)), _windows(len(cases), held, world), rng)
            drawn = np.empty_like(chosen)
            for case, rows in enumerate(cases):
                places = np.flatnonzero(chosen == case)
                drawn[places] = _passes(rows, np.ones_like(places), rng)
            start = 0
            for step, size in enumerate(held.tolist()):
                mine = start + rank * size
                out[step].append(drawn[mine : mine + size])
                start += world * size
        return [np.concatenate(parts) for parts in out]

    def _sizes(self, batch_size: int, steps: int, rng: np.random.Generator) -> Rows:
        """Rows of each domain ``(steps, domains)`` in each batch of a rank."""
        domains = len(self.members)
        if self.mixed:
            share, rest = divmod(batch_size, domains)
            sizes = np.full((steps, domains), share)
            turns = np.arange(steps)[:, None] * rest + np.arange(rest)
            np.add.at(sizes, (np.arange(steps)[:, None], turns % domains), 1)
            return sizes
        rounds = -(-steps // domains)
        turns = rng.permuted(np.tile(np.arange(domains), (rounds, 1)), axis=1).ravel()[:steps]
        alone: Rows = batch_size * np.eye(domains, dtype=np.int64)[turns]
        return alone


def _shared_out(weights: NDArray[np.float64], total: int) -> list[int]:
    """``total`` by weight, by largest remainder; each within one of its share."""
    exact = total * weights / weights.sum()
    parts = np.floor(exact).astype(np.int64)
    left = total - int(parts.sum())
    parts[np.argsort(parts - exact, kind="stable")[:left]] += 1
    given: list[int] = parts.tolist()
    return given


def _windows(available: int, sizes: Rows, world: int) -> Rows:
    """Runs of draws that should differ: of all ranks at a step if there are enough, or of each."""
    if available >= int(sizes.max()) * world:
        return sizes * world
    return np.repeat(sizes, world)


def _passes(rows: Rows, windows: Rows, rng: np.random.Generator) -> Rows:
    """Rows in passes, each a new permutation; no row twice in a window if there are enough.

    A new pass that begins inside a window puts what is in it already behind the rest of it.
    """
    ends = np.cumsum(windows)
    draws = int(ends[-1]) if len(ends) else 0
    parts, done = [np.empty(0, dtype=np.int64)], 0
    while done < draws:
        new = rng.permutation(rows)
        window = int(np.searchsorted(ends, done, side="right"))
        left = int(ends[window]) - done
        if begun := int(windows[window]) - left:
            used = np.isin(new, parts[-1][-begun:])
            head = np.flatnonzero(~used)[:left]
            new = np.concatenate([new[head], np.delete(new, head)])
        parts.append(new)
        done += len(rows)
    return np.concatenate(parts)[:draws]
