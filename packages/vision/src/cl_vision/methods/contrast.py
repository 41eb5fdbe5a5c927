"""The contrast of two views that SimCLR and DirectCLR minimise, as pure functions."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cl_core.losses import info_nce, nt_xent

__all__ = ["Negatives", "directclr_loss", "two_view_loss"]

Negatives = Literal["all", "cross"]


def two_view_loss(
    z1: Float[Tensor, "n e"],
    z2: Float[Tensor, "n e"],
    *,
    temperature: float = 0.1,
    negatives: Negatives = "all",
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""Contrast the embeddings of two views, row by row.

    With $u$ the rows at unit length and $S = u_1 u_2^\top / \tau$, ``cross`` is the cross-entropy
    over the rows and over the columns of $S$, averaged: $n - 1$ negatives an anchor (DirectCLR's
    released code). ``all`` is NT-Xent (Chen et al. 2020, Eq. 1), which adds the other images of the
    anchor's own view: $2n - 2$ negatives.

    A row of length 0 stands for no direction: it has similarity 0 to all others and here gets no
    gradient, where the equation's would be $10^{12}$ times too large.

    Args:
        z1: Embeddings of view 1, any length; row ``i`` pairs with row ``i`` of ``z2``.
        z2: Embeddings of view 2.
        temperature: $\tau > 0$.
        negatives: See above.
        gather: Contrast against the rows of all ranks, with the gradient of the joint batch.

    Returns:
        Mean over anchors, in nats, in float32 or wider also under autocast. Nothing is detached.

    Raises:
        ValueError: If the shapes differ, there is no negative, or an option is out of range.
    """
    if negatives not in ("all", "cross"):
        raise ValueError(f"negatives must be 'all' or 'cross', got {negatives!r}")
    z1, z2 = _without_zero_gradient(z1), _without_zero_gradient(z2)
    if negatives == "all":
        return nt_xent(z1, z2, temperature, gather=gather)
    return info_nce(z1, z2, temperature, symmetric=True, gather=gather)


def directclr_loss(
    r1: Float[Tensor, "n d"],
    r2: Float[Tensor, "n d"],
    *,
    d0: int,
    temperature: float = 0.1,
    negatives: Negatives = "cross",
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""Contrast the first ``d0`` channels of two views (Jing et al. 2022, Sec. 6).

    With $u = r_{1:d_0} / \lVert r_{1:d_0} \rVert$ (scaled *after* slicing) and
    $S = u_1 u_2^\top / \tau$,

    $$L = \frac1{2n} \sum_i \Bigl[ \log \sum_j e^{S_{ij}} + \log \sum_j e^{S_{ji}} - 2 S_{ii}
      \Bigr].$$

    These are the negatives of the released code, the other view's only. The paper speaks of
    SimCLR's loss, which is ``negatives="all"``.

    Args:
        r1: Representations of view 1; row ``i`` pairs with row ``i`` of ``r2``.
        r2: Representations of view 2.
        d0: Channels that the loss sees; the gradient with respect to all others is exactly 0.
        temperature: $\tau > 0$.
        negatives: ``cross`` or ``all``.
        gather: Contrast against the rows of all ranks, with the gradient of the joint batch.

    Returns:
        Mean over anchors and directions, in nats, in float32 or wider.

    Raises:
        ValueError: If ``d0`` is not between 1 and ``d``, the shapes differ, there is no negative,
            or an option is out of range.

    Example:
        >>> r = torch.cat([torch.eye(3), torch.ones(3, 5)], dim=1)
        >>> round(directclr_loss(r, r, d0=3, temperature=1.0).item(), 4)
        0.5514
    """
    width = r1.shape[1]
    if not 1 <= d0 <= width:
        raise ValueError(f"d0 must lie between 1 and the representation's width {width}, got {d0}")
    return two_view_loss(
        r1[:, :d0], r2[:, :d0], temperature=temperature, negatives=negatives, gather=gather
    )


def _without_zero_gradient(z: Tensor) -> Tensor:
    zero = z.detach().float().norm(dim=1, keepdim=True) <= 1e-12
    return torch.where(zero, z.detach(), z)
