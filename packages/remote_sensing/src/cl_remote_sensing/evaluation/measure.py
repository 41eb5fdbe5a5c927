"""Score a trained segmentation: tile by tile, or the very maps that prediction writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cl_core.loader import make_loader
from cl_remote_sensing.data import LabelledTiles
from cl_remote_sensing.evaluation.metrics import Confusion
from cl_remote_sensing.labels.legend import IGNORE
from cl_remote_sensing.labels.scene_labels import Labels
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.mapping.writer import open_raster
from cl_remote_sensing.methods.segmentation import evaluate_network
from cl_remote_sensing.rasters.windows import Window
from cl_remote_sensing.saved import SavedModel
from cl_remote_sensing.tiles.build import TileIndex

__all__ = ["confusion_of_map", "confusion_of_tiles"]


def confusion_of_tiles(
    model: SavedModel, index: TileIndex, labels: Sequence[Labels], *, batch_size: int
) -> Confusion:
    """Predict tiles one by one and count each labelled pixel once."""
    assert model.legend is not None
    tiles = LabelledTiles(index.in_block_order(), labels, model.normalization, count_once=True)
    loader = make_loader(tiles, batch_size=batch_size, shuffle=False, workers=0, seed=0)
    return evaluate_network(model.network, loader, len(model.legend))


def confusion_of_map(path: Path, labels: Labels, values: MapValues) -> Confusion:
    """Compare a class map with the labels of its scene, a window at a time.

    Pixels without a class in the map are counted as ignored, as those without a label are.

    Args:
        path: The map.
        labels: Of its scene.
        values: What the map's pixels say.
    """
    confusion = Confusion.empty(len(labels.legend))
    with open_raster(path) as file:
        for row, col, height, width in labels.scene.blocks():
            stored = file.read(1, window=((row, row + height), (col, col + width)))
            ids = values.decode(stored)
            predicted = np.where(ids < len(values), ids, IGNORE).astype(np.uint8)
            confusion.add(labels.read(Window(row, col, height, width)), predicted)
    return confusion
