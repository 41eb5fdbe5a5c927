"""What the splits of a data set share: images, patients or lesions, and equal pixels.

The two lists that SuperCon's repository publishes for ISIC 2020 come from independent draws: 5,310
of the 6,626 test images are training images too, and 1,699 of the 1,701 test patients are training
patients. Figures of such a test say little of new patients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cl_core.images import ImageTable, UnreadableImageError, read_images
from cl_medical.lesions.tables import ID

__all__ = ["Overlap", "Pixels", "find_overlaps", "read_pixels"]


@dataclass(frozen=True)
class Overlap:
    """What one split holds of another.

    Attributes:
        one: The split that is compared with.
        other: The split whose images are counted.
        images: Images of ``other``, by id, that ``one`` holds too.
        of_images: All images of ``other``.
        classes: For each class, how many of its images in ``other`` are shared, and how many there
            are.
        groups: Patients or lesions of ``other`` that ``one`` holds too.
        of_groups: All of ``other``; 0 where none are known.
        unseen: Images of ``other`` whose group ``one`` does not hold.
        twins: Images of ``other`` that equal one of ``one`` pixel by pixel, under another id.
        example: An image that is shared, a group, or a pair of equal images.
    """

    one: str
    other: str
    images: int
    of_images: int
    classes: Mapping[str, tuple[int, int]]
    groups: int
    of_groups: int
    unseen: int
    twins: int
    example: str

    def __bool__(self) -> bool:
        return bool(self.images or self.groups or self.twins)

    def told(self) -> str:
        """Say it in a sentence."""
        parts = []
        if self.images:
            shares = ", ".join(
                f"{shared:,} of {of:,} of class {name}"
                for name, (shared, of) in self.classes.items()
                if shared
            )
            parts.append(f"{self.images:,} of its {self.of_images:,} images ({shares})")
        if self.groups:
            parts.append(
                f"{self.groups:,} of its {self.of_groups:,} patients or lesions, which leaves "
                f"{self.unseen:,} images of new ones"
            )
        if self.twins:
            parts.append(f"{self.twins:,} images that are equal pixel by pixel under another name")
        return f"{self.other} shares with {self.one} {' and '.join(parts)} (such as {self.example})"


@dataclass(frozen=True)
class Pixels:
    """What decoding every image tells.

    Attributes:
        digests: Of the pixels of each image; empty for one that cannot be read.
        unreadable: The errors of those, by row.
    """

    digests: tuple[bytes, ...]
    unreadable: Mapping[int, UnreadableImageError]


def read_pixels(table: ImageTable, *, threads: int = 2) -> Pixels:
    """Decode every image once."""
    digests: list[bytes] = []
    unreadable: dict[int, UnreadableImageError] = {}
    for row, image in enumerate(read_images(table.files, threads=threads)):
        if isinstance(image, UnreadableImageError):
            unreadable[row] = image
            digests.append(b"")
            continue
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        head = f"{pixels.shape} {pixels.dtype}".encode()
        digests.append(hashlib.blake2b(head + pixels.tobytes(), digest_size=16).digest())
    return Pixels(tuple(digests), unreadable)


def find_overlaps(
    table: ImageTable, *, order: Sequence[str] = ("train", "val", "test"), pixels: Pixels | None
) -> list[Overlap]:
    """Compare every split with those before it.

    Args:
        table: With splits and ids.
        order: Of the splits; others follow.
        pixels: Of :func:`read_pixels`, to find equal images under different ids.

    Returns:
        A comparison for each pair of splits, also those that share nothing.
    """
    splits = np.asarray(table.splits)
    present = set(splits.tolist())
    names = [name for name in order if name in present]
    names += sorted(present - set(names))
    return [_compare(table, splits, one, other, pixels) for one, other in combinations(names, 2)]


def _compare(
    table: ImageTable, splits: np.ndarray, one: str, other: str, pixels: Pixels | None
) -> Overlap:
    ids = table.column(ID)
    left, right = np.flatnonzero(splits == one).tolist(), np.flatnonzero(splits == other).tolist()
    known = {ids[row] for row in left}
    shared = [row for row in right if ids[row] in known]
    classes = {
        name: (
            sum(int(table.labels[row]) == k for row in shared),
            sum(int(table.labels[row]) == k for row in right),
        )
        for k, name in enumerate(table.classes)
    }
    groups, of_groups, unseen, group = 0, 0, 0, ""
    if table.groups is not None:
        ours = {table.groups[row] for row in left} - {""}
        theirs = {table.groups[row] for row in right} - {""}
        both = ours & theirs
        groups, of_groups, group = len(both), len(theirs), min(both, default="")
        unseen = sum(table.groups[row] not in ours for row in right)
    twins: list[str] = []
    if pixels is not None:
        rows = {pixels.digests[row]: row for row in reversed(left) if pixels.digests[row]}
        twins = [
            f"{ids[rows[digest]]} and {ids[row]}"
            for row in right
            if (digest := pixels.digests[row]) in rows and ids[rows[digest]] != ids[row]
        ]
    examples = [ids[row] for row in shared[:1]] + [group] * bool(group) + twins[:1]
    return Overlap(
        one=one,
        other=other,
        images=len(shared),
        of_images=len(right),
        classes=classes,
        groups=groups,
        of_groups=of_groups,
        unseen=unseen,
        twins=len(twins),
        example=examples[0] if examples else "",
    )
