"""The one place that makes a ``DataLoader``.

Every batch is drawn, transformed and collated under global generators seeded by ``(seed, epoch,
batch, rank)``. So random augmentations differ between samples, workers, epochs and ranks, whatever
library draws them; they are the same for any number of workers; and an epoch that is repeated
after a kill is repeated exactly. Per-row work runs on one thread wherever it runs.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from cl_core.distributed import rank, world_size
from cl_core.orders import Order
from cl_core.seeding import RandomStream, derive_seed, seed_everything
from cl_core.threads import one_thread

__all__ = ["EpochBatches", "make_loader"]


def make_loader(
    dataset: Dataset[Any] | Sequence[Any],
    *,
    batch_size: int,
    shuffle: bool,
    workers: int,
    seed: int,
    drop_last: bool = False,
    collate: Callable[[list[Any]], Any] | None = None,
    shard: bool | None = None,
    order: Order | None = None,
) -> DataLoader[Any]:
    """Make the loader of a map-style data set.

    Args:
        dataset: Any data set with a length, or a list of samples. If it, a data set it wraps
            (``.dataset``) or a transform in it (``.transform``, ``.transforms``) has
            ``set_random_state(generator, py_random)`` (albumentations), ``set_random_state(seed)``
            (MONAI) or ``set_random_seed(seed)``, that is called for every batch: those libraries
            ignore the global generators.
        batch_size: Rows a batch, on each rank.
        shuffle: Draw a new order every epoch; else the data set's own.
        workers: Processes that load, 0 for this one. They live as long as the loader.
        seed: The run's seed.
        drop_last: Leave out the last rows if they do not fill a batch. Otherwise the last batch
            is smaller; of a shuffled epoch a last batch of a single row is left out all the same,
            since neither batch normalisation nor a contrast works on one.
        collate: Makes a batch of a list of samples; by default tensors are stacked.
        shard: Give each rank its own part: row ``i`` of the order goes to rank ``i`` modulo their
            number, and the first rows are repeated until all ranks have as many. Defaults to
            ``shuffle``, so that evaluation sees every row once, on every rank.
        order: Which rows each batch holds, instead of a plain shuffle: one of
            :mod:`cl_core.orders`. Its batches are full, and each rank has its own.

    Returns:
        A loader whose epochs advance by themselves, or are named by ``batch_sampler.set_epoch``.

    Raises:
        ValueError: If a number is out of range, or the data set gives no batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    rows = len(cast(Sized, dataset))
    if rows == 0:
        raise ValueError("the data set is empty")
    if drop_last and rows < batch_size:
        raise ValueError(
            f"batch_size {batch_size} is larger than the data set ({rows} rows) and incomplete "
            "batches are left out, so nothing would be trained on: lower batch_size"
        )
    if order is not None:
        if not shuffle or shard is False:
            raise ValueError(
                "an order shuffles, and gives each rank its own rows: say shuffle=True"
            )
        if order.rows != rows:
            raise ValueError(f"the order is of {order.rows} rows, the data set has {rows}")
        order.count(batch_size, 1)  # which refuses a batch size that does not suit it
    batches = EpochBatches(
        rows,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        shard=shuffle if shard is None else shard,
        order=order,
    )
    return DataLoader(
        _SeededBatches(dataset, collate or default_collate),
        batch_sampler=cast(Sampler[list[Any]], batches),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_as_is,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),  # else workers draw from the model's
    )


class Batch(NamedTuple):
    """What a worker is told: which rows, and the seed of everything random about them."""

    seed: int
    rows: list[int]


class EpochBatches(Sampler[Batch]):
    """The batches of an epoch, a function of ``(seed, epoch, rank)`` alone.

    The arguments are those of :func:`make_loader`. The process group is asked when an epoch
    begins, so the sampler may be made before there is one.
    """

    def __init__(
        self,
        rows: int,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        shard: bool,
        order: Order | None = None,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.shard = shard
        self.order = order
        self.epoch = 0

    @property
    def sampler(self) -> EpochBatches:
        """Itself: Lightning and others look here for what has a ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Name the next epoch; without it, each is the one after the last."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.order is not None:
            return self.order.count(self.batch_size, world_size())
        rows = -(-self.rows // world_size()) if self.shard else self.rows
        full, left = divmod(rows, self.batch_size)
        lone = self.shuffle and left == 1 and full > 0
        return full + (left > 0 and not self.drop_last and not lone)

    def __iter__(self) -> Iterator[Batch]:
        # Runs with the first batch: a loader may make an iterator and never use it.
        epoch, self.epoch = self.epoch, self.epoch + 1
        number, world = (rank(), world_size()) if self.shard else (0, 1)
        for batch, rows in enumerate(self._batches(epoch, number, world)):
            yield Batch(derive_seed(self.seed, epoch, batch, number), rows)

    def _batches(self, epoch: int, number: int, world: int) -> Iterator[list[int]]:
        if self.order is not None:
            drawn = self.order.batches(
                self.batch_size, seed=self.seed, epoch=epoch, rank=number, world=world
            )
            yield from (rows.tolist() for rows in drawn)
            return
        order = torch.arange(self.rows)
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            order = torch.randperm(self.rows, generator=generator)
        even = -(-self.rows // world) * world
        padded = order[torch.arange(even) % self.rows]
        mine = torch.split(padded[number::world], self.batch_size)[: len(self)]
        yield from (rows.tolist() for rows in mine)


class _SeededBatches(Dataset[Any]):
    """A data set that is read a batch at a time, collation included, under the batch's seed."""

    def __init__(
        self, dataset: Dataset[Any] | Sequence[Any], collate: Callable[[list[Any]], Any]
    ) -> None:
        self.dataset = dataset
        self.collate = collate

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, row: int) -> Any:
        return self.dataset[row]

    def __getitems__(self, batch: Batch) -> Any:
        if get_worker_info() is None:
            with RandomStream(batch.seed).running(), one_thread():
                return self._read(batch)
        seed_everything(batch.seed)  # a worker has nothing of its own to draw
        return self._read(batch)

    def _read(self, batch: Batch) -> Any:
        _reseed(self.dataset, batch.seed % 2**32)
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = fetch(batch.rows) if fetch else [self.dataset[row] for row in batch.rows]
        return self.collate(samples)


def _reseed(owner: Any, seed: int) -> None:
    """Seed the generators that transforms keep to themselves."""
    state = getattr(owner, "set_random_state", None)
    if callable(state) and "py_random" in inspect.signature(state).parameters:
        # albumentations: its set_random_seed would give every step the same draws
        state(np.random.default_rng(seed), random.Random(seed))
        return
    for setter in (state, getattr(owner, "set_random_seed", None)):
        if callable(setter):
            setter(seed)
            return
    for name in ("dataset", "datasets", "transform", "transforms"):
        part = getattr(owner, name, None)
        for child in part if isinstance(part, (list, tuple)) else [part]:
            if child is not None and child is not owner:
                _reseed(child, seed)


def _as_is(batch: Any) -> Any:
    return batch
