"""The options of every command: one frozen dataclass each (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cl_core.checks import OptionError, require_at_least
from cl_core.commands.options import Options, Source
from cl_core.commands.recipes import read_recipe
from cl_core.config import DemoOptions, TrainerConfig
from cl_vision.hyper import DirectCLRHyper, HCSCHyper, MoCoHyper, OptimizerHyper, SimCLRHyper
from cl_vision.methods.table import METHODS

__all__ = [
    "DataOptions",
    "DemoConfig",
    "EmbedConfig",
    "EncoderOptions",
    "EvaluateConfig",
    "OptimizerOptions",
    "PretrainConfig",
    "SavedRunOptions",
    "SpectrumConfig",
    "TheoryConfig",
    "TrainingOptions",
]

ValueRange = float | tuple[float, float] | Literal["auto"] | None
"""As of :func:`cl_core.images.open_images`."""


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Where the images come from and how they are read.

    Args:
        data: A folder of images (in class sub-folders, in train/val/test, or flat), a manifest
            (.csv, .tsv, .parquet with a column image), or the built-in `digits`.
        root: Folder that a manifest's paths start at; by default the manifest's.
        labels: Where classes come from: `auto` (class sub-folders, or the manifest's column label),
            `none`, or another column of the manifest. Training never reads them.
        channels: 3 for colour, 1 for grey, 4 for colour and opacity, or `keep` for as many as the
            first image has.
        splits: Folders called train, val or test (or Training, dev, ...) hold splits. Where other
            folders lie beside them, `folder` takes them so, `none` takes every folder as a class,
            and `auto` asks if both may be meant.
        on_error: At a file that cannot be read `stop`, or `skip` it and tell.
        max_pixels: Width times height of the largest image that is decoded.
        value_range: Values of 32-bit files that become 0 and 1: `255` for 0 to 255, `[-50,50]`, or
            `auto` to measure the training images. By default they must lie in [0, 1].
        cache: Folder for decoded images: each file is then decoded once, not once an epoch. For
            small images.
        workers: Processes that prepare batches. By default one beside the training, where there is
            a processor and shared memory for it; results are the same for any number.
    """

    data: Source
    root: Path | None = None
    labels: str = "auto"
    channels: Literal[1, 3, 4, "keep"] = 3
    splits: Literal["auto", "folder", "none"] = "auto"
    on_error: Literal["stop", "skip"] = "stop"
    max_pixels: int = 100_000_000
    value_range: ValueRange = None
    cache: Path | None = None
    workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Options):
    """Optimiser and schedule; what is not given is as the method's authors published it.

    Args:
        optimizer: `sgd` with momentum, `lars` for very large batches, `adam` or `adamw`.
        learning_rate: The highest one, and the one used: it is not scaled by the batch size. By
            default 0.1 for simclr and directclr, 0.03 for moco and hcsc.
        weight_decay: Of all parameters; `lars` spares those of one dimension.
        momentum: Of `sgd` and `lars`.
        warmup_epochs: Epochs, or a part of one, in which the learning rate rises from 0. By default
            a tenth of all, 10 at most, for simclr and directclr; none for moco and hcsc.
        final_factor: Learning rate at the end over the highest one.
        schedule: The cosine falls with every `step` (simclr, directclr) or `epoch` (moco, hcsc).
        lr_scaling: `linear` multiplies the learning rate by the batch size over 256, as MoCo's and
            HCSC's released code does, `sqrt` by the root of that, as SimCLR's paper for batches of
            few hundreds; the result is told.
    """

    optimizer: Literal["sgd", "lars", "adam", "adamw"] = "sgd"
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    momentum: float = 0.9
    warmup_epochs: float | None = None
    final_factor: float = 0.0
    schedule: Literal["step", "epoch"] | None = None
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(DataOptions):
    """What is trained, on what, where the run goes and how long it takes.

    Args:
        out: Run directory to write.
        recipe: Published settings by name: hcsc-imagenet, directclr-cifar10, simclr-digits, ...
        method: `simclr`, `directclr`, `moco` (v2) or `hcsc`.
        image_size: Edge of a view in pixels. Up to 64 there is no blur, as in the papers.
        statistics: What normalises the images: mean and spread of the `data`, or `imagenet`'s.
        augmentation: Whose views to train on: the method's own (`auto`), or another's, to compare
            methods on the same.
        backbone: A ResNet of torchvision, any model of timm, or `resnet-16-32-128`: a small one of
            these widths. By default that for digits, and else resnet18.
        stem: `cifar` is a 3x3 convolution without pooling, `imagenet` the library's own; `auto` by
            the image size.
        weights: Weights to start from: a file, or a folder or run that holds an encoder.
        zero_init_residual: Start residual branches at zero, as DirectCLR does; by default for a
            ResNet under simclr and directclr.
        epochs: Passes over the images.
        batch_size: Images a step, of all devices together.
        seed: Seed of initialisation, order and augmentation.
        resume: Continue a run that was stopped; it ends as if it never had been.
        overwrite: Replace the run in `out`.
        knn_every: Epochs between two online kNN accuracies, where there are labels; 0 for none.
        spectrum_every: Epochs between two looks at the collapse spectrum; 0 for none.
    """

    out: Path
    recipe: str | None = None
    method: Literal["simclr", "directclr", "moco", "hcsc"] = "simclr"
    image_size: int = 224
    statistics: Literal["data", "imagenet"] = "data"
    augmentation: Literal["auto", "simclr", "directclr", "moco"] = "auto"
    backbone: str | None = None
    stem: Literal["auto", "imagenet", "cifar"] = "auto"
    weights: Path | None = None
    zero_init_residual: bool | None = None
    epochs: int = 100
    batch_size: int = 256
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    knn_every: int = 0
    spectrum_every: int = 0


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(OptimizerOptions, TrainingOptions):
    """Train an image encoder without labels, by SimCLR, DirectCLR, MoCo v2 or HCSC.

    Of the groups below only that of the method is used.

    Args:
        simclr: SimCLR's own options.
        directclr: DirectCLR's own options.
        moco: MoCo v2's own options.
        hcsc: HCSC's own options.
        trainer: Devices, precision, checkpoints.
    """

    simclr: SimCLRHyper = field(default_factory=SimCLRHyper)
    directclr: DirectCLRHyper = field(default_factory=DirectCLRHyper)
    moco: MoCoHyper = field(default_factory=MoCoHyper)
    hcsc: HCSCHyper = field(default_factory=HCSCHyper)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        require_at_least(1, image_size=self.image_size, epochs=self.epochs)
        require_at_least(2, batch_size=self.batch_size)
        require_at_least(
            0,
            seed=self.seed,
            workers=self.workers,
            knn_every=self.knn_every,
            spectrum_every=self.spectrum_every,
        )
        warmup = self.optimizer_hyper().warmup_epochs  # which refuses what is out of range
        if warmup >= self.epochs:
            raise OptionError(
                f"warmup_epochs must be fewer than the {self.epochs} epochs, got {warmup:g}"
            )

    def optimizer_hyper(self) -> OptimizerHyper:
        """Optimiser and schedule, what was not given filled in by the method."""
        method = METHODS[self.method]
        schedule = self.schedule or method.schedule
        warmup = self.warmup_epochs
        shortened = warmup is not None and warmup >= self.epochs
        if warmup is None or (shortened and self.is_of_recipe("warmup_epochs")):
            by_step = method.schedule == schedule == "step"
            warmup = min(10.0, 0.1 * self.epochs) if by_step or shortened else 0.0
        power = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}[self.lr_scaling]
        scale = (self.batch_size / 256) ** power
        return OptimizerHyper(
            optimizer=self.optimizer,
            learning_rate=self.base_learning_rate * scale,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            warmup_epochs=warmup,
            final_factor=self.final_factor,
            schedule=schedule,
        )

    @property
    def base_learning_rate(self) -> float:
        """The highest learning rate before it is scaled."""
        published = METHODS[self.method].learning_rate
        return published if self.learning_rate is None else self.learning_rate

    def is_of_recipe(self, *place: str) -> bool:
        """Whether an option has the value that the recipe gave it, and not one of the user's."""
        if self.recipe is None:
            return False
        value: Any = read_recipe(type(self), self.recipe)
        own: Any = self
        for name in place:
            if name not in value:
                return False
            value, own = value[name], getattr(own, name)
        return bool((list(own) if isinstance(own, tuple) else own) == value)


