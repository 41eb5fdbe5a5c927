"""The same numbers for the same groups as in an earlier model."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment

__all__ = ["aligned_names"]


def aligned_names(
    means: Float[np.ndarray, "k d"],
    earlier: Float[np.ndarray, "m e"],
    names: Int64[np.ndarray, " m"],
) -> Int64[np.ndarray, " k"]:
    """Name groups after those of an earlier model whose means they are nearest to.

    One to one, with the least sum of distances (Hungarian matching). What has no partner gets the
    next free numbers.

    Args:
        means: Of the new groups, in the space of the representation.
        earlier: Of the earlier ones, in the same space.
        names: The earlier groups' numbers.

    Raises:
        ValueError: If the two spaces differ in width.

    Example:
        >>> aligned_names(np.eye(3), np.eye(3)[[2, 0]], np.array([7, 4])).tolist()
        [4, 8, 7]
    """
    if means.shape[1] != earlier.shape[1]:
        raise ValueError(
            f"groups in {means.shape[1]} dimensions cannot be matched to {earlier.shape[1]}"
        )
    distances = np.linalg.norm(means[:, None] - earlier[None], axis=2)
    new, old = linear_sum_assignment(distances)
    given = np.full(len(means), -1, dtype=np.int64)
    given[new] = names[old]
    free = np.flatnonzero(given < 0)
    first = int(names.max()) + 1 if len(names) else 0
    given[free] = np.arange(first, first + len(free))
    return given
