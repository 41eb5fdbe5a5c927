"""From a volume to a mask on its own grid, a few slices in memory at a time.

Probabilities, not classes, are resampled to the native grid, and the largest wins there. In two
dimensions every slice is segmented by itself; in three, patches slide over the volume, weighted by
a Gaussian, and slices leave the buffer as soon as no patch will reach them again. Beside the image
and the mask, memory holds some slices only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cl_medical.segmentation.data import fill_channels
from cl_medical.segmentation.native import Slabs, to_native
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.volumes import Geometry, Intensity, resample

__all__ = [
    "Inference",
    "Segmentation",
    "segment_grid",
    "segment_volume",
]

_VOXELS = 2**18  # of images that the network sees at once


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How volumes are segmented.

    Attributes:
        patch: Size the network was trained on; smaller slices are filled up to it.
        overlap: Share by which neighbouring patches overlap, in three dimensions.
        tta: Average over flips within slices.
        device: Where the network is.
    """

    patch: tuple[int, ...]
    overlap: float = 0.5
    tta: bool = False
    device: str = "cpu"

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.patch)


@dataclass(frozen=True)
class Segmentation:
    """What was made of a volume.

    Attributes:
        classes: uint8 on the file's grid.
        probabilities: Of each class from 1 on, uint8 in steps of 1/255, ``(k - 1, x, y, z)``.
    """

    classes: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None


def segment_volume(
    network: MultiDomainNetwork,
    domain: str,
    images: Sequence[NDArray[np.float32]],
    intensities: Sequence[Intensity],
    geometry: Geometry,
    inference: Inference,
    *,
    probabilities: bool = False,
) -> Segmentation:
    """Segment one volume on its own grid.

    Args:
        network: In eval mode.
        domain: Whose norms and head are used.
        images: Of the file's grid, one a channel.
        intensities: How each is scaled.
        geometry: The way to the network's grid.
        inference: Options.
        probabilities: Keep them.
    """
    channels = network.backbone.in_channels
    shape = images[0].shape
    turned = [geometry.turned(image) for image in images]
    least = torch.tensor([(one.low - one.mean) / one.deviation for one in intensities])

    def read(start: int, stop: int) -> Tensor:
        parts = [
            torch.from_numpy(intensity.apply(np.ascontiguousarray(image[start:stop])))
            for image, intensity in zip(turned, intensities, strict=True)
        ]
        # (m, c, h, w); a stack of one would be another copy of the volume
        return parts[0][:, None] if len(parts) == 1 else torch.stack(parts, 1)

    if inference.dims == 2:
        step = _slices_at_once(geometry.grid[1:], inference.patch)
        slabs = _slices(network, domain, geometry, inference, read, step, least, channels)
    else:
        image = resample(read(0, geometry.shape[0]).transpose(0, 1)[None], geometry.grid)[0]
        slabs = segment_grid(network, domain, image, least, inference)
    classes = np.zeros(shape, np.uint8)
    flat = geometry.turned(classes)  # a view: what is written there is on the file's grid
    count = network.heads.classes(network.domains.index(domain))
    kept = np.zeros((count - 1, *shape), np.uint8) if probabilities else None
    for start, p in to_native(slabs, geometry):
        flat[start : start + len(p)] = p.argmax(1).to(torch.uint8).numpy()
        if kept is not None:
            stored = (p[:, 1:] * 255).round().to(torch.uint8).numpy()
            for k, one in enumerate(kept):
                geometry.turned(one)[start : start + len(p)] = stored[:, k]
    return Segmentation(classes, kept)


def _slices(
    network: MultiDomainNetwork,
    domain: str,
    geometry: Geometry,
    inference: Inference,
    read: Any,
    step: int,
    least: Tensor,
    channels: int,
) -> Slabs:
    for start in range(0, geometry.shape[0], step):
        part = resample(read(start, min(start + step, geometry.shape[0])), geometry.grid[1:])
        for offset, p in segment_grid(network, domain, part.transpose(0, 1), least, inference):
            yield start + offset, p


def segment_grid(
    network: MultiDomainNetwork,
    domain: str,
    image: Float[Tensor, "c z h w"],
    least: Float[Tensor, " c"],
    inference: Inference,
) -> Slabs:
    """Segment an image on the network's grid.

    Args:
        network: In eval mode.
        domain: Whose norms and head are used.
        image: Standardised, slice axis first.
        least: Value of each channel outside the image.
        inference: Options.

    Yields:
        The number of the first slice and the probabilities of some slices, in order.
    """
    channels = network.backbone.in_channels
    image, least = fill_channels(image, channels), fill_channels(least[:, None], channels)[:, 0]
    if inference.dims == 2:
        yield from _by_slices(network, domain, image, least, inference)
    else:
        yield from _by_patches(network, domain, image, least, inference)


