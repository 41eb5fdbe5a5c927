"""Loaders of images: to train on, and to measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch.utils.data import DataLoader

from cl_core.checks import OptionError
from cl_core.errors import InputError
from cl_core.images.collection import Images
from cl_core.images.dataset import View
from cl_core.images.statistics import channel_statistics
from cl_core.loader import make_loader
from cl_core.orders import Order
from cl_core.transforms.scaling import IMAGENET, Statistics

__all__ = ["evaluation_loader", "measure_statistics", "training_loader"]


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
    workers: int,
    seed: int,
    order: Order | None = None,
) -> DataLoader[Any]:
    """Make the loader of a training: shuffled, in full batches, each rank its share.

    Args:
        images: Those to train on.
        views: A transform a view.
        batch_size: Images a step, on each rank.
        workers: Processes.
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
    return make_loader(
        images.dataset.views(len(views), list(views)),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        workers=workers,
        seed=seed,
        order=order,
    )


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
