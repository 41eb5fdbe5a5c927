"""The options of every command of `cl-medical segment`: one frozen dataclass each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_core.checks import OptionError, require_at_least
from cl_core.commands.options import Options, Source
from cl_core.config import DemoOptions
from cl_medical.segmentation.hyper import LossHyper, Mode
from cl_medical.segmentation.options import SampleOptions, TrainingOptions

__all__ = [
    "BenchmarkConfig",
    "CheckConfig",
    "DemoConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "ExtendConfig",
    "PredictConfig",
    "TrainConfig",
]

MODES: tuple[Mode, ...] = ("individual", "transfer", "shared", "domain_norm", "contrast")


@dataclass(frozen=True, kw_only=True)
class CheckConfig(Options):
    """Read every file of a manifest and tell all that is wrong with it.

    Prints a table of cases, grids, intensities and volumes a domain. Ends with exit code 2 if
    anything is wrong.

    Args:
        data: A manifest (.yaml, .json), or a folder of one or several data sets in the layout of
            the Medical Segmentation Decathlon, nnU-Net or BIDS.
        out: Where to write the tables; by default they are only shown.
        overwrite: Replace the results in `out`.
    """

    data: Source
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingOptions):
    """Train one network for all domains of a manifest, or the networks it is compared with.

    Args:
        mode: `individual` trains a network a domain; `transfer` one on a source domain, then
            from it one for each other; `shared` one network with a head a domain; `domain_norm`
            gives each domain batch norms of its own as well; `contrast` adds the contrastive
            regularisation.
        cv: Cross-validation: a number of folds, or `leave-one-out`. Every case that is not `test`
            is held out once.
        init_from: A run whose network training starts from.
        out: Run directory to write.
        recipe: Settings by name: small, ...
        resume: Continue a run that was stopped; it ends as if it never had been.
        overwrite: Replace the run in `out`.
    """

    out: Path
    mode: Mode = "contrast"
    cv: int | Literal["leave-one-out"] | None = None
    init_from: Path | None = None
    recipe: str | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.cv, int):
            require_at_least(2, cv=self.cv)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Options):
    """Score a trained run on the native grid: a row a case and structure, distances in mm.

    Writes cases.csv, summary.csv and summary.json, and pictures of the best, the median and the
    worst cases.

    Args:
        run: Run directory that `train` or `extend` wrote.
        data: A manifest; by default the run's own.
        domains: Names of some of its domains, separated by commas.
        split: The cases scored: `train`, `val`, `test`, or `all` that have a label.
        against: Run directory of another evaluation, compared case by case (Wilcoxon).
        largest_component: Keep the largest piece of each structure.
        tta: Average over flips within slices.
        overlap: Share by which neighbouring patches overlap, in three dimensions.
        masks: Write the masks as NIfTI.
        device: Where the model runs: `auto`, `cpu`, `cuda`, ...
        out: Where to write; by default `evaluate` inside the run directory.
        overwrite: Replace the results in `out`.
    """

    run: Path
    data: Source | None = None
    domains: str | None = None
    split: Literal["train", "val", "test", "all"] = "test"
    against: Path | None = None
    largest_component: bool = False
    tta: bool = False
    overlap: float = 0.5
    masks: bool = False
    device: str = "auto"
    out: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        _require_overlap(self.overlap)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Options):
    """Segment volumes: a mask for each, in the geometry of its file.

    A volume that cannot be segmented is named, the others go on, and the command ends with exit
    code 1.

    Args:
        run: Run directory that `train` or `extend` wrote.
        data: A volume (.nii, .nii.gz), a folder of volumes, or a manifest.
        domain: Name of the domain of the volumes, or `auto` to find it by their embeddings. A
            manifest names its own.
        margin: By how much the best domain must beat the next one, for `auto`, in cosine
            similarity.
        out: Where to write.
        probabilities: Write the probability of every structure beside the mask, in steps of 1/255.
        largest_component: Keep the largest piece of each structure.
        tta: Average over flips within slices.
        overlap: Share by which neighbouring patches overlap, in three dimensions.
        device: Where the model runs: `auto`, `cpu`, `cuda`, ...
        overwrite: Replace the results in `out`.
    """

    run: Path
    data: str
    out: Path
    domain: str | None = None
    margin: float = 0.02
    probabilities: bool = False
    largest_component: bool = False
    tta: bool = False
    overlap: float = 0.5
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        _require_overlap(self.overlap)
        require_at_least(0, margin=self.margin)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Options):
    """Write where cases lie in the shared representation: a vector a patch, and a plane.

    Each case is embedded by its own domain's norms, at the bottleneck that the contrast acts on.

    Args:
        run: Run directory of one network for several domains.
        data: A manifest; by default the run's own.
        domains: Names of some of its domains, separated by commas.
        split: The cases embedded: `train`, `val`, `test`, or `all`.
        format: `parquet` (columns case, domain, split, e0, e1, ...) or `npy` (embeddings.npy
            beside cases.txt).
        out: Where to write; by default `embed` inside the run directory.
        overwrite: Replace the results in `out`.
    """

    run: Path
    data: Source | None = None
    domains: str | None = None
    split: Literal["train", "val", "test", "all"] = "all"
    format: Literal["parquet", "npy"] = "parquet"
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class ExtendConfig(SampleOptions):
    """Teach a trained run a new domain without touching what it knows by a single bit.

    Only the new domain's batch norms and head are trained. With `unfreeze` everything is, on the
    new domain and on the old ones of `rehearse`.

    Args:
        run: Run directory of `train` in the mode `domain_norm` or `contrast`, or of `extend`.
        data: A manifest with the new domain.
        start: The domain whose batch norms the new ones start as: its name, `nearest` by the
            embedding of the training cases, or `fresh`.
        unfreeze: `none` trains norms and head of the new domain, `all` the whole network.
        rehearse: A manifest of the old domains, which are trained on as well; needs
            `unfreeze` `all`. By default the run's own.
        loss: Loss and optimisation.
        epochs: Passes.
        out: Run directory to write.
        recipe: Settings by name.
        resume: Continue a run that was stopped; it ends as if it never had been.
        overwrite: Replace the run in `out`.
    """

    run: Path
    out: Path
    start: str = "nearest"
    unfreeze: Literal["none", "all"] = "none"
    rehearse: Source | None = None
    loss: LossHyper = field(default_factory=LossHyper)
    epochs: int = 50
    recipe: str | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rehearse is not None and self.unfreeze == "none":
            raise OptionError("rehearse belongs to unfreeze all: otherwise nothing old is trained")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(TrainingOptions):
    """Train and score all modes with several seeds: the table, with paired tests.

    What was finished before stays with `--resume`.

    Args:
        modes: The modes, separated by commas.
        seeds: How many seeds, counted from `seed` on.
        reference: The mode that the others are tested against, case by case (Wilcoxon).
        out: Where to write.
        recipe: Settings by name: small, ...
        resume: Continue a benchmark that was stopped.
        overwrite: Replace the results in `out`.
    """

    out: Path
    modes: str = ",".join(MODES)
    seeds: int = 3
    reference: str = "individual"
    recipe: str | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, seeds=self.seeds)
        for mode in (*self.mode_names, self.reference):
            if mode not in MODES:
                raise OptionError(f"modes are {', '.join(MODES)}, got {mode!r}")

    @property
    def mode_names(self) -> tuple[str, ...]:
        """The modes as a list."""
        return tuple(part.strip() for part in self.modes.split(",") if part.strip())


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DemoOptions):
    """Segment phantoms of three joints with one network, then teach it a fourth.

    Writes the phantoms as NIfTI with spacings, contrasts and label sets of their own, trains on
    three, scores them, and extends the network by the fourth. Needs no network and no file;
    minutes on two cores.

    Args:
        out: Where to write the volumes, the runs and the report.
        cases: Volumes of each joint.
    """

    out: Path = Path("runs/segmentation-demo")
    cases: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(5, cases=self.cases)


def _require_overlap(overlap: float) -> None:
    if not 0 <= overlap < 1:
        raise OptionError(f"overlap must lie in [0, 1), got {overlap}")
