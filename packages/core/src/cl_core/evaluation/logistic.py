r"""Many L2-regularised logistic regressions on the same rows, solved together.

One-vs-rest probes with a grid search solve hundreds of two-class problems that share their rows
and differ only in targets and in $C$. Each minimises (Fan et al. 2008, LIBLINEAR, Eq. 1 with the
logistic loss; the bias is the weight of a constant column and is regularised like the others)

$$f(w) = \tfrac12 \lVert w \rVert^2 + C \sum_i \log\bigl(1 + e^{-t_i w^\top x_i}\bigr),
\qquad x_i \leftarrow [x_i; 1].$$

The problems are the columns of one matrix, so that Newton's method with conjugate gradients costs
two matrix products a step for all of them. Rows are first rotated onto their principal axes,
where the Hessian is nearly diagonal, so that its diagonal is a strong preconditioner.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["row_space", "solve_logistic", "threads_for"]

# Problems x rows handled at once: bounds the working memory to some 300 MB.
_ELEMENTS = 4_000_000


def solve_logistic(
    x: Float[Tensor, "n d"],
    targets: Bool[Tensor, "n m"],
    c: Float[Tensor, " m"],
    *,
    tolerance: float = 1e-8,
    max_steps: int = 100,
) -> tuple[Float[Tensor, "d m"], Float[Tensor, " m"]]:
    """Fit ``m`` two-class logistic regressions on the same ``n`` rows.

    Args:
        x: Rows; computed in float64.
        targets: Column ``j`` says which rows are positive in problem ``j``.
        c: $C > 0$ of each problem: the weight of the data against the regulariser.
        tolerance: A problem is solved when its gradient is this much shorter than at ``w = 0``.
        max_steps: Newton steps at most; a handful to a few dozen are needed.

    Returns:
        Weights, a column a problem, and biases, both float64.

    Raises:
        ValueError: If the shapes disagree or a ``c`` is not positive.
    """
    if len(targets) != len(x) or targets.shape[1] != len(c):
        raise ValueError(
            f"need a row of targets for each row of x and a column for each c, got x "
            f"{tuple(x.shape)}, targets {tuple(targets.shape)}, c {tuple(c.shape)}"
        )
    if not bool((c > 0).all()):
        raise ValueError(f"every c must be positive, got {c.tolist()}")
    rows = F.pad(x.to(torch.float64), (0, 1), value=1.0)  # the constant column of the bias
    basis = row_space(rows)
    rows = rows if basis is None else rows @ basis
    axes = torch.linalg.eigh(rows.T @ rows).eigenvectors
    z = rows @ axes
    chunk = max(1, _ELEMENTS // max(1, len(x)))
    solved = [
        _newton(z, t.to(torch.float64), c_part.to(torch.float64), tolerance, max_steps)
        for t, c_part in zip(torch.split(targets, chunk, dim=1), torch.split(c, chunk), strict=True)
    ]
    w = axes @ torch.cat(solved, dim=1)
    w = w if basis is None else basis @ w
    return w[:-1], w[-1]


def row_space(x: Float[Tensor, "n d"]) -> Float[Tensor, "d r"] | None:
    """Orthonormal basis of the rows' span if that is the smaller problem, else None.

    A penalised linear model of ``x`` is exactly one of ``x @ basis``: its weights lie in the span.
    """
    return torch.linalg.qr(x.T).Q if x.shape[1] > x.shape[0] else None


@contextmanager
def threads_for(elements: int) -> Iterator[None]:
    """One thread for small problems: rows x problems solved together below half a million.

    Thousands of operations of some 0.1 ms each gain little from a second thread and lose a factor
    of ten where another program keeps that core busy (measured), because each waits for both.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if elements < 500_000 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _newton(
    z: Float[Tensor, "n r"],
    t: Float[Tensor, "n m"],
    c: Float[Tensor, " m"],
    tolerance: float,
    max_steps: int,
) -> Float[Tensor, "r m"]:
    """Minimise all columns; those that have converged leave the batch."""
    solution = z.new_zeros(z.shape[1], t.shape[1])
    active = torch.arange(t.shape[1])
    w, margin, squares = solution.clone(), torch.zeros_like(t), z.square()
    start: Tensor | None = None
    for _ in range(max_steps):
        p = torch.sigmoid(margin)
        gradient = w + z.T @ (c * (p - t))
        length = gradient.norm(dim=0)
        start = length if start is None else start
        going = length > tolerance * start
        solution[:, active] = w
        if not bool(going.any()):
            break
        if not bool(going.all()):
            keep = going.nonzero().squeeze(1)
            active, c, start, length = active[keep], c[keep], start[keep], length[keep]
            w, margin, t, p, gradient = (m[:, keep] for m in (w, margin, t, p, gradient))
        curvature = c * p * (1 - p)
        # The usual forcing term: solve loosely far from the optimum, tightly near to it.
        accuracy = length * (length / start).sqrt().clamp(max=0.1)
        step = _conjugate_gradients(z, squares, curvature, -gradient, accuracy)
        w, margin = _line_search(z, t, c, w, margin, step, gradient)
    else:
        solution[:, active] = w
    return solution


def _conjugate_gradients(
    z: Float[Tensor, "n r"],
    squares: Float[Tensor, "n r"],
    curvature: Float[Tensor, "n m"],
    b: Float[Tensor, "r m"],
    accuracy: Float[Tensor, " m"],
) -> Float[Tensor, "r m"]:
    """Solve ``(I + z' diag(curvature_j) z) v_j = b_j`` for every column ``j``."""
    diagonal = 1 + squares.T @ curvature
    v, residual = torch.zeros_like(b), b.clone()
    scaled = residual / diagonal
    direction, rho = scaled, (residual * scaled).sum(dim=0)
    for _ in range(2 * len(b)):
        image = direction + z.T @ (curvature * (z @ direction))
        alpha = rho / (direction * image).sum(dim=0).clamp_min(torch.finfo(b.dtype).tiny)
        v = v + alpha * direction
        residual = residual - alpha * image
        if bool((residual.norm(dim=0) <= accuracy).all()):
            break
        scaled = residual / diagonal
        rho, previous = (residual * scaled).sum(dim=0), rho
        direction = scaled + rho / previous.clamp_min(torch.finfo(b.dtype).tiny) * direction
    return v


def _line_search(
    z: Float[Tensor, "n r"],
    t: Float[Tensor, "n m"],
    c: Float[Tensor, " m"],
    w: Float[Tensor, "r m"],
    margin: Float[Tensor, "n m"],
    step: Float[Tensor, "r m"],
    gradient: Float[Tensor, "r m"],
) -> tuple[Float[Tensor, "r m"], Float[Tensor, "n m"]]:
    """Halve the step of a column until its objective falls enough (Armijo)."""

    def objective(w: Tensor, margin: Tensor) -> Tensor:
        return 0.5 * w.square().sum(dim=0) + c * (F.softplus(margin) - t * margin).sum(dim=0)

    change, slope, value = z @ step, (gradient * step).sum(dim=0), objective(w, margin)
    # Near the optimum the decrease drowns in rounding: allow for it, the step is then exact.
    slack = 1e-12 * value.abs()
    size = torch.ones_like(c)
    for _ in range(30):
        moved, moved_margin = w + size * step, margin + size * change
        enough = objective(moved, moved_margin) <= value + 1e-4 * size * slope + slack
        if bool(enough.all()):
            break
        size = torch.where(enough, size, size / 2)
    return moved, moved_margin
