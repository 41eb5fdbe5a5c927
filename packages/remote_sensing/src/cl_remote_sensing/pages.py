"""The reports of the commands: what each page shows, in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cl_core.report import Report
from cl_core.report.figures import MISSING, new_figure, training_curves
from cl_core.runs import Run
from cl_core.seeding import RandomStream
from cl_remote_sensing.data import UnlabelledTiles
from cl_remote_sensing.evaluation.metrics import Confusion
from cl_remote_sensing.labels.legend import default_colors
from cl_remote_sensing.landscape.draw import CLASSES, COLORS, Landscape
from cl_remote_sensing.mapping.area import AreaTable
from cl_remote_sensing.mapping.quicklook import draw, shrunk_image, shrunk_map
from cl_remote_sensing.mapping.scene_map import MapResult
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.rasters.raster import Scene, open_scene
from cl_remote_sensing.saved import SavedModel
from cl_remote_sensing.tiles.labelled import LabelledTileSets
from cl_remote_sensing.views.augment import rgb_bands
from cl_remote_sensing.views.two_views import TwoViews, ViewPair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cl_core.training import FitResult

__all__ = [
    "class_rows",
    "composite",
    "confusion_figure",
    "demo_page",
    "evaluation_page",
    "finetuning_page",
    "labels_figure",
    "mapping_page",
    "pretraining_page",
    "views_figure",
]

_FIRST = ("val/kappa", "val/oa", "val/miou", "val/macro_f1", "train/loss", "tiles")
CONFUSION = "Of each true class, per cent of its pixels by the class they were mapped as."

PAIRS = 4
"""Tiles whose views a page shows."""

REGION_COLORS = ("#ffd23f", "#ff5d8f", "#3bceac", "#f4f4f9")


def pretraining_page(
    run: Run,
    tiles: UnlabelledTiles[ViewPair],
    views: TwoViews,
    result: FitResult,
    metrics: Mapping[str, float],
) -> None:
    """Write what a pretraining did: figures, curves, and what it compared."""
    page = Report("GLCNet pretraining", run.config["data"])
    figures = {name: value for name, value in metrics.items() if not name.endswith("_chance")}
    page.metrics({**figures, "epochs": result.epochs, "seconds": round(result.seconds, 1)})
    tile, region = metrics["retrieval/tile_chance"], metrics["retrieval/region_chance"]
    page.section("Training").figure(
        training_curves(result.history),
        "Loss terms and gauges of collapse. The retrieval above is the share of tiles, and of "
        f"regions, whose other view is found first among all; chance finds {tile:.1%} and "
        f"{region:.1%}.",
    )
    page.section("Views").figure(
        views_figure(tiles, views),
        "Pairs of views as the network gets them; squares of one colour show the same ground.",
    )
    index = tiles.index
    page.section("Data").text(
        "\n\n".join([f"{len(index):,} tiles of {len(index.scenes)} scenes.", *index.notes])
    )
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def finetuning_page(
    run: Run,
    sets: LabelledTileSets,
    model: SavedModel,
    result: FitResult,
    metrics: Mapping[str, float],
    confusion: Confusion | None,
) -> None:
    """Write what a fine-tuning did: figures, curves, classes, what it learnt from."""
    options = run.config
    page = Report("Fine-tuning", options["data"])
    page.metrics({name: metrics[name] for name in _FIRST if name in metrics})
    page.section("Training").figure(
        training_curves(result.history),
        "Loss and, if there are tiles to choose by, figures on them; the epoch of the highest "
        "kappa is kept.",
    )
    names = _classes(model)
    if confusion is not None:
        own = {name.removeprefix("val/"): value for name, value in metrics.items()}
        page.section("Validation").table(class_rows(own, names), "Each class on the tiles of val.")
        page.figure(confusion_figure(confusion, names), CONFUSION)
    page.section("Labels").figure(
        labels_figure(sets), "Some of the tiles learnt from, and their labels."
    )
    counts = {name: int((sets.index.split == name).sum()) for name in ("train", "val", "test")}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    page.section("Data").text("\n\n".join([f"Tiles: {told}.", *sets.scenes.notes, *sets.notes]))
    page.section("Options").configuration(options)
    page.save(run.output("report.html"))


def evaluation_page(
    run: Run,
    what: str,
    model: SavedModel,
    confusion: Confusion,
    metrics: Mapping[str, float],
    rows: Sequence[Mapping[str, object]],
) -> None:
    """Write how good a segmentation is: overall, by class, and what is taken for what."""
    page = Report("Evaluation", what)
    page.metrics({name: metrics[name] for name in ("oa", "kappa", "miou", "macro_f1")})
    page.section("Classes").table(
        rows, f"{int(metrics['pixels']):,} pixels; {metrics['ignored']:.1%} without label or class."
    )
    page.section("Confusion").figure(confusion_figure(confusion, _classes(model)), CONFUSION)
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def mapping_page(
    run: Run,
    values: MapValues,
    scenes: Sequence[Scene],
    results: Sequence[MapResult],
    areas: Sequence[AreaTable | None],
) -> None:
    """Write what was mapped: a picture of each scene beside its map, and areas.

    Of maps that other processes still work on, only what this one did.
    """
    names, colors = values.names, values.colors or default_colors(len(values))
    page = Report("Maps", run.config["data"])
    for scene, result, table in zip(scenes, results, areas, strict=True):
        page.section(result.path.stem)
        if table is not None:
            pictures = [
                ("image", shrunk_image(scene)),
                ("map", shrunk_map(result.vrt or result.path, values)),
            ]
            page.figure(draw(pictures, names, colors), scene.path)
            page.table(_area_rows(table), table.note)
        parts = ", ".join(f"{part} {value:.1f} s" for part, value in result.seconds.items())
        page.text("\n\n".join([*result.notes, f"{result.windows:,} windows: {parts}."]))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def demo_page(run: Run, files: Landscape, path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write what a demo did: the landscape, its map beside the truth, the scores of both starts."""
    page = Report("From few labels to a map", "A made-up landscape")
    values = MapValues.of(CLASSES, colors=COLORS)
    pictures = [
        ("image", shrunk_image(open_scene(files.scene))),
        ("map", shrunk_map(path, values)),
        ("truth", shrunk_map(files.labels, values)),
    ]
    page.section("Map").figure(
        draw(pictures, CLASSES, COLORS),
        "Four bands, a hundredth of the tiles labelled; the map of the pretrained network.",
    )
    page.section("Scores").table(
        rows,
        "On tiles of ground that training never saw; one seed. A short pretraining on one small "
        "scene: the gain over a start from scratch changes with the seed and can be none.",
    )
    parts = ("pretrain", "pretrained", "pretrained/evaluate", "from_scratch", "map")
    page.section("Reports").text("\n\n".join(f"{part}/report.html" for part in parts))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def class_rows(metrics: Mapping[str, float], names: Sequence[str]) -> list[dict[str, object]]:
    """A row for each class: F1, IoU, precision, recall and its true pixels."""
    rows: list[dict[str, object]] = []
    for name in names:
        row: dict[str, object] = {"class": name}
        for figure in ("f1", "iou", "precision", "recall"):
            value = metrics[f"{name}/{figure}"]
            row[figure] = MISSING if math.isnan(value) else f"{100 * value:.1f} %"
        rows.append(row | {"pixels": f"{int(metrics[f'{name}/support']):,}"})
    return rows


