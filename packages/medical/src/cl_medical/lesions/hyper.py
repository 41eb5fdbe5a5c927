"""Hyper-parameters of the two stages and of the losses: plain numbers, standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cl_core.checks import OptionError, require_at_least, require_positive, require_rate
from cl_core.commands.options import Options

__all__ = ["FocalHyper", "LDAMHyper", "OptimizerHyper", "Stage1Hyper", "Stage2Hyper"]

Schedule = Literal["step", "cosine", "one_cycle", "constant"]


@dataclass(frozen=True, kw_only=True)
class OptimizerHyper(Options):
    """SGD with momentum, and its schedule.

    Args:
        learning_rate: The highest one; the one used, not scaled by the batch size.
        weight_decay: Of all parameters.
        momentum: Of SGD.
        schedule: `step` divides the rate by ten after each third of the epochs, as published;
            `cosine` lets it fall to 0, `one_cycle` rise and fall with every step; or `constant`.
    """

    learning_rate: float = 0.003
    weight_decay: float = 5e-5
    momentum: float = 0.9
    schedule: Schedule = "step"

    def __post_init__(self) -> None:
        require_positive(learning_rate=self.learning_rate)
        require_at_least(0, weight_decay=self.weight_decay)
        require_rate(momentum=self.momentum)


@dataclass(frozen=True, kw_only=True)
class Stage1Hyper(Options):
    """Stage 1: representation training by the supervised contrastive loss.

    Args:
        temperature: Of the contrast.
        base_temperature: The loss is scaled by temperature over this; by default not at all.
        contrast: Every view is an anchor (`all`), or the first one only (`one`).
        no_positive: An anchor without partner is left out of the mean (`skip`) or counts as 0.
        views: The plain image and an augmented one, as published, or two augmented ones.
        dim: Width of the embedding.
        batch_norm: Batch normalisation in the projection head; helps where nothing was pretrained.
        knn_every: Epochs between two kNN figures on the validation images, by which the best
            epoch is chosen; 0 for none, and the last epoch.
        neighbours: Of that kNN.
    """

    temperature: float = 0.07
    base_temperature: float | None = None
    contrast: Literal["all", "one"] = "all"
    no_positive: Literal["skip", "zero"] = "skip"
    views: Literal["plain+aug", "aug+aug"] = "plain+aug"
    dim: int = 128
    batch_norm: bool = False
    knn_every: int = 5
    neighbours: int = 20

    def __post_init__(self) -> None:
        require_positive(
            **{
                "stage1.temperature": self.temperature,
                "stage1.base_temperature": self.base_temperature,
            }
        )
        require_at_least(1, **{"stage1.dim": self.dim, "stage1.neighbours": self.neighbours})
        require_at_least(0, **{"stage1.knn_every": self.knn_every})


@dataclass(frozen=True, kw_only=True)
class Stage2Hyper(Options):
    """Stage 2: a classifier on the representation of stage 1.

    Args:
        epochs: Of all `epochs`, those of stage 2.
        loss: Cross-entropy as published, weighted by class (`balanced`), `focal` or `ldam`.
        finetune: The classifier alone learns (`linear`), or also the last stage of the encoder
            (`partial`), or all of it (`full`).
        learning_rate: Of the classifier.
        encoder_learning_rate: Of the encoder, where it learns; by default a tenth of that.
        weight_decay: Of all that learns.
        momentum: Of SGD.
        schedule: As that of stage 1; `constant` as published.
    """

    epochs: int = 5
    loss: Literal["cross_entropy", "balanced", "focal", "ldam"] = "cross_entropy"
    finetune: Literal["linear", "partial", "full"] = "linear"
    learning_rate: float = 5e-4
    encoder_learning_rate: float | None = None
    weight_decay: float = 5e-5
    momentum: float = 0.9
    schedule: Schedule = "constant"

    def __post_init__(self) -> None:
        require_at_least(1, **{"stage2.epochs": self.epochs})
        require_positive(
            **{
                "stage2.learning_rate": self.learning_rate,
                "stage2.encoder_learning_rate": self.encoder_learning_rate,
            }
        )
        require_at_least(0, **{"stage2.weight_decay": self.weight_decay})
        require_rate(**{"stage2.momentum": self.momentum})


@dataclass(frozen=True, kw_only=True)
class FocalHyper(Options):
    """The focal loss, wherever it is used.

    Args:
        gamma: How strongly hard images count; 0 is cross-entropy.
        alpha: A weight per class in their order, as `[0.25, 0.75]`; by default all alike.
        detach_pt: Pass no gradient through the focus, as the released code does.
    """

    gamma: float = 2.0
    alpha: tuple[float, ...] | None = None
    detach_pt: bool = False

    def __post_init__(self) -> None:
        require_at_least(0, **{"focal.gamma": self.gamma})
        if self.alpha is not None and not all(weight > 0 for weight in self.alpha):
            raise OptionError(f"focal.alpha must be positive, got {list(self.alpha)}")


@dataclass(frozen=True, kw_only=True)
class LDAMHyper(Options):
    """The margins of LDAM, wherever it is used.

    Args:
        largest_margin: That of the rarest class.
        scale: Of the cosines.
        reweight_from: Share of the epochs after which classes are weighted too (the authors'
            deferred re-weighting, 0.8 there); 1 for never.
    """

    largest_margin: float = 0.5
    scale: float = 30.0
    reweight_from: float = 1.0

    def __post_init__(self) -> None:
        require_positive(**{"ldam.largest_margin": self.largest_margin, "ldam.scale": self.scale})
        if not 0 <= self.reweight_from <= 1:
            raise OptionError(f"ldam.reweight_from must lie in [0, 1], got {self.reweight_from}")
