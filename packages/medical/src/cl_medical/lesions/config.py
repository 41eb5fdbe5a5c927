"""The options of every command on lesions: one frozen dataclass each (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cl_core.checks import OptionError, require_at_least
from cl_core.config import DemoOptions, TrainerConfig
from cl_medical.lesions.hyper import FocalHyper, LDAMHyper, Stage1Hyper, Stage2Hyper
from cl_medical.lesions.options import SavedRunOptions, SplitOptions, TrainingOptions

__all__ = [
    "BENCHMARKED",
    "BenchmarkConfig",
    "DemoConfig",
    "EvaluateConfig",
    "Method",
    "PredictConfig",
    "PrepareConfig",
    "TrainConfig",
]

Method = Literal["supercon", "simclr", "cross_entropy", "weighted", "focal", "ldam"]

TWO_STAGES = ("supercon", "simclr")

BENCHMARKED = (
    "cross_entropy",
    "weighted",
    "focal",
    "ldam",
    "simclr",
    "supercon",
    "supercon_balanced",
)
"""What `benchmark` trains by default; `_balanced` weighs the classes in stage 2."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(SplitOptions):
    """Check a table and its images, split them without leaks, and write one table for `train`.

    Tells what is missing, unreadable, twice there or under two labels, how rare the classes are,
    and what the splits share.

    Args:
        out: Where to write lesions.csv and the report.
        folds: Write so many folds of a cross-validation instead of train, val and test; 0 for none.
        files: Look for the images; without it only the tables are compared.
        overwrite: Replace what lies in `out`.
    """

    out: Path
    folds: int = 0
    files: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, folds=self.folds)
        if self.folds == 1:
            raise OptionError("folds must be 2 or more, or 0 for none, got 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingOptions):
    """Train a lesion classifier: SuperCon in two stages, or what else could have been trained.

    For research; no medical device. Of the groups below only those of the method are used.

    Args:
        out: Run directory to write.
        method: `supercon`; `simclr`, whose stage 1 does not see the labels; or one stage:
            `cross_entropy`, `weighted` by class, `focal`, `ldam`.
        representation: A run whose stage 1 is taken over instead of trained, to try another
            stage 2.
        stage1: Representation training (supercon, simclr).
        stage2: The classifier (supercon, simclr).
        focal: The focal loss.
        ldam: LDAM's margins.
        trainer: Devices, precision, checkpoints.
        seed: Seed of initialisation, order and augmentation.
        resume: Continue a run that was stopped; it ends as if it never had been.
        overwrite: Replace the run in `out`.
    """

    out: Path
    method: Method = "supercon"
    representation: Path | None = None
    stage1: Stage1Hyper = field(default_factory=Stage1Hyper)
    stage2: Stage2Hyper = field(default_factory=Stage2Hyper)
    focal: FocalHyper = field(default_factory=FocalHyper)
    ldam: LDAMHyper = field(default_factory=LDAMHyper)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    seed: int = 0
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, seed=self.seed)
        if self.representation is not None and not self.two_stages:
            raise OptionError(
                f"representation is for methods of two stages, {' and '.join(TWO_STAGES)}, and "
                f"{self.method} has one"
            )
        if self.two_stages and self.stage2.epochs >= self.epochs:
            raise OptionError(
                f"stage2.epochs must be fewer than the {self.epochs} epochs of both stages, got "
                f"{self.stage2.epochs}"
            )
        require_three_epochs(self.schedule, self.first_epochs, "schedule")
        if self.two_stages:
            require_three_epochs(self.stage2.schedule, self.stage2.epochs, "stage2.schedule")

    @property
    def two_stages(self) -> bool:
        """Whether a representation is trained before a classifier."""
        return self.method in TWO_STAGES

    @property
    def first_epochs(self) -> int:
        """Epochs of stage 1, or of the only stage."""
        return self.epochs - self.stage2.epochs if self.two_stages else self.epochs


