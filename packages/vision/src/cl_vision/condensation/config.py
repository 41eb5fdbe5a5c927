"""The options of condensation: `condense`, `assess`, `continual` (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
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
from cl_vision.condensation.options import LabelledData
from cl_vision.condensation.table import MATCHING, require_strategy

__all__ = ["Architecture", "AssessConfig", "CondenseConfig", "ContinualConfig"]

Architecture = Literal["mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18"]


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


@dataclass(frozen=True, kw_only=True)
class AssessConfig(Options):
    """Measure how well a condensed set trains networks, beside as many real images.

    Args:
        run: A run of `condense`, or several of other seeds, as `[A, B]`: mean and spread are over
            sets and networks.
        data: Other images than the run's to select from and to test on.
        out: Where to write; by default `assess` inside the first run directory.
        architectures: Networks to train; the first is the one all figures are of. `convnet` is the
            one the set was condensed with.
        networks: Networks on each set.
        sets: Draws of random and k-means images; by default as many as there are runs, at least 3.
        epochs: Without augmentation; the published code's 300.
        augmented_epochs: With augmentation; the published code's 1,000. 0 leaves it out.
        augmentation: Of these: `siamese`, by the run's strategy, or as DC's code evaluated MNIST,
            `crop_scale_rotate`, and networks with batch norm, `crop_noise`.
        full: Also train on all images, for as many steps.
        seed: Of selection and networks.
        overwrite: Replace the results in `out`.
    """

    run: tuple[Path, ...] | Path
    data: str | None = None
    out: Path | None = None
    architectures: tuple[Architecture, ...] = ("convnet",)
    networks: int = 3
    sets: int | None = None
    epochs: int = 300
    augmented_epochs: int = 1000
    augmentation: Literal["siamese", "crop_scale_rotate", "crop_noise"] = "siamese"
    full: bool = True
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, networks=self.networks, sets=self.sets, epochs=self.epochs)
        require_at_least(0, augmented_epochs=self.augmented_epochs, seed=self.seed)
        if not self.runs:
            raise OptionError("run must name at least one run of condense")
        if not self.architectures:
            raise OptionError("architectures must name at least one")

    @property
    def runs(self) -> tuple[Path, ...]:
        """The runs."""
        return (self.run,) if isinstance(self.run, Path) else tuple(self.run)


@dataclass(frozen=True, kw_only=True)
class ContinualConfig(Options):
    """Learn classes or domains one after another from a memory of a few images a class.

    Args:
        data: Data sets to learn in turn, as `[A, B]`, classes matched by name; or one, whose
            classes come in `steps`.
        out: Run directory to write.
        steps: Steps that the classes of a single data set are split into.
        protocol: `memory` trains a fresh network on the memory after each step; `distillation` goes
            on with the network, on the step's images and the memory, held to what it said before.
        memories: What fills the memory.
        method: Of `condensed`.
        ipc: Images a class and step in the memory.
        orders: Random orders of the steps.
        networks: Of protocol `memory`, trained after each step.
        epochs: Of each network's training.
        strategy: Siamese augmentation of that training; empty for none.
        outer_loop: Of `condensed`.
        width: Channels of the network.
        depth: Its blocks; by default as `condense`.
        real_batch: Of `condensed`.
        channels: As of `condense`.
        image_size: As of `condense`.
        temperature: Of the distillation.
        distillation_weight: Of the distillation in the loss.
        test_share: Share to test on, where the data has no split.
        seed: Of everything.
        overwrite: Replace the results in `out`.
    """

    data: tuple[str, ...] | str
    out: Path
    steps: int = 5
    protocol: Literal["memory", "distillation"] = "memory"
    memories: tuple[Literal["random", "herding", "condensed"], ...] = (
        "random",
        "herding",
        "condensed",
    )
    method: Literal["dc", "dsa", "dcc", "dsac"] = "dcc"
    ipc: int = 10
    orders: int = 3
    networks: int = 1
    epochs: int = 300
    strategy: str = ""
    outer_loop: int = 20
    width: int = 32
    depth: int | None = None
    real_batch: int = 64
    channels: Literal[1, 3, 4, "keep"] = "keep"
    image_size: int | tuple[int, int] | None = None
    temperature: float = 2.0
    distillation_weight: float = 1.0
    test_share: float = 0.2
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_at_least(
            1,
            ipc=self.ipc,
            orders=self.orders,
            networks=self.networks,
            epochs=self.epochs,
            outer_loop=self.outer_loop,
            width=self.width,
            real_batch=self.real_batch,
        )
        require_at_least(2, steps=self.steps)
        require_at_least(0, seed=self.seed)
        require_strategy(self.strategy)
        require_positive(temperature=self.temperature, distillation_weight=self.distillation_weight)
        if not self.memories or len(set(self.memories)) < len(self.memories):
            raise OptionError("memories must name at least one kind, each once")
        if not 0 < self.test_share < 1:
            raise OptionError(f"test_share must lie between 0 and 1, got {self.test_share}")

    @property
    def sources(self) -> tuple[str, ...]:
        """The data sets."""
        return (self.data,) if isinstance(self.data, str) else tuple(self.data)
