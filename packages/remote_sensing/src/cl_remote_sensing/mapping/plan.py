"""How the mapping of a scene is divided: among processes by rows, in a process by columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cl_core import __version__
from cl_remote_sensing.mapping.panels import Panel
from cl_remote_sensing.mapping.writer import BLOCK, nodata_of
from cl_remote_sensing.rasters.handles import handle
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import Scene

__all__ = ["Job", "Probabilities", "fingerprint", "panel_width", "part_of", "share", "sharing"]

Probabilities = Literal["none", "confidence", "uint8", "float32"]

MEMORY = 160 * 2**20
"""Bytes that the buffers of a panel may take when its width is left to the program."""


@dataclass(frozen=True)
class Job:
    """The options of a mapping that its parts share."""

    scene: Scene
    classes: tuple[str, ...]
    probabilities: Probabilities
    panels: tuple[Panel, ...]
    rows: tuple[int, int]
    stride: int

    @property
    def layers(self) -> int:
        return {"none": 0, "confidence": 1}.get(self.probabilities, len(self.classes))

    @property
    def dtypes(self) -> tuple[str, ...]:
        kind = "float32" if self.probabilities == "float32" else "uint8"
        return (nodata_of(len(self.classes))[0], *(kind,) * self.layers)


def sharing(scene: Scene, shard: tuple[int, int]) -> tuple[int, int]:
    """Number and count of processes as far as the scene needs them; the others have nothing to do.

    A scene without georeference is one process's: its parts could not be put together.
    """
    rank, world = shard
    return rank, min(world, -(-scene.height // BLOCK)) if scene.georeferenced else 1


def share(height: int, rank: int, world: int) -> tuple[int, int]:
    """The rows of one process, in whole blocks; none if it is not needed."""
    blocks = -(-height // BLOCK)
    first, last = (min(world, number) * blocks // world for number in (rank, rank + 1))
    return min(first * BLOCK, height), min(last * BLOCK, height)


def part_of(out: Path, rank: int, world: int) -> Path:
    """The file of one of several processes."""
    return out.with_name(f"{out.stem}_{rank + 1}of{world}{out.suffix}")


def panel_width(
    scene: Scene, classes: int, tile: int, probabilities: Probabilities, block: int | None
) -> int:
    """Columns of a panel, in whole blocks; panels of equal width where that is left open."""
    if block is not None:
        if block < 1:
            raise ValueError(f"block must be positive, got {block}")
        return -(-block // BLOCK) * BLOCK
    layers = {"none": 0, "confidence": 1}.get(probabilities, classes)
    held = BLOCK * (1 + layers * (4 if probabilities == "float32" else 1))
    read = (
        3 * tile * 4 * len(scene.bands) + BLOCK * len(scene.bands) * np.dtype(scene.dtype).itemsize
    )
    most = max(1, MEMORY // (classes * tile * 4 + held + read) // BLOCK)
    blocks = -(-scene.width // BLOCK)
    panels = -(-blocks // most)
    return -(-blocks // panels) * BLOCK


def fingerprint(
    job: Job, normalization: Normalization, tile: int, tta: bool, model_hash: str
) -> dict[str, Any]:
    """All that the finished rows depend on, for a resumed run to agree with."""
    scene = job.scene
    files = [Path(name) for name in handle(scene.path).files]
    return {
        "version": __version__,
        "scene": [scene.path, scene.height, scene.width, scene.bands, scene.transform],
        "files": [
            [str(file), file.stat().st_size, file.stat().st_mtime_ns]
            for file in files
            if file.exists()
        ],
        "normalization": normalization.to_dict(),
        "classes": job.classes,
        "grid": [tile, job.stride, job.rows, [panel.cols for panel in job.panels]],
        "probabilities": job.probabilities,
        "tta": tta,
        "model": model_hash,
    }
