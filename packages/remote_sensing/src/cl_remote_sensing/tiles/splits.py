"""Splits of tiles by where they lie, so that no ground is both learnt from and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_remote_sensing.labels.scene_labels import IGNORE, Labels
from cl_remote_sensing.tiles.ground import Ground, components, overlapping
from cl_remote_sensing.tiles.index import TileIndex, read_windows

__all__ = [
    "class_counts",
    "few_labels",
    "keep_labelled",
    "read_windows",
    "refuse_overlap",
    "spatial_split",
    "unseen_classes",
]


def spatial_split(
    index: TileIndex,
    *,
    test: float = 0.2,
    val: float = 0.1,
    block: int,
    seed: int,
    gap: int = 0,
) -> TileIndex:
    """Deal blocks of ground to the splits ``train``, ``val`` and ``test``.

    Tiles that share ground, of whatever scene, date or coordinate system, are kept together as
    long as such a group fits into a block. A larger group, as the tiles of a mosaic that overlap
    their neighbours, is cut along the blocks, and the tiles at the cut that reach into another
    split are left out: those of ``train`` before those of ``val`` before those of ``test``.

    Args:
        index: The tiles.
        test: Share of the tiles in ``test``; 0 for none.
        val: Share of the tiles in ``val``; 0 for none.
        block: Side of a block in pixels (of the median tile). Larger blocks leak less by
            likeness of neighbours and give fewer blocks to draw from.
        seed: Any integer; the same gives the same split.
        gap: Pixels by which tiles of different splits are to be apart at least.

    Returns:
        The tiles that are left, with their splits; ``notes`` tells how many were left out.

    Raises:
        InputError: If there are fewer blocks than splits, or a split is left without tiles.
        ValueError: If a number is out of range.
    """
    if min(test, val) < 0 or test + val >= 1:
        raise ValueError(f"test and val are shares that leave some for train, got {test} and {val}")
    if block < 1 or gap < 0:
        raise ValueError(f"block is at least 1 and gap at least 0 pixels, got {block} and {gap}")
    fractions = {"train": 1 - test - val, "val": val, "test": test}
    fractions = {name: share for name, share in fractions.items() if share > 0}
    unit = _blocks(index, block, gap)
    sizes = np.bincount(unit)
    if len(sizes) < len(fractions):
        raise InputError(
            f"{len(index)} tiles lie in {len(sizes)} blocks of {block} pixels, too few for the "
            f"splits {', '.join(fractions)}; lower the block, or give more scenes"
        )
    names = list(fractions)
    dealt = _deal(sizes, np.array(list(fractions.values())), np.random.default_rng(seed))
    split = dealt[unit]
    dropped = np.zeros(len(index), dtype=bool)
    for pairs in overlapping(index, gap=gap):
        one, other = split[pairs].T
        # The earlier split in the list yields: a test tile is never given up.
        weaker = np.where(one < other, pairs[:, 0], pairs[:, 1])
        dropped[weaker[one != other]] = True
    kept = replace(index, split=np.array(names)[split]).take(~dropped)
    for name in names:
        if not (kept.split == name).any():
            raise InputError(
                f"no tile is left in split '{name}': all overlap those of another; tiles need a "
                "smaller overlap, blocks more pixels, or the splits other shares"
            )
    if dropped.any():
        kept = kept.noting(
            f"{int(dropped.sum())} of {len(index)} tiles left out, which reach into another split"
        )
    return kept


def refuse_overlap(index: TileIndex) -> None:
    """Check splits that came with the data: no two may share ground.

    Tiles are compared across scenes, dates and coordinate systems; those of scenes without
    georeference only within their scene. Less than half a pixel is not counted.

    Raises:
        InputError: If two tiles of different splits overlap, naming the first such pair.
    """
    names, split = np.unique(index.split, return_inverse=True)
    count, first = 0, None
    for pairs in overlapping(index):
        torn = pairs[split[pairs[:, 0]] != split[pairs[:, 1]]]
        torn = torn[(index.split[torn] != "").all(axis=1)]
        count += len(np.unique(torn, axis=0))
        if len(torn) and (first is None or torn.tolist() < [first]):
            first = min(torn.tolist())
    if first is not None:
        one, other = (_told(index, row) for row in first)
        raise InputError(
            f"{count} pairs of tiles of different splits share ground, first {one} and {other}: a "
            f"test on seen ground says nothing; split anew by blocks ({', '.join(names)})"
        )


def few_labels(
    index: TileIndex,
    amount: float,
    *,
    seed: int,
    labels: Sequence[Labels] | None = None,
) -> TileIndex:
    """Draw a few tiles, as if no others were labelled: the 1 %, 5 % or 10 % protocol.

    Tiles are drawn at random, so a share is that of all tiles. With ``labels`` the draw first
    takes, rarest class first, a tile of each class that none of those drawn so far has; when the
    number is too small for all classes this is told. Draw once and store with
    :meth:`TileIndex.save`, since other runs are to be compared on the same tiles.

    Args:
        index: The tiles to draw from, of ``train`` alone.
        amount: A share in ``(0, 1]``, of which at least one tile is drawn, or a whole number of
            tiles above 1.
        seed: Any integer; the same gives the same tiles.
        labels: Of each scene; tiles without a label are then not drawn.

    Returns:
        The drawn tiles in the order of the index.

    Raises:
        InputError: If no tile has a label, or there are fewer tiles than asked for.
        ValueError: If ``amount`` is neither.
    """
    if amount <= 0 or (amount > 1 and amount != int(amount)):
        raise ValueError(f"amount is a share in (0, 1] or a number of tiles, got {amount}")
    wanted = max(1, round(amount * len(index))) if amount <= 1 else int(amount)
    rows = np.arange(len(index))
    present = np.zeros((len(index), 0), dtype=bool)
    if labels is not None:
        present = class_counts(index, labels) > 0
        rows = np.flatnonzero(present.any(axis=1))
        if not len(rows):
            raise InputError(f"none of the {len(index)} tiles has a label; check the label files")
    if amount <= 1:
        wanted = min(wanted, len(rows))
    if wanted > len(rows):
        raise InputError(f"{wanted} labelled tiles are asked for, there are {len(rows)}; ask fewer")
    order = np.random.default_rng(seed).permutation(rows)
    chosen: list[int] = []
    for k in sorted(range(present.shape[1]), key=lambda k: (int(present[:, k].sum()), k)):
        holders = order[present[order, k]]
        if len(holders) and len(chosen) < wanted and not present[chosen, k].any():
            chosen.append(int(holders[0]))
    taken = set(chosen)
    chosen += [row for row in order.tolist() if row not in taken][: wanted - len(chosen)]
    drawn = index.take(sorted(chosen))
    if labels is None:
        return drawn
    lost = np.flatnonzero(present.any(axis=0) & ~present[chosen].any(axis=0))
    if len(lost):
        names = ", ".join(labels[0].legend.names[k] for k in lost)
        drawn = drawn.noting(f"the {wanted} labelled tiles drawn hold no pixel of {names}")
    return drawn


def keep_labelled(index: TileIndex, labels: Sequence[Labels]) -> TileIndex:
    """The tiles that have a label; ``notes`` tells how many have none.

    Raises:
        InputError: If no tile has one.
    """
    labelled = np.asarray(class_counts(index, labels).any(axis=1))
    if not labelled.any():
        raise InputError(f"none of the {len(index)} tiles has a label; check the label files")
    kept = index.take(labelled)
    if labelled.all():
        return kept
    return kept.noting(f"{int((~labelled).sum())} of {len(index)} tiles without a label left out")


def class_counts(index: TileIndex, labels: Sequence[Labels]) -> NDArray[np.int64]:
    """Labelled pixels of each class in each tile, ``(n, k)``; reads all their labels.

    Args:
        index: The tiles.
        labels: Of each scene, with one legend.

    Raises:
        ValueError: If there is not one ``labels`` per scene.
    """
    if len(labels) != len(index.scenes):
        raise ValueError(f"got {len(labels)} labels for {len(index.scenes)} scenes")
    counts = np.zeros((len(index), IGNORE + 1), dtype=np.int64)
    for row, (scene, window) in enumerate(index.windows()):
        counts[row] = np.bincount(labels[scene].read(window).ravel(), minlength=IGNORE + 1)
    return counts[:, : len(labels[0].legend)]


def unseen_classes(index: TileIndex, labels: Sequence[Labels]) -> tuple[str, ...]:
    """Names of the classes that no pixel of the tiles has."""
    counts = class_counts(index, labels).sum(axis=0)
    return tuple(
        name for name, count in zip(labels[0].legend.names, counts, strict=True) if not count
    )


def _blocks(index: TileIndex, block: int, gap: int) -> NDArray[np.int64]:
    """Number the block of ground that each tile belongs to, without gaps in the numbers."""
    ground = Ground.of(index)
    side = block * float(np.median(ground.pixel))
    sides = np.where(ground.plane == 0, side, float(block))
    group = components(overlapping(index, gap=gap), len(index))
    low, high = ground.corners.min(axis=1), ground.corners.max(axis=1)
    roots, place = np.unique(group, return_inverse=True)
    least, most = np.full((len(roots), 2), np.inf), np.full((len(roots), 2), -np.inf)
    np.minimum.at(least, place, low)
    np.maximum.at(most, place, high)
    whole = ((most - least)[place] <= sides[:, None]).all(axis=1)
    centre = np.where(whole[:, None], ((least + most) / 2)[place], (low + high) / 2)
    cell = np.floor((centre - low.min(axis=0)) / sides[:, None]).astype(np.int64)
    cells = np.column_stack([ground.plane, cell])
    return np.unique(cells, axis=0, return_inverse=True)[1].ravel()


def _deal(
    sizes: NDArray[np.int64], fractions: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """The split of each block: each goes where most tiles are still wanted, none stays empty."""
    wanted = fractions * sizes.sum()
    split = np.zeros(len(sizes), dtype=np.int64)
    held = np.zeros(len(fractions), dtype=np.int64)
    order = generator.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]  # equals stay shuffled
    for done, unit in enumerate(order):
        empty = np.flatnonzero(held == 0)
        last_chance = len(order) - done <= len(empty)
        open_to = empty if last_chance else np.arange(len(fractions))
        best = open_to[np.argmax(wanted[open_to])]
        split[unit] = best
        held[best] += 1
        wanted[best] -= sizes[unit]
    return split


def _told(index: TileIndex, row: int) -> str:
    scene, window = index.at(row)
    return f"{scene.path} at row {window.row}, column {window.col} ({index.split[row]})"
