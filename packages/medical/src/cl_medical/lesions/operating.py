"""From a trained network to one that can be used: calibrated, with an operating point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cl_core.checks import near
from cl_core.errors import InputError
from cl_core.evaluation.calibration import fit_temperature
from cl_medical.lesions.thresholds import OperatingPoint, choose_threshold

__all__ = ["Operating", "choose_operating", "choose_positive", "decisions"]

_MELANOMA = ("melanoma", "mel", "malignant")


class Operating(NamedTuple):
    """What turns logits into probabilities and decisions.

    Attributes:
        temperature: By which logits are divided.
        positive: The class that is looked for, if there is one.
        threshold: Its probability from which an image is called positive.
        told: How that was chosen, in words.
    """

    temperature: float
    positive: str | None
    threshold: float | None
    told: str


def choose_operating(
    logits: Float[Tensor, "n c"],
    y: Int[Tensor, " n"],
    classes: Sequence[str],
    *,
    positive: str | None,
    rule: OperatingPoint,
    sensitivity: float,
) -> Operating:
    """Choose temperature and threshold on validation images.

    Args:
        logits: Of the validation images.
        y: Their classes.
        classes: Names.
        positive: The class that is looked for, if there is one.
        rule: How its threshold is chosen.
        sensitivity: Of the rule of that name.
    """
    temperature = fit_temperature(logits, y)
    if positive is None:
        return Operating(temperature, None, None, "none: no class was named as positive")
    k = list(classes).index(positive)
    score = torch.softmax(logits.double() / temperature, dim=1)[:, k].numpy()
    truth = (y == k).numpy()
    if not truth.any() or truth.all():
        return Operating(
            temperature, positive, 0.5, f"0.5: the validation images cannot choose for {positive}"
        )
    threshold = choose_threshold(truth, score, rule, sensitivity=sensitivity)
    told = f"sensitivity {sensitivity:g}" if rule == "sensitivity" else rule
    return Operating(temperature, positive, threshold, f"{told} on {len(y):,} validation images")


def choose_positive(classes: Sequence[str], asked: str | None) -> str | None:
    """Name the class that is looked for: melanoma, or the second of two.

    Args:
        classes: Names.
        asked: The user's choice.

    Raises:
        InputError: If there is no such class.
    """
    if asked is not None:
        if asked not in classes:
            raise InputError(
                f"--positive {asked}: no such class; {near(asked, classes)}there are "
                f"{', '.join(classes)}"
            )
        return asked
    found = [name for wanted in _MELANOMA for name in classes if name.lower() == wanted]
    if found:
        return found[0]
    return classes[1] if len(classes) == 2 else None


def decisions(
    p: Float[NDArray[np.floating], "n c"],
    classes: Sequence[str],
    *,
    positive: str | None,
    threshold: float | None,
) -> list[str]:
    """Decide for each image: the positive class or not, or without one the most probable class."""
    if positive is None or threshold is None:
        return [classes[k] for k in p.argmax(axis=1).tolist()]
    other = next(name for name in classes if name != positive)
    rest = other if len(classes) == 2 else f"not {positive}"
    called = p[:, list(classes).index(positive)] >= threshold
    return [positive if hit else rest for hit in called.tolist()]
