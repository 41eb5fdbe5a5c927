"""From a scene of any size to a class map on its grid, in memory that does not grow with it.

The map is made in panels, ranges of columns wide enough that few windows are computed twice and
narrow enough for the memory: an accumulator of ``classes x window x panel``. The window grid is one
for the whole raster, so panels, processes and interruptions leave no trace in the result.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cl_core import __version__
from cl_core.errors import InputError
from cl_remote_sensing.mapping.area import count_rows
from cl_remote_sensing.mapping.journal import Journal
from cl_remote_sensing.mapping.layers import block_rows, write_classes, write_probabilities
from cl_remote_sensing.mapping.panels import Panel, Tally, run_panel
from cl_remote_sensing.mapping.plan import (
    Job,
    Probabilities,
    fingerprint,
    panel_width,
    part_of,
    share,
    sharing,
)
from cl_remote_sensing.mapping.prediction import Predict, symmetric
from cl_remote_sensing.mapping.writer import (
    Compression,
    open_raster,
    refuse_input,
    to_cog,
)
from cl_remote_sensing.rasters.mosaic import write_vrt
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import Scene

__all__ = ["MapResult", "Probabilities", "map_scene"]


@dataclass(frozen=True)
class MapResult:
    """A finished map.

    Attributes:
        path: The class map; of one of several processes, its rows of it.
        probabilities: The file beside it, if one was asked for.
        vrt: Of several processes the map as one, if this process was the last to finish.
        counts: Pixels of each class in ``path``.
        row_counts: The same by row, int64 ``(rows, classes)``.
        first_row: Row of the scene that is the file's first.
        nodata: Pixels without a class.
        windows: Windows the network saw, this time.
        skipped: Windows without a valid pixel.
        resumed: Whether rows of an earlier, interrupted process were used.
        seconds: ``reading`` (what was waited for), ``model``, ``blending``, ``writing``, ``total``.
        notes: What the user should be told.
    """

    path: Path
    probabilities: Path | None
    vrt: Path | None
    counts: tuple[int, ...]
    row_counts: NDArray[np.int64]
    first_row: int
    nodata: int
    windows: int
    skipped: int
    resumed: bool
    seconds: dict[str, float]
    notes: tuple[str, ...]


def map_scene(
    predict: Predict,
    scene: Scene,
    normalization: Normalization,
    out: Path,
    *,
    classes: Sequence[str],
    colors: Sequence[tuple[int, int, int]] | None = None,
    tile: int = 256,
    overlap: float = 0.5,
    batch_size: int = 8,
    block: int | None = None,
    probabilities: Probabilities = "none",
    cog: bool = False,
    compress: Compression = "deflate",
    resume: bool = True,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] | None = None,
    tta: bool = False,
    device: torch.device | str = "cpu",
    model_hash: str = "",
    skip_damaged: bool = False,
) -> MapResult:
    """Write the class map of a scene, and if wanted its probabilities.

    Overlapping windows are predicted, weighted towards their centres, summed and divided by the
    summed weights; the most probable class counts, the lower one of equals. Pixels that are
    invalid in the image have no data in the map, and windows without a valid pixel are not run.
    A raster smaller than a window is filled up with the bands' means.

    Killed, it leaves ``<out>.partial`` beside ``out``; the same call goes on from there. Files
    appear complete or not at all.

    Args:
        predict: Windows ``(n, c, t, t)`` on ``device`` to probabilities ``(n, k, t, t)``; see
            :func:`~cl_remote_sensing.mapping.prediction.predictor`.
        scene: The image.
        normalization: That of the training.
        out: The GeoTIFF to appear. Probabilities go to ``<stem>_probability<suffix>`` beside it.
        classes: Name of each class.
        colors: Of each class, for the colour table.
        tile: Edge of a window in pixels, at least that of the training.
        overlap: Share of a window that the next one covers again, in [0, 1).
        batch_size: Windows predicted at once.
        block: Width of a panel in pixels, rounded up to the file's blocks of 512; by default as
            wide as about 160 MB of buffers allow. Windows at a border between panels are computed
            for both.
        probabilities: ``confidence`` writes that of the chosen class, ``uint8`` those of all
            classes in steps of 1/250, ``float32`` those of all.
        cog: Write cloud-optimised GeoTIFFs, with overviews.
        compress: Of the blocks.
        resume: Go on from ``<out>.partial``, if it is there and of the same call.
        shard: This process's number and how many share the scene. Each maps its rows to
            ``<stem>_<number>of<count><suffix>``, and ``<stem>.vrt`` shows them as one.
        progress: Told windows done and windows in all.
        tta: Average over turns and flips of each window.
        device: Where ``predict`` works.
        model_hash: Tells the model apart from others; in the tags, and what is resumed must agree.
        skip_damaged: Leave out blocks that cannot be read instead of giving up.

    Returns:
        Paths, counts, times.

    Raises:
        InputError: If ``out`` is the image, the image has other bands than the training, a block
            is damaged, the disk is full, or another process writes this map.
        ValueError: If an option is out of range.
    """
    begin = time.perf_counter()
    _check_options(scene, normalization, classes, colors, tile, overlap, batch_size, shard)
    refuse_input(out, scene)
    rank, world = sharing(scene, shard)
    part = out if world == 1 else part_of(out, rank, world)
    stride = max(1, tile - round(overlap * tile))
    rows = share(scene.height, rank, world)
    width = panel_width(scene, len(classes), tile, probabilities, block)
    panels = tuple(
        Panel.of(
            scene,
            rows=rows,
            cols=(left, min(left + width, scene.width)),
            size=tile,
            stride=stride,
        )
        for left in range(0, scene.width, width)
    )
    job = Job(scene, tuple(classes), probabilities, panels, rows, stride)
    key = fingerprint(job, normalization, tile, tta, model_hash)
    tags = {
        "classes": json.dumps(dict(enumerate(job.classes)), ensure_ascii=False),
        "model": model_hash,
        "software": f"cl-remote-sensing {__version__}",
        "job": hashlib.sha256(json.dumps([key, cog, compress]).encode()).hexdigest(),
    }
    beside = part.with_name(f"{part.stem}_probability{part.suffix}") if job.layers else None
    tally = Tally()
    resumed = resume and all(_is_of(path, tags["job"]) for path in (part, beside) if path)
    if rank < world and not resumed:
        with Journal(_partial(part), key, job.dtypes, keep=resume) as journal:
            resumed = len(journal) > 0
            _fill(
                journal,
                job,
                symmetric(predict) if tta else predict,
                normalization,
                batch_size=batch_size,
                device=torch.device(device),
                skip_damaged=skip_damaged,
                tally=tally,
                progress=progress or (lambda done, total: None),
            )
            now = time.perf_counter()
            if beside is not None:
                write_probabilities(beside, journal, job, compress=compress, tags=tags)
                if cog:
                    to_cog(beside, beside, kind="probabilities")
            write_classes(part, journal, job, colors=colors, compress=compress, tags=tags)
            if cog:
                to_cog(part, part, kind="classes")
            journal.remove()
            tally.since("writing", now)
    now = time.perf_counter()
    if rank < world:
        counts = count_rows(part, len(classes))
    else:
        counts = np.zeros((0, len(classes)), np.int64)
    tally.since("writing", now)
    vrt = _join(out, "", world)
    if job.layers:
        _join(out, "_probability", world)
    return MapResult(
        path=part,
        probabilities=beside,
        vrt=vrt,
        counts=tuple(int(count) for count in counts.sum(0)),
        row_counts=counts,
        first_row=rows[0],
        nodata=len(counts) * scene.width - int(counts.sum()),
        windows=tally.windows,
        skipped=tally.skipped,
        resumed=resumed,
        seconds={**tally.seconds, "total": time.perf_counter() - begin},
        notes=_notes(scene, tally, counts),
    )


def _check_options(
    scene: Scene,
    normalization: Normalization,
    classes: Sequence[str],
    colors: Sequence[Any] | None,
    tile: int,
    overlap: float,
    batch_size: int,
    shard: tuple[int, int],
) -> None:
    if tile < 1 or batch_size < 1 or not 0 <= overlap < 1:
        raise ValueError(
            "tile and batch_size must be positive and overlap in [0, 1), got "
            f"{tile}, {batch_size} and {overlap}"
        )
    if not classes or (colors is not None and len(colors) != len(classes)):
        raise ValueError("a map needs at least one class, and a color for each or none")
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard is (number, count) with the number from 0, got {shard}")
    if len(scene.bands) != len(normalization.mean):
        names = ", ".join(scene.names)
        raise InputError(
            f"{scene.path} has {len(scene.bands)} bands ({names}), the model was trained on "
            f"{len(normalization.mean)}: choose them with --bands"
        )


def _partial(part: Path) -> Path:
    return part.with_name(part.name + ".partial")


def _is_of(path: Path, job: str) -> bool:
    """Whether a file is the finished result of the same call."""
    if not path.exists():
        return False
    try:
        with open_raster(path) as file:
            return bool(file.tags().get("job") == job)
    except InputError:
        return False


def _notes(scene: Scene, tally: Tally, counts: NDArray[np.int64]) -> tuple[str, ...]:
    notes = list(scene.notes)
    if tally.damaged:
        notes.append(f"{scene.path}: {tally.damaged:,} pixels could not be read and have no class")
    if len(counts) and not counts.any():
        notes.append(f"{scene.path}: no valid pixel, so the map has no data anywhere")
    return tuple(notes)


def _fill(
    journal: Journal,
    job: Job,
    predict: Predict,
    normalization: Normalization,
    *,
    batch_size: int,
    device: torch.device,
    skip_damaged: bool,
    tally: Tally,
    progress: Callable[[int, int], None],
) -> None:
    """Map what the journal lacks."""
    todo = []
    for number, panel in enumerate(job.panels):
        first = journal.next_row(number, job.rows[0])
        if first < job.rows[1]:
            rest = Panel.of(
                job.scene,
                rows=(first, job.rows[1]),
                cols=panel.cols,
                size=panel.size,
                stride=job.stride,
            )
            todo.append((number, rest))
    total = sum(panel.windows for panel in job.panels)
    done = total - sum(panel.windows for _, panel in todo)

    def step(windows: int) -> None:
        nonlocal done
        done += windows
        progress(done, total)

    for number, panel in todo:
        finished = run_panel(
            panel,
            predict,
            job.scene,
            normalization,
            classes=len(job.classes),
            batch_size=batch_size,
            device=device,
            skip_damaged=skip_damaged,
            tally=tally,
            step=step,
        )
        for row, layers in block_rows(finished, panel, job, tally):
            now = time.perf_counter()
            journal.append(number, row, layers)
            tally.since("writing", now)


def _join(out: Path, tail: str, world: int) -> Path | None:
    """One virtual raster over the parts of all processes, by the last one to finish."""
    parts = [part_of(out, rank, world) for rank in range(world)]
    parts = [part.with_name(f"{part.stem}{tail}{part.suffix}") for part in parts]
    if world == 1 or not all(part.exists() for part in parts):
        return None
    vrt = out.with_name(f"{out.stem}{tail}.vrt")
    write_vrt(parts, vrt)
    return vrt