@dataclass(frozen=True, kw_only=True)
class EncoderOptions(Options):
    """What an encoder's file does not tell.

    Args:
        backbone: Architecture of plain weight files.
        image_size: Edge in pixels, for encoders that do not know theirs.
        allow: Import path of an encoder of your own that a run or saved encoder names, such as
            `mine.nets:Net`: importing it runs its code.
        workers: Processes that prepare batches.
        batch_size: Images encoded at once.
        overwrite: Replace the results in `out`.
    """

    backbone: str | None = None
    image_size: int = 224
    allow: str | None = None
    workers: int = 0
    batch_size: int = 256
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size)
        require_at_least(2, image_size=self.image_size)
        require_at_least(0, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class SavedRunOptions(EncoderOptions):
    """A trained encoder, and the images to use it on.

    Args:
        run: Run directory that `pretrain` wrote; or a saved encoder (a folder with model.json) or
            a weight file of `backbone`, which need `data` and `out`.
        data: Other images than the run was trained on.
        root: Folder that a manifest's paths start at; by default the run's.
        labels: As for `pretrain`; by default the run's.
        splits: As for `pretrain`; by default the run's.
        on_error: At a file that cannot be read `stop`, or `skip` it and tell; by default the run's.
        max_pixels: As for `pretrain`; by default the run's.
        value_range: As for `pretrain`; by default the run's, of other images too.
    """

    run: Path
    data: Source | None = None
    root: Path | None = None
    labels: str | None = None
    splits: Literal["auto", "folder", "none"] | None = None
    on_error: Literal["stop", "skip"] | None = None
    max_pixels: int | None = None
    value_range: ValueRange = None


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SavedRunOptions):
    """Measure a frozen encoder: linear probe, kNN, few labels, clusters, effective rank.

    Images filed under train and test (or val) are used so; others are split by class. Figures are
    those of the last epoch of a probe; where its best was chosen on the test images, it says so.

    Args:
        out: Where to write; by default `evaluate` inside the run directory.
        baseline: One run or several, as `[A, B]`, to measure beside this one.
        untrained: Measure the same network with random weights too.
        probe: `logistic` regression, solved exactly on rows of unit length; or the published SGD
            of `hcsc`, `moco` or `directclr` on pooled features as they are.
        probe_epochs: Epochs of an SGD probe; by default as published, 100.
        augment: Give an SGD probe new random crops in every epoch, as published: encodes the
            training images `probe_epochs` times.
        neighbours: Of kNN.
        fractions: Shares of the labels to learn from, in the semi-supervised protocol.
        few_labels: The whole network is trained (`finetune`), or logistic regression on `frozen`
            features; or `none` of it.
        draws: Random draws of each share.
        clusters: Of k-means; by default as many as there are classes.
        nuisances: Measure how well rotation and brightness of an image can be told from its
            representation: what the training made it forget.
        test_share: Share of the images tested on, where the data has no split.
        seed: Seed of splits, draws and probes.
    """

    out: Path | None = None
    baseline: tuple[Path, ...] | Path = ()
    untrained: bool = False
    probe: Literal["logistic", "hcsc", "moco", "directclr"] = "logistic"
    probe_epochs: int | None = None
    augment: bool = False
    neighbours: int = 20
    fractions: tuple[float, ...] = (0.01, 0.1)
    few_labels: Literal["frozen", "finetune", "none"] = "frozen"
    draws: int = 5
    clusters: int | None = None
    nuisances: bool = False
    test_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, neighbours=self.neighbours, draws=self.draws)
        require_at_least(1, probe_epochs=1 if self.probe_epochs is None else self.probe_epochs)
        require_at_least(2, clusters=2 if self.clusters is None else self.clusters)
        require_at_least(0, seed=self.seed)
        if not 0 < self.test_share < 1:
            raise OptionError(f"test_share must lie between 0 and 1, got {self.test_share}")
        if not all(0 < fraction <= 1 for fraction in self.fractions):
            raise OptionError(f"fractions must lie above 0 and up to 1, got {self.fractions}")
        if self.augment and self.probe == "logistic":
            raise OptionError("augment is for the SGD probes: give probe hcsc, moco or directclr")

    @property
    def baselines(self) -> tuple[Path, ...]:
        """The other runs."""
        return (self.baseline,) if isinstance(self.baseline, Path) else tuple(self.baseline)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(SavedRunOptions):
    """Write one vector per image, with its file.

    Args:
        out: Where to write; by default `embed` inside the run directory.
        format: `parquet` (columns file, label, e0, e1, ...) or `npy` (embeddings.npy beside
            files.txt).
        space: The `representation`, or the `embedding` that the loss saw.
    """

    out: Path | None = None
    format: Literal["parquet", "npy"] = "parquet"
    space: Literal["representation", "embedding"] = "representation"


