"""The 1,797 handwritten digits that come with scikit-learn: 8 x 8 grey pixels, in memory.

Small enough to train on in seconds, so the demo and the tests use them. Views are made a batch at
a time, which is what makes a training of 40 epochs a matter of seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from cl_core.images import ImageTable, Sample
from cl_core.transforms.scaling import Normalize, Statistics

__all__ = ["DIGITS", "DigitImages", "DigitViews", "load_digits", "transform_digits"]

DIGITS = Statistics((0.3053,), (0.3761,))
"""Mean and spread of the training digits in [0, 1]."""

Batched = Callable[[Tensor], Tensor]


class DigitImages(Dataset[Sample]):
    """Digits as samples, in as many views as asked for; a view is made for a whole batch at once.

    Args:
        images: ``(n, 1, 8, 8)`` in [0, 1].
        table: Name, class and split of each.
        transforms: A function of ``(n, 1, 8, 8)`` per view; none gives the images themselves.
    """

    def __init__(
        self,
        images: Float[Tensor, "n 1 h w"],
        table: ImageTable,
        transforms: Sequence[Batched] = (),
    ) -> None:
        if len(images) != len(table):
            raise ValueError(f"a row of the table per image, got {len(table)} and {len(images)}")
        self.images = images
        self.table = table
        self.transforms = tuple(transforms)

    def views(self, n: int, transform: Batched | Sequence[Batched]) -> DigitImages:
        """The same digits in ``n`` views, of one transform or of ``n``."""
        transforms = [transform] * n if callable(transform) else list(transform)
        if n < 1 or len(transforms) != n:
            raise ValueError(f"{n} views need a transform or {n}, got {len(transforms)}")
        return DigitImages(self.images, self.table, transforms)

    def select(self, rows: Sequence[int]) -> DigitImages:
        """The digits of some rows, numbered anew."""
        return DigitImages(self.images[list(rows)], self.table.select(rows), self.transforms)

    def of_split(self, split: str) -> DigitImages:
        """The digits of one split, ``train`` or ``test``, numbered anew."""
        splits = self.table.splits or ()
        return self.select([row for row, name in enumerate(splits) if name == split])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Sample:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[Sample]:
        images = self.images[rows]
        views = [transform(images) for transform in self.transforms] or [images]
        return [
            Sample(tuple(view[i] for view in views), int(self.table.labels[row]), row)
            for i, row in enumerate(rows)
        ]


class DigitViews(nn.Module):
    """A random view of each digit: turned, scaled, shifted, brighter or darker, noisy, erased.

    Rotation of +-20 degrees, a window of 0.6 to 1.1 times the image, a shift of up to a pixel,
    brightness times 0.6 to 1.4, Gaussian noise of 0.15, and with probability 0.5 a square of
    3 x 3 pixels set to 0. All draws are torch's and differ between the images of a batch.

    Args:
        statistics: For the last step; none leaves values as they are.
    """

    def __init__(self, statistics: Statistics | None = DIGITS) -> None:
        super().__init__()
        self.normalize = nn.Identity() if statistics is None else Normalize(statistics)

    def forward(self, images: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        n, _, h, w = images.shape
        x = transform_digits(
            images,
            degrees=_uniform(n, -20, 20),
            scale=_uniform(n, 0.6, 1.1),
            shift=2 * torch.rand(n, 2) - 1,
        )
        x = x * _uniform(n, 0.6, 1.4)[:, None, None, None]
        x = x + 0.15 * torch.randn_like(x)
        top, left = (torch.randint(0, edge - 2, (n, 1)) for edge in (h, w))
        erased = (torch.rand(n) < 0.5)[:, None, None]
        rows = _within(torch.arange(h), top)[:, :, None]
        columns = _within(torch.arange(w), left)[:, None, :]
        x = x.masked_fill((erased & rows & columns)[:, None], 0.0)
        view: Tensor = self.normalize(x)
        return view


def transform_digits(
    images: Float[Tensor, "n c h w"],
    *,
    degrees: Float[Tensor, " n"],
    scale: Float[Tensor, " n"] | None = None,
    shift: Float[Tensor, "n 2"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Turn, scale and shift each image by its own amount, bilinearly, on black.

    Args:
        images: Any square images.
        degrees: Turn, anticlockwise.
        scale: Edge of the window that is shown, over that of the image; below 1 enlarges.
        shift: Of that window to the right and down, in pixels.
    """
    n, _, h, w = images.shape
    angle = torch.deg2rad(degrees)
    size = torch.ones(n) if scale is None else scale
    offset = torch.zeros(n, 2) if shift is None else shift * images.new_tensor([2 / w, 2 / h])
    cos, sin = size * angle.cos(), size * angle.sin()
    theta = torch.stack(
        [torch.stack([cos, -sin, offset[:, 0]], 1), torch.stack([sin, cos, offset[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, [n, 1, h, w], align_corners=False)
    return F.grid_sample(images, grid.to(images), align_corners=False)


def load_digits(split: Literal["train", "test", "all"] = "all") -> DigitImages:
    """Read the digits; the split is fixed: 1,437 to train on and 360 to test on, by class."""
    from sklearn.datasets import load_digits as read_digits
    from sklearn.model_selection import train_test_split

    data = read_digits()
    rows = range(len(data.target))
    _, test = train_test_split(rows, test_size=360, stratify=data.target, random_state=0)
    held_out = set(test)
    table = ImageTable(
        source="digits",
        root="",
        files=tuple(f"digit{row:04d}" for row in rows),
        labels=data.target.astype("int64"),
        classes=tuple("0123456789"),
        splits=tuple("test" if row in held_out else "train" for row in rows),
    )
    images = torch.from_numpy(data.images).float()[:, None] / 16
    digits = DigitImages(images, table)
    return digits if split == "all" else digits.of_split(split)


def _uniform(n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(n)


def _within(index: Tensor, start: Tensor) -> Tensor:
    return (index >= start) & (index < start + 3)
