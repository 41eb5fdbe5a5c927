"""What is measured of the images that are trained on: mean and spread, and the range of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cl_core.errors import InputError
from cl_core.images.decode import stored_range
from cl_core.images.decoding import full_scale
from cl_core.images.opening import MAX_PIXELS, UnreadableImageError
from cl_core.threads import one_thread
from cl_core.transforms.scaling import Statistics

__all__ = ["channel_statistics", "measure_value_range"]


def measure_value_range(
    files: Sequence[str], *, max_images: int = 5000, max_pixels: int = MAX_PIXELS
) -> tuple[float, float] | None:
    """The full scale that holds the values of 32-bit files, whose type does not tell it.

    Files that cannot be read are passed over: whoever reads them next tells.

    Args:
        files: Of the images that are trained on.
        max_images: Of a larger set so many are measured, evenly spaced.
        max_pixels: The largest image to decode.

    Returns:
        What becomes 0 and 1, by :func:`cl_core.images.decoding.full_scale`; ``None`` if no file
        is of this kind.

    Raises:
        InputError: If the values are not finite.
    """
    rows = np.unique(np.linspace(0, len(files) - 1, min(len(files), max_images)).astype(int))
    least, most = np.inf, -np.inf
    for row in rows.tolist():
        try:
            found = stored_range(files[row], max_pixels=max_pixels)
        except UnreadableImageError:
            continue
        if found is not None:
            if not np.isfinite(sum(found)):
                raise InputError(f"{files[row]}: it holds values that are not finite; mend it")
            least, most = min(least, found[0]), max(most, found[1])
    return full_scale(least, most) if least <= most else None


def channel_statistics(dataset: Any, *, max_images: int = 5000) -> Statistics:
    """Mean and standard deviation over all pixels, of images scaled to [0, 1] if 8-bit.

    Args:
        dataset: The *training* images, an :class:`~cl_core.images.ImageDataset` or its like; its
            first view is measured, so give none of its views a random transform.
        max_images: Of a larger set so many are measured, evenly spaced through the table.

    Raises:
        ValueError: If images differ in their number of channels, or a channel is constant.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), max_images)).astype(int))
    with one_thread():
        return _statistics(dataset, rows.tolist())


def _statistics(dataset: Any, rows: Sequence[int]) -> Statistics:
    count, total, square = 0, torch.zeros(0), torch.zeros(0)
    for row in rows:
        image = dataset[row].views[0]
        x = image.flatten(1).double()
        if image.dtype == torch.uint8:
            x /= 255
        if count and len(x) != len(total):
            raise ValueError(f"{dataset.table.files[row]} has {len(x)} channels, not {len(total)}")
        total = x.sum(1) if not count else total + x.sum(1)
        square = x.square().sum(1) if not count else square + x.square().sum(1)
        count += x.shape[1]
    mean = total / count
    std = (square / count - mean.square()).clamp(min=0).sqrt()
    if (std < 1e-6).any():
        raise ValueError(f"channel {int(std.argmin())} is constant; choose other channels")
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()))
