"""Groups of options that several commands have (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_core.checks import OptionError, require_at_least, require_positive
from cl_core.commands.options import Options, Source
from cl_core.config import TrainerConfig

__all__ = ["RunOptions", "SceneOptions", "TileOptions"]


@dataclass(frozen=True, kw_only=True)
class SceneOptions(Options):
    """Which rasters, and which of their bands.

    Args:
        data: A raster, a folder of rasters, a .vrt, or a .txt list of them; GeoTIFF, JPEG 2000,
            PNG, ... From Python also an array, a `Raster` (an array with its place), an open
            data set of rasterio's, or a list of these.
        bands: Bands by number, name or colour, separated by commas, such as `1,2,3` or
            `red,green,blue,nir`; by default all but alpha.
        ignore_alpha_tag: Take a band that is tagged as alpha for a band of the image.
        mosaic: Read the rasters as one, being tiles of one grid.
        allow_network: Let lists and virtual rasters name places on the network; a URL given as
            data needs no leave.
    """

    data: Source
    bands: str | None = None
    ignore_alpha_tag: bool = False
    mosaic: bool = False
    allow_network: bool = False


@dataclass(frozen=True, kw_only=True)
class TileOptions(Options):
    """How scenes are cut into tiles, and values scaled.

    Args:
        tile: Edge of a tile in pixels.
        stride: Pixels from one tile to the next; by default the tiles touch.
        min_valid: Share of valid pixels a tile must have.
        normalization: Of each band: `percentile` clips to the 2 and 98 % quantiles, `zscore` takes
            mean and standard deviation, `uint8` divides by 255 as published.
        statistics: `exact` reads all tiles once, `approximate` the overviews.
    """

    tile: int = 256
    stride: int | None = None
    min_valid: float = 0.5
    normalization: Literal["percentile", "zscore", "uint8"] = "percentile"
    statistics: Literal["exact", "approximate"] = "exact"

    def __post_init__(self) -> None:
        require_positive(tile=self.tile, stride=self.stride)
        if not 0 <= self.min_valid <= 1:
            raise OptionError(f"min_valid must lie between 0 and 1, got {self.min_valid}")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """Where a training is written, how long it takes, and what makes it repeatable.

    Args:
        out: Run directory to write.
        recipe: Settings by name: potsdam, ...
        epochs: Passes over the tiles.
        batch_size: Tiles of a step, on each device.
        workers: Processes that read and augment tiles.
        seed: Seed of initialisation, tiles and augmentation.
        resume: Continue a run that was stopped; it ends as if it never had been.
        overwrite: Replace the run in `out`.
        trainer: Devices, precision, checkpoints.
    """

    out: Path
    recipe: str | None = None
    epochs: int = 100
    batch_size: int = 16
    workers: int = 0
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        require_positive(epochs=self.epochs)
        if self.batch_size < 2:
            raise OptionError(f"batch_size must be at least 2, got {self.batch_size}")
        require_at_least(0, seed=self.seed, workers=self.workers)
