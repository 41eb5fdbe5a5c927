r"""Whether embeddings use their dimensions: the spectrum of their covariance.

With $z$ the embeddings' rows at unit length and $C$ their covariance (mean removed, divisor
$n - 1$), dimensional collapse shows as singular values $\sigma$ of $C$ that vanish (Jing et al.
2022, Sec. 3). One number for it is the effective rank (Roy & Vetterli 2007),

$$\exp\Bigl(-\sum_j p_j \ln p_j\Bigr), \qquad p_j = \sigma_j / \textstyle\sum_i \sigma_i,$$

between 1 (a line) and $d$ (all directions alike). $C$ is symmetric and positive, so its singular
values are its eigenvalues and cost one Gram matrix and one ``eigvalsh``, in float64: cheap enough
for every epoch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cl_core.evaluation.labels import Array, as_rows

__all__ = ["effective_rank", "feature_std", "singular_values"]


@torch.no_grad()
def singular_values(x: Array, *, normalize: bool = True) -> Float[Tensor, " d"]:
    """Singular values of the covariance of the rows, in descending order.

    They are variances, in squared units of ``x``: the squares of the singular values of the
    centred rows over ``n - 1``. At most ``n - 1`` of them are not zero.

    Args:
        x: Embeddings ``(n, d)`` on any device, any float dtype.
        normalize: Scale rows to unit length first, as DirectCLR does.

    Returns:
        ``d`` non-negative float64 values on the CPU.

    Raises:
        ValueError: If there are fewer than two rows or a value is not finite.
    """
    rows = _checked(x)
    if rows.device.type == "mps":  # has no float64
        rows = rows.cpu()
    rows = rows.to(torch.float64)
    rows = F.normalize(rows, dim=1) if normalize else rows
    rows = rows - rows.mean(dim=0)
    n, d = rows.shape
    gram = rows.T @ rows if d <= n else rows @ rows.T  # the same non-zero eigenvalues
    values = torch.linalg.eigvalsh(gram.cpu() / (n - 1)).flip(0).clamp_min(0)
    return F.pad(values, (0, d - len(values)))


def effective_rank(x: Array, *, normalize: bool = True) -> float:
    """Effective rank of the rows' covariance, from 1 to ``min(d, n - 1)``.

    Args:
        x: Embeddings ``(n, d)`` on any device.
        normalize: As in :func:`singular_values`.

    Returns:
        The module docstring's formula; 0 if all rows are equal.

    Raises:
        ValueError: As :func:`singular_values`.
    """
    values = singular_values(x, normalize=normalize)
    # The rounding errors of equal rows have a spectrum too, one of full rank: not theirs.
    scale = 1.0 if normalize else float(_checked(x).norm(dim=1).square().mean())
    if float(values.sum()) <= 1e-12 * scale:
        return 0.0
    p = values / values.sum()
    return float(torch.special.entr(p).sum().exp())


@torch.no_grad()
def feature_std(x: Array) -> float:
    r"""Mean over dimensions of the standard deviation of unit-length rows (SimSiam's gauge).

    About $1/\sqrt d$ for healthy embeddings, 0 when all collapse to one point (Chen & He 2021,
    Sec. 4.1). It does not see a collapse onto few dimensions; :func:`effective_rank` does.

    Args:
        x: Embeddings ``(n, d)`` on any device.

    Returns:
        The mean of the population standard deviations.

    Raises:
        ValueError: If there are fewer than two rows or a value is not finite.
    """
    rows = _checked(x)
    rows = F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1)
    return float(rows.std(dim=0, correction=0).mean())


def _checked(x: Array) -> Tensor:
    rows = as_rows(x)
    if len(rows) < 2:
        raise ValueError(f"need at least 2 embeddings as rows (n, d), got {tuple(rows.shape)}")
    return rows
