"""From the network's grid back to the file's, and the pieces of a mask there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_medical.segmentation.volumes import Geometry, resample

__all__ = ["Slabs", "largest_components", "to_native"]

Slabs = Iterator[tuple[int, Tensor]]
"""Probabilities ``(m, k, h, w)`` of slices from a number on, in order."""


def to_native(slabs: Slabs, geometry: Geometry) -> Slabs:
    """Resample probabilities from the network's grid to the file's, slab by slab.

    Linear in every axis, as a resampling of the whole volume would be.

    Args:
        slabs: Of the slices of ``geometry.grid``, in order.
        geometry: The way that led there.
    """
    depth, native = geometry.grid[0], geometry.shape[0]
    if depth == native:
        for start, p in slabs:
            yield start, resample(p, geometry.shape[1:])
        return
    held: dict[int, Tensor] = {}
    made = 0
    for start, p in slabs:
        flat = resample(p, geometry.shape[1:])
        held |= {start + i: flat[i] for i in range(len(flat))}
        last = max(held)
        ready = []
        while made < native:
            place = min(max((made + 0.5) * depth / native - 0.5, 0.0), depth - 1.0)
            low = int(place)
            high = min(low + 1, depth - 1)
            if high > last:
                break
            ready.append(torch.lerp(held[low], held[high], place - low))
            made += 1
        if ready:
            yield made - len(ready), torch.stack(ready)
        place = min(max((made + 0.5) * depth / native - 0.5, 0.0), depth - 1.0)
        held = {z: one for z, one in held.items() if z >= int(place)}


def largest_components(classes: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Keep the largest piece of each class, voxels being neighbours by their faces.

    Args:
        classes: Of a volume.
        count: How many classes, background included.

    Returns:
        A copy in which other pieces are background.
    """
    from scipy import ndimage

    kept = classes.copy()
    boxes: list[Any] = ndimage.find_objects(classes, max_label=count - 1)
    for k, box in enumerate(boxes, 1):
        if box is None:
            continue
        mask = classes[box] == k
        pieces, number = ndimage.label(mask)
        if number > 1:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            kept[box][mask & (pieces != sizes.argmax())] = 0
    return kept
