"""Real images in memory, a class at a time: what condensation and assessment draw from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from cl_core.errors import InputError
from cl_core.transforms import Statistics
from cl_vision.data import Images

__all__ = ["RealImages", "load_real", "require_per_class"]


@dataclass(frozen=True, eq=False)
class RealImages:
    """Labelled images, stored as they were decoded and normalised when they are taken.

    Attributes:
        pixels: uint8, or float in [0, 1].
        labels: Class of each.
        classes: Names.
        mean: Of each channel, of values in [0, 1].
        std: Of each channel.
    """

    pixels: Tensor
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return (int(self.pixels.shape[2]), int(self.pixels.shape[3]))

    @property
    def channels(self) -> int:
        """Of each image."""
        return int(self.pixels.shape[1])

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """Images of some rows, normalised, in float32."""
        x = self.pixels[rows]
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (x - mean) / std

    def rows_of(self, label: int) -> Int[Tensor, " m"]:
        """The rows of a class."""
        return (self.labels == label).nonzero().flatten()

    def select(self, rows: Int[Tensor, " m"]) -> RealImages:
        """The images of some rows."""
        return RealImages(self.pixels[rows], self.labels[rows], self.classes, self.mean, self.std)

    def draw(self, label: int, most: int, generator: torch.Generator) -> Float[Tensor, "m c h w"]:
        """Images of a class without replacement; all of them, shuffled, if there are fewer."""
        rows = self.rows_of(label)
        order = torch.randperm(len(rows), generator=generator)[:most]
        return self.take(rows[order])


def load_real(
    images: Images,
    *,
    size: tuple[int, int] | None = None,
    statistics: Statistics | None = None,
) -> RealImages:
    """Decode labelled images into memory.

    Args:
        images: Opened; unlabelled ones are left out.
        size: Height and width to scale to: the shorter side covers it, the middle is kept.
        statistics: What to normalise by; by default those of the images.

    Raises:
        InputError: If images differ in channels or, without ``size``, in size; or there are fewer
            than two classes.
    """
    keep = (images.labels >= 0).nonzero().flatten()
    present = torch.unique(images.labels[keep])
    if len(present) < 2:
        raise InputError(
            f"{images.table.source}: {len(present)} class of labelled images, and a classifier "
            "needs at least 2: give images in a folder for each class"
        )
    labelled = images.select(keep.tolist())
    parts: list[Tensor] = []
    for row in range(len(labelled)):
        name = labelled.table.name(row)
        x = cast(Any, labelled.dataset)[row].views[0]
        if parts and len(x) != len(parts[0]):
            raise InputError(
                f"{name} has {len(x)} channels and {labelled.table.name(0)} {len(parts[0])}: give "
                "--channels 1 or --channels 3 to read all alike"
            )
        x = x if size is None else _fit(x, size)
        if parts and x.shape != parts[0].shape:
            raise InputError(
                f"{name} has {x.shape[1]} x {x.shape[2]} pixels and {labelled.table.name(0)} "
                f"{parts[0].shape[1]} x {parts[0].shape[2]}: give --image_size"
            )
        parts.append(x.clone())
    pixels = (
        torch.stack([p.float() / 255 if p.dtype == torch.uint8 else p for p in parts])
        if any(p.dtype != parts[0].dtype for p in parts)
        else torch.stack(parts)
    )
    names = labelled.table.classes
    order = {int(label): place for place, label in enumerate(present.tolist())}
    labels = torch.tensor([order[int(label)] for label in labelled.labels])
    classes = tuple(names[int(label)] for label in present.tolist())
    if statistics is None:
        statistics = _statistics(pixels, labelled)
    return RealImages(pixels, labels, classes, statistics.mean, statistics.std)


def require_per_class(real: RealImages, least: int, option: str) -> None:
    """Refuse classes with fewer images than asked for.

    Raises:
        InputError: Naming them.
    """
    counts = torch.bincount(real.labels, minlength=len(real.classes)).tolist()
    few = [f"{name} ({n})" for name, n in zip(real.classes, counts, strict=True) if n < least]
    if few:
        raise InputError(
            f"{option} {least}: fewer images than that to learn from have {', '.join(few)}: lower "
            "it, or leave these classes out"
        )


def _statistics(pixels: Tensor, images: Images) -> Statistics:
    scale = 255.0 if pixels.dtype == torch.uint8 else 1.0
    total = torch.zeros(pixels.shape[1], dtype=torch.float64)
    square = total.clone()
    for part in torch.split(pixels, 1024):
        x = part.double() / scale
        total += x.sum((0, 2, 3))
        square += x.square().sum((0, 2, 3))
    count = pixels.numel() / pixels.shape[1]
    mean = total / count
    std = (square / count - mean.square()).clamp(min=0).sqrt()
    if (std < 1e-6).any():
        raise InputError(
            f"{images.table.source}: channel {int(std.argmin())} is constant; give --channels 1"
        )
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()))


def _fit(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cover the size, then keep the middle; uint8 stays uint8."""
    h, w = x.shape[1:]
    scale = max(size[0] / h, size[1] / w)
    edges = [max(size[0], round(h * scale)), max(size[1], round(w * scale))]
    whole = x.dtype == torch.uint8
    y = x.float()[None]
    if edges != [h, w]:
        y = F.interpolate(y, edges, mode="bilinear", antialias=True, align_corners=False)
    top, left = (edges[0] - size[0]) // 2, (edges[1] - size[1]) // 2
    y = y[0, :, top : top + size[0], left : left + size[1]]
    return y.round().clamp(0, 255).to(torch.uint8) if whole else y
