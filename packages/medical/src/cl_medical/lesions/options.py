"""What several commands on lesions ask: tables, splits, trainings, finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cl_core.checks import OptionError, require_at_least
from cl_core.commands.options import Options
from cl_medical.lesions.hyper import OptimizerHyper

__all__ = ["SavedRunOptions", "SplitOptions", "TableOptions", "TrainingOptions"]


@dataclass(frozen=True, kw_only=True)
class TableOptions(Options):
    """Which images there are, and what is known of them.

    Args:
        data: A table (.csv, .tsv, .txt, .parquet) or a folder with a sub-folder per class. Known
            without further words: ISIC 2019 and 2020, HAM10000, SuperCon's lists, our own.
        root: Folder of the images, or folders, as `[A, B]`; by default the table's.
        metadata: Further tables about the same images, as ISIC 2019 has them.
        convention: How the table's columns are called; recognised if it is `auto`.
        image: Column of the image; by default recognised.
        label: Column of the label; by default recognised, also one column of 0 and 1 per class.
        group: Column of the patient or lesion that a split must not tear apart; by default
            patient_id, else lesion_id, else the image.
        mapping: Other names for labels, as `{mel: 1, "*": 0}`; `*` is any other, and `null` leaves
            those images out.
        conflicts: At an image under two labels `stop`, or `drop` all its rows and tell.
        on_error: At an image that is missing, cannot be read or has no label `stop`, or `skip` it
            and tell.
    """

    data: str
    root: tuple[Path, ...] | Path | None = None
    metadata: tuple[Path, ...] | Path = ()
    convention: Literal["auto", "isic2019", "isic2020", "ham10000", "supercon", "prepared"] = "auto"
    image: str | None = None
    label: str | None = None
    group: str | None = None
    mapping: Mapping[str, Any] | None = None
    conflicts: Literal["stop", "drop"] = "stop"
    on_error: Literal["stop", "skip"] = "stop"

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders of the images."""
        if self.root is None:
            return ()
        return (self.root,) if isinstance(self.root, Path) else self.root

    @property
    def more(self) -> tuple[Path, ...]:
        """The further tables."""
        return (self.metadata,) if isinstance(self.metadata, Path) else self.metadata


