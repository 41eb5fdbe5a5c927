"""What is kept of the blended sums, and how it becomes files: classes and probabilities."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_remote_sensing.mapping.blending import coverage
from cl_remote_sensing.mapping.journal import Journal
from cl_remote_sensing.mapping.panels import Panel, Tally
from cl_remote_sensing.mapping.plan import Job, Probabilities
from cl_remote_sensing.mapping.writer import BLOCK, Compression, create_geotiff, nodata_of
from cl_remote_sensing.rasters.windows import starts

__all__ = ["block_rows", "write_classes", "write_probabilities"]

SCALE = 1 / 250
"""Probability of a step of the stored 8-bit values; 255 is no data."""


def block_rows(
    finished: Iterator[tuple[int, Tensor, Tensor]], panel: Panel, job: Job, tally: Tally
) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Gather finished rows to rows of blocks, as classes and probabilities."""
    starting = starts(job.scene.height, panel.size, job.stride)
    down = coverage(starting, panel.size, job.scene.height)
    across = coverage(panel.col_starts, panel.size, job.scene.width + panel.size)
    across = across[panel.cols[0] : panel.cols[1]]
    first, filled = panel.rows[0], 0
    height = _to_block_end(first, panel.rows[1])
    cols = panel.cols[1] - panel.cols[0]
    layers = [np.empty((height, cols), dtype) for dtype in job.dtypes]
    nodata = nodata_of(len(job.classes))[1]
    for row, total, valid in finished:
        now = time.perf_counter()
        begin = 0
        while begin < len(valid):
            end = min(len(valid), begin + height - filled)
            part, into = total[:, begin:end], slice(filled, filled + end - begin)
            ids, best = _most_likely(part)
            seen = valid[begin:end].numpy()
            layers[0][into] = np.where(seen, ids.cpu().numpy(), nodata)
            if job.layers:
                weight = torch.outer(down[row + begin : row + end], across).to(part)
                shown = best[None] if job.probabilities == "confidence" else part
                for layer, sums in zip(layers[1:], shown, strict=True):
                    layer[into] = _stored(sums / weight, seen, job.probabilities)
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
    job: Job,
    *,
    colors: Sequence[tuple[int, int, int]] | None,
    compress: Compression,
    tags: Mapping[str, str],
) -> None:
    """Write the class map."""
    dtype, nodata = nodata_of(len(job.classes))
    with create_geotiff(
        path,
        job.scene,
        rows=job.rows,
        dtype=dtype,
        nodata=nodata,
        colors=colors,
        tags=tags,
        compress=compress,
    ) as file:
        _write_layer(file, 1, journal, job, 0)


def write_probabilities(
    path: Path,
    journal: Journal,
    job: Job,
    *,
    compress: Compression,
    tags: Mapping[str, str],
) -> None:
    """Write the probabilities, a band a class or one of confidence."""
    single = job.probabilities == "confidence"
    names = ("confidence",) if single else tuple(f"probability of {name}" for name in job.classes)
    whole = job.probabilities == "float32"
    with create_geotiff(
        path,
        job.scene,
        rows=job.rows,
        dtype=job.dtypes[1],
        nodata=float("nan") if whole else 255,
        names=names,
        scale=None if whole else SCALE,
        tags=tags,
        compress=compress,
    ) as file:
        for layer in range(1, 1 + job.layers):
            _write_layer(file, layer, journal, job, layer)


def _write_layer(file: Any, band: int, journal: Journal, job: Job, layer: int) -> None:
    """Rows of blocks across all panels, from above to below."""
    for row in range(job.rows[0], job.rows[1], BLOCK):
        parts = [journal.read(number, row, layer) for number in range(len(job.panels))]
        strip, top = np.hstack(parts), row - job.rows[0]
        file.write(strip, band, window=((top, top + len(strip)), (0, job.scene.width)))
