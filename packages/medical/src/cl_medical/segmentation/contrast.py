r"""Contrastive regularisation: each domain a cluster of the shared representation.

Boutillon et al., MICCAI 2021, arXiv 2105.10310, and the follow-up arXiv 2207.13502 (several
levels). The feature map of the bottleneck, behind its normalisation *and activation*, is averaged
over space; the supervised contrastive loss of Khosla et al. 2020 with the domains as labels pulls
the embeddings of a domain together and those of other domains apart. Before the activation the
mean of a domain's rows is $\beta_k$ whatever the filters do, and the loss would not reach them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.distributed import gather_rows
from cl_core.losses import sup_con

__all__ = ["alignment_and_separation", "domain_contrast", "multi_level_contrast", "pooled"]


def pooled(features: Float[Tensor, "n d ..."]) -> Float[Tensor, "n d"]:
    """Average feature maps over space, in float32 or wider."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return wide.flatten(2).mean(2)


def domain_contrast(
    h: Float[Tensor, "n d"],
    domains: Int64[Tensor, " n"],
    temperature: float = 0.1,
    *,
    singles: Literal["exclude", "all"] = "exclude",
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""Pull the embeddings of one domain together (Boutillon et al. 2021; Khosla et al., Eq. 2).

    With $z = h / \max(\lVert h \rVert, 10^{-12})$, $s_{ij} = z_i^\top z_j / \tau$ and $P(i)$ the
    other rows of the domain of row $i$,

    $$\ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \Bigl( s_{ip} - \log \sum_{a \ne i} e^{s_{ia}}
      \Bigr).$$

    The gradient reaches every embedding; nothing is detached.

    Args:
        h: Embeddings of any length.
        domains: Whose each row is.
        temperature: $\tau > 0$.
        singles: Rows that are alone of their domain are left out of the mean (``exclude``), or
            count with a loss of 0 (``all``, as in SupCon's released code).
        gather: Of the joint batch of all ranks, as in :func:`cl_core.losses.sup_con`.

    Returns:
        The mean of $\ell_i$ in nats; about $\log(n - 1)$ for embeddings that know nothing. 0 with
        zero gradient if the batch holds fewer than two domains, or no two rows of one.
    """
    everyone = gather_rows(domains, grad=False) if gather else domains
    if len(torch.unique(everyone)) < 2:
        return (h * 0).sum()
    return sup_con(
        h[:, None],
        domains,
        temperature,
        no_positive="skip" if singles == "exclude" else "zero",
        gather=gather,
    )


def multi_level_contrast(
    maps: Sequence[Float[Tensor, "n ..."]],
    domains: Int64[Tensor, " n"],
    temperature: float | Sequence[float] = 0.1,
    *,
    singles: Literal["exclude", "all"] = "exclude",
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""Return the mean over levels of :func:`domain_contrast` on their pooled feature maps.

    Args:
        maps: Feature maps ``(n, d, *space)`` of one or several levels.
        domains: Whose each row is.
        temperature: One for all levels or one a level.
        singles: See :func:`domain_contrast`.
        gather: See :func:`domain_contrast`.

    Raises:
        ValueError: If there is no level, or not one temperature for each.
    """
    taus = [temperature] * len(maps) if isinstance(temperature, (int, float)) else temperature
    if not maps or len(taus) != len(maps):
        raise ValueError(f"{len(maps)} levels need as many temperatures, got {len(taus)}")
    terms = [
        domain_contrast(pooled(features), domains, tau, singles=singles, gather=gather)
        for features, tau in zip(maps, taus, strict=True)
    ]
    return torch.stack(terms).mean()


def alignment_and_separation(
    h: Float[Tensor, "n d"], domains: Int64[Tensor, " n"]
) -> tuple[float, float]:
    """Return the mean cosine of two rows of one domain, and of two domains.

    Args:
        h: Embeddings of any length.
        domains: Whose each row is.

    Returns:
        Both in [-1, 1]; NaN where there are no such pairs.
    """
    z = F.normalize(h.detach().double(), dim=1)
    cosine = z @ z.T
    same = domains[:, None] == domains[None]
    apart = ~same
    same = same & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    return float(cosine[same].mean()), float(cosine[apart].mean())
