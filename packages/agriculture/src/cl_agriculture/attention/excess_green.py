r"""Excess green: plants told from soil by colour alone, without a label.

With $r, g, b$ the shares of the channels in $R + G + B$ (each 1/3 where that is 0),

$$e = 2 g - r - b = 3 g - 1 \in [-1, 2],$$

and the mask is $e > t$ for Otsu's threshold $t$ (Otsu 1979), clamped: on bare soil Otsu splits the
gravel's noise, in a frame full of leaf it splits the leaf. The raw variant is $2 G - R - B$, whose
values grow with the light. Excess green is due to Woebbecke et al. 1995; CLAWS (arXiv 2112.00847)
does not say where its masks come from, so all of this is a decision of this project.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

__all__ = ["BOUNDS", "Variant", "clean_mask", "excess_green", "otsu_threshold", "separability"]

Variant = Literal["chromatic", "raw"]

BOUNDS: dict[Variant, tuple[float, float]] = {"chromatic": (0.05, 0.30), "raw": (8.0, 60.0)}
"""Least and largest threshold of each variant."""

_BINS = 256
_SQUARE = np.ones((3, 3), dtype=np.uint8)


def excess_green(
    rgb: UInt8[np.ndarray, "h w 3"], variant: Variant = "chromatic"
) -> Float64[np.ndarray, "h w"]:
    """Measure how much greener than grey each pixel is.

    Args:
        rgb: An image as it is stored, never a colour-jittered one.
        variant: ``chromatic``, -1 to 2, does not see the light's strength; ``raw``, -510 to 510.

    Raises:
        ValueError: If the variant is unknown.

    Example:
        >>> excess_green(np.array([[[10, 80, 10], [50, 50, 50], [0, 0, 0]]], dtype=np.uint8))
        array([[1.4, 0. , 0. ]])
    """
    if variant not in BOUNDS:
        raise ValueError(f"variant must be 'chromatic' or 'raw', got {variant!r}")
    red, green, blue = (rgb[..., k].astype(np.uint16) for k in range(3))
    total = red + green + blue
    e: Float64[np.ndarray, "h w"] = 3 * green.astype(np.float64)
    if variant == "raw":
        e -= total
        return e
    black = total == 0
    np.divide(e, total, out=e, where=~black)
    e[black] = 1
    e -= 1
    return e


def otsu_threshold(values: Float64[np.ndarray, "h w"]) -> float:
    r"""Split values in two so that the variance between the two is largest (Otsu 1979).

    Of 256 equal bins between the smallest and the largest value the first one is taken that
    maximises $w_0 w_1 (\mu_0 - \mu_1)^2$, the bin itself belonging to the lower part.

    Args:
        values: Not all equal.

    Returns:
        The centre of that bin.

    Raises:
        ValueError: If all values are equal: there is nothing to split.
    """
    counts, edges = np.histogram(values, _BINS)
    if edges[0] == edges[-1] or not values.size or values.min() == values.max():
        raise ValueError("all values are equal: no threshold can split them")
    centres = (edges[:-1] + edges[1:]) / 2
    counts = counts.astype(np.float64)
    lower, upper = counts.cumsum(), counts[::-1].cumsum()[::-1]
    sums = counts * centres
    mean_lower = sums.cumsum() / np.maximum(lower, 1e-300)
    mean_upper = sums[::-1].cumsum()[::-1] / np.maximum(upper, 1e-300)
    between = lower[:-1] * upper[1:] * (mean_lower[:-1] - mean_upper[1:]) ** 2
    return float(centres[between.argmax()])


def separability(values: Float64[np.ndarray, "h w"], threshold: float) -> float:
    r"""Share of the variance that a threshold explains, $w (1 - w) (\mu_1 - \mu_0)^2 / \sigma^2$.

    It is told, and decides nothing: a single Gaussian split at its mean already gives 0.64.

    Args:
        values: Those that were split.
        threshold: Values above it are one part, the others the other.

    Returns:
        0 to 1; 0 if a part is empty.
    """
    above = values > threshold
    w, variance = float(above.mean()), float(values.var())
    if w in (0.0, 1.0) or variance == 0:
        return 0.0
    mean = float(values.mean())
    mean_above = float(values[above].mean())
    # w mu_1 + (1 - w) mu_0 = mu, hence mu_1 - mu_0 = (mu_1 - mu) / (1 - w)
    return w * (mean_above - mean) ** 2 / ((1 - w) * variance)


def clean_mask(
    mask: Bool[np.ndarray, "h w"], min_component: float = 0.001
) -> Bool[np.ndarray, "h w"]:
    """Drop specks, close gaps of a pixel, fill holes.

    Components (8-connected) below ``max(1, ceil(min_component * h * w))`` pixels go; then a binary
    closing by a 3x3 square with background around the image; then holes, that is background
    without a 4-connected way to the border, are filled.

    Args:
        mask: True is plant.
        min_component: Least share of the image that a component covers.

    Returns:
        A new mask.
    """
    least = max(1, math.ceil(min_component * mask.size))
    _, labels, found, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    keep = (found[:, cv2.CC_STAT_AREA] >= least).astype(np.uint8)
    keep[0] = 0  # the background
    frame = cv2.BORDER_CONSTANT
    plant = cv2.copyMakeBorder(keep[labels], 1, 1, 1, 1, frame, value=0)
    plant = cv2.morphologyEx(plant, cv2.MORPH_CLOSE, _SQUARE, borderType=frame, borderValue=0)
    # The frame of background connects all that is outside; what the flood does not reach is plant.
    plant[[0, -1]] = 0
    plant[:, [0, -1]] = 0
    outside = plant.copy()
    cv2.floodFill(outside, None, (0, 0), 2, flags=4)
    filled: Bool[np.ndarray, "h w"] = (outside != 2)[1:-1, 1:-1]
    return np.ascontiguousarray(filled)
