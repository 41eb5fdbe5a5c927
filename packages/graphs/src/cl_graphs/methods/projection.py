r"""Euclidean projection onto the attack's budget, for a matrix too large to hold.

$P_B(S)$ is the nearest point of $\{0 \le S \le 1,\ \sum S \le B\}$: $\mathrm{clip}(S, 0, 1)$ if
that fits, else $\mathrm{clip}(S - \mu, 0, 1)$ with
$f(\mu) = \sum \mathrm{clip}(S - \mu, 0, 1) = B$; bisection finds $\mu$ (Xu et al. 2019, Prop. 1).

Only entries above $\mu > 0$ survive. `BudgetProjection` therefore takes the entries in pieces and
keeps a running bound: the entries seen so far give a sum no larger than $f$, so where theirs
exceeds $B$ so does $f$, and $\mu$ lies above. Entries below the bound are forgotten. The result is
that of the whole matrix, exactly, in one pass; what is kept is about the support of the result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["BudgetProjection", "project_budget"]

PRUNE_FROM = 2**14
"""Entries above the bound that are worth an attempt to raise it."""

SAMPLE = 2**12
"""Entries from which a bound of many more is guessed."""


def project_budget(
    s: Float[Tensor, "*shape"], budget: float, width: float = 1e-3
) -> Float[Tensor, "*shape"]:
    r"""Project ``s`` onto entries in [0, 1] whose sum is at most ``budget``.

    Bisection starts from ``[min(s) - 1, max(s)]``, stops when the bracket is narrower than
    ``width`` and uses the last midpoint, as the official code does; the sum may therefore miss the
    budget by about ``width`` for each entry between 0 and 1.

    Args:
        s: Any numbers.
        budget: $B \ge 0$.
        width: Bracket width at which the bisection stops.
    """
    if s.clamp(0, 1).sum() <= budget:
        return s.clamp(0, 1)
    low, high = (bound.item() for bound in s.aminmax())
    return (s - _bisect(s[s > 0], budget, low - 1, high, width)[0]).clamp_(0, 1)


class BudgetProjection:
    r"""The same projection of a matrix that arrives in pieces.

    Zeros that are never handed over count as entries of the matrix: the attack's matrix always
    has some (diagonal and lower triangle), and the bracket of the bisection starts at them.

    Args:
        budget: $B \ge 0$.
        width: Bracket width at which the bisection stops.
        limit: Most non-zero entries of the result. A budget that binds leaves fewer by itself; of
            more than ``limit``, which only a loose budget leaves, the largest are taken.
    """

    def __init__(self, budget: float, width: float = 1e-3, *, limit: int | None = None) -> None:
        self.budget = budget
        self.width = width
        self.limit = limit
        self._cut = 0.0  # entries <= this are not among the largest
        self._bound = 0.0  # the projection is zero for every entry <= this
        self._low = self._high = 0.0
        self._held = 0
        self._prune_at = PRUNE_FROM
        self._values: list[Tensor] = []
        self._keys: list[Tensor] = []

    def add(
        self,
        values: Float[Tensor, " k"],
        key_of: Callable[[Int64[Tensor, " m"]], Int64[Tensor, " m"]],
    ) -> None:
        """Take the next entries.

        Args:
            values: Entries of the matrix; not kept.
            key_of: Maps positions in ``values`` to what identifies these entries in the result.
        """
        if values.numel() == 0:
            return
        low, high = (bound.item() for bound in values.aminmax())
        self._low, self._high = min(self._low, low), max(self._high, high)
        if self._values and high <= self._bound:
            return
        self._raise_bound(values)
        positions = (values > max(self._bound, self._cut)).nonzero().squeeze(1)
        self._values.append(values[positions])
        self._keys.append(key_of(positions))
        self._held += len(positions)
        if self.limit is not None and self._held > 2 * self.limit:
            self._take_largest(self.limit)

    def finish(self) -> tuple[Int64[Tensor, " s"], Float[Tensor, " s"]]:
        """Return keys, ascending, and values of the projection's non-zero entries."""
        if not self._values:
            return torch.empty(0, dtype=torch.int64), torch.empty(0)
        if self.limit is not None and self._held > self.limit:
            self._take_largest(self.limit)
        keys, values = torch.cat(self._keys), torch.cat(self._values)
        if self._bound == 0 and values.clamp(max=1).sum() <= self.budget:
            values = values.clamp(max=1)
        else:
            values = (values - self._bisect(values)[0]).clamp_(0, 1)
        support = values > 0
        keys, order = keys[support].sort()
        return keys, values[support][order]

    def _raise_bound(self, values: Tensor) -> None:
        """Forget what cannot survive, before ``values`` join, once there is much to forget."""
        if len(values) >= PRUNE_FROM:
            guess = _sampled_bound(values, self.budget, self._high, self.width)
            self._bound = max(self._bound, guess)
        fresh = values[values > max(self._bound, self._cut)]
        if self._held + len(fresh) < self._prune_at:
            return
        seen = torch.cat([*self._values, fresh])
        if seen.clamp(max=1).sum() > self.budget:
            self._bound = max(self._bound, self._bisect(seen)[1])
            kept = [held > self._bound for held in self._values]
            self._keys = [k[keep] for k, keep in zip(self._keys, kept, strict=True)]
            self._values = [v[keep] for v, keep in zip(self._values, kept, strict=True)]
            self._held = sum(map(len, self._values))
        self._prune_at = max(PRUNE_FROM, 2 * int((seen > self._bound).sum()))

    def _take_largest(self, limit: int) -> None:
        keys, values = torch.cat(self._keys), torch.cat(self._values)
        self._cut = values.kthvalue(len(values) - limit).values.item()
        kept = values > self._cut
        self._keys, self._values = [keys[kept]], [values[kept]]
        self._held = len(self._values[0])

    def _bisect(self, values: Tensor) -> tuple[float, float]:
        return _bisect(
            values, self.budget, self._low - 1, self._high, self.width, known=self._bound
        )


def _sampled_bound(values: Tensor, budget: float, high: float, width: float) -> float:
    r"""Find where f exceeds the budget still, by one pass over ``values`` alone.

    Evenly spaced entries guess where f is twice the budget; all of them prove that it exceeds it.
    """
    stride = max(1, len(values) // SAMPLE)
    sample = values[::stride]
    share = 2 * budget / stride
    guess = _bisect(sample[sample > 0], share, -1.0, high, width)[1]
    if guess <= 0 or (values - guess).clamp_(0, 1).sum().item() <= budget:
        return 0.0
    return guess


def _bisect(
    values: Tensor, budget: float, left: float, right: float, width: float, *, known: float = 0.0
) -> tuple[float, float]:
    r"""Solve f(mu) = budget; f is known to exceed the budget at ``known`` and below.

    Args:
        values: All entries above ``known``; the others add nothing to f beyond it.
        budget: $B$.
        left: Where the bracket starts.
        right: Where it ends.
        width: Bracket width at which to stop.
        known: At least 0.

    Returns:
        The last midpoint, at least ``known``, and a proven lower bound of the root: f exceeds the
        budget there.
    """
    middle = left
    while right - left >= width:
        middle = (left + right) / 2
        excess = 1.0 if middle <= known else (values - middle).clamp_(0, 1).sum().item() - budget
        if excess == 0:
            break
        if excess < 0:
            right = middle
        else:
            left = middle
            if middle > known:
                values = values[values > middle]
    return max(middle, known), max(left, known)
