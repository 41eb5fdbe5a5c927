"""HCSC's clusters after the training, as tables: which images belong together, coarse to fine."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl_core.distributed import gather_rows
from cl_core.matmul import inner
from cl_core.runs import Run, write_atomic
from cl_vision.hcsc.estimate import Encoded

if TYPE_CHECKING:
    from cl_vision.hcsc.module import HCSC

__all__ = ["ClusterTree", "cluster_tree", "nearest_rows", "write_cluster_tree"]

_BLOCK = 8192  # images compared with the prototypes at once


@dataclass(frozen=True, kw_only=True)
class ClusterTree:
    """The clusters of all images; tuples have an entry a level, finest first.

    Args:
        clusters: Of every image ``(images,)``, -1 for those that could not be read.
        sizes: Images of each cluster ``(k_l,)``.
        phi: Its concentration ``(k_l,)``.
        parents: Its cluster one level up ``(k_l,)``; one entry less.
        nearest: Rows of the images nearest to its prototype ``(k_l, m)``, the nearest first.
    """

    clusters: tuple[Tensor, ...]
    sizes: tuple[Tensor, ...]
    phi: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]
    nearest: tuple[Tensor, ...]


@torch.no_grad()
def cluster_tree(module: HCSC, *, nearest: int = 5) -> ClusterTree:
    """Cluster all images by the present key encoder; every rank has to call it.

    Args:
        module: After its training.
        nearest: Images to name for each prototype.
    """
    encoded, _ = module.estimate()
    prototypes = module.prototypes
    known = (prototypes.assignment >= 0).nonzero().flatten()
    clusters = []
    for of_level in prototypes.clusters_of(known):
        table = torch.full_like(prototypes.assignment, -1)
        table[known] = of_level
        clusters.append(table.cpu())
    levels = list(prototypes)
    count = min(nearest, len(known))
    return ClusterTree(
        clusters=tuple(clusters),
        sizes=tuple(x.cpu() for x in prototypes.sizes()),
        phi=tuple(level.phi.cpu() for level in levels),
        parents=tuple(level.parents.cpu() for level in levels[:-1]),
        nearest=tuple(nearest_rows(level.vectors, encoded, count).cpu() for level in levels),
    )


def nearest_rows(
    prototypes: Float[Tensor, "k d"], encoded: Encoded, count: int
) -> Int[Tensor, "k m"]:
    """Return the rows of the ``m = count`` images of all ranks nearest to each prototype.

    Args:
        prototypes: Of unit length.
        encoded: This rank's share of the images.
        count: At most as many as there are images.
    """
    rows, features = encoded.rows[encoded.mine], encoded.features[encoded.mine]
    best = prototypes.new_full((len(prototypes), count), -torch.inf)
    where = torch.full_like(best, -1, dtype=torch.int64)
    for block, of_block in zip(
        torch.split(features, _BLOCK), torch.split(rows, _BLOCK), strict=True
    ):
        similar = torch.cat([best, inner(prototypes, block)], 1)
        candidates = torch.cat([where, of_block.expand(len(where), -1)], 1)
        best, index = similar.topk(count, dim=1)
        where = candidates.gather(1, index)
    shares = [gather_rows(x[None], grad=False).transpose(0, 1).flatten(1) for x in (best, where)]
    return shares[1].gather(1, shares[0].topk(count, dim=1).indices)


def write_cluster_tree(
    run: Run, tree: ClusterTree, names: Sequence[str], folder: str = "clusters"
) -> tuple[Path, Path]:
    """Write the tree into the run directory.

    ``images.csv`` has a row an image: name, then its cluster at ``level_1`` (the finest) and so on.
    ``prototypes.csv`` has a row a cluster: ``level``, ``cluster``, ``images``, ``concentration``,
    ``parent`` one level up (empty at the top), and ``nearest``, names separated by ``;``.

    Args:
        run: Claims the folder.
        tree: Of :func:`cluster_tree`.
        names: Of the images, by row.
        folder: Inside the run directory.

    Returns:
        The two files.

    Raises:
        ValueError: If there is not a name for each image.
    """
    if len(names) != len(tree.clusters[0]):
        raise ValueError(f"need a name per image, got {len(names)} for {len(tree.clusters[0])}")
    levels = [f"level_{number}" for number in range(1, len(tree.sizes) + 1)]
    images = torch.stack(tree.clusters, 1).tolist()
    rows = [[name, *of_image] for name, of_image in zip(names, images, strict=True)]
    clusters: list[list[object]] = []
    for depth, sizes in enumerate(tree.sizes):
        for cluster, size in enumerate(sizes.tolist()):
            near = ";".join(names[row] for row in tree.nearest[depth][cluster].tolist())
            parent = int(tree.parents[depth][cluster]) if depth < len(tree.parents) else ""
            phi = f"{float(tree.phi[depth][cluster]):.6g}"
            clusters.append([depth + 1, cluster, size, phi, parent, near])
    header = ["level", "cluster", "images", "concentration", "parent", "nearest"]
    return (
        _write(run.output(f"{folder}/images.csv"), ["image", *levels], rows),
        _write(run.output(f"{folder}/prototypes.csv"), header, clusters),
    )


def _write(path: Path, header: list[str], rows: Sequence[Sequence[object]]) -> Path:
    with write_atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path
