"""What the explorer's page shows of a clustering."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_agriculture.config import ExploreConfig
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.tables.arrays import read_array
from cl_core.tables.documents import read_json
from cl_core.tables.files import read_table

__all__ = ["Content", "explorer_content"]

_NUMBERS = ("confidence", "entropy", "ll", "rank", "mahalanobis", "mask_fraction", "doubt")


@dataclass(frozen=True, eq=False)
class Content:
    """Points, and what is known of them.

    Attributes:
        files: Names.
        scores: On the principal components, ``(n, d)``.
        planes: Of these, by name.
        clusters: Number of each point's group.
        labels: Weak labels as text; ``None`` where nobody labelled.
        columns: Further fields.
        pictures: File of each image; ``None`` for points without one, or for all.
        subtitle: In words.
    """

    files: list[str]
    scores: NDArray[np.float32]
    planes: dict[str, NDArray[np.float32]]
    clusters: NDArray[np.int64]
    labels: NDArray[Any] | None
    columns: dict[str, Any]
    pictures: list[str | None] | None
    subtitle: str


def explorer_content(run: Run, config: ExploreConfig) -> Content:
    """Read what `cluster` or `score` wrote.

    Raises:
        InputError: If the run holds nothing of the kind.
    """
    path, vectors = run.path / "assignments.csv", run.path / "scores.npy"
    if not path.is_file() or not vectors.is_file():
        raise InputError(
            f"--run {run.path} holds no assignments: give a run of cl-agriculture cluster or score"
        )
    table, scores = read_table(path, header="yes"), read_array(vectors)
    named, grouped = table.column("file"), table.column("cluster")
    if named is None or grouped is None or len(scores) != len(table):
        raise InputError(f"{path} is damaged: cluster again")
    labelled = table.column("label")
    columns: dict[str, Any] = {}
    for name in ("split", "flagged", "fallback", "majority"):
        column = table.column(name)
        if column is not None and any(column.text):
            columns[name] = column.text
    for name in _NUMBERS:
        column = table.column(name)
        if column is not None:
            cells = column.text
            columns[name] = np.array([float(c) if c else np.nan for c in cells], dtype=np.float64)
    two = scores[:, :2] if scores.shape[1] > 1 else np.pad(scores[:, :1], ((0, 0), (0, 1)))
    planes = {"components 1, 2": two}
    if scores.shape[1] >= 4:
        planes["components 3, 4"] = scores[:, 2:4]
    pictures, told = _pictures(run, config, named.text)
    return Content(
        named.text,
        scores,
        planes,
        np.array(grouped.text, dtype=np.int64),
        None if labelled is None else np.array(labelled.text),
        columns,
        pictures,
        f"{len(table):,} images, {told}",
    )


def _pictures(
    run: Run, config: ExploreConfig, names: list[str]
) -> tuple[list[str | None] | None, str]:
    """The files of the images, or of a sample, if they are still there."""
    place = run.path / "images.json"
    root = config.root
    if root is None and place.is_file():
        record = read_json(place)
        recorded = record.get("root") if isinstance(record, dict) else None
        root = Path(recorded) if isinstance(recorded, str) else None
    if root is None or not config.pictures:
        return None, "without pictures"
    files = [str(root / name) for name in names]
    if not Path(files[0]).is_file():
        return None, f"without pictures: they do not lie in {root} (--root says where)"
    if len(files) <= config.pictures:
        return list(files), "all with pictures"
    drawn = np.random.default_rng(config.seed).choice(len(files), config.pictures, replace=False)
    shown: list[str | None] = [None] * len(files)
    for row in drawn.tolist():
        shown[row] = files[row]
    return shown, f"{config.pictures:,} of them, drawn at random, with pictures"