def _by_slices(
    network: MultiDomainNetwork, domain: str, image: Tensor, least: Tensor, inference: Inference
) -> Slabs:
    sides = image.shape[2:]
    multiple = network.backbone.multiple
    padded = [
        -(-max(n, p) // m) * m for n, p, m in zip(sides, inference.patch, multiple, strict=True)
    ]
    step = _slices_at_once(padded, inference.patch)
    for start in range(0, image.shape[1], step):
        x, crop = _filled(image[:, start : start + step].transpose(0, 1), padded, least)
        p = _probabilities(network, domain, x, inference)
        yield start, p[:, :, crop[0], crop[1]].cpu()


def _slices_at_once(sides: Sequence[int], patch: Sequence[int]) -> int:
    return max(1, _VOXELS // (max(sides[0], patch[0]) * max(sides[1], patch[1])))


def _by_patches(
    network: MultiDomainNetwork, domain: str, image: Tensor, least: Tensor, inference: Inference
) -> Slabs:
    from monai.data.utils import compute_importance_map

    patch = inference.patch
    shape = image.shape[1:]
    padded = [max(n, p) for n, p in zip(shape, patch, strict=True)]
    x, crop = _filled(image[None], padded, least)
    x = x[0]
    weight = compute_importance_map(patch, mode="gaussian", sigma_scale=0.125)
    weight = weight.to(torch.float32).clamp_min(1e-3)
    starts = [_starts(n, p, inference.overlap) for n, p in zip(padded, patch, strict=True)]
    depth = patch[0]
    total: Tensor | None = None
    norm = torch.zeros(depth, *padded[1:])
    first = 0  # the slice of `x` that the buffer begins with
    for z in [*starts[0], padded[0]]:
        done = z - first
        if total is not None and done:
            finished = min(done, depth)
            yield from _emit(first, (total[:finished] / norm[:finished, None]), crop)
            total = torch.cat([total[finished:], torch.zeros_like(total[:finished])])
            norm = torch.cat([norm[finished:], torch.zeros_like(norm[:finished])])
            first = z
        if z == padded[0]:
            return
        for top in starts[1]:
            for left in starts[2]:
                box = (slice(top, top + patch[1]), slice(left, left + patch[2]))
                window = x[(slice(None), slice(z, z + depth), *box)][None]
                p = _probabilities(network, domain, window, inference)[0].cpu()
                if total is None:
                    total = torch.zeros(depth, len(p), *padded[1:])
                total[(slice(None), slice(None), *box)] += (p * weight).transpose(0, 1)
                norm[(slice(None), *box)] += weight


def _emit(first: int, p: Tensor, crop: Sequence[slice]) -> Slabs:
    """The slices of a finished slab that belong to the image, without what was filled up."""
    low, high = crop[0].start, crop[0].stop
    start, stop = max(first, low), min(first + len(p), high)
    if start < stop:
        yield start - low, p[(slice(start - first, stop - first), slice(None), *crop[1:])]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """Where patches begin: evenly spaced, no farther apart than the overlap allows."""
    room = length - size
    count = 1 + (0 if room == 0 else -(-room // max(1, int(size * (1 - overlap)))))
    return sorted({round(i * room / max(count - 1, 1)) for i in range(count)})


def _filled(x: Tensor, padded: Sequence[int], least: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """Fill ``(n, c, *s)`` up on both sides, and say where the image is then."""
    sides = x.shape[2:]
    crop = tuple(
        slice((full - n) // 2, (full - n) // 2 + n) for n, full in zip(sides, padded, strict=True)
    )
    if list(sides) == list(padded):
        return x, crop
    floor = least.to(x).reshape(1, -1, *(1,) * len(sides))
    margins = [
        side
        for part, full in zip(reversed(crop), reversed(list(padded)), strict=True)
        for side in (part.start, full - part.stop)
    ]
    return F.pad(x - floor, margins) + floor, crop


@torch.no_grad()
def _probabilities(
    network: MultiDomainNetwork, domain: str, x: Tensor, inference: Inference
) -> Tensor:
    x = x.to(inference.device)
    flips: list[tuple[int, ...]] = [()]
    if inference.tta:
        flips += [(-1,), (-2,), (-1, -2)]
    number = network.domains.index(domain)
    total: Tensor | None = None
    for axes in flips:
        logits = network(x.flip(axes) if axes else x, domain).logits[number]
        p = logits.float().softmax(1)
        p = p.flip(axes) if axes else p
        total = p if total is None else total + p
    assert total is not None
    return total / len(flips)
