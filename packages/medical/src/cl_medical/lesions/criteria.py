"""The losses of the options, with the classifier whose outputs each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from cl_core.errors import InputError
from cl_medical.lesions.config import TrainConfig
from cl_medical.lesions.imbalance import (
    effective_number_weights,
    focal_loss,
    inverse_frequency_weights,
    ldam_loss,
    ldam_margins,
    weighted_cross_entropy,
)
from cl_medical.lesions.supercon import Criterion

__all__ = ["LOSS_OF", "Loss", "LossName", "build_criterion"]

LossName = Literal["cross_entropy", "balanced", "focal", "ldam"]

LOSS_OF: dict[str, LossName] = {
    "cross_entropy": "cross_entropy",
    "weighted": "balanced",
    "focal": "focal",
    "ldam": "ldam",
}
"""The loss of each method of one stage."""


@dataclass(frozen=True)
class Loss:
    """A loss, and the classifier whose outputs it takes."""

    criterion: Criterion
    classifier: Literal["linear", "cosine"] = "linear"
    scale: float = 1.0


def build_criterion(
    loss: LossName, counts: Tensor, config: TrainConfig, *, classes: tuple[str, ...]
) -> Loss:
    """Make a loss of the options and the training images' classes.

    Raises:
        InputError: If a class has no training image, or `focal.alpha` has another length.
    """
    if bool((counts < 1).any()):
        lost = classes[int(counts.argmin())]
        raise InputError(f"no training image is of class {lost}: split anew, or leave it out")
    weights = (
        inverse_frequency_weights(counts)
        if config.class_weights == "inverse"
        else effective_number_weights(counts)
    )
    if loss == "cross_entropy":
        return Loss(lambda logits, y, _: nn.functional.cross_entropy(logits.float(), y))
    if loss == "balanced":
        return Loss(
            lambda logits, y, _: weighted_cross_entropy(logits, y, weights.to(logits.device))
        )
    if loss == "focal":
        focal = config.focal
        if focal.alpha is not None and len(focal.alpha) != len(classes):
            raise InputError(
                f"--focal.alpha has {len(focal.alpha)} weights for {len(classes)} classes "
                f"({', '.join(classes)}): give one each"
            )
        return Loss(
            lambda logits, y, _: focal_loss(
                logits, y, gamma=focal.gamma, alpha=focal.alpha, detach_pt=focal.detach_pt
            )
        )
    ldam = config.ldam
    margins = ldam_margins(counts, ldam.largest_margin)

    def criterion(cosines: Tensor, y: Tensor, progress: float) -> Tensor:
        late = progress >= ldam.reweight_from
        return ldam_loss(
            cosines,
            y,
            margins.to(cosines.device),
            scale=ldam.scale,
            weights=weights.to(cosines.device) if late else None,
        )

    return Loss(criterion, "cosine", ldam.scale)