@dataclass(frozen=True, kw_only=True)
class SplitOptions(TableOptions):
    """How the images are divided for training, choosing and testing.

    Args:
        split: Column that says so; by default recognised. Without one, and without `val` and
            `test`, whole groups are dealt by `shares`.
        val: A table of images to choose on.
        test: A table of images to test on.
        fold: Of a table of folds, the one to test on; the next one chooses.
        shares: Of train, val and test, where nothing says how to split.
        split_seed: Of that.
        allow_missing: Accept a split that lacks a class.
        allow_leaks: Go on where splits share images, groups or equal pixels.
        pixels: Decode all images to look for equal ones under different names.
    """

    split: str | None = None
    val: Path | None = None
    test: Path | None = None
    fold: int | None = None
    shares: tuple[float, float, float] = (0.6, 0.15, 0.25)
    split_seed: int = 0
    allow_missing: bool = False
    allow_leaks: bool = False
    pixels: bool = True

    def __post_init__(self) -> None:
        require_at_least(0, split_seed=self.split_seed)
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise OptionError(f"shares must be positive and sum to 1, got {list(self.shares)}")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(SplitOptions):
    """What is trained, on what, and how long it takes.

    Args:
        recipe: Settings by name: supercon-official, supercon-small.
        image_size: Edge of a view in pixels.
        augmentation: `recommended` for dermoscopy, which leaves the lesion and its colour in the
            picture, or the `official` one of the released code.
        library: What augments: albumentations, or torchvision where that is not installed.
        statistics: What normalises the images: `imagenet`'s, or those of the `data`.
        backbone: A ResNet of torchvision, any model of timm, or a small ResNet by its widths, as
            resnet-8-16-32-64-128.
        stem: `cifar` is a 3x3 convolution without pooling, `imagenet` the library's own; `auto` by
            the image size.
        weights: Weights to start from: `none`, `imagenet` (downloaded, or from the cache), a file,
            or a folder or run that holds an encoder.
        sampling: What makes a batch: every image once (`natural`), at least two of each class
            (`stratified`), or classes drawn by the root of their size (`sqrt`).
        class_weights: Of what is weighted by class: `inverse` frequency, or `effective` number.
        epochs: Passes over the images, those of stage 2 included.
        batch_size: Images a step, of all devices together.
        learning_rate: The highest one of stage 1, or of the only stage.
        weight_decay: Of stage 1, or of the only stage.
        momentum: Of stage 1, or of the only stage.
        schedule: Of stage 1, or of the only stage: `step` divides the rate by ten after each third
            of the epochs, as published; `cosine`, `one_cycle` or `constant`.
        select: Keep the `best` epoch of each stage by the validation images, or the `last`.
        positive: The class that an operating point is chosen for; by default melanoma, or the
            second of two classes.
        operating_point: Rule by which its threshold is chosen on the validation images: `youden`,
            `f1`, or the highest that reaches `sensitivity`.
        sensitivity: Share of the positives to be found.
        cache: Folder for decoded images: each file is then decoded once, not once an epoch. For
            small images.
        workers: Processes that prepare batches.
    """

    recipe: str | None = None
    image_size: int = 224
    augmentation: Literal["recommended", "official"] = "recommended"
    library: Literal["albumentations", "torchvision"] = "albumentations"
    statistics: Literal["imagenet", "data"] = "imagenet"
    backbone: str = "resnet18"
    stem: Literal["auto", "imagenet", "cifar"] = "auto"
    weights: str = "none"
    sampling: Literal["natural", "stratified", "sqrt"] = "natural"
    class_weights: Literal["inverse", "effective"] = "inverse"
    epochs: int = 105
    batch_size: int = 128
    learning_rate: float = 0.003
    weight_decay: float = 5e-5
    momentum: float = 0.9
    schedule: Literal["step", "cosine", "one_cycle", "constant"] = "step"
    select: Literal["best", "last"] = "best"
    positive: str | None = None
    operating_point: Literal["youden", "f1", "sensitivity"] = "youden"
    sensitivity: float = 0.9
    cache: Path | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, image_size=self.image_size, epochs=self.epochs)
        require_at_least(2, batch_size=self.batch_size)
        require_at_least(0, workers=self.workers)
        if not 0 < self.sensitivity <= 1:
            raise OptionError(f"sensitivity must lie above 0 and up to 1, got {self.sensitivity}")
        self.optimizer_hyper()  # which refuses what is out of range

    def optimizer_hyper(self) -> OptimizerHyper:
        """Optimiser and schedule of stage 1, or of the only stage."""
        return OptimizerHyper(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            schedule=self.schedule,
        )


@dataclass(frozen=True, kw_only=True)
class SavedRunOptions(Options):
    """A finished run, and the images to use it on.

    Args:
        run: Run directory that `train` wrote.
        out: Where to write; by default a folder of the verb's name inside the run directory.
        root: As for `train`; by default the run's.
        image: As for `train`; by default the run's.
        on_error: As for `train`; by default the run's.
        threshold: Of the positive class, in place of the one chosen on the validation images.
        batch_size: Images classified at once.
        workers: Processes that prepare batches.
        overwrite: Replace the results in `out`.
    """

    run: Path
    out: Path | None = None
    root: tuple[Path, ...] | Path | None = None
    image: str | None = None
    on_error: Literal["stop", "skip"] | None = None
    threshold: float | None = None
    batch_size: int = 256
    workers: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size)
        require_at_least(0, workers=self.workers)
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise OptionError(
                f"threshold is a probability and must lie between 0 and 1, got {self.threshold}"
            )
