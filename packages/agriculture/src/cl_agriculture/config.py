"""The options of every command: one frozen dataclass each (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_agriculture.hyper import ClawsHyper, MaskHyper, MixtureHyper, ViewHyper
from cl_agriculture.options import MODES, DataOptions, Mode, OtherImagesOptions
from cl_core.checks import OptionError, require_at_least, require_positive, require_rate
from cl_core.commands.options import Options, Source
from cl_core.config import DemoOptions, TrainerConfig

__all__ = [
    "ClusterConfig",
    "DemoConfig",
    "EmbedConfig",
    "ExploreConfig",
    "MaskConfig",
    "PrepareConfig",
    "PretrainConfig",
    "ScoreConfig",
]


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(DataOptions):
    """Look through the images: weak labels, unreadable files, duplicates, a split.

    Writes a manifest that the other commands take as data.

    Args:
        out: Where to write.
        test_share: Share of the images to test on, by class and never tearing a group apart. A
            split that comes with the data is kept; 0 makes none.
        duplicates: Of files with the same pixels keep the first (`drop`), or `keep` all of them, in
            one group.
        conflicts: Where those differ in label, leave the kept one without (`unlabel`), `keep` its
            label, or `stop`.
        spellings: Labels that differ in case, blanks, hyphens or underscores alone: `tell`, or
            `merge` into the most frequent.
        seed: Seed of the split.
        overwrite: Replace the results in `out`.
    """

    out: Path
    on_error: Literal["stop", "skip"] = "skip"
    test_share: float = 0.0
    duplicates: Literal["drop", "keep"] = "drop"
    conflicts: Literal["unlabel", "keep", "stop"] = "unlabel"
    spellings: Literal["tell", "merge"] = "tell"
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_rate(test_share=self.test_share)
        require_at_least(0, seed=self.seed, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class MaskConfig(DataOptions):
    """Make the masks of the images, or check those that are there, and show them on the images.

    Args:
        out: Where to write; `pretrain --masks OUT` takes the masks from here.
        masks: A folder of mask files, a column of the manifest that names them, an earlier run of
            `mask` whose settings to use, `excess_green`, or from Python any function of an image;
            by default the column mask where there is one, else excess green.
        mask: How masks are made or read.
        sheet: Images shown under their masks.
        overwrite: Replace the results in `out`.
    """

    out: Path
    masks: Source | None = None
    mask: MaskHyper = field(default_factory=MaskHyper)
    sheet: int = 48
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_at_least(0, workers=self.workers)
        require_at_least(1, sheet=self.sheet)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(DataOptions):
    """Train an image encoder on masked views, with weak labels or without.

    Args:
        out: Run directory to write.
        recipe: Settings by name: seedlings, demo.
        mode: `claws` pulls images of a label together and masks their background; `supervised`
            does so without masks, `mask_only` masks without labels, `simclr` does neither.
            `no_false_neg` uses labels to spare false negatives only, `within_class` spreads each
            class, `class_pair` contrasts pairs of images of a class; these three mask.
        masks: A run of `mask`, a folder of mask files, a column of the manifest that names them,
            `excess_green`, or from Python any function of an image; by default the column mask
            where there is one, else excess green.
        mask: How masks are made or read.
        view: How views are drawn.
        claws: The contrast.
        image_size: Edge of a view in pixels.
        backbone: A ResNet of torchvision, any model of timm, or `resnet-16-32-64-128`: a small one
            of these widths; `resnet-pool-16-32-64-128` pools behind the stem.
        stem: `cifar` is a 3x3 convolution without pooling, `imagenet` the library's own; `auto` by
            the image size.
        weights: Weights to start from: a file, or a folder or run that holds an encoder.
        epochs: Passes over the images.
        batch_size: Images a step, of all devices together.
        learning_rate: The highest one, and the one used; by default 0.1 for each 128 images of a
            batch, a tenth of that from `weights`.
        weight_decay: Of all parameters.
        momentum: Of SGD.
        warmup: Share of the steps in which the learning rate rises from 0.
        order: Images as often as they are (`natural`), or of every weak label equally many
            (`balanced`).
        seed: Seed of initialisation, order and views.
        resume: Continue a run that was stopped; it ends as if it never had been.
        overwrite: Replace the run in `out`.
        knn_every: Epochs between two online kNN accuracies, where there are labels; 0 for none.
        trainer: Devices, precision, checkpoints.
    """

    out: Path
    recipe: str | None = None
    mode: Mode = "claws"
    masks: Source | None = None
    mask: MaskHyper = field(default_factory=MaskHyper)
    view: ViewHyper = field(default_factory=ViewHyper)
    claws: ClawsHyper = field(default_factory=ClawsHyper)
    image_size: int = 224
    backbone: str = "resnet18"
    stem: Literal["auto", "imagenet", "cifar"] = "auto"
    weights: Path | None = None
    epochs: int = 100
    batch_size: int = 256
    learning_rate: float | None = None
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup: float = 0.1
    order: Literal["natural", "balanced"] = "natural"
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    knn_every: int = 10
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        require_at_least(1, image_size=self.image_size, epochs=self.epochs)
        require_at_least(2, batch_size=self.batch_size)
        require_at_least(0, seed=self.seed, workers=self.workers, knn_every=self.knn_every)
        require_at_least(0, weight_decay=self.weight_decay)
        require_positive(learning_rate=self.learning_rate)
        require_rate(momentum=self.momentum, warmup=self.warmup)
        if self.masks is not None and self.attention == "off":
            raise OptionError(
                f"masks are not used by mode {self.mode}: leave --masks out, or say "
                "--view.attention hard"
            )

    @property
    def attention(self) -> Literal["hard", "soft", "off"]:
        """What becomes of the background, resolved by the mode."""
        if self.view.attention != "auto":
            return self.view.attention
        return "hard" if MODES[self.mode][1] else "off"

    @property
    def rate(self) -> float:
        """The learning rate used."""
        if self.learning_rate is not None:
            return self.learning_rate
        return (0.1 if self.weights is None else 0.01) * self.batch_size / 128


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(OtherImagesOptions):
    """Write one vector per image, with its file.

    Args:
        run: Run directory that `pretrain` wrote.
        out: Where to write; by default `embed` inside the run directory.
        format: `parquet` (columns file, label, e0, e1, ...) or `npy` (embeddings.npy beside
            files.txt).
        space: The `representation`, the same at `unit` length, or the `embedding` that the loss
            saw.
    """

    run: Path
    out: Path | None = None
    format: Literal["parquet", "npy"] = "parquet"
    space: Literal["representation", "unit", "embedding"] = "representation"


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(OtherImagesOptions):
    """Group images by a mixture of Gaussians, whose number of groups BIC chooses.

    Fitted to the training images, and measured on the test images where there is a split.

    Args:
        run: Run directory that `pretrain` wrote.
        recipe: Settings by name: seedlings-groups, demo-groups.
        vectors: Vectors to group in place of a run's: a file (.npy, .csv or .parquet with columns
            file, label, e0, e1, ...), or from Python an array.
        out: Where to write; by default `cluster` inside the run directory.
        space: The `representation`, the same at `unit` length, or the `embedding` that the loss
            saw.
        clusters: Number of groups; by default BIC chooses it.
        mixture: PCA, covariance, candidates.
        align_to: An earlier run of `cluster` whose numbers the same groups should get.
        sheet: Images of each group shown as typical, and as odd.
        seed: Seed of the fits.
    """

    run: Path | None = None
    recipe: str | None = None
    vectors: Source | None = None
    out: Path | None = None
    space: Literal["representation", "unit", "embedding"] = "representation"
    clusters: int | None = None
    mixture: MixtureHyper = field(default_factory=MixtureHyper)
    align_to: Path | None = None
    sheet: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, clusters=self.clusters, sheet=self.sheet)
        require_at_least(0, seed=self.seed)
        if (self.run is None) == (self.vectors is None):
            raise OptionError("give --run or --vectors, one of them")
        if self.vectors is not None and self.out is None:
            raise OptionError("out is missing: only a run has a place of its own for results")
        if self.vectors is not None and (self.data is not None or self.masks is not None):
            raise OptionError("data and masks are for a run; vectors have no images")


@dataclass(frozen=True, kw_only=True)
class ExploreConfig(Options):
    """Lay the images of a clustering on a plane, to be looked at one by one.

    Args:
        run: Run directory that `cluster` or `score` wrote.
        root: Folder that a manifest's paths start at; by default the run's.
        out: Where to write; by default `explore` inside the run directory.
        pictures: Most thumbnails in the page, drawn at random beyond; the other points have none.
        neighbours: Nearest images listed with a pinned one, of up to 20,000 images.
        seed: Seed of the sample.
        overwrite: Replace the results in `out`.
    """

    run: Path
    root: Path | None = None
    out: Path | None = None
    pictures: int = 20_000
    neighbours: int = 8
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_at_least(0, pictures=self.pictures, neighbours=self.neighbours, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(OtherImagesOptions):
    """Say of new images which group each belongs to and how odd it is; nothing is refitted.

    Args:
        run: Run directory that `cluster` wrote.
        vectors: New vectors, of a clustering of vectors.
        out: Where to write; by default `score` inside the run directory.
        sheet: Images shown as odd.
    """

    run: Path
    vectors: Source | None = None
    out: Path | None = None
    sheet: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, sheet=self.sheet)
        if (self.data is None) == (self.vectors is None):
            raise OptionError("give --data with new images, or --vectors with new vectors")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DemoOptions):
    """Group plants of four species drawn by code, with a mask and without.

    The plants stand on gravel beside a coloured tag that says nothing of the species. CLAWS stands
    beside supervised SimCLR, which is the same without the mask. Needs no network and no file.

    Args:
        out: Where to write the images, the runs and the report.
        epochs: Passes over the images of each training.
    """

    out: Path = Path("runs/agriculture-demo")
    epochs: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(2, epochs=self.epochs)
