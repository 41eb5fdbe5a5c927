"""HCSC's prototypes, looked up by image.

Every rank encodes its share of the images and keeps their features; k-means adds up over the ranks
(`estimate`). What every rank holds afterwards is the cluster of each image at the finest level, the
parents of the clusters, and a vector and a concentration a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from cl_core.distributed import gather_rows
from cl_core.errors import InputError
from cl_vision.hcsc.equations import log_sums
from cl_vision.hcsc.estimate import Encoded, Estimate

__all__ = [
    "Level",
    "Prototypes",
    "agreement",
    "require_clusters",
    "suggest_clusters",
]

_COMPARED = 10_000  # images by which two clusterings are compared


def require_clusters(clusters: Sequence[int], images: int) -> None:
    """Refuse levels that do not fall, or too many clusters for the images.

    Raises:
        InputError: Unless the numbers fall from level to level, from at most a tenth of the images
            to at least 2.
    """
    given = ",".join(map(str, clusters))
    if not clusters or clusters[-1] < 2 or any(a < b for a, b in pairwise(clusters)):
        raise InputError(
            f"clusters {given}: the levels must go from fine to coarse, to 2 or more, as 3000,2000"
        )
    if clusters[0] > images // 10:
        fitting, _ = suggest_clusters(images)
        advice = f"try {','.join(map(str, fitting))}" if images >= 50 else "it takes more images"
        raise InputError(
            f"clusters {given}: {clusters[0]} clusters need {10 * clusters[0]:,} images or more, "
            f"and there are {images:,}: {advice}"
        )


def suggest_clusters(images: int) -> tuple[tuple[int, ...], str]:
    """Choose the clusters of three levels, and say why.

    ImageNet's 3,000, 2,000 and 1,000 from 75,000 images on; below, one cluster for 25 images at the
    finest level, a half and a fifth of them above.

    Example:
        >>> suggest_clusters(1437)[0]
        (57, 28, 11)
    """
    finest = images // 25
    if finest >= 3000:
        return (3000, 2000, 1000), f"{images:,} images: the numbers published for ImageNet"
    finest = max(finest, 2)
    levels = (finest, max(finest // 2, 2), max(finest // 5, 2))
    return levels, f"{images:,} images: a cluster for 25 of them, then a half and a fifth as many"


class Level(nn.Module):
    """The prototypes of one level.

    Attributes:
        vectors: Of unit length, ``(k, d)``.
        phi: Their concentrations ``(k,)``.
        parents: Cluster of each one level up ``(k,)``; at the top 0.
        sums: :func:`~cl_vision.hcsc.equations.log_sums` over the level above ``(k,)``; at the
            top 0.
        largest: The largest cluster that has an image.
    """

    vectors: Tensor
    phi: Tensor
    parents: Tensor
    sums: Tensor

    def __init__(self, clusters: int, dim: int) -> None:
        super().__init__()
        self.largest = clusters - 1
        self.register_buffer("vectors", torch.zeros(clusters, dim))
        self.register_buffer("phi", torch.ones(clusters))
        self.register_buffer("parents", torch.zeros(clusters, dtype=torch.int64))
        self.register_buffer("sums", torch.zeros(clusters))

    def __len__(self) -> int:
        return len(self.vectors)


class Prototypes(nn.Module):
    """Prototypes of all levels and every image's place among them; all of it is in a checkpoint.

    Args:
        images: Images there are, by which rows are looked up.
        clusters: Clusters of each level, finest first.
        dim: Width of the embedding.

    Attributes:
        assignment: Finest cluster of each image ``(images,)``, -1 before the first estimate and
            for images that could not be read.
        labels: Class of each image, -1 for none; not in the checkpoint.

    Raises:
        InputError: If the clusters do not fit the images; see :func:`require_clusters`.
    """

    assignment: Tensor
    labels: Tensor

    def __init__(self, images: int, clusters: Sequence[int], dim: int) -> None:
        super().__init__()
        require_clusters(clusters, images)
        self.levels = nn.ModuleList(Level(k, dim) for k in clusters)
        self.register_buffer("assignment", torch.full((images,), -1))
        self.register_buffer("labels", torch.full((images,), -1), persistent=False)

    def __iter__(self) -> Any:
        return iter(cast("Iterable[Level]", self.levels))

    def __len__(self) -> int:
        return len(self.levels)

    def clusters_of(self, rows: Int[Tensor, " n"]) -> list[Int[Tensor, " n"]]:
        """Look up the clusters of images, finest level first: $a^{l+1}(i) = π^l(a^l(i))$."""
        found = [self.assignment[rows]]
        for level in self:
            found.append(level.parents[found[-1]])
        return found[:-1]

    @torch.no_grad()
    def adopt(self, encoded: Encoded, found: Estimate) -> None:
        """Take over an estimate on every rank.

        Args:
            encoded: The images, this rank's share.
            found: Estimated from those that are its own.
        """
        tree = found.hierarchy
        local = torch.full_like(encoded.rows, -1)
        local[encoded.mine] = tree.assignments[0]
        for table, values in ((self.assignment, local), (self.labels, encoded.labels)):
            rows, values = (gather_rows(x, grad=False) for x in (encoded.rows, values))
            known = values >= 0
            table.fill_(-1)
            table[rows[known]] = values[known]
        tops = len(self) - 1
        for depth, level in enumerate(self):
            level.vectors.copy_(tree.prototypes[depth])
            level.phi.copy_(found.phi[depth])
            if depth < tops:
                level.parents.copy_(tree.parents[depth])
                above = tree.prototypes[depth + 1], found.phi[depth + 1]
                level.sums.copy_(log_sums(tree.prototypes[depth], *above))
        for level, sizes in zip(self, self.sizes(), strict=True):
            level.largest = int(sizes.nonzero().max())

    def sizes(self) -> list[Int[Tensor, " k"]]:
        """Count the images of every cluster, finest level first."""
        rows = (self.assignment >= 0).nonzero().flatten()
        return [
            torch.bincount(index, minlength=len(level))
            for index, level in zip(self.clusters_of(rows), self, strict=True)
        ]

    def figures(self, before: Int[Tensor, " images"] | None = None) -> dict[str, float]:
        """Describe every level, ``level_1`` the finest.

        Args:
            before: An earlier ``assignment``, to compare the finest level with.

        Returns:
            ``level_1/smallest``, ``/largest`` and ``/empty`` clusters, ``/phi_min``, ``/phi_max``;
            ``ami_to_previous`` if there is something to compare.
        """
        figures: dict[str, float] = {}
        for number, (sizes, level) in enumerate(zip(self.sizes(), self, strict=True), start=1):
            figures |= {
                f"level_{number}/smallest": float(sizes.min()),
                f"level_{number}/largest": float(sizes.max()),
                f"level_{number}/empty": float((sizes == 0).sum()),
                f"level_{number}/phi_min": float(level.phi.min()),
                f"level_{number}/phi_max": float(level.phi.max()),
            }
        if before is not None and bool((before >= 0).any()):
            figures["ami_to_previous"] = agreement(before, self.assignment)
        return figures


def agreement(a: Int[Tensor, " n"], b: Int[Tensor, " n"]) -> float:
    """Return the adjusted mutual information of two clusterings of the same images.

    Of more than 10,000 images an even selection is compared: chance is accounted for, and the
    expectation under chance costs time with the clusters squared.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    both = ((a >= 0) & (b >= 0)).nonzero().flatten()
    chosen = both[:: max(1, len(both) // _COMPARED)]
    return float(adjusted_mutual_info_score(a[chosen].cpu().numpy(), b[chosen].cpu().numpy()))