@dataclass(frozen=True, kw_only=True)
class SpectrumConfig(EncoderOptions):
    """Draw the collapse spectrum of one encoder or several: which directions each one uses.

    Log singular values of the representation r, of the embedding z behind the projector, and of
    the channels r[d0:] that DirectCLR's loss does not see.

    Args:
        run: One encoder or several, as `[A, B]`: run directories, saved encoders (folders with
            model.json), or weight files of `backbone`.
        data: Images to look at; by default those the first run was trained on.
        root: Folder that a manifest's paths start at.
        out: Where to write; by default `spectrum` inside the first run directory.
        images: At most so many are looked at, evenly spaced.
        relative: Draw values relative to the largest of each spectrum.
        splits: As for `pretrain`; by default the run's.
        on_error: At a file that cannot be read `stop`, or `skip` it and tell.
        max_pixels: As for `pretrain`; by default the run's.
        value_range: As for `pretrain`; by default the run's, of other images too.
    """

    run: tuple[Path, ...] | Path
    data: Source | None = None
    root: Path | None = None
    out: Path | None = None
    images: int = 10_000
    relative: bool = False
    splits: Literal["auto", "folder", "none"] | None = None
    on_error: Literal["stop", "skip"] = "stop"
    max_pixels: int | None = None
    value_range: ValueRange = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(2, images=self.images)
        if not self.runs:
            raise OptionError("run must name at least one encoder")

    @property
    def runs(self) -> tuple[Path, ...]:
        """The encoders."""
        return (self.run,) if isinstance(self.run, Path) else tuple(self.run)


@dataclass(frozen=True, kw_only=True)
class TheoryConfig(Options):
    """Repeat the two toy studies that explain collapse: strong augmentation, and deep linear nets.

    Args:
        out: Where to write.
        study: Which of them.
        steps: Gradient steps of each training; by default 2,000 in the first study and 3,000 in
            the second.
        seed: Seed of everything.
        overwrite: Replace the results in `out`.
    """

    out: Path = Path("runs/theory")
    study: Literal["strong_augmentation", "implicit_regularization", "both"] = "both"
    steps: int | None = None
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, steps=1 if self.steps is None else self.steps)
        require_at_least(0, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DemoOptions):
    """Learn the digits without labels: DirectCLR and HCSC, each beside its baseline.

    1,797 images of handwritten digits that come with scikit-learn. DirectCLR stands beside SimCLR
    without a projector, HCSC beside MoCo v2. A second page condenses the digits to one image a
    class. Needs no network and no file, and takes about two minutes.

    Args:
        out: Where to write the runs and the two reports.
        epochs: Passes over the digits of each method.
    """

    out: Path = Path("runs/vision-demo")
    epochs: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(2, epochs=self.epochs)
