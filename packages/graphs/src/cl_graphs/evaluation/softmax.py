r"""A linear probe that scales: one softmax regression in place of many two-class ones.

The protocol of GRACE (`cl_core.evaluation.probe`) solves $k$ two-class problems for each of 20
penalties in 5 folds, to their optimum in float64: at 170,000 nodes of 40 classes that is a day's
work. This one solves, in float32,

$$\min_W \tfrac12 \lVert W \rVert^2 + C \sum_i \ell(W^\top x_i, y_i),\quad
x_i \leftarrow [x_i; 1],$$

with $\ell$ the cross-entropy of a softmax over the classes, or, for tasks of 0 and 1, the sum of
the tasks' logistic losses where they are known. L-BFGS stops where the largest entry of the
gradient is $10^{-3}$ of that at $W = 0$, or after ``MOST_STEPS`` steps. $C$ is chosen from seven
values, $2^{-10}, 2^{-7}, \dots, 2^8$, on a held-out fifth of the training rows (of at most
``SELECTION_ROWS``), at a gradient of $10^{-2}$, each starting from the solution of the last; of
equal ones the first is taken, and after two that are worse than the best no larger ones are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.matmul import matmul

__all__ = ["SOFTMAX_GRID", "SoftmaxModel", "fit_softmax", "solve_softmax"]

SOFTMAX_GRID: tuple[float, ...] = tuple(2.0**power for power in range(-10, 9, 3))
"""Values of $C$ to choose from."""

SELECTION_ROWS = 6_000
"""Training rows that the choice of $C$ looks at; of more, random ones."""

MOST_STEPS = 100
"""Steps of L-BFGS at most."""


@dataclass(frozen=True)
class SoftmaxModel:
    """A linear classifier of rows.

    Attributes:
        weight: ``(k, d)``.
        bias: ``(k,)``.
        tasks: Whether columns are tasks of their own rather than classes.
        c: The inverse penalty chosen.
    """

    weight: Tensor
    bias: Tensor
    tasks: bool
    c: float

    def scores(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Return the probability of each class, or of each task's 1."""
        logits = torch.cat([part @ self.weight.T for part in torch.split(x, 16_384)]) + self.bias
        return torch.sigmoid(logits) if self.tasks else torch.softmax(logits, 1)

    def predict(self, x: Float[Tensor, "n d"]) -> Int64[Tensor, " n"]:
        """Return the most probable class of each row; the first of equals."""
        return self.scores(x).argmax(1)


def solve_softmax(
    x: Float[Tensor, "n d"],
    y: Int64[Tensor, "*labels"],
    c: float,
    *,
    classes: int,
    start: Float[Tensor, "m k"] | None = None,
    tolerance: float = 1e-3,
) -> Float[Tensor, "m k"]:
    """Solve one problem.

    Args:
        x: Rows.
        y: Class ``(n,)`` of each row, or ``(n, t)`` of 0, 1 and -1, unknown.
        c: $C > 0$.
        classes: $k$, or the number of tasks.
        start: Where to begin; default 0.
        tolerance: Largest entry of the gradient at which to stop, as a share of that at 0.

    Returns:
        Weights, a column a class, with the biases as the last row.
    """
    rows = F.pad(x, (0, 1), value=1.0)
    shape, n = (rows.shape[1], classes), len(rows)
    known = None if y.ndim == 1 else (y >= 0).to(rows.dtype)
    target, every = y.clamp_min(0).to(rows), torch.arange(n)

    @torch.no_grad()
    def objective(point: Tensor) -> tuple[Tensor, Tensor]:
        """The objective divided by C n, so that steps of length one are of the right order."""
        logits = matmul(rows, point.to(rows.dtype))
        if known is None:
            log_p = torch.log_softmax(logits, 1)
            loss = -log_p.gather(1, y[:, None]).sum(dtype=torch.float64)
            error = log_p.exp_()
            error[every, y] -= 1
        else:
            loss = (F.softplus(logits) - logits * target).mul(known).sum(dtype=torch.float64)
            error = (torch.sigmoid(logits) - target) * known
        value = loss / n + point.square().sum() / (2 * c * n)
        return value, matmul(rows.T, error).double() / n + point / (c * n)

    # The few weights are held in float64: L-BFGS lives on small differences of them.
    w = (rows.new_zeros(shape) if start is None else start).double().requires_grad_()

    def closure() -> Tensor:
        value, w.grad = objective(w)
        return value

    optimizer = torch.optim.LBFGS(
        [w],
        max_iter=MOST_STEPS,
        history_size=10,
        tolerance_grad=tolerance * float(objective(torch.zeros_like(w))[1].abs().max()),
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return w.detach().to(rows.dtype)


def fit_softmax(
    x: Float[Tensor, "n d"],
    y: Int64[Tensor, "*labels"],
    train: Int64[Tensor, " m"],
    *,
    classes: int,
    score: Callable[[Tensor, Tensor], float],
    validation: Int64[Tensor, " v"] | None = None,
    cs: Sequence[float] = SOFTMAX_GRID,
    seed: int = 0,
) -> SoftmaxModel:
    """Fit the probe, with $C$ chosen on rows held out.

    Args:
        x: All rows.
        y: All classes or tasks.
        train: Rows to learn from.
        classes: Number of classes or tasks.
        score: How good scores ``(v, k)`` are for labels; the larger the better.
        validation: Rows to choose $C$ on; default a random fifth of ``train``.
        cs: Values of $C$, ascending.
        seed: Of that fifth.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = train[torch.randperm(len(train), generator=generator)][:SELECTION_ROWS]
    if validation is None:
        cut = max(1, len(shuffled) // 5)
        held, fitted = shuffled[:cut], shuffled[cut:]
    else:
        held, fitted = validation, shuffled
    tasks = y.ndim == 2
    best, best_c, worse, w, chosen = -np.inf, cs[0], 0, None, None
    for c in cs if len(cs) > 1 else ():
        w = solve_softmax(x[fitted], y[fitted], c, classes=classes, start=w, tolerance=1e-2)
        model = SoftmaxModel(w[:-1].T, w[-1], tasks, c)
        reached = score(model.scores(x[held]), y[held])
        worse = worse + 1 if reached < best else 0
        if reached > best:
            best, best_c, chosen = reached, c, w
        if worse == 2:
            break
    w = solve_softmax(x[train], y[train], best_c, classes=classes, start=chosen)
    return SoftmaxModel(w[:-1].T, w[-1], tasks, best_c)
