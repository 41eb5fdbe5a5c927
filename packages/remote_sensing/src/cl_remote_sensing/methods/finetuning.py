"""What a fine-tuning is made of: the module that trains, and the labelled tiles it is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from cl_core.loader import make_loader
from cl_remote_sensing.config import FinetuneConfig
from cl_remote_sensing.data import LabelledTiles
from cl_remote_sensing.hyper import SegmentationHyper, options_of
from cl_remote_sensing.labels.scene_labels import Labels
from cl_remote_sensing.methods.pixel_losses import class_weights
from cl_remote_sensing.methods.segmentation import Segmenter, fitting_batch_size
from cl_remote_sensing.methods.start import Start
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.tiles.index import TileIndex
from cl_remote_sensing.tiles.labelled import LabelledTileSets
from cl_remote_sensing.views.augment import FineTuneAugment

__all__ = ["LabelledFeed", "build_segmenter"]


def build_segmenter(config: FinetuneConfig, start: Start, sets: LabelledTileSets) -> Segmenter:
    """Build what trains the network, classes weighted as the options say."""
    hyper = options_of(SegmentationHyper, config)
    weights = None
    if hyper.class_weights != "none":
        labels, train = sets.scenes.labels, sets.index.select("train")
        windows = (labels[scene].read(window) for scene, window in train.windows())
        weights = class_weights(windows, len(sets.legend), hyper.class_weights)
    return Segmenter(
        start.network, sets.legend.names, hyper, loaded=start.loaded, class_weights=weights
    )


@dataclass(frozen=True)
class LabelledFeed:
    """Makes loaders of labelled tiles.

    Attributes:
        config: The options.
        labels: Of each scene.
        normalization: Scales the images.
        augment: What training sees; ``None`` for the tiles as they are.
    """

    config: FinetuneConfig
    labels: Sequence[Labels]
    normalization: Normalization
    augment: FineTuneAugment | None

    @classmethod
    def of(
        cls, config: FinetuneConfig, sets: LabelledTileSets, normalization: Normalization
    ) -> LabelledFeed:
        """Make it of a fine-tuning's options and data."""
        augment = None
        if config.augment:
            augment = FineTuneAugment(
                size=config.tile,
                colors=sets.scenes.scenes[0].colors,
                fill=normalization.unit_mean(),
            )
        return cls(config, sets.scenes.labels, normalization, augment)

    def training(self, index: TileIndex) -> DataLoader[Any]:
        """Serve tiles augmented, each as often as the options say, in a new order every epoch."""
        repeated = index.take(np.tile(np.arange(len(index)), self.config.repeats))
        tiles = LabelledTiles(repeated, self.labels, self.normalization, self.augment)
        return self._loader(tiles, shuffle=True)

    def plain(self, index: TileIndex) -> DataLoader[Any]:
        """Serve tiles as they are, each labelled pixel once."""
        tiles = LabelledTiles(
            index.in_block_order(), self.labels, self.normalization, count_once=True
        )
        return self._loader(tiles, shuffle=False)

    def _loader(self, tiles: LabelledTiles, *, shuffle: bool) -> DataLoader[Any]:
        size = self.config.batch_size
        return make_loader(
            tiles,
            batch_size=fitting_batch_size(len(tiles), size) if shuffle else size,
            shuffle=shuffle,
            workers=self.config.workers,
            seed=self.config.seed,
        )
