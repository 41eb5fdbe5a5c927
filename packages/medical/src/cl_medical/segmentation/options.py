"""Options that the commands which train have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_core.checks import OptionError, require_at_least, require_positive, require_share
from cl_core.commands.options import Options, Source
from cl_core.config import TrainerConfig
from cl_medical.segmentation.hyper import (
    AugmentHyper,
    ContrastHyper,
    LossHyper,
    NetworkHyper,
    PriorHyper,
    VolumeHyper,
)

__all__ = ["SampleOptions", "TrainingOptions"]


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Options):
    """Which cases are trained on, how a step draws from them, and how long it goes on.

    Args:
        data: A manifest (.yaml, .json), or a folder of one or several data sets in the layout of
            the Medical Segmentation Decathlon, nnU-Net or BIDS.
        domains: Names of some of its domains, separated by commas; by default all.
        val: Share of the patients for choosing the best epoch, where the manifest does not say.
        test: Share of the patients that training never sees, where the manifest does not say.
        volumes: How volumes are prepared and cut.
        augment: Random changes of training samples.
        batch_size: Samples of a step, on each device; by default 24 slices, or 2 patches a domain.
        sampling: `balanced` draws as many samples of each domain in every step, `proportional` by
            their size, `alternate` one domain a step.
        foreground: Share of the samples that must show a structure.
        steps: Steps of an epoch; by default until every slice of the largest domain has come once
            on average.
        epochs: Passes.
        cache: Folder that keeps prepared volumes for later runs; by default memory does.
        workers: Processes that draw and augment samples.
        seed: Seed of splits, initialisation, samples and augmentation.
        trainer: Devices, precision, checkpoints.
    """

    data: Source
    domains: str | None = None
    val: float = 0.15
    test: float = 0.2
    volumes: VolumeHyper = field(default_factory=VolumeHyper)
    augment: AugmentHyper = field(default_factory=AugmentHyper)
    batch_size: int | None = None
    sampling: Literal["balanced", "proportional", "alternate"] = "balanced"
    foreground: float = 0.5
    steps: int | None = None
    epochs: int = 200
    cache: Path | None = None
    workers: int = 0
    seed: int = 0
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        require_share(val=self.val, test=self.test, foreground=self.foreground)
        if self.val + self.test >= 1:
            raise OptionError(
                f"val and test are shares that leave some for training, got {self.val} and "
                f"{self.test}"
            )
        require_positive(batch_size=self.batch_size, steps=self.steps)
        require_at_least(1, epochs=self.epochs)
        require_at_least(0, workers=self.workers, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(SampleOptions):
    """How the networks of all modes are trained.

    Args:
        source: The domain that `transfer` starts from; by default the one with most training
            cases.
        network: The shared network.
        contrast: The contrastive regularisation.
        loss: Loss and optimisation.
        prior: Anatomical priors.
    """

    source: str | None = None
    network: NetworkHyper = field(default_factory=NetworkHyper)
    contrast: ContrastHyper = field(default_factory=ContrastHyper)
    loss: LossHyper = field(default_factory=LossHyper)
    prior: PriorHyper = field(default_factory=PriorHyper)
