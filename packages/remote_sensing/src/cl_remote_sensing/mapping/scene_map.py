"""From a scene of any size to a class map on its grid, in memory that does not grow with it.

The map is made in panels, ranges of columns wide enough that few windows are computed twice and
narrow enough for the memory: an accumulator of ``classes x window x panel``. The window grid is one
for the whole raster, so panels, processes and interruptions leave no trace in the result.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cl_core import __version__
from cl_core.errors import InputError
from cl_remote_sensing.mapping.area import count_rows
from cl_remote_sensing.mapping.job import MapJob
from cl_remote_sensing.mapping.journal import Journal
from cl_remote_sensing.mapping.layers import block_rows, write_classes, write_probabilities
from cl_remote_sensing.mapping.panels import Panel, Tally, run_panel
from cl_remote_sensing.mapping.plan import (
    Plan,
    Probabilities,
    fingerprint,
    panel_width,
    part_of,
    share,
    sharing,
)
from cl_remote_sensing.mapping.prediction import symmetric
from cl_remote_sensing.mapping.values import MapValues, add_names, write_names
from cl_remote_sensing.mapping.writer import open_raster, refuse_input, to_cog
from cl_remote_sensing.rasters.mosaic import write_vrt
from cl_remote_sensing.rasters.raster import Scene

__all__ = ["MapJob", "MapResult", "Probabilities", "map_scene"]


CLIPPED = 0.15
"""Share of values outside the scaling's range that is told; by quantiles 4 % lie there."""


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
    job: MapJob,
    scene: Scene,
    out: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] | None = None,
) -> MapResult:
    """Write the class map of a scene, and if wanted its probabilities.

    Overlapping windows are predicted, weighted towards their centres, summed and divided by the
    summed weights; the most probable class counts, the lower one of equals. Pixels that are
    invalid in the image have no data in the map, and windows without a valid pixel are not run.
    A raster smaller than a window is filled up with the bands' means. Beside the map an
    ``.aux.xml`` tells a GIS the classes.

    Killed, it leaves ``<out>.partial`` beside ``out``; the same call goes on from there. Files
    appear complete or not at all.

    Args:
        job: How to map.
        scene: The image.
        out: The GeoTIFF to appear. Probabilities go to ``<stem>_probability<suffix>`` beside it.
        shard: This process's number and how many share the scene. Each maps its rows to
            ``<stem>_<number>of<count><suffix>``, and ``<stem>.vrt`` shows them as one.
        progress: Told windows done and windows in all.

    Returns:
        Paths, counts, times.

    Raises:
        InputError: If ``out`` is the image, the image has other bands than the training, a block
            is damaged, the disk is full, or another process writes this map.
        ValueError: If ``shard`` is out of range.
    """
    begin = time.perf_counter()
    _check(job, scene, shard)
    refuse_input(out, scene)
    rank, world = sharing(scene, shard)
    part = out if world == 1 else part_of(out, rank, world)
    plan = _planned(job, scene, share(scene.height, rank, world))
    key = fingerprint(plan, job.normalization, job.values, job.tile, job.tta, job.model)
    tags = {
        "model": job.model,
        "software": f"cl-remote-sensing {__version__}",
        "job": hashlib.sha256(json.dumps([key, job.cog, job.compress]).encode()).hexdigest(),
    }
    beside = part.with_name(f"{part.stem}_probability{part.suffix}") if plan.layers else None
    tally = Tally()
    resumed = job.resume and all(_is_of(path, tags["job"]) for path in (part, beside) if path)
    if rank < world and not resumed:
        with Journal(_partial(part), key, plan.dtypes, keep=job.resume) as journal:
            resumed = len(journal) > 0
            _fill(journal, plan, job, tally, progress or (lambda done, total: None))
            now = time.perf_counter()
            _write(part, beside, journal, plan, job, tags)
            tally.since("writing", now)
    now = time.perf_counter()
    counts = np.zeros((0, len(job.values)), np.int64)
    if rank < world:
        write_names(part, job.values)
        counts = count_rows(part, job.values)
    tally.since("writing", now)
    vrt = _join(out, "", world, job.values)
    if plan.layers:
        _join(out, "_probability", world, None)
    return MapResult(
        path=part,
        probabilities=beside,
        vrt=vrt,
        counts=tuple(int(count) for count in counts.sum(0)),
        row_counts=counts,
        first_row=plan.rows[0],
        nodata=len(counts) * scene.width - int(counts.sum()),
        windows=tally.windows,
        skipped=tally.skipped,
        resumed=resumed,
        seconds={**tally.seconds, "total": time.perf_counter() - begin},
        notes=_notes(scene, tally, counts),
    )


