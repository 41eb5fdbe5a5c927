"""Labels as they come: arrays or tensors, with -1 or NaN where nobody labelled."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

__all__ = ["Array", "as_array", "is_labelled"]

#: A tensor on any device, or what ``numpy.asarray`` understands.
Array: TypeAlias = Any


def as_array(values: Array) -> np.ndarray:
    """The values as a numpy array on the host, without gradient."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def is_labelled(labels: np.ndarray) -> np.ndarray:
    """Mask of the labels that are neither -1 nor NaN; text is always a label."""
    if labels.dtype.kind == "f":
        return np.asarray(~(np.isnan(labels) | (labels == -1)))
    if labels.dtype.kind == "i":
        return np.asarray(labels != -1)
    return np.ones(labels.shape, dtype=bool)
