"""The options of every command: one frozen dataclass each (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_core.checks import OptionError, require_positive, require_rate
from cl_core.commands.options import Options, Source
from cl_core.config import DemoOptions
from cl_remote_sensing.hyper import GLCNetHyper, NetworkHyper, SegmentationHyper
from cl_remote_sensing.options import RunOptions, SceneOptions, TileOptions

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
        data: Rasters as for `pretrain`, or a .csv with the columns `image` and `label`.
        labels: A label raster or vector file, or a folder with one for each image. From Python
            also as data may be, a list with one for each raster.
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
        any_dtype: Go on from a run that was trained on another type of values.
        init_from: What is loaded from it: the `backbone`, the `encoder` with its pyramid, or `all`
            but the last layer; `nothing` takes its layout and scaling alone, to compare with.
        augment: Flip, turn, shift, scale and recolour the tiles.
        repeats: How often a pass reads each tile, augmented anew; with few tiles this spaces the
            validations out.
        network: The encoder-decoder, where no run gives it.
        epochs: Passes over the labelled tiles.
    """

    labels: Source | None = None
    legend: str | None = None
    class_field: str | None = None
    windows: str | None = None
    fraction: float = 1.0
    val_data: Source | None = None
    val_labels: Source | None = None
    val: float = 0.1
    test: float = 0.2
    block: int | None = None
    run: Path | None = None
    any_dtype: bool = False
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
        any_dtype: Measure on rasters of another type than the training's.
        allow_network: Let lists and virtual rasters name places on the network.
        out: Where to write; by default `evaluate` inside the run directory.
        overwrite: Replace the results in `out`.
    """

    run: Path
    data: Source | None = None
    labels: Source | None = None
    split: Literal["train", "val", "test"] = "test"
    mosaic: bool = False
    overlap: float = 0.5
    batch_size: int = 8
    any_dtype: bool = False
    allow_network: bool = False
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
        codes: Values of the map's pixels: the codes of the `legend`, or the places of the classes
            in it from 0 (`index`).
        polygons: Write the map as polygons too, into a GeoPackage.
        any_dtype: Map rasters of another type than the training's.
        allow_network: Let lists and virtual rasters name places on the network.
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
    data: Source
    out: Path
    bands: str | None = None
    ignore_alpha_tag: bool = False
    mosaic: bool = False
    tile: int | None = None
    overlap: float = 0.5
    batch_size: int = 8
    block: int | None = None
    codes: Literal["legend", "index"] = "legend"
    polygons: bool = False
    any_dtype: bool = False
    allow_network: bool = False
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
class DemoConfig(DemoOptions):
    """Map a made-up landscape from 1 % of its labels, with and without pretraining.

    Writes the landscape as GeoTIFF, pretrains on it, fine-tunes on a hundredth of the labels, maps
    it and compares with the truth. Needs no network and no file, and takes under three minutes.

    Args:
        out: Where to write the landscape, the runs, the map and the report.
        size: Edge of the landscape in pixels.
    """

    out: Path = Path("runs/remote-sensing-demo")
    size: int = 1536

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 512:
            raise OptionError(f"size must be at least 512 pixels, got {self.size}")
