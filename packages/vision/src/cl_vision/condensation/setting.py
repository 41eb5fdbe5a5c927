"""What the commands share: the images of a run, its network, where a set starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cl_core.checks import OptionError
from cl_vision.condensation.config import CondenseConfig
from cl_vision.condensation.convnet import ConvNet
from cl_vision.condensation.loop import Loop
from cl_vision.condensation.real_images import RealImages, load_real
from cl_vision.condensation.selection import select
from cl_vision.condensation.table import (
    DIGIT_STRATEGY,
    MATCHING,
    PRESETS,
    PUBLISHED,
    STRATEGY,
    nearest_published,
)
from cl_vision.data import Images, open_images

__all__ = [
    "complete",
    "left_open",
    "loop_of",
    "network_builder",
    "open_labelled",
    "real_of",
    "start_images",
]


def complete(config: CondenseConfig, size: tuple[int, int], *, digits: bool) -> CondenseConfig:
    """The options with what was left open filled in.

    Args:
        config: As given.
        size: Height and width of the images.
        digits: Whether these are digits, which do not survive a flip.

    Raises:
        OptionError: If a warm-up is longer than its loop.
    """
    preset = PRESETS[config.preset]
    steps, epochs = PUBLISHED[nearest_published(config.ipc)]
    outer = config.outer_loop or preset["outer_loop"]
    inner = config.inner_loop or steps
    network_epochs = config.network_epochs
    if network_epochs is None:
        network_epochs = preset["network_epochs"] or epochs
    made = replace(
        config,
        outer_loop=outer,
        inner_loop=inner,
        network_epochs=network_epochs,
        outer_warmup=round(outer / 4) if config.outer_warmup is None else config.outer_warmup,
        inner_warmup=min(10, inner) if config.inner_warmup is None else config.inner_warmup,
        width=config.width or preset["width"],
        depth=config.depth or (2 if min(size) < 16 else 3),
        real_batch=config.real_batch or preset["real_batch"],
        strategy=config.strategy or (DIGIT_STRATEGY if digits else STRATEGY),
    )
    for name in ("outer", "inner"):
        warmup, length = getattr(made, f"{name}_warmup"), getattr(made, f"{name}_loop")
        if warmup > length:
            raise OptionError(f"{name}_warmup must be at most {name}_loop, {length}, got {warmup}")
    return made


def left_open(given: CondenseConfig, made: CondenseConfig) -> str:
    """What :func:`complete` made of the options that were left open, in a line."""
    open_ = [f.name for f in fields(made) if getattr(given, f.name) is None]
    filled = {name: getattr(made, name) for name in open_ if getattr(made, name) is not None}
    line = ", ".join(f"{name} {value}" for name, value in filled.items())
    nearest = nearest_published(made.ipc)
    if nearest != made.ipc and "inner_loop" in filled:
        line += f" (inner_loop as published for {nearest} images a class)"
    return f"options left open: {line or 'none'}"


def network_builder(
    config: CondenseConfig, channels: int, number: int, size: tuple[int, int]
) -> Callable[[], nn.Module]:
    """Give what builds the network of a filled configuration.

    Raises:
        OptionError: If the size and the depth, or the width and the norm, do not fit.
    """
    build = partial(
        ConvNet,
        channels,
        number,
        size,
        width=cast(int, config.width),
        depth=cast(int, config.depth),
        norm=config.norm,
        activation=config.activation,
        pooling=config.pooling,
    )
    try:
        with torch.device("meta"):
            build()
    except ValueError as error:
        raise OptionError(f"--depth, --image_size, --width: {error}") from error
    return build


def loop_of(config: CondenseConfig, chunk: int | None) -> Loop:
    """The numbers of the loop, of a filled configuration.

    Args:
        config: With nothing left open.
        chunk: Images at a time where the configuration does not say.
    """
    contrast, augmented = MATCHING[config.method]
    return Loop(
        outer_loop=cast(int, config.outer_loop),
        inner_loop=cast(int, config.inner_loop),
        network_epochs=cast(int, config.network_epochs),
        contrast=contrast,
        outer_warmup=cast(int, config.outer_warmup),
        inner_warmup=cast(int, config.inner_warmup),
        strategy=cast(str, config.strategy) if augmented else "",
        metric=config.metric,
        image_lr=config.image_lr,
        image_momentum=config.image_momentum,
        network_lr=config.network_lr,
        real_batch=cast(int, config.real_batch),
        train_batch=config.train_batch,
        real_chunk=config.real_chunk or chunk,
        syn_chunk=config.syn_chunk or chunk,
        clamp=config.clamp,
    )


def start_images(real: RealImages, ipc: int, initialise: str, generator: torch.Generator) -> Tensor:
    """Where the synthetic images start, grouped by class.

    Args:
        real: The real images.
        ipc: Images a class.
        initialise: ``real``, ``noise`` or ``kmeans``.
        generator: On the CPU.
    """
    n = ipc * len(real.classes)
    if initialise == "noise":
        return torch.randn(n, real.channels, *real.size, generator=generator)
    everything = real.take(torch.arange(len(real))).flatten(1) if initialise == "kmeans" else None
    features = torch.zeros(len(real), 1) if everything is None else everything
    how: Any = "kmeans" if initialise == "kmeans" else "random"
    return real.take(select(how, features, real.labels, ipc, generator))


def real_of(
    options: dict[str, Any], data: str | None = None
) -> tuple[RealImages, RealImages, Images]:
    """The training and test images of a run of `condense`, read as it read them.

    Args:
        options: Of its ``config.yaml``.
        data: Other images.

    Raises:
        InputError: If they are not there or cannot be read.
    """
    kept = {name: value for name, value in options.items() if name in _DATA}
    if data is not None:
        kept |= {"data": data, "root": None}
    config = CondenseConfig(out=Path("unused"), **kept)
    images = open_labelled(config)
    train, test = images.train_and_test(config.test_share, seed=config.seed)
    return load_real(train, size=config.size), load_real(test, size=config.size), images


_DATA = (
    "data",
    "root",
    "labels",
    "channels",
    "image_size",
    "on_error",
    "test_share",
    "seed",
)


def open_labelled(config: CondenseConfig) -> Images:
    """Open the images that the options name."""
    return open_images(
        config.data,
        root=config.root,
        labels=config.labels,
        channels=config.channels,
        on_error=config.on_error,
    )
