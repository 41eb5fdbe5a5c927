"""Where domains lie in the shared representation: centres, silhouette, the domain of a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cl_medical.segmentation.data import Source, central_patches
from cl_medical.segmentation.network import MultiDomainNetwork

__all__ = ["DomainPoints", "center_of", "domain_points", "domain_scores", "embedded"]

PATCHES = 8
"""Patches of a case that are embedded."""


@dataclass(frozen=True)
class DomainPoints:
    """Unit embeddings of patches.

    Attributes:
        points: float32 ``(n, d)``.
        domains: Number of the domain of each.
        cases: Name of the case of each.
    """

    points: NDArray[np.float32]
    domains: NDArray[np.int64]
    cases: tuple[str, ...]

    def silhouette(self) -> float:
        """How well domains are told apart, by cosine distance: 1 apart, 0 mixed.

        NaN for fewer than two domains.
        """
        from sklearn.metrics import silhouette_score

        if len(np.unique(self.domains)) < 2 or len(self.domains) <= len(np.unique(self.domains)):
            return math.nan
        return float(silhouette_score(self.points, self.domains, metric="cosine"))

    def centers(self, count: int) -> list[tuple[float, ...]]:
        """The mean unit embedding of each domain, itself of unit length; empty if it has none."""
        return [center_of(self.points[self.domains == k]) for k in range(count)]


def center_of(points: NDArray[np.float32]) -> tuple[float, ...]:
    """The direction of the mean of unit embeddings."""
    if not len(points):
        return ()
    mean = points.astype(np.float64).mean(0)
    return tuple((mean / max(float(np.linalg.norm(mean)), 1e-12)).tolist())


@torch.no_grad()
def domain_points(
    network: MultiDomainNetwork,
    sources: Sequence[Source],
    patch: Sequence[int],
    *,
    count: int = PATCHES,
) -> DomainPoints:
    """Embed patches of cases, each by its own domain's norms.

    Args:
        network: In eval mode.
        sources: Cases, numbered by the network's domains.
        patch: Size of a training sample.
        count: Patches of a case.
    """
    rows: list[Tensor] = []
    domains: list[int] = []
    cases: list[str] = []
    for source in sources:
        patches = central_patches(source, patch, count, network.backbone.in_channels)
        rows.append(embedded(network, patches, source.domain))
        domains += [source.domain] * len(patches)
        cases += [source.name] * len(patches)
    points: Any = torch.cat(rows).numpy() if rows else np.zeros((0, 1), np.float32)
    return DomainPoints(points, np.array(domains, dtype=np.int64), tuple(cases))


@torch.no_grad()
def embedded(network: MultiDomainNetwork, patches: Tensor, domain: int | str) -> Tensor:
    """Unit embeddings ``(m, d)`` of patches by a domain's norms, on the CPU."""
    device = next(network.parameters()).device
    return F.normalize(network.embed(patches.to(device), domain), dim=1).cpu()


@torch.no_grad()
def domain_scores(
    network: MultiDomainNetwork,
    candidates: Sequence[tuple[str, Tensor, Sequence[float]]],
) -> dict[str, float]:
    """How near a volume is to each domain.

    Args:
        network: In eval mode.
        candidates: For each domain its name, patches of the volume prepared as for this domain, and
            the domain's centre.

    Returns:
        The mean cosine between the patches' embeddings, by the domain's own norms, and its centre.
    """
    return {
        name: float((embedded(network, patches, name) @ torch.tensor(list(center))).mean())
        for name, patches, center in candidates
    }
