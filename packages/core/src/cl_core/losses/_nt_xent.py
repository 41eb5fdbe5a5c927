"""NT-Xent, the loss of SimCLR (Chen et al. 2020, arXiv 2002.05709)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cl_core.distributed import gather_rows, rank, sum_over_ranks, world_size
from cl_core.losses._log_sums import log_sums, self_log_sums
from cl_core.losses._rows import (
    check_temperature,
    is_bounded,
    one_positive,
    scaled_rows,
    similarities,
)

__all__ = ["nt_xent"]


def nt_xent(
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    temperature: float | Tensor = 0.5,
    *,
    gather: bool = False,
    block_size: int | None = None,
) -> Float[Tensor, ""]:
    r"""Contrast two views of one batch (NT-Xent; Chen et al. 2020, Eq. 1).

    With $z$ the $2n$ unit-length rows of ``[z1; z2]``, $s_{ik} = z_i^\top z_k / \tau$ and
    $p(i)$ the other view of row $i$,

    $$\ell = \frac{1}{2n} \sum_i \Bigl[ \log \sum_{k \ne i} e^{s_{ik}} - s_{i\,p(i)} \Bigr].$$

    Args:
        z1: Embeddings of view one, any length; row ``i`` pairs with row ``i`` of ``z2``.
        z2: Embeddings of view two.
        temperature: $\tau > 0$; a tensor of one element gets its gradient.
        gather: Contrast against the rows of all ranks. Each rank takes its own rows as anchors;
            the value, the same on every rank, and the gradient after DDP's averaging are
            those of the joint batch in one process. Every rank needs the same ``n``.
        block_size: Rows of a tile of the similarity matrix; changes speed and memory, not the loss.

    Returns:
        Mean over the ``2n`` anchors, in nats, in float32 or wider.

    Raises:
        ValueError: If the shapes differ, if ``n < 2`` (no negative), or if ``temperature <= 0``.

    Example:
        >>> round(nt_xent(torch.eye(3), torch.eye(3), temperature=1.0).item(), 4)
        0.9048
    """
    check_temperature(temperature)
    if z1.ndim != 2 or z1.shape != z2.shape:
        raise ValueError(
            f"views must pair row by row as (n, d), got {tuple(z1.shape)} and {tuple(z2.shape)}"
        )
    n = len(z1)
    world = world_size() if gather else 1
    if n * world < 2:
        raise ValueError(f"nt_xent needs at least 2 pairs, got {n}: a lone pair has no negative")
    bounded = is_bounded(temperature)
    z, squares = scaled_rows(torch.cat([z1, z2]), temperature)
    if world == 1:  # p(i) = i + n or i - n
        log_rest = self_log_sums(z, diagonals=(0, n, -n), bounded=bounded, block_size=block_size)
    else:
        first = rank() * 2 * n
        log_rest = log_sums(
            z,
            gather_rows(z),
            diagonals=(first,),
            partner=torch.arange(first, first + 2 * n, device=z.device).roll(n),
            bounded=bounded,
            block_size=block_size,
        )
    (a, b), (square1, square2) = z.view(2, n, -1).unbind(), squares.view(2, n).unbind()
    positives = similarities((a, square1), (b, square2), temperature)  # of both rows of a pair
    loss = one_positive(log_rest.view(2, n), positives).mean()
    loss = loss if world == 1 else sum_over_ranks(loss / world)
    return loss.to(z.dtype)
