"""The demo: drawn plants grouped with a mask and without, side by side on one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from cl_agriculture.config import ClusterConfig, DemoConfig, PretrainConfig
from cl_agriculture.drawing import SPECIES, draw_plant
from cl_core.commands.outcome import text_table
from cl_core.images import list_images
from cl_core.report import Report
from cl_core.report.explorer.contact_sheet import contact_sheet
from cl_core.report.figures import metric_table
from cl_core.runs import Run

__all__ = ["demo_runs", "draw_images", "write_demo"]

TRAIN, TEST = 60, 30
"""Images of each species."""

_WORDS = (
    "Both train the same network with the same weak labels, on the same images; CLAWS sees the "
    "plants alone, supervised SimCLR the gravel and the tag too. What to look at is nmi and purity "
    "of the groups of test images, which a mixture of four Gaussians found without their labels.",
    "The masks come from the colour of the pixels; nobody drew them.",
)


def draw_images(folder: Path, *, seed: int) -> None:
    """Draw the images into folders: split, then species."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for species in SPECIES:
            place = folder / split / species
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(draw_plant(species, rng)).save(place / f"{number:03d}.png")


def demo_runs(config: DemoConfig, data: Path) -> dict[str, tuple[PretrainConfig, ClusterConfig]]:
    """Give the options of both trainings and of their clusterings, by name."""
    runs = {}
    for mode, name in (("claws", "CLAWS"), ("supervised", "supervised SimCLR")):
        options = PretrainConfig(
            recipe="demo",
            data=str(data),
            mode=mode,  # type: ignore[arg-type]
            out=config.out / mode,
            epochs=config.epochs,
            seed=config.seed,
            overwrite=config.overwrite,
            trainer=config.trainer,
        )
        groups = ClusterConfig(
            recipe="demo-groups",
            run=options.out,
            seed=config.seed,
            overwrite=config.overwrite,
        )
        runs[name] = (options, groups)
    return runs


def write_demo(
    run: Run, data: Path, scores: Mapping[str, Mapping[str, float]], *, seed: int
) -> list[str]:
    """Write the page.

    Args:
        run: Where to.
        data: The images.
        scores: Figures of each training, by name.
        seed: Of the demo.

    Returns:
        The table as text.
    """
    shown = ("nmi", "ari", "purity", "silhouette", "knn_accuracy")
    rows = metric_table(
        [{"model": name} | {f: own[f] for f in shown if f in own} for name, own in scores.items()]
    )
    page = Report("Plants drawn by code", "CLAWS beside supervised SimCLR")
    page.section("Groups").text("\n\n".join(_WORDS)).table(
        rows, f"One training of each, seed {seed}; figures of the test images."
    )
    page.section("Images").block(contact_sheet(list_images(data), per_group=8, seed=0))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))
    return text_table(rows)
