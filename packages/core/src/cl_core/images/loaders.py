"""Loaders of images: to train on, and to measure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing import get_start_method
from typing import Any, Literal

from torch.utils.data import DataLoader

from cl_core.checks import OptionError
from cl_core.errors import InputError
from cl_core.images.collection import Images
from cl_core.images.dataset import ImageDataset, View
from cl_core.images.statistics import channel_statistics
from cl_core.loader import make_loader
from cl_core.orders import Order
from cl_core.seeding import RandomStream
from cl_core.threads import one_thread
from cl_core.transforms.scaling import IMAGENET, Statistics

__all__ = ["evaluation_loader", "measure_statistics", "spare_workers", "training_loader"]


def measure_statistics(images: Images, source: Literal["data", "imagenet"]) -> Statistics:
    """Give the mean and spread that normalise these images.

    Args:
        images: Those to train on.
        source: ``data`` measures up to 5,000 of them.

    Raises:
        InputError: If a channel is constant, images differ in channels, or ImageNet's three
            numbers are asked for other than three channels.
    """
    if source == "imagenet":
        if images.channels != 3:
            raise OptionError(
                f"statistics=imagenet is for 3 channels, the images have {images.channels}: say "
                "statistics=data"
            )
        return IMAGENET
    try:
        return channel_statistics(images.dataset)
    except ValueError as error:
        raise InputError(f"{images.table.source}: {error}") from error


def training_loader(
    images: Images,
    views: Sequence[View],
    *,
    batch_size: int,
    workers: int | None = None,
    seed: int,
    order: Order | None = None,
) -> DataLoader[Any]:
    """Make the loader of a training: shuffled, in full batches, each rank its share.

    Args:
        images: Those to train on.
        views: A transform a view.
        batch_size: Images a step, on each rank.
        workers: Processes; by default one where it pays, so that the next batch is made during a
            step: see :func:`spare_workers`. The batches are the same for any number.
        seed: The run's.
        order: Instead of a plain shuffle; see :mod:`cl_core.orders`.

    Raises:
        InputError: If there are fewer than two images, or fewer than a batch.
    """
    if len(images) < 2:
        raise InputError(
            f"{images.table.source}: {len(images)} image to train on, and a contrast needs at "
            "least 2: give more images"
        )
    if len(images) < batch_size and order is None:
        raise OptionError(
            f"batch_size {batch_size} is larger than the {len(images)} images to train on: say "
            f"batch_size={len(images)} or less"
        )
    dataset = images.dataset.views(len(views), list(views))
    return make_loader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        workers=spare_workers(dataset, batch_size) if workers is None else workers,
        seed=seed,
        order=order,
    )


def spare_workers(dataset: object, batch_size: int) -> int:
    """One process to prepare batches beside the training, where it is cheap and safe, else none.

    Where processes are forked, there is a processor to spare, images come from files, and three
    batches fit in what shared memory has left (64 MB in many containers).

    Args:
        dataset: That will be read.
        batch_size: Rows of a batch.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if processors < 2 or get_start_method() != "fork" or not isinstance(dataset, ImageDataset):
        return 0
    try:
        with RandomStream(0).running(), one_thread():
            sample = dataset[0]
        room = os.statvfs("/dev/shm")
    except (InputError, OSError):  # told when its turn comes
        return 0
    parts = (*sample.views, *sample.masks)
    needed = 3 * batch_size * sum(part.nbytes for part in parts)
    return int(needed < room.f_bavail * room.f_frsize)


def evaluation_loader(
    images: Images, view: View, *, batch_size: int, workers: int = 0, shard: bool = False
) -> DataLoader[Any]:
    """Make a loader that gives each image once, in order.

    Args:
        images: All of them.
        view: One view of each.
        batch_size: Images a batch.
        workers: Processes.
        shard: Give each rank its share.
    """
    return make_loader(
        images.dataset.views(1, view),
        batch_size=batch_size,
        shuffle=False,
        workers=workers,
        seed=0,
        shard=shard,
    )