def _check(job: MapJob, scene: Scene, shard: tuple[int, int]) -> None:
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard is (number, count) with the number from 0, got {shard}")
    if len(scene.bands) != len(job.normalization.mean):
        names = ", ".join(scene.names)
        raise InputError(
            f"{scene.path} has {len(scene.bands)} bands ({names}), the model was trained on "
            f"{len(job.normalization.mean)}: choose them with --bands"
        )


def _planned(job: MapJob, scene: Scene, rows: tuple[int, int]) -> Plan:
    classes = len(job.values)
    width = panel_width(scene, classes, job.tile, job.probabilities, job.block)
    panels = tuple(
        Panel.of(
            scene,
            rows=rows,
            cols=(left, min(left + width, scene.width)),
            size=job.tile,
            stride=job.stride,
        )
        for left in range(0, scene.width, width)
    )
    return Plan(scene, classes, job.probabilities, panels, rows, job.stride)


def _write(
    part: Path,
    beside: Path | None,
    journal: Journal,
    plan: Plan,
    job: MapJob,
    tags: dict[str, str],
) -> None:
    """Make the files of what the journal holds, and drop it."""
    if beside is not None:
        write_probabilities(beside, journal, plan, job.values, compress=job.compress, tags=tags)
        if job.cog:
            to_cog(beside, beside, kind="probabilities")
    write_classes(part, journal, plan, job.values, compress=job.compress, tags=tags)
    if job.cog:
        to_cog(part, part, kind="classes")
    journal.remove()


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
    share = tally.clipped / max(tally.looked, 1)
    if share > CLIPPED:
        notes.append(
            f"{scene.path}: about {share:.0%} of its values lie outside the range that the model's "
            "scaling was made for; check units and dates, for the map may mean nothing"
        )
    if tally.damaged:
        notes.append(f"{scene.path}: {tally.damaged:,} pixels could not be read and have no class")
    if len(counts) and not counts.any():
        notes.append(f"{scene.path}: no valid pixel, so the map has no data anywhere")
    return tuple(notes)


def _fill(
    journal: Journal,
    plan: Plan,
    job: MapJob,
    tally: Tally,
    progress: Callable[[int, int], None],
) -> None:
    """Map what the journal lacks."""
    todo = []
    for number, panel in enumerate(plan.panels):
        first = journal.next_row(number, plan.rows[0])
        if first < plan.rows[1]:
            rest = Panel.of(
                plan.scene,
                rows=(first, plan.rows[1]),
                cols=panel.cols,
                size=panel.size,
                stride=plan.stride,
            )
            todo.append((number, rest))
    total = sum(panel.windows for panel in plan.panels)
    done = total - sum(panel.windows for _, panel in todo)

    def step(windows: int) -> None:
        nonlocal done
        done += windows
        progress(done, total)

    for number, panel in todo:
        finished = run_panel(
            panel,
            symmetric(job.predict) if job.tta else job.predict,
            plan.scene,
            job.normalization,
            classes=plan.classes,
            batch_size=job.batch_size,
            device=torch.device(job.device),
            skip_damaged=job.skip_damaged,
            tally=tally,
            step=step,
        )
        for row, layers in block_rows(finished, panel, plan, tally):
            now = time.perf_counter()
            journal.append(number, row, layers)
            tally.since("writing", now)


def _join(out: Path, tail: str, world: int, values: MapValues | None) -> Path | None:
    """One virtual raster over the parts of all processes, by the last one to finish."""
    parts = [part_of(out, rank, world) for rank in range(world)]
    parts = [part.with_name(f"{part.stem}{tail}{part.suffix}") for part in parts]
    if world == 1 or not all(part.exists() for part in parts):
        return None
    vrt = out.with_name(f"{out.stem}{tail}.vrt")
    write_vrt(parts, vrt, names=None if values is None else partial(add_names, values=values))
    return vrt
