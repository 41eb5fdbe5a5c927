"""The options of `condense` (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from cl_core.checks import (
    OptionError,
    require_at_least,
    require_one_of,
    require_positive,
    require_rate,
)
from cl_core.commands.options import Options
from cl_core.config import TrainerConfig
from cl_vision.condensation.table import (
    DIGIT_STRATEGY,
    MATCHING,
    PRESETS,
    PUBLISHED,
    STRATEGY,
    nearest_published,
    parse_strategy,
)

__all__ = ["CondenseConfig", "LabelledData", "require_strategy"]


def require_strategy(strategy: str | None) -> None:
    """Refuse a strategy of unknown operations; an empty one is none."""
    if strategy:
        try:
            parse_strategy(strategy)
        except ValueError as error:
            raise OptionError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class LabelledData(Options):
    """Labelled images.

    Args:
        data: A folder of images in class sub-folders (or of train and test folders of such), a
            manifest (.csv, .tsv, .parquet with columns image and label), or the built-in `digits`.
        root: Folder that a manifest's paths start at; by default the manifest's.
        labels: Column of a manifest that holds the classes; `auto` is label.
        channels: 3 for colour, 1 for grey, 4 for colour and opacity, or `keep` for as many as the
            first image has, which all others must then have.
        image_size: Height and width to scale to, as one number or `[H, W]`; by default images stay
            as they are and must be of one size.
        on_error: At a file that cannot be read `stop`, or `skip` it and tell.
        test_share: Share of each class to test on, where the data has no split.
        seed: Of everything.
    """

    data: str
    root: Path | None = None
    labels: str = "auto"
    channels: Literal[1, 3, 4, "keep"] = "keep"
    image_size: int | tuple[int, int] | None = None
    on_error: Literal["stop", "skip"] = "stop"
    test_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size is not None:
            require_at_least(4, image_size=min(self.size))
        if not 0 < self.test_share < 1:
            raise OptionError(f"test_share must lie between 0 and 1, got {self.test_share}")
        require_at_least(0, seed=self.seed)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size


@dataclass(frozen=True, kw_only=True)
class CondenseConfig(LabelledData):
    """Learn a few images a class that train a network in place of all of them.

    Args:
        out: Run directory to write.
        method: `dc` matches gradients class by class, `dcc` of all classes at once; `dsa` and
            `dsac` are the same with siamese augmentation.
        ipc: Images a class.
        preset: What is not given below: `cpu-smoke` (seconds to minutes), `cpu`, or `gpu-paper`
            (published numbers).
        outer_loop: Networks the images are matched on.
        inner_loop: Matching steps on each; by default as published for `ipc`.
        network_epochs: Epochs of a network on the set between two steps.
        outer_warmup: Outer iterations in which `dcc` and `dsac` start class by class; by default a
            quarter.
        inner_warmup: Steps of each of these that are class by class; by default 10, or all if there
            are fewer.
        width: Channels of the network.
        depth: Its blocks, each of which halves the image; by default 3, for images below 16 pixels
            2.
        norm: Of the network.
        activation: Of the network.
        pooling: Of the network.
        metric: Of the gradient distance: `ours` is that of the papers.
        initialise: Start from `real` images at random, from `noise`, or from real images near the
            centres of `kmeans`.
        strategy: Operations of `dsa` and `dsac`; by default all, without `flip` for digits.
        image_lr: Step size of the images.
        image_momentum: Of the images.
        network_lr: Step size of the networks.
        real_batch: Real images a class and step; all of a class that has fewer.
        train_batch: Images of the set a step of a network.
        real_chunk: Real images computed at a time; changes memory and time only.
        syn_chunk: Synthetic images computed at a time; changes memory and time only.
        clamp: Keep pixels in the range of pictures.
        time_budget: Seconds after which to stop, with valid results; `--resume` goes on.
        resume: Continue the run in `out`.
        overwrite: Replace the run in `out`.
        trainer: Device, precision, checkpoints.
    """

    out: Path
    method: Literal["dc", "dsa", "dcc", "dsac"] = "dcc"
    ipc: int = 1
    preset: Literal["cpu-smoke", "cpu", "gpu-paper"] = "cpu"
    outer_loop: int | None = None
    inner_loop: int | None = None
    network_epochs: int | None = None
    outer_warmup: int | None = None
    inner_warmup: int | None = None
    width: int | None = None
    depth: int | None = None
    norm: Literal["none", "batch", "layer", "instance", "group"] = "instance"
    activation: Literal["sigmoid", "relu", "leakyrelu"] = "relu"
    pooling: Literal["max", "avg", "none"] = "avg"
    metric: Literal["ours", "mse", "cos"] = "ours"
    initialise: Literal["real", "noise", "kmeans"] = "real"
    strategy: str | None = None
    image_lr: float = 0.1
    image_momentum: float = 0.5
    network_lr: float = 0.01
    real_batch: int | None = None
    train_batch: int = 256
    real_chunk: int | None = None
    syn_chunk: int | None = None
    clamp: bool = False
    time_budget: float | None = None
    resume: bool = False
    overwrite: bool = False
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("method", self.method, tuple(MATCHING))
        require_at_least(
            1,
            ipc=self.ipc,
            outer_loop=self.outer_loop,
            inner_loop=self.inner_loop,
            width=self.width,
            real_batch=self.real_batch,
            train_batch=self.train_batch,
            real_chunk=self.real_chunk,
            syn_chunk=self.syn_chunk,
        )
        require_at_least(
            0,
            network_epochs=self.network_epochs,
            outer_warmup=self.outer_warmup,
            inner_warmup=self.inner_warmup,
        )
        if self.depth is not None and not 1 <= self.depth <= 4:
            raise OptionError(f"depth must be from 1 to 4, got {self.depth}")
        require_positive(
            image_lr=self.image_lr, network_lr=self.network_lr, time_budget=self.time_budget
        )
        require_rate(image_momentum=self.image_momentum)
        require_strategy(self.strategy)
        if self.trainer.devices not in ("auto", 1) or self.trainer.num_nodes != 1:
            raise OptionError("trainer.devices must be 1: a set is condensed on one device")
        if self.trainer.precision.startswith("16"):
            raise OptionError(
                "trainer.precision must be 32-true, 64-true or bf16-mixed: second derivatives "
                "leave the range of 16-bit floats"
            )

    def filled(self, size: tuple[int, int], *, digits: bool) -> CondenseConfig:
        """The options with what was left open filled in.

        Args:
            size: Height and width of the images.
            digits: Whether these are digits, which do not survive a flip.

        Raises:
            OptionError: If a warm-up is longer than its loop.
        """
        preset = PRESETS[self.preset]
        steps, epochs = PUBLISHED[nearest_published(self.ipc)]
        outer = self.outer_loop or preset["outer_loop"]
        inner = self.inner_loop or steps
        network_epochs = self.network_epochs
        if network_epochs is None:
            network_epochs = preset["network_epochs"] or epochs
        made = replace(
            self,
            outer_loop=outer,
            inner_loop=inner,
            network_epochs=network_epochs,
            outer_warmup=round(outer / 4) if self.outer_warmup is None else self.outer_warmup,
            inner_warmup=min(10, inner) if self.inner_warmup is None else self.inner_warmup,
            width=self.width or preset["width"],
            depth=self.depth or (2 if min(size) < 16 else 3),
            real_batch=self.real_batch or preset["real_batch"],
            strategy=self.strategy or (DIGIT_STRATEGY if digits else STRATEGY),
        )
        for name in ("outer", "inner"):
            warmup, length = getattr(made, f"{name}_warmup"), getattr(made, f"{name}_loop")
            if warmup > length:
                raise OptionError(
                    f"{name}_warmup must be at most {name}_loop, {length}, got {warmup}"
                )
        return made

    def told(self, given: CondenseConfig) -> str:
        """What :meth:`filled` made of the options that were left open, in a line."""
        open_ = [f.name for f in fields(self) if getattr(given, f.name) is None]
        filled = {name: getattr(self, name) for name in open_ if getattr(self, name) is not None}
        line = ", ".join(f"{name} {value}" for name, value in filled.items())
        nearest = nearest_published(self.ipc)
        if nearest != self.ipc and "inner_loop" in filled:
            line += f" (inner_loop as published for {nearest} images a class)"
        return f"options left open: {line or 'none'}"
