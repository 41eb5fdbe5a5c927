"""From an image or a user's mask file to a mask that can be trusted, or the reason why not."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from cl_agriculture.attention.excess_green import (
    clean_mask,
    excess_green,
    otsu_threshold,
    separability,
)
from cl_agriculture.hyper import MaskHyper

__all__ = ["PlantMask", "Reason", "green_mask", "judged"]

Reason = Literal["", "empty", "full", "constant", "missing"]


class PlantMask(NamedTuple):
    """A mask and how it came about.

    Attributes:
        mask: True is plant; all true where there is a ``reason`` not to trust what was found.
        fraction: Share of the image that was found to be plant, before any fallback.
        reason: Why the whole image is used instead: ``empty``, ``full``, ``constant`` (an image of
            one excess green), ``missing`` (no mask file). Empty if the mask is used.
        threshold: Of the excess green, clamped; NaN for other sources.
        separability: Share of the variance that Otsu's own threshold explains; NaN likewise.
    """

    mask: Bool[np.ndarray, "h w"]
    fraction: float
    reason: Reason = ""
    threshold: float = float("nan")
    separability: float = float("nan")


def green_mask(rgb: UInt8[np.ndarray, "h w 3"], hyper: MaskHyper) -> PlantMask:
    """Find the plants of one image by excess green and a clamped threshold.

    Args:
        rgb: The image as it is stored.
        hyper: Variant, bounds, cleaning, what is too little or too much.
    """
    e = excess_green(rgb, hyper.variant)
    if e.min() == e.max():
        return PlantMask(np.ones(e.shape, dtype=bool), 0.0, "constant")
    own = otsu_threshold(e)
    low, high = hyper.bounds
    threshold = min(max(own, low), high)
    mask = e > threshold
    if hyper.clean:
        mask = clean_mask(mask, hyper.min_component)
    found = judged(mask, hyper)
    return found._replace(threshold=threshold, separability=separability(e, own))


def judged(mask: Bool[np.ndarray, "h w"], hyper: MaskHyper) -> PlantMask:
    """Keep a mask, or put the whole image in its place if it covers too little or too much."""
    fraction = float(mask.mean())
    reason: Reason = ""
    if fraction < hyper.least_fraction:
        reason = "empty"
    elif fraction > hyper.most_fraction:
        reason = "full"
    return PlantMask(np.ones_like(mask) if reason else mask, fraction, reason)
