"""Where tiles lie on the ground, and which of them share some of it.

Tiles of one scene are compared by their pixels. Tiles of different scenes are compared in one
coordinate system by the quadrilaterals of their corners, so scenes may differ in date, grid,
rotation and CRS. A scene without georeference is a ground of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl_remote_sensing.tiles.index import TileIndex

__all__ = ["Ground", "components", "overlapping", "overlapping_within_scenes"]

_WORLD = "EPSG:6933"  # equal-area, in metres, one to one over the whole world
_PAIRS = 2**20
"""Candidate pairs looked at together: bounds memory whatever the number of tiles."""


@dataclass(frozen=True, eq=False)
class Ground:
    """Footprints of tiles.

    Attributes:
        corners: Upper left, upper right, lower right and lower left of each tile, in units of
            the common coordinate system (pixels for a scene without georeference),
            float64 ``(n, 4, 2)``.
        plane: Tiles of different planes cannot overlap: 0 for all that are georeferenced, and
            one for each other scene, int64 ``(n,)``.
        pixel: Side of a tile's pixels in the same units, float64 ``(n,)``.
    """

    corners: NDArray[np.float64]
    plane: NDArray[np.int64]
    pixel: NDArray[np.float64]

    @classmethod
    def of(cls, index: TileIndex) -> Ground:
        """The footprints of an index's tiles."""
        from rasterio.crs import CRS
        from rasterio.warp import transform

        systems = {scene.crs for scene in index.scenes if scene.georeferenced and scene.crs}
        common = CRS.from_user_input(_WORLD) if len(systems) > 1 else None
        row, col, height, width = index.window.T
        pixels = np.stack(
            [
                np.stack([col, row], axis=1),
                np.stack([col + width, row], axis=1),
                np.stack([col + width, row + height], axis=1),
                np.stack([col, row + height], axis=1),
            ],
            axis=1,
        ).astype(np.float64)
        corners, plane = pixels, np.zeros(len(index), dtype=np.int64)
        for number, scene in enumerate(index.scenes):
            rows = np.flatnonzero(index.scene == number)
            if not (scene.georeferenced and scene.crs):
                plane[rows] = number + 1
                continue
            if not len(rows):
                continue
            a, b, c, d, e, f = scene.transform
            x, y = pixels[rows].reshape(-1, 2).T
            ground = np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)
            if common is not None:
                moved = transform(CRS.from_wkt(scene.crs), common, *ground.T.tolist())
                ground = np.array(moved, dtype=np.float64).T
            corners[rows] = ground.reshape(-1, 4, 2)
        # The area of a quadrilateral is half the cross product of its diagonals.
        one, two = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
        area = np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]) / 2
        return cls(corners, plane, np.sqrt(area / (height * width)))


def overlapping(index: TileIndex, *, gap: float = 0.0) -> Iterator[NDArray[np.int64]]:
    """Pairs of tiles that share ground, in pieces, each pair at least once.

    Grids of different scenes rarely coincide; what is less than half a pixel deep counts as
    touching, not as shared.

    Args:
        index: The tiles.
        gap: Pixels by which tiles must be apart not to count; 0 for plain overlap.

    Yields:
        Rows of the index, int64 ``(m, 2)``, the smaller first.
    """
    ground = Ground.of(index)
    low, high = ground.corners.min(axis=1), ground.corners.max(axis=1)
    for first, second in _neighbours(ground, low, high, gap):
        slack = (gap - 0.5) * np.minimum(ground.pixel[first], ground.pixel[second])
        depth = np.minimum(high[first], high[second]) - np.maximum(low[first], low[second])
        same = index.scene[first] == index.scene[second]
        near = same | (depth > -slack[:, None]).all(axis=1)
        first, second, slack, same = first[near], second[near], slack[near], same[near]
        hit = np.empty(len(first), dtype=bool)
        hit[same] = _share_pixels(index.window[first[same]], index.window[second[same]], gap)
        hit[~same] = (
            _depth(ground.corners[first[~same]], ground.corners[second[~same]]) > -slack[~same]
        )
        if hit.any():
            yield np.stack([first[hit], second[hit]], axis=1)


