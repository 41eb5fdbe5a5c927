"""Cases as training samples: slices or patches of prepared volumes, drawn at random.

A batch is drawn, augmented and stacked under torch's global generator, which the loader seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cl_medical.segmentation.augment import Augmentation, cut
from cl_medical.segmentation.cache import Prepared
from cl_medical.segmentation.manifest import IGNORE

__all__ = ["Batch", "PatchSet", "Source", "central_patches", "collate"]


class Batch(NamedTuple):
    """Samples of one step, domain by domain.

    Attributes:
        image: float32 ``(n, c, *s)``.
        label: int64 ``(n, *s)``, classes of each sample's own domain, 255 for unknown.
        domain: int64 ``(n,)``.
        case: int64 ``(n,)``, numbered on through the domains.
    """

    image: Tensor
    label: Tensor
    domain: Tensor
    case: Tensor


@dataclass(frozen=True)
class Source:
    """A prepared case with its place among the domains.

    Attributes:
        domain: Number of its domain.
        name: Of the case.
        prepared: Its arrays.
        places: For each class from 1 on that occurs, the class and the slices that show it.
    """

    domain: int
    name: str
    prepared: Prepared
    places: tuple[tuple[int, NDArray[np.int64]], ...]

    @classmethod
    def of(cls, domain: int, name: str, prepared: Prepared, classes: int) -> Source:
        """Look up where the structures of a case are."""
        label = prepared.label
        seen = np.zeros((classes, len(label)), dtype=bool)
        for z in range(len(label)):
            found = np.flatnonzero(np.bincount(label[z].ravel(), minlength=IGNORE + 1))
            seen[found[found < classes], z] = True
        places = tuple((k, np.flatnonzero(seen[k])) for k in range(1, classes) if seen[k].any())
        return cls(domain, name, prepared, places)


class PatchSet(Dataset[Batch]):
    """Random patches of cases. Each case has several rows, a share of which must show a structure.

    In two dimensions a patch lies in one slice, drawn uniformly. A forced patch holds a voxel of a
    structure, drawn uniformly among those of the case, so that small ones are met as often as large
    ones.

    Args:
        sources: Cases, those of a domain together.
        patch: Size, two or three axes; volumes that are thinner are filled up with their least
            value.
        augmentation: Random changes; ``None`` for patches as they are.
        rows: Of each case.
        forced: Share of a case's rows that must show a structure.
        channels: Of a sample; cases with fewer images are filled up with zeros.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        patch: Sequence[int],
        augmentation: Augmentation | None,
        *,
        rows: Sequence[int],
        forced: float = 0.5,
        channels: int = 1,
    ) -> None:
        self.sources = tuple(sources)
        self.ends = np.cumsum(rows)
        self.rows = tuple(rows)
        self.forced = forced
        self.patch = tuple(patch)
        self.augmentation = augmentation
        self.channels = channels

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int) -> Batch:
        case = int(np.searchsorted(self.ends, row, side="right"))
        source, count = self.sources[case], self.rows[case]
        place = row - int(self.ends[case]) + count
        forced = place < round(self.forced * count)
        z, center = self._place(source, forced=forced and bool(source.places))
        least = torch.tensor(source.prepared.least)
        if self.augmentation is None:
            reach = [n // 2 + 1 for n in self.patch]
            image, label, center = _surroundings(source.prepared, z, center, reach)
            patch, marks = cut(image, label, center, self.patch, least)
        else:
            reach = self.augmentation.reach(self.patch)
            image, label, center = _surroundings(source.prepared, z, center, reach)
            patch, marks = self.augmentation.patch(image, label, center, self.patch, least)
        return Batch(
            fill_channels(patch, self.channels),
            marks.long(),
            torch.tensor(source.domain),
            torch.tensor(case),
        )

    def _place(self, source: Source, *, forced: bool) -> tuple[int, list[float]]:
        """A slice, and the middle of a patch in it."""
        shape = source.prepared.label.shape
        if not forced:
            z = _below(shape[0])
            free = [_anywhere(n, size) for n, size in zip(shape[-2:], self.patch[-2:], strict=True)]
        else:
            k, slices = source.places[_below(len(source.places))]
            z = int(slices[_below(len(slices))])
            voxels = np.flatnonzero(source.prepared.label[z] == k)
            spot = np.unravel_index(int(voxels[_below(len(voxels))]), shape[-2:])
            free = [
                _around(int(at), n, size)
                for at, n, size in zip(spot, shape[-2:], self.patch[-2:], strict=True)
            ]
        if len(self.patch) == 2:
            return z, free
        depth = self.patch[0]
        through = _around(z, shape[0], depth) if forced else _anywhere(shape[0], depth)
        return z, [through, *free]


def central_patches(source: Source, patch: Sequence[int], count: int, channels: int) -> Tensor:
    """Patches as training sees them but without chance, for embeddings.

    Args:
        source: The case.
        patch: Size, two or three axes.
        count: How many slices (evenly spaced, within the middle four fifths), or of patches along
            the slice axis.
        channels: Of a sample.

    Returns:
        float32 ``(m, c, *patch)``, ``m`` at most ``count``.
    """
    depth, *sides = source.prepared.label.shape
    places = np.unique(np.linspace(0.1 * (depth - 1), 0.9 * (depth - 1), count).round().astype(int))
    middle = [(n - 1) / 2 for n in sides]
    made = []
    for z in places.tolist():
        center = middle if len(patch) == 2 else [float(z), *middle]
        reach = [n // 2 + 1 for n in patch]
        image, label, center = _surroundings(source.prepared, z, center, reach)
        least = torch.tensor(source.prepared.least)
        made.append(fill_channels(cut(image, label, center, patch, least)[0], channels))
    return torch.stack(made)


def fill_channels(image: Tensor, channels: int) -> Tensor:
    """Fill an image up to a number of channels with zeros, the mean of a standardised image."""
    lacking = channels - len(image)
    return image if lacking <= 0 else torch.cat([image, image.new_zeros(lacking, *image.shape[1:])])


def collate(samples: Sequence[Batch]) -> Batch:
    """Stack samples, domain by domain."""
    samples = sorted(samples, key=lambda sample: int(sample.domain))
    return Batch(*(torch.stack(list(part)) for part in zip(*samples, strict=True)))


def _surroundings(
    prepared: Prepared, z: int, center: Sequence[float], reach: Sequence[int]
) -> tuple[Tensor, Tensor, list[float]]:
    """What lies around a place, copied out of the volume, and where the place is in it."""
    image: NDArray[np.float32] = prepared.image
    label: NDArray[np.uint8] = prepared.label
    if len(center) == 2:
        image, label = image[:, z], label[z]
    starts = [max(0, int(c) - r) for c, r in zip(center, reach, strict=True)]
    box = tuple(
        slice(start, max(start + 1, int(c) + r + 2))
        for start, c, r in zip(starts, center, reach, strict=True)
    )
    moved = [c - start for c, start in zip(center, starts, strict=True)]
    part = torch.from_numpy(np.array(image[(slice(None), *box)]))
    return part, torch.from_numpy(np.array(label[box])), moved


def _below(count: int) -> int:
    return int(torch.randint(count, ()))


def _anywhere(length: int, size: int) -> float:
    """The middle of a patch that lies inside, anywhere; the middle of what is smaller."""
    room = length - size
    return (length - 1) / 2 if room <= 0 else _below(room + 1) + (size - 1) / 2


def _around(at: int, length: int, size: int) -> float:
    """The middle of a patch that holds a voxel, inside the volume if it is large enough."""
    room = length - size
    if room <= 0:
        return (length - 1) / 2
    low, high = max(0, at - size + 1), min(at, room)
    return low + _below(high - low + 1) + (size - 1) / 2
