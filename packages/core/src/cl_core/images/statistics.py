"""Mean and spread of each channel, for the normalisation that nothing here does by itself."""

from __future__ import annotations

import numpy as np
import torch

from cl_core.images.dataset import ImageDataset
from cl_core.transforms import Statistics

__all__ = ["channel_statistics"]


def channel_statistics(dataset: ImageDataset, *, max_images: int = 5000) -> Statistics:
    """Mean and standard deviation over all pixels, of images scaled to [0, 1] if 8-bit.

    Args:
        dataset: The *training* images; its first view is measured, so give none of its views a
            random transform.
        max_images: Of a larger set so many are measured, evenly spaced through the table.

    Raises:
        ValueError: If images differ in their number of channels, or a channel is constant.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), max_images)).astype(int))
    count, total, square = 0, torch.zeros(0), torch.zeros(0)
    for row in rows.tolist():
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
