"""Labels as they come: arrays or tensors, with -1 or NaN where nobody labelled."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["Array", "as_array", "as_labels", "as_rows", "is_labelled"]

#: A tensor on any device, or what ``numpy.asarray`` understands.
Array: TypeAlias = Any


def as_array(values: Array) -> np.ndarray:
    """The values as a numpy array on the host, without gradient."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def as_rows(values: Array, name: str = "embeddings") -> Tensor:
    """The values as a floating-point matrix, a tensor where it is, without gradient.

    Raises:
        ValueError: If they are no matrix ``(n, d)`` or a value is not finite.
    """
    rows = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    rows = rows.detach()
    if rows.ndim != 2:
        raise ValueError(f"{name} must be rows (n, d), got {tuple(rows.shape)}")
    rows = rows if rows.is_floating_point() else rows.to(torch.float32)
    bad = ~torch.isfinite(rows).all(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {int(bad.sum())} of {len(rows)} rows, "
            f"the first of them row {int(bad.nonzero()[0])}"
        )
    return rows


def as_labels(values: Array, like: Tensor) -> Tensor:
    """Class numbers beside ``like``, NaN as -1.

    Raises:
        ValueError: If they are neither integers nor whole numbers.
    """
    labels = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if labels.is_floating_point():
        labels = torch.where(labels.isnan(), -1, labels)
        if bool((labels != labels.round()).any()):
            raise ValueError("labels must be class numbers, got fractions")
    return labels.detach().to(like.device, torch.int64)


def is_labelled(labels: np.ndarray) -> np.ndarray:
    """Mask of the labels that are neither -1 nor NaN; text is always a label."""
    if labels.dtype.kind == "f":
        return np.asarray(~(np.isnan(labels) | (labels == -1)))
    if labels.dtype.kind == "i":
        return np.asarray(labels != -1)
    return np.ones(labels.shape, dtype=bool)
