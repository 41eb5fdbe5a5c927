r"""How far apart two lists of parameter gradients are.

Condensation asks that synthetic images give a network the gradients that real ones give it. The
distance of DC, DSA and DCC (Zhao et al., "Dataset Condensation with Gradient Matching", ICLR 2021;
Lee et al., "Dataset Condensation with Contrastive Signals", ICML 2022, arXiv 2202.02916; as in the
released code) looks at each parameter tensor as rows, one for each output channel or unit:

$$D(G, G') = \sum_{\text{tensors}} \sum_{\text{rows } r}
\Bigl( 1 - \frac{\langle a_r, b_r \rangle}{\lVert a_r \rVert \lVert b_r \rVert + \epsilon} \Bigr),
\qquad \epsilon = 10^{-6}.$$

A plain sum, over rows, tensors and, where classes are matched one by one, classes: between 0 and
twice the number of rows. Tensors of one dimension, which are biases and the scales of norms, have
no rows and count nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["EPS", "Metric", "gradient_distance", "row_distances"]

Metric = Literal["ours", "mse", "cos"]

EPS = 1e-6
"""Added to the product of the norms. Rows of 1e-3 and less feel it."""


def row_distances(a: Float[Tensor, "r d"], b: Float[Tensor, "r d"]) -> Float[Tensor, " r"]:
    """One minus the cosine of each pair of rows, each in [0, 2].

    A row of zeros, as of a dead filter, is at distance 1 of everything. The norm is one whose
    derivative at 0 is 0, so that no gradient becomes NaN.
    """
    norms: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return 1 - (a * b).sum(1) / (norms + EPS)


def gradient_distance(
    synthetic: Sequence[Tensor], real: Sequence[Tensor], *, metric: Metric = "ours"
) -> Float[Tensor, ""]:
    """Compare the gradients of synthetic images with those of real ones.

    Args:
        synthetic: A gradient a parameter, in the order of ``parameters()``.
        real: The same of the real images.
        metric: ``ours`` is D above. ``mse`` is the sum of squared differences and ``cos`` one
            minus the cosine of all numbers as one vector, both over every parameter, those of one
            dimension included.

    Returns:
        The distance, in float32 or wider, even under autocast.

    Raises:
        ValueError: If the lists do not pair, or the metric is unknown.

    Example:
        >>> g = [torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.ones(2)]
        >>> h = [torch.tensor([[1.0, 0.0], [0.0, -1.0]]), torch.zeros(2)]
        >>> round(gradient_distance(g, h).item(), 4)  # one row alike, one opposite
        2.0
    """
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {', '.join(get_args(Metric))}, got {metric!r}")
    if [g.shape for g in synthetic] != [g.shape for g in real]:
        raise ValueError("the two lists must hold gradients of the same parameters, in order")
    pairs = [(_wide(a), _wide(b)) for a, b in zip(synthetic, real, strict=True)]
    with torch.autocast(_device(pairs), enabled=False):
        if metric == "ours":
            rows = [row_distances(a.flatten(1), b.flatten(1)).sum() for a, b in pairs if a.ndim > 1]
            return torch.stack(rows).sum() if rows else _zero(pairs)
        if metric == "mse":
            return torch.stack([(a - b).square().sum() for a, b in pairs]).sum()
        a, b = (torch.cat([pair[side].flatten() for pair in pairs])[None] for side in (0, 1))
        return row_distances(a, b).sum()


def _wide(gradient: Tensor) -> Tensor:
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32))


def _device(pairs: Sequence[tuple[Tensor, Tensor]]) -> str:
    return pairs[0][0].device.type if pairs else "cpu"


def _zero(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Of parameters without rows: still a function of the gradients, with derivative 0."""
    return torch.stack([0 * a.sum() for a, _ in pairs]).sum() if pairs else torch.zeros(())
