"""Drawn lesions for the demo: an imbalanced set that shows nothing of medicine.

Every picture is a blotch on skin. The three classes differ as children tell stories of lesions, not
as lesions do: a ``mole`` is round and of one brown, a ``spot`` is pale with a sharp edge, a
``melanoma`` has a ragged edge and several colours, and is rare.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl_core.runs import write_atomic
from cl_medical.lesions.config import BenchmarkConfig, DemoConfig

__all__ = ["COUNTS", "demo_options", "draw_lesion", "draw_lesions"]

COUNTS = {"mole": 420, "spot": 150, "melanoma": 60}
"""Pictures of each class: 7 to 1."""

SIDE = 48
"""Edge of a picture in pixels."""


def draw_lesion(label: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one picture ``(48, 48, 3)``."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    skin = np.array([224, 178, 154]) + generator.normal(0, 12, 3)
    picture = skin + generator.normal(0, 5, (SIDE, SIDE, 3))
    cx, cy = generator.uniform(-0.12, 0.12, 2)
    angle = np.arctan2(y - cy, x - cx)
    ragged = {"mole": 0.03, "spot": 0.05, "melanoma": 0.12}[label] * generator.uniform(0.6, 1.4)
    edge = generator.uniform(0.17, 0.3)
    for waves in range(2, 7):
        edge = edge + ragged / waves * np.sin(waves * angle + generator.uniform(0, 2 * np.pi))
    depth = edge - np.hypot(x - cx, (y - cy) * generator.uniform(0.8, 1.25))
    soft = 0.02 if label == "spot" else 0.07
    inside = 1 / (1 + np.exp(-depth / soft * 4))[..., None]
    base = {"mole": (118, 74, 52), "spot": (176, 120, 96), "melanoma": (92, 58, 50)}[label]
    colour = np.array(base) + generator.normal(0, 14, 3) + np.zeros((SIDE, SIDE, 3))
    if label == "melanoma":
        for tint in ((30, 24, 34), (150, 96, 70)):
            px, py = generator.uniform(-0.15, 0.15, 2)
            near = np.exp(-((x - cx - px) ** 2 + (y - cy - py) ** 2) / 0.012)[..., None]
            colour = colour + 0.7 * near * (np.array(tint) - colour)
    mixed = picture * (1 - inside) + colour * inside
    return np.asarray(mixed.clip(0, 255), dtype=np.uint8)


def draw_lesions(folder: Path, *, seed: int) -> Path:
    """Draw all pictures and a table of them; gives the table.

    A fifth of the lesions has two pictures, so that splitting by lesion matters.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    rows = [("image", "label", "lesion_id", "sex", "age")]
    for label, count in COUNTS.items():
        for number in range(count):
            name = f"{label}-{number:03d}.png"
            lesion = f"{label}-{number - (number % 5 == 1):03d}"
            Image.fromarray(draw_lesion(label, generator)).save(folder / name)
            age = str(int(generator.integers(20, 90)))
            rows.append((name, label, lesion, str(generator.choice(["female", "male"])), age))
    path = folder / "drawn.csv"
    with write_atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def demo_options(config: DemoConfig, table: Path, out: Path) -> BenchmarkConfig:
    """Give the options of the demo's benchmark: two methods, one seed, a small network."""
    return BenchmarkConfig(
        data=str(table),
        out=out,
        recipe="supercon-small",
        image_size=SIDE - 16,
        epochs=config.epochs,
        batch_size=64,
        methods=("cross_entropy", "supercon", "supercon_balanced"),
        seeds=(config.seed,),
        positive="melanoma",
        resamples=200,
        overwrite=config.overwrite,
        trainer=config.trainer,
    )
