"""Embeddings as the equations want them: checked, of unit length, in float32 or wider."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cl_core.losses._tiles import BOUND

__all__ = ["check_temperature", "is_bounded", "scaled_rows", "similarities"]


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Refuse a temperature by which similarities cannot be divided."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"{name} must be positive and finite, got {temperature}")


def is_bounded(temperature: float) -> bool:
    r"""Return whether the similarities $|z_i^\top z_k| / \tau \le 1 / \tau$ need no shift."""
    return temperature * BOUND >= 1


def scaled_rows(x: Float[Tensor, "n d"], temperature: float) -> Float[Tensor, "n d"]:
    r"""Return $z_i / \sqrt{\tau \log 2}$ with $z_i = x_i / \max(|x_i|, 10^{-12})$."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.normalize(wide, dim=1, eps=1e-12) / math.sqrt(temperature * math.log(2))


def similarities(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    r"""Return $s_i = z_i^\top z'_i / \tau$, row by row, of scaled rows or of sums of such rows."""
    return (a * b).sum(1) * math.log(2)