def require_three_epochs(schedule: str, epochs: int, name: str) -> None:
    """Refuse to divide fewer than three epochs into thirds, where the released code fails."""
    if schedule == "step" and epochs < 3:
        raise OptionError(
            f"{name} step lowers the learning rate after each third of at least 3 epochs, and "
            f"there are {epochs}: give more epochs, or {name} cosine"
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SavedRunOptions):
    """Measure a classifier on images it was neither trained nor chosen on.

    Figures with intervals, confusion, curves, calibration, subgroups, mistakes and look-alikes. For
    research; no medical device.

    Args:
        data: Other images than the run's own test split: a table or class folders, all of which
            are tested on.
        metadata: As for `train`, of `data`.
        label: As for `train`, of `data`.
        group: As for `train`, of `data`.
        mapping: As for `train`, of `data`; by default the run's.
        conflicts: As for `train`.
        split: Which split of the run's images to measure.
        subgroups: Columns to measure apart, as `[sex, site]`; `age` goes by bands of 20 years. By
            default those of sex, age, site, source and confirmation that the table has.
        fewest: Subgroups smaller than this show no interval.
        resamples: Of whole groups, for the intervals.
        pictures: Mistakes and look-alikes shown of each kind.
        seed: Of the resamples.
    """

    data: str | None = None
    metadata: tuple[Path, ...] | Path = ()
    label: str | None = None
    group: str | None = None
    mapping: Mapping[str, Any] | None = None
    conflicts: Literal["stop", "drop"] = "stop"
    split: Literal["test", "val", "train"] = "test"
    subgroups: tuple[str, ...] | None = None
    fewest: int = 20
    resamples: int = 1000
    pictures: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, fewest=self.fewest)
        require_at_least(2, resamples=self.resamples)
        require_at_least(0, pictures=self.pictures, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(SavedRunOptions):
    """Classify new images: a table of probabilities and decisions, and heat maps on request.

    Every image is read once and forgotten, so memory does not grow with their number. For research;
    no medical device.

    Args:
        data: A folder of images, or a table that names them.
        heat_maps: Images to draw heat maps of: a number, `all`, or 0.
        resume: Continue a prediction that was stopped.
    """

    data: str
    heat_maps: int | Literal["all"] = 0
    resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.heat_maps, int):
            require_at_least(0, heat_maps=self.heat_maps)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(TrainingOptions):
    """Train the methods side by side over seeds, and compare them on the test images in one table.

    The same network, images, views and number of epochs for each; epochs, temperature and threshold
    are chosen on the validation images alone. Each training is a run in `out`.

    Args:
        out: Where to write the runs and the table.
        methods: Those of `train`, also `simclr_balanced` and `supercon_balanced`, which weigh the
            classes in stage 2.
        seeds: One training of each method a seed.
        stage1: Representation training (supercon, simclr).
        stage2: The classifier (supercon, simclr); its loss goes by the method.
        focal: The focal loss.
        ldam: LDAM's margins.
        resamples: Of whole groups, for the intervals.
        trainer: Devices, precision, checkpoints.
        resume: Continue a benchmark that was stopped; finished trainings are kept.
        overwrite: Replace the benchmark in `out`.
    """

    out: Path
    methods: tuple[str, ...] = BENCHMARKED
    seeds: tuple[int, ...] = (0, 1, 2)
    stage1: Stage1Hyper = field(default_factory=Stage1Hyper)
    stage2: Stage2Hyper = field(default_factory=Stage2Hyper)
    focal: FocalHyper = field(default_factory=FocalHyper)
    ldam: LDAMHyper = field(default_factory=LDAMHyper)
    resamples: int = 1000
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(2, resamples=self.resamples)
        if not self.methods or not self.seeds or min(self.seeds) < 0:
            raise OptionError("a benchmark needs at least one of methods and of seeds from 0 on")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DemoOptions):
    """Train SuperCon and a plain classifier on drawn lesions, of which one class is rare.

    The pictures are drawn by code and show nothing of medicine. Needs no network and no file, and
    takes two minutes.

    Args:
        out: Where to write.
        epochs: Passes over the pictures.
    """

    out: Path = Path("runs/lesions-demo")
    epochs: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(8, epochs=self.epochs)