def overlapping_within_scenes(index: TileIndex) -> NDArray[np.int64]:
    """Pairs of tiles of one scene that share pixels, int64 ``(m, 2)``, the smaller row first."""
    empty = np.zeros((0, 2), dtype=np.int64)
    found = [
        pairs[index.scene[pairs[:, 0]] == index.scene[pairs[:, 1]]] for pairs in overlapping(index)
    ]
    return np.unique(np.concatenate([empty, *found]), axis=0)


def components(pairs: Iterator[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Number the connected components of ``count`` tiles, by their smallest row; ``(count,)``."""
    parent = np.arange(count)
    for edges in pairs:
        while True:
            one, other = parent[edges[:, 0]], parent[edges[:, 1]]
            apart = one != other
            if not apart.any():
                break
            edges = edges[apart]
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            np.minimum.at(parent, high, low)
            while not np.array_equal(above := parent[parent], parent):
                parent = above
    return parent


def _neighbours(
    ground: Ground, low: NDArray[np.float64], high: NDArray[np.float64], gap: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Candidate pairs: tiles that meet the same cell of a grid about as wide as a tile.

    The work is linear in the tiles as long as a bounded number of them lies over a place.
    """
    for plane in np.unique(ground.plane):
        rows = np.flatnonzero(ground.plane == plane)
        reach = max(gap, 0.0) * ground.pixel[rows, None]
        side = float(np.median((high - low)[rows].max(axis=1))) or 1.0
        origin = low[rows].min(axis=0)
        first = np.floor((low[rows] - reach - origin) / side).astype(np.int64)
        last = np.floor((high[rows] + reach - origin) / side).astype(np.int64)
        tile, cell = _cover(first, last)
        order = np.lexsort((tile, cell[:, 0], cell[:, 1]))
        tile, cell = rows[tile[order]], cell[order]
        edges = np.flatnonzero((np.diff(cell, axis=0) != 0).any(axis=1)) + 1
        begins, ends = np.r_[0, edges], np.r_[edges, len(tile)]
        # Each entry is paired with those after it in its cell.
        follow = np.repeat(ends, ends - begins) - np.arange(len(tile)) - 1
        stop = np.cumsum(follow)
        start = 0
        while start < len(tile):
            done = int(stop[start - 1]) if start else 0
            end = max(int(np.searchsorted(stop, done + _PAIRS, side="right")), start + 1)
            counts = follow[start:end]
            one = np.repeat(np.arange(start, end), counts)
            step = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
            yield tile[one], tile[one + 1 + step]
            start = end


def _cover(
    first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every grid cell of every tile: the tile's number and the cell, ``(m,)`` and ``(m, 2)``."""
    wide, tall = (last - first + 1).T
    counts = wide * tall
    tile = np.repeat(np.arange(len(first)), counts)
    step = np.arange(len(tile)) - np.repeat(np.cumsum(counts) - counts, counts)
    cell = np.stack([first[tile, 0] + step % wide[tile], first[tile, 1] + step // wide[tile]], 1)
    return tile, cell


def _share_pixels(
    one: NDArray[np.int64], other: NDArray[np.int64], gap: float
) -> NDArray[np.bool_]:
    start = np.maximum(one[:, :2], other[:, :2])
    end = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:])
    return np.asarray((end - start > -gap).all(axis=1))


def _depth(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """How deep two convex quadrilaterals overlap; negative is their distance along an axis.

    By the separating axis theorem it is the smallest overlap of their projections on the
    normals of their edges.
    """
    depth = np.full(len(one), np.inf)
    for quad in (one, other):
        edge = np.roll(quad, -1, axis=1) - quad
        normal = np.stack([-edge[..., 1], edge[..., 0]], axis=-1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        for k in range(4):
            a = np.einsum("nvd,nd->nv", one, normal[:, k])
            b = np.einsum("nvd,nd->nv", other, normal[:, k])
            shared = np.minimum(a.max(1), b.max(1)) - np.maximum(a.min(1), b.min(1))
            depth = np.minimum(depth, shared)
    return depth
