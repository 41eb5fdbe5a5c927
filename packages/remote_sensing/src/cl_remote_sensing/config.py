"""The options of every command: one frozen dataclass each (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_core.checks import OptionError, require_at_least, require_positive, require_rate
from cl_core.commands.options import Options
from cl_core.config import TrainerConfig
from cl_remote_sensing.hyper import GLCNetHyper, NetworkHyper, SegmentationHyper

__all__ = [
    "DemoConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "PredictConfig",
    "PretrainConfig",
    "RunOptions",
    "SceneOptions",
    "TileOptions",
]


@dataclass(frozen=True, kw_only=True)
class SceneOptions(Options):
    """Which rasters, and which of their bands.

    Args:
        data: A raster, a folder of rasters, a .vrt, or a .txt list of them; anything GDAL reads.
        bands: Bands by number, name or colour, separated by commas, such as `1,2,3` or
            `red,green,blue,nir`; by default all but alpha.
        ignore_alpha_tag: Take a band that is tagged as alpha for a band of the image.
        mosaic: Read the rasters as one, being tiles of one grid.
    """

    data: str
    bands: str | None = None
    ignore_alpha_tag: bool = False
    mosaic: bool = False


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


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(GLCNetHyper, TileOptions, SceneOptions, RunOptions):
    """Learn an encoder and a decoder from rasters without labels (GLCNet).

    Args:
        epochs: Passes over the tiles.
        batch_size: Tiles of a step, on each device; the contrast compares within it.
        view: Edge of the two views cut from a tile, in pixels.
        sampler: `random` moves each tile at random by up to half its size every time it is read;
            `grid` reads the tiles as they lie.
        network: The encoder-decoder.
    """

    epochs: int = 400
    batch_size: int = 64
    view: int = 224
    sampler: Literal["random", "grid"] = "random"
    network: NetworkHyper = field(default_factory=NetworkHyper)

    def __post_init__(self) -> None:
        GLCNetHyper.__post_init__(self)
        TileOptions.__post_init__(self)
        RunOptions.__post_init__(self)
        if not 0 < self.view <= self.tile:
            raise OptionError(
                f"view must lie between 1 and the tile's {self.tile} pixels, got {self.view}"
            )
        if self.region_size is not None and self.region_size >= self.view:
            raise OptionError(
                f"region_size must be below the view's {self.view} pixels, got {self.region_size}"
            )


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(SegmentationHyper, TileOptions, SceneOptions, RunOptions):
    """Learn a segmentation from labelled tiles, from a pretrained run or from scratch.

    Without `val_data`, scenes are divided into train, val and test by blocks of ground, so that no
    tile overlaps one of another part. Training takes a share of the train tiles, or `windows`.

    Args:
        data: Rasters as above, or a .csv with the columns `image` and `label`.
        labels: A label raster or vector file, or a folder with one for each image.
        legend: A .yaml, .json or .csv with the classes: names, codes, colours. By default the
            codes that occur are the classes.
        class_field: Attribute of a vector file that holds the class; by default the one whose
            values the legend knows.
        windows: A .csv of labelled windows to train on: image, label, row_off, col_off, height,
            width.
        fraction: Share of the train tiles whose labels are used, drawn once.
        val_data: Rasters to choose the best epoch on, in place of the val part.
        val_labels: Their labels.
        val: Share of the ground for choosing the best epoch.
        test: Share of the ground that training never sees.
        block: Edge of a block of ground in pixels; by default four tiles.
        run: A run of `pretrain`; without it training starts from scratch.
        init_from: What is loaded from it: the `backbone`, the `encoder` with its pyramid, or `all`
            but the last layer; `nothing` takes its layout and scaling alone, to compare with.
        augment: Flip, turn, shift, scale and recolour the tiles.
        repeats: How often a pass reads each tile, augmented anew; with few tiles this spaces the
            validations out.
        network: The encoder-decoder, where no run gives it.
        epochs: Passes over the labelled tiles.
    """

    labels: str | None = None
    legend: str | None = None
    class_field: str | None = None
    windows: str | None = None
    fraction: float = 1.0
    val_data: str | None = None
    val_labels: str | None = None
    val: float = 0.1
    test: float = 0.2
    block: int | None = None
    run: Path | None = None
    init_from: Literal["nothing", "backbone", "encoder", "all"] = "encoder"
    augment: bool = True
    repeats: int = 1
    network: NetworkHyper = field(default_factory=NetworkHyper)
    epochs: int = 150

    def __post_init__(self) -> None:
        SegmentationHyper.__post_init__(self)
        TileOptions.__post_init__(self)
        RunOptions.__post_init__(self)
        if not 0 < self.fraction <= 1:
            raise OptionError(f"fraction must be above 0 and at most 1, got {self.fraction}")
        if min(self.val, self.test) < 0 or self.val + self.test >= 1:
            raise OptionError(
                f"val and test are shares that leave some for training, got {self.val} and "
                f"{self.test}"
            )
        require_positive(block=self.block, repeats=self.repeats)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Options):
    """Measure a fine-tuned run on labelled scenes: OA, kappa, F1 and IoU of each class.

    Args:
        run: Run directory that `finetune` wrote.
        data: Rasters to measure on; by default the run's own, on its test part.
        labels: Their labels.
        split: The part of the run's own tiles, which are predicted one by one.
        mosaic: Read the rasters of `data` as one, being tiles of one grid.
        overlap: Share by which neighbouring windows overlap on `data`, as in `predict`.
        batch_size: Windows the model sees at once.
        out: Where to write; by default `evaluate` inside the run directory.
        overwrite: Replace the results in `out`.
    """

    run: Path
    data: str | None = None
    labels: str | None = None
    split: Literal["train", "val", "test"] = "test"
    mosaic: bool = False
    overlap: float = 0.5
    batch_size: int = 8
    out: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_rate(overlap=self.overlap)
        require_positive(batch_size=self.batch_size)
        if self.data is None and self.labels is not None:
            raise OptionError("labels belong to data: give both or neither")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Options):
    """Map rasters of any size: one class map for each, on its own grid.

    A map that was interrupted continues with `--resume`. Several processes (torchrun, SLURM) share
    the work: each writes its rows, and a .vrt shows them as one map.

    Args:
        run: Run directory that `finetune` wrote.
        data: Rasters with the bands the run was trained on.
        out: Where to write.
        bands: Bands by number, name or colour, where they are not called as in training.
        ignore_alpha_tag: Take a band that is tagged as alpha for a band of the image.
        mosaic: Read the rasters as one, being tiles of one grid, and write one map.
        tile: Edge of a window in pixels; by default the tile of the training. In larger windows
            the network's pyramid looks further than it has learnt to.
        overlap: Share by which neighbouring windows overlap.
        batch_size: Windows the model sees at once.
        block: Width in pixels of the panels that are finished one after the other; by default as
            wide as about 100 MB of buffers allow.
        probabilities: Write beside the map the `confidence` in the chosen class, or the probability
            of every class as `uint8` (in steps of 1/250) or `float32`.
        cog: Write cloud-optimised GeoTIFFs.
        compress: Compression of what is written.
        tta: Average over flips and quarter turns, at eight times the cost.
        skip_damaged: Leave out blocks that cannot be read instead of giving up.
        device: Where the model runs: `auto`, `cpu`, `cuda`, ...
        resume: Continue maps that were interrupted.
        overwrite: Replace the results in `out`.
    """

    run: Path
    data: str
    out: Path
    bands: str | None = None
    ignore_alpha_tag: bool = False
    mosaic: bool = False
    tile: int | None = None
    overlap: float = 0.5
    batch_size: int = 8
    block: int | None = None
    probabilities: Literal["none", "confidence", "uint8", "float32"] = "none"
    cog: bool = False
    compress: Literal["deflate", "zstd", "lzw"] = "deflate"
    tta: bool = False
    skip_damaged: bool = False
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_rate(overlap=self.overlap)
        require_positive(tile=self.tile, batch_size=self.batch_size, block=self.block)


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Options):
    """Map a made-up landscape from 1 % of its labels, with and without pretraining.

    Writes the landscape as GeoTIFF, pretrains on it, fine-tunes on a hundredth of the labels, maps
    it and compares with the truth. Needs no network and no file, and takes under three minutes.

    Args:
        out: Where to write the landscape, the runs, the map and the report.
        size: Edge of the landscape in pixels.
        seed: Seed of everything.
        overwrite: Replace an earlier demo in `out`.
        trainer: Devices, precision, checkpoints.
    """

    out: Path = Path("runs/remote-sensing-demo")
    size: int = 1536
    seed: int = 0
    overwrite: bool = True
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        if self.size < 512:
            raise OptionError(f"size must be at least 512 pixels, got {self.size}")
        require_at_least(0, seed=self.seed)
