"""What a pretraining is fed: tiles moved at random, as pairs of views."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import DataLoader

from cl_core.loader import make_loader
from cl_remote_sensing.config import PretrainConfig
from cl_remote_sensing.data import UnlabelledTiles
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.tiles.index import TileIndex
from cl_remote_sensing.views.two_views import TwoViews, ViewPair

__all__ = ["pair_loader", "pretraining_tiles", "pretraining_views"]


def pretraining_views(
    config: PretrainConfig, colors: Sequence[str], normalization: Normalization
) -> TwoViews:
    """Make the augmentation of a pretraining's options.

    Args:
        config: The options.
        colors: What each band shows.
        normalization: Follows the augmentation.
    """
    return TwoViews(
        size=config.view,
        tile=config.tile,
        regions=config.regions,
        region_size=config.region_size,
        augment_both=config.augment_both,
        jitter_rgb=config.jitter_rgb,
        strict_nonoverlap=config.strict_nonoverlap,
        colors=colors,
        normalization=normalization,
    )


def pretraining_tiles(
    config: PretrainConfig, index: TileIndex, normalization: Normalization, views: TwoViews
) -> UnlabelledTiles[ViewPair]:
    """Serve the tiles of an index as pairs of views."""
    return UnlabelledTiles(
        index,
        normalization,
        views,
        jitter=config.sampler == "random",
        min_valid=config.min_valid,
    )


def pair_loader(
    tiles: UnlabelledTiles[ViewPair], config: PretrainConfig, seed: int
) -> DataLoader[ViewPair]:
    """Draw whole batches of pairs, in a new order every epoch."""
    return make_loader(
        tiles,
        batch_size=config.batch_size,
        shuffle=True,
        workers=config.workers,
        seed=seed,
        drop_last=True,
    )
