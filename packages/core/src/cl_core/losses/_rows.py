r"""Embeddings as the equations want them: checked, of unit length, in float32 or wider.

What is linear in the batch is computed so that nothing cancels. A similarity is taken from the
difference of its rows, $s = (|z|^2 + |z'|^2 - |z - z'|^2) / 2 \tau$, which keeps its digits where
the rows are near each other, with $|z|^2$ exactly 1 for any row that has a direction; and scalars
of a row (similarities, log-sums, their differences) are kept in float64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

__all__ = [
    "BOUND",
    "check_temperature",
    "is_bounded",
    "mean_similarities",
    "one_positive",
    "scaled_pair",
    "scaled_rows",
    "similarities",
    "wide",
]

BOUND = 32.0  # largest |s| whose exponentials and their sums are normal numbers in float32
_EPS = 1e-12  # length below which a row has no direction
_LOG2 = math.log(2)


def check_temperature(temperature: float | Tensor, name: str = "temperature") -> None:
    """Refuse a temperature by which similarities cannot be divided.

    The value of a tensor is out of reach under ``torch.compile`` and ``torch.func.vmap``: there
    one that is not positive gives a loss of NaN.
    """
    if isinstance(temperature, Tensor) and (
        temperature.numel() != 1 or not temperature.is_floating_point()
    ):
        raise ValueError(
            f"{name} must be a number or a floating-point tensor of one element, got "
            f"{tuple(temperature.shape)} of {temperature.dtype}"
        )
    value = _value(temperature)
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive and finite, got {value}")


def is_bounded(temperature: float | Tensor) -> bool:
    r"""Return whether the similarities $|z_i^\top z_k| / \tau \le 1 / \tau$ need no shift."""
    value = _value(temperature)
    return value is not None and value * BOUND >= 1


def _value(temperature: float | Tensor) -> float | None:
    """Return the temperature as a number, None where a tensor does not tell its own."""
    if not isinstance(temperature, Tensor):
        return temperature
    if torch.compiler.is_compiling():
        return None
    try:
        return temperature.detach().item()
    except RuntimeError:  # one temperature for each element of a vmap
        return None


def wide(x: Tensor) -> torch.dtype:
    """Return the type that scalars of a row are kept in: float64 where the device has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def scaled_rows(
    x: Float[Tensor, "n d"], temperature: float | Tensor
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    r"""Return $z_i / \sqrt{\tau \log 2}$ and $|z_i|^2$; $z_i = x_i / \max(|x_i|, 10^{-12})$."""
    rows = x.to(torch.promote_types(x.dtype, torch.float32))
    length = rows.norm(dim=1)
    scale = length.clamp_min(_EPS) * _root(temperature, rows)
    squares = (length / _EPS).clamp_max(1).square()  # 1, without a gradient, but for tiny rows
    return rows / scale[:, None], squares


def scaled_pair(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], temperature: float | Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return `scaled_rows` of both, in one go where both want gradients: small batches feel it."""
    if not (a.requires_grad and b.requires_grad):
        return scaled_rows(a, temperature), scaled_rows(b, temperature)
    n = len(a)
    z, squares = scaled_rows(torch.cat([a, b]), temperature)
    return (z[:n], squares[:n]), (z[n:], squares[n:])


def _root(temperature: float | Tensor, rows: Tensor) -> float | Tensor:
    if not isinstance(temperature, Tensor):
        return math.sqrt(temperature * _LOG2)
    return (temperature.reshape(()).to(rows.dtype) * _LOG2).sqrt()


def similarities(
    a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], temperature: float | Tensor
) -> Float[Tensor, " n"]:
    r"""Return $s_i = z_i^\top z'_i / \tau$ of scaled rows with their squares, row by row."""
    apart = F.mse_loss(a[0], b[0], reduction="none").sum(1)
    return torch.sub(_over(a[1] + b[1], 2 * temperature), apart, alpha=_LOG2 / 2)


def mean_similarities(
    a: Float[Tensor, "n d"],
    squares: Float[Tensor, " n"],
    total: Float[Tensor, "n d"],
    count: Integer[Tensor, " n"],
    temperature: float | Tensor,
) -> Float[Tensor, " n"]:
    r"""Return $z_i^\top (t_i / m_i) / \tau$ with $t_i$ the sum of $m_i$ scaled rows.

    As $|z_i|^2 - z_i^\top (m_i z_i - t_i) / m_i$; what is said of $m_i = 0$ means nothing.
    """
    apart = (a * (count[:, None].to(a.dtype) * a - total)).sum(1)
    apart = apart.to(wide(apart)) / count.clamp_min(1)
    return torch.sub(_over(squares, temperature), apart, alpha=_LOG2)


def _over(squares: Tensor, temperature: float | Tensor) -> Tensor:
    squares = squares.to(wide(squares))
    if not isinstance(temperature, Tensor):
        return squares / temperature
    return squares / temperature.reshape(()).to(squares.dtype)


def one_positive(log_rest: Float[Tensor, "*n"], positive: Float[Tensor, " m"]) -> Tensor:
    r"""Return $\log(e^s + e^r) - s$ as $\log(1 + e^{r - s})$, exact however small it is."""
    return F.softplus(log_rest - positive, threshold=40.0)
