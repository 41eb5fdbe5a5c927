"""How the mapping of a scene is divided: among processes by rows, in a process by columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cl_core import __version__
from cl_remote_sensing.mapping.panels import Panel
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.mapping.writer import BLOCK
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.places import stamp_of
from cl_remote_sensing.rasters.raster import Scene

__all__ = [
    "Plan",
    "Probabilities",
    "fingerprint",
    "id_type",
    "panel_width",
    "part_of",
    "share",
    "sharing",
]

Probabilities = Literal["none", "confidence", "uint8", "float32"]

MEMORY = 160 * 2**20
"""Bytes that the buffers of a panel may take when its width is left to the program."""


@dataclass(frozen=True)
class Plan:
    """How one process maps its rows of a scene.

    Attributes:
        scene: The image.
        classes: How many there are.
        probabilities: What is written beside the classes.
        panels: Ranges of columns that are finished one after the other.
        rows: First and last-but-one row of this process.
        stride: Pixels from one window to the next.
    """

    scene: Scene
    classes: int
    probabilities: Probabilities
    panels: tuple[Panel, ...]
    rows: tuple[int, int]
    stride: int

    @property
    def layers(self) -> int:
        return {"none": 0, "confidence": 1}.get(self.probabilities, self.classes)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Types of the rows that are kept until the map is written: train ids, probabilities."""
        kind = "float32" if self.probabilities == "float32" else "uint8"
        return (id_type(self.classes), *(kind,) * self.layers)


def id_type(classes: int) -> str:
    """Type of train ids; the largest number that it holds is no class."""
    return "uint8" if classes <= 255 else "uint16"


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
    plan: Plan, normalization: Normalization, values: MapValues, tile: int, tta: bool, model: str
) -> dict[str, Any]:
    """All that the finished rows depend on, for a resumed run to agree with."""
    scene = plan.scene
    files = dict.fromkeys((scene.path, *scene.handle().files))
    return {
        "version": __version__,
        "scene": [scene.path, scene.height, scene.width, scene.bands, scene.transform],
        "files": [[name, *(stamp_of(name) or ())] for name in files],
        "normalization": normalization.to_dict(),
        "classes": [values.names, values.values],
        "grid": [tile, plan.stride, plan.rows, [panel.cols for panel in plan.panels]],
        "probabilities": plan.probabilities,
        "tta": tta,
        "model": model,
    }
