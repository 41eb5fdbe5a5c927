"""Mini-batches of a large graph: induced subgraphs, delivered by PyG's DataLoader.

ARIEL (Feng et al. 2022) trains on one random node subset a step; `clusters` and `neighbors` choose
nodes otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from torch.utils.data.distributed import DistributedSampler

from cl_core import distributed
from cl_graphs.graph import AttributedGraph
from cl_graphs.methods.clusters import ClusterDataset
from cl_graphs.methods.neighbors import NeighborDataset
from cl_graphs.methods.subsets import (
    PassDataset,
    SubgraphDataset,
    induced_edges,
    random_nodes,
    seeded,
)

__all__ = [
    "DrawSampler",
    "PassDataset",
    "SubgraphDataset",
    "dataset_for",
    "induced_edges",
    "loader_for",
    "random_nodes",
    "seeded",
]


class DrawSampler(DistributedSampler[Any]):
    """Numbers the draws of a run: step ``s`` of rank ``r`` of ``w`` gets draw ``s * w + r``.

    Lightning calls `set_epoch` before each epoch, also after a resume, and leaves a
    ``DistributedSampler`` alone.

    Args:
        dataset: What the draws index.
        steps_per_epoch: Draws of each rank in an epoch; of a `PassDataset` default one pass over
            all ranks together.
        rank: This process; default: asked of the process group when an epoch starts, so the sampler
            may be made before the group is.
        world_size: All processes; likewise.

    Raises:
        ValueError: If ``steps_per_epoch < 1``.
    """

    def __init__(
        self,
        dataset: SubgraphDataset,
        *,
        steps_per_epoch: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
        super().__init__(dataset, num_replicas=world_size or 1, rank=rank or 0, shuffle=False)
        self.steps_per_epoch = steps_per_epoch
        self.per_pass = dataset.draws_per_pass
        self.given = rank, world_size

    def __len__(self) -> int:
        if self.per_pass is None:
            return self.steps_per_epoch
        return -(-self.per_pass // self._world())

    def __iter__(self) -> Iterator[int]:
        rank = distributed.rank() if self.given[0] is None else self.given[0]
        world_size, steps = self._world(), len(self)
        for step in range(self.epoch * steps, (self.epoch + 1) * steps):
            yield step * world_size + rank

    def _world(self) -> int:
        return distributed.world_size() if self.given[1] is None else self.given[1]


def loader_for(
    graph: AttributedGraph,
    *,
    subgraph_size: int,
    steps_per_epoch: int = 1,
    seed: int,
    sampler: Literal["random", "cluster", "neighbor"] = "random",
    workers: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
) -> Any:
    """Serve mini-batches of one graph as PyG ``Data``.

    Whatever the sampler, batches repeat exactly from ``(seed, epoch, rank)``.

    Args:
        graph: Any graph.
        subgraph_size: Nodes of a batch for ``random``; mean nodes of a cluster for ``cluster``;
            nodes a batch starts from, each with up to 10 + 10 sampled neighbours, for ``neighbor``.
        steps_per_epoch: Batches of an epoch and rank; ``random`` only, the others see every node
            once an epoch.
        seed: At least 0.
        sampler: ``random`` draws node subsets as published; ``cluster`` serves the parts of
            `clusters.partition` (Chiang et al. 2019); ``neighbor`` samples neighbours (Hamilton et
            al. 2017). Batches are induced subgraphs.
        workers: Processes that prepare batches.
        rank: This process in a distributed run; default: asked of the process group.
        world_size: All processes; likewise.

    Returns:
        A PyG loader. Batches carry ``x``, ``edge_index``, ``n_id`` and, with labels, ``y``.

    Raises:
        InputError: If ``sampler`` needs a package that is not installed.
        ValueError: If a number is out of range or ``sampler`` is unknown.
    """
    from cl_graphs.readers.pyg import loader

    dataset = dataset_for(graph, subgraph_size=subgraph_size, seed=seed, sampler=sampler)
    draws = DrawSampler(dataset, steps_per_epoch=steps_per_epoch, rank=rank, world_size=world_size)
    return loader.DataLoader(dataset, batch_size=1, sampler=draws, num_workers=workers)


def dataset_for(
    graph: AttributedGraph,
    *,
    subgraph_size: int,
    seed: int,
    sampler: Literal["random", "cluster", "neighbor"],
) -> SubgraphDataset:
    """Make what `loader_for` serves."""
    if sampler == "random":
        return SubgraphDataset(graph, subgraph_size=subgraph_size, seed=seed)
    if sampler == "neighbor":
        return NeighborDataset(graph, subgraph_size=subgraph_size, seed=seed)
    if sampler == "cluster":
        return ClusterDataset(graph, subgraph_size=subgraph_size, seed=seed)
    raise ValueError(f"sampler must be 'random', 'cluster' or 'neighbor', got {sampler!r}")
