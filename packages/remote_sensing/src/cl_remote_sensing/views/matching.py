"""Regions of the same ground in two views of a tile (GLCNet, Li et al., TGRS 2022, Sec. III-C).

A view knows by its id map which pixel of the tile each of its own shows. A region is a square
around a pixel that both views show. All look-ups are arrays over the tile's pixels; nothing
loops over pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int, Int64

__all__ = ["check_region", "default_region_size", "select_regions"]

Choose = Callable[[np.ndarray], int]


def default_region_size(size: int) -> int:
    """Return the even number nearest to 0.214 of a view's edge: 48 of 224, as published."""
    return max(2, 2 * round(0.107 * size))


def check_region(region_size: int, size: int) -> None:
    """Refuse regions that no view of ``size`` pixels can hold.

    Raises:
        ValueError: If ``region_size`` is odd, below 2 or not below ``size``.
    """
    if region_size < 2 or region_size % 2:
        raise ValueError(f"region_size must be even and at least 2, got {region_size}")
    if region_size >= size:
        raise ValueError(
            f"regions of {region_size} pixels must be smaller than the view of {size}: "
            f"the published share is {default_region_size(size)} of {size}"
        )


def select_regions(
    ids1: Int[np.ndarray, "s s"],
    ids2: Int[np.ndarray, "s s"],
    *,
    region_size: int,
    count: int,
    strict_nonoverlap: bool = False,
    choose: Choose | None = None,
) -> tuple[Int64[np.ndarray, "k 2"], Int64[np.ndarray, "k 2"]] | None:
    """Draw centres of square regions that show the same ground in both views.

    Candidates are the ids that both views show at a pixel around which a region fits. One is
    drawn ``count`` times; its centre in a view is the first pixel in row-major order that shows
    it and around which a region fits. Ids inside the region of view 1 are candidates no more, but
    only as long as more than one is left: so a later centre does not lie in an earlier region,
    while the regions themselves may overlap. That is the official code; the paper speaks of
    regions that do not overlap, which is ``strict_nonoverlap``.

    Args:
        ids1: Id of the tile's pixel at each pixel of view 1, at least 0.
        ids2: The same of view 2.
        region_size: ``p``, even; a region is rows ``r - p/2`` to ``r + p/2 - 1`` around centre
            row ``r``, and so for columns.
        count: Number of regions.
        strict_nonoverlap: Keep centres apart by ``p`` in one axis at least, in both views.
        choose: Picks one of the candidates, given in rising order; by default at random from
            torch's generator.

    Returns:
        Row and column of the centres in view 1 and in view 2; ``None`` if the views share no
        candidate, or with ``strict_nonoverlap`` not enough of them.
    """
    half, size = region_size // 2, len(ids1)
    limit = int(max(ids1.max(), ids2.max())) + 1
    candidate = _shown(ids1, half, limit) & _shown(ids2, half, limit)
    left = np.flatnonzero(candidate)
    if not len(left):
        return None
    where1, where2 = _first(ids1, half, limit), _first(ids2, half, limit)
    pick = choose or _uniform
    flat1: list[int] = []
    flat2: list[int] = []
    for drawn in range(1, count + 1):
        chosen = pick(left)
        at1, at2 = int(where1[chosen]), int(where2[chosen])
        flat1.append(at1)
        flat2.append(at2)
        if drawn == count:
            break
        if strict_nonoverlap:
            apart = _apart(where1[left], at1, size, region_size)
            apart &= _apart(where2[left], at2, size, region_size)
            left = left[apart]
            if not len(left):
                return None
            continue
        row, col = divmod(at1, size)
        reduced = candidate.copy()
        reduced[ids1[row - half : row + half, col - half : col + half]] = False
        rest = np.flatnonzero(reduced)
        if len(rest) > 1:
            candidate, left = reduced, rest
    return _rows_cols(flat1, size), _rows_cols(flat2, size)


def _uniform(candidates: np.ndarray) -> int:
    return int(candidates[int(torch.randint(len(candidates), ()))])


def _shown(ids: np.ndarray, half: int, limit: int) -> np.ndarray:
    """Mark the ids that occur where the official code looks for centres."""
    inner = slice(half, len(ids) - half)
    marks = np.zeros(limit, dtype=bool)
    marks[ids[inner, inner]] = True
    return marks


def _first(ids: np.ndarray, half: int, limit: int) -> np.ndarray:
    """Return, by id, the first pixel (row-major, as ``row * size + col``) where a region fits."""
    size = len(ids)
    fits = np.arange(half, size - half + 1)  # one more than the centres' own range
    pixels = fits[:, None] * size + fits
    first = np.zeros(limit, dtype=np.int64)
    # Backwards, so that of several pixels with one id the first is written last.
    first[ids[half : size - half + 1, half : size - half + 1].ravel()[::-1]] = pixels.ravel()[::-1]
    return first


def _apart(pixels: np.ndarray, at: int, size: int, distance: int) -> np.ndarray:
    rows, cols = np.divmod(pixels, size)
    row, col = divmod(at, size)
    apart: np.ndarray = (abs(rows - row) >= distance) | (abs(cols - col) >= distance)
    return apart


def _rows_cols(pixels: list[int], size: int) -> np.ndarray:
    return np.stack(np.divmod(np.array(pixels, dtype=np.int64), size), 1)
