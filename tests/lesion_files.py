"""Small sets of drawn lesions on disk, as the tests of this folder need them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_images", "write_table"]


def write_images(folder: Path, names: Sequence[str], *, side: int = 20, seed: int = 0) -> None:
    """Write a JPEG of its own colours for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for name in names:
        small = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side)).save(folder / f"{name}.jpg")


def write_table(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    """Write a CSV file of named columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path
