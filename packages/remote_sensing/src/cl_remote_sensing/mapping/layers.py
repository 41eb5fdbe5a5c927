"""What is kept of the blended sums, and how it becomes files: classes and probabilities."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_remote_sensing.mapping.blending import coverage
from cl_remote_sensing.mapping.journal import Journal
from cl_remote_sensing.mapping.panels import Panel, Tally
from cl_remote_sensing.mapping.plan import Plan, Probabilities, id_type
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.mapping.writer import BLOCK, Compression, create_geotiff
from cl_remote_sensing.rasters.windows import starts

__all__ = ["block_rows", "write_classes", "write_probabilities"]

SCALE = 1 / 250
"""Probability of a step of the stored 8-bit values; 255 is no data."""


def block_rows(
    finished: Iterator[tuple[int, Tensor, Tensor]], panel: Panel, plan: Plan, tally: Tally
) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Gather finished rows to rows of blocks, as classes and probabilities."""
    starting = starts(plan.scene.height, panel.size, plan.stride)
    down = coverage(starting, panel.size, plan.scene.height)
    across = coverage(panel.col_starts, panel.size, plan.scene.width + panel.size)
    across = across[panel.cols[0] : panel.cols[1]]
    first, filled = panel.rows[0], 0
    height = _to_block_end(first, panel.rows[1])
    cols = panel.cols[1] - panel.cols[0]
    layers = [np.empty((height, cols), dtype) for dtype in plan.dtypes]
    nodata = np.iinfo(id_type(plan.classes)).max
    for row, total, valid in finished:
        now = time.perf_counter()
        begin = 0
        while begin < len(valid):
            end = min(len(valid), begin + height - filled)
            part, into = total[:, begin:end], slice(filled, filled + end - begin)
            ids, best = _most_likely(part)
            seen = valid[begin:end].numpy()
            layers[0][into] = np.where(seen, ids.cpu().numpy(), nodata)
            if plan.layers:
                weight = torch.outer(down[row + begin : row + end], across).to(part)
                shown = best[None] if plan.probabilities == "confidence" else part
                for layer, sums in zip(layers[1:], shown, strict=True):
                    layer[into] = _stored(sums / weight, seen, plan.probabilities)
            filled, begin = filled + end - begin, end
            if filled == height:
                now = tally.since("blending", now)
                yield first, [layer[:height] for layer in layers]
                now = time.perf_counter()
                first, filled = first + height, 0
                height = _to_block_end(first, panel.rows[1])
        tally.since("blending", now)


def _to_block_end(row: int, stop: int) -> int:
    return min((row // BLOCK + 1) * BLOCK, stop) - row


def _most_likely(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Class and sum of the largest, the lowest of equals; several times faster than argmax."""
    best = sums[0].clone()
    ids = torch.zeros(best.shape, dtype=torch.int32 if len(sums) > 255 else torch.uint8)
    ids = ids.to(sums.device)
    for k in range(1, len(sums)):
        ids.masked_fill_(sums[k] > best, k)
        torch.maximum(best, sums[k], out=best)
    return ids, best


def _stored(p: Tensor, seen: NDArray[np.bool_], kind: Probabilities) -> NDArray[Any]:
    if kind == "float32":
        return np.where(seen, p.cpu().numpy(), np.float32("nan"))
    return np.where(seen, p.div_(SCALE).round_().clamp_(0, 250).byte().cpu().numpy(), 255)


def write_classes(
    path: Path,
    journal: Journal,
    plan: Plan,
    values: MapValues,
    *,
    compress: Compression,
    tags: Mapping[str, str],
) -> None:
    """Write the class map."""
    with create_geotiff(
        path,
        plan.scene,
        rows=plan.rows,
        dtype=values.dtype,
        nodata=values.nodata,
        colormap=values.colormap,
        tags={"classes": values.tag, **tags},
        compress=compress,
    ) as file:
        for row, ids in _rows_of_blocks(journal, plan, 0):
            file.write(values.encode(ids), 1, window=_place(row, ids, plan))


def write_probabilities(
    path: Path,
    journal: Journal,
    plan: Plan,
    values: MapValues,
    *,
    compress: Compression,
    tags: Mapping[str, str],
) -> None:
    """Write the probabilities, a band a class or one of confidence."""
    single = plan.probabilities == "confidence"
    names = ("confidence",) if single else tuple(f"probability of {name}" for name in values.names)
    whole = plan.probabilities == "float32"
    with create_geotiff(
        path,
        plan.scene,
        rows=plan.rows,
        dtype=plan.dtypes[1],
        nodata=float("nan") if whole else 255,
        names=names,
        scale=None if whole else SCALE,
        tags={"classes": values.tag, **tags},
        compress=compress,
    ) as file:
        for layer in range(1, 1 + plan.layers):
            for row, shares in _rows_of_blocks(journal, plan, layer):
                file.write(shares, layer, window=_place(row, shares, plan))


def _rows_of_blocks(journal: Journal, plan: Plan, layer: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Rows of blocks across all panels, from above to below, and the first row of each."""
    for row in range(plan.rows[0], plan.rows[1], BLOCK):
        parts = [journal.read(number, row, layer) for number in range(len(plan.panels))]
        yield row, np.hstack(parts)


def _place(row: int, strip: NDArray[Any], plan: Plan) -> tuple[tuple[int, int], tuple[int, int]]:
    """The window of a strip in the file."""
    top = row - plan.rows[0]
    return (top, top + len(strip)), (0, plan.scene.width)