def confusion_figure(confusion: Confusion, names: Sequence[str]) -> Figure:
    """Draw of each true class the share mapped as each class."""
    matrix = confusion.matrix.astype(np.float64)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 1.8 + 0.5 * len(names)
    figure, (panel,) = new_figure(width=side + 0.6, height=side)
    panel.grid(visible=False)
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(names))
    panel.set_xticks(places, names, rotation=45, ha="right")
    panel.set_yticks(places, names)
    panel.set_xlabel("mapped as")
    panel.set_ylabel("true class")
    if len(names) <= 20:
        for row in places:
            for column in places:
                share = shares[row, column]
                ink = "#f4f4f9" if share > 0.5 else "#1a1a24"
                panel.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=ink)
    return figure


def labels_figure(sets: LabelledTileSets) -> Figure:
    """Draw tiles that were learnt from above their labels."""
    train = sets.index.select("train")
    count = min(PAIRS, len(train))
    rows = np.linspace(0, len(train) - 1, count).astype(int).tolist()
    figure, panels = new_figure(2, count, width=1.9 * count, height=3.9)
    table = np.array([*sets.legend.colors, (127, 127, 127)], dtype=np.uint8)
    for column, row in enumerate(rows):
        scene, window = train.at(row)
        pixels = scene.read(window)
        labels = sets.scenes.labels[int(train.scene[row])].read(window)
        image = torch.from_numpy(pixels.values.astype(np.float32))
        _picture(panels[column], composite(image, scene.colors))
        _picture(panels[count + column], table[np.minimum(labels, len(sets.legend))])
    return figure


def views_figure(tiles: UnlabelledTiles[ViewPair], views: TwoViews) -> Figure:
    """Draw pairs of views with their matching regions, one above the other."""
    count = min(PAIRS, len(tiles))
    rows = np.linspace(0, len(tiles) - 1, count).astype(int).tolist()
    figure, panels = new_figure(2, count, width=1.9 * count, height=3.9)
    with RandomStream(0).running():
        pairs = [tiles[row] for row in rows]
    for column, pair in enumerate(pairs):
        for line, (view, centers) in enumerate(
            ((pair.view1, pair.centers1), (pair.view2, pair.centers2))
        ):
            panel = panels[line * count + column]
            _picture(panel, composite(view, tiles.index.scenes[0].colors))
            _squares(panel, centers, views.region_size)
    return figure


def composite(image: Tensor, colors: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Red, green and blue in [0, 1], ``(h, w, 3)``, of an image ``(c, h, w)`` in any scale.

    Bands that are tagged as such, else the first three, else the first alone; each is stretched
    between its 2 and 98 % quantiles.
    """
    bands = rgb_bands(colors) or ((0, 1, 2) if len(image) > 2 else (0, 0, 0))
    chosen = image[list(bands)].float()
    flat = chosen.flatten(1)
    low, high = torch.quantile(flat, torch.tensor([0.02, 0.98]), dim=1)[:, :, None, None]
    shown = ((chosen - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return np.asarray(shown.permute(1, 2, 0).numpy(), dtype=np.float32)


def _area_rows(table: AreaTable) -> list[dict[str, object]]:
    unit = "area (ha)" if table.unit == "ha" else "pixels"
    rows = zip(table.names, table.shares(), table.areas, strict=True)
    return [
        {"class": name, "share": f"{100 * share:.1f} %", unit: f"{area:,.1f}"}
        for name, share, area in rows
    ]


def _classes(model: SavedModel) -> tuple[str, ...]:
    assert model.legend is not None
    return model.legend.names


def _picture(panel: Axes, image: Any) -> None:
    panel.imshow(image, interpolation="nearest")
    panel.set_axis_off()


def _squares(panel: Axes, centers: Tensor, size: int) -> None:
    from matplotlib.patches import Rectangle

    for number, (row, col) in enumerate(centers.tolist()):
        corner = (col - size / 2 - 0.5, row - size / 2 - 0.5)
        color = REGION_COLORS[number % len(REGION_COLORS)]
        panel.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=color, linewidth=1.5))
