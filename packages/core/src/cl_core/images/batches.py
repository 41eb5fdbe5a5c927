"""What a step finds in a batch, in whichever of the field's forms it comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Batch", "as_batch", "views_of"]


class Batch(NamedTuple):
    """What a step takes.

    Attributes:
        views: Images ``(n, c, h, w)`` of each view.
        label: Class of each image, int64 ``(n,)``, -1 for none.
        row: Number of each image in the data set, int64 ``(n,)``, -1 where it is not told.
    """

    views: tuple[Tensor, ...]
    label: Tensor
    row: Tensor


def views_of(batch: Any, *, count: int | None = None) -> Sequence[Tensor]:
    """The views of a batch, each ``(n, c, h, w)``.

    Args:
        batch: A :class:`~cl_core.images.Sample`; ``([view_1, view_2, ...], labels, ...)`` as
            lightly, solo-learn and MoCo's loaders give; or a list of views alone.
        count: How many there must be.

    Raises:
        ValueError: If they cannot be told, or are not ``count``.
    """
    views = getattr(batch, "views", None)
    if views is None and isinstance(batch, (list, tuple)) and batch:
        first = batch[0]
        views = first if isinstance(first, (list, tuple)) else batch
    images = isinstance(views, (list, tuple)) and all(
        isinstance(view, Tensor) and view.ndim == 4 for view in views
    )
    if not images or not views:
        raise ValueError(
            "a batch holds views of images: a Sample, ([view_1, view_2], labels), or "
            f"[view_1, view_2], each (n, c, h, w); got {type(batch).__name__}"
        )
    if count is not None and len(views) != count:
        raise ValueError(f"a step needs {count} views of every image, got {len(views)}")
    return list(views)


def as_batch(batch: Any) -> Batch:
    """A batch in one form; labels and rows that it lacks are -1.

    Args:
        batch: As for :func:`views_of`; a third part of a tuple is taken for the rows.

    Raises:
        ValueError: As :func:`views_of`.
    """
    views = views_of(batch)
    n = len(views[0])
    missing = torch.full((n,), -1, dtype=torch.int64, device=views[0].device)
    if hasattr(batch, "views"):
        parts = [getattr(batch, "label", None), getattr(batch, "row", None)]
    else:
        parts = list(batch[1:3]) if isinstance(batch[0], (list, tuple)) else []
    told = [p if isinstance(p, Tensor) and p.shape == (n,) else missing for p in parts]
    label, row = (*told, missing, missing)[:2]
    return Batch(tuple(views), label, row)
