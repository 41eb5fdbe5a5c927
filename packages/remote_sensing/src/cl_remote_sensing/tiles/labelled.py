"""From options to labelled tiles: those to learn from, to choose by, to test on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cl_core.errors import InputError
from cl_core.runs import Run
from cl_remote_sensing.config import FinetuneConfig
from cl_remote_sensing.labels.discovery import discover
from cl_remote_sensing.labels.legend import Legend
from cl_remote_sensing.labels.legend_files import read_legend
from cl_remote_sensing.labels.scene_labels import Labels, open_labels, pair_labels
from cl_remote_sensing.rasters.listing import list_rasters
from cl_remote_sensing.rasters.memory import InMemory, named
from cl_remote_sensing.rasters.mosaic import write_vrt
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.saved import SavedModel
from cl_remote_sensing.suited import suit
from cl_remote_sensing.tiles.build import TileIndex, build_index, merge, read_windows
from cl_remote_sensing.tiles.manifest import find_listed, read_listing
from cl_remote_sensing.tiles.scenes import open_data, split_bands
from cl_remote_sensing.tiles.splits import few_labels, keep_labelled, refuse_overlap, spatial_split

__all__ = ["LabelledScenes", "LabelledTileSets", "open_kept", "open_labelled", "open_tile_sets"]


@dataclass(frozen=True)
class LabelledScenes:
    """Scenes and their labels.

    Attributes:
        scenes: The rasters.
        labels: Of each, on its grid.
        told: What was decided of all.
    """

    scenes: tuple[Scene, ...]
    labels: tuple[Labels, ...]
    told: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What the user should know of the files."""
        owners: Sequence[Scene | Labels] = (*self.scenes, *self.labels)
        return [*(note for owner in owners for note in owner.notes), *self.told]


@dataclass(frozen=True)
class LabelledTileSets:
    """The tiles of a fine-tuning.

    Attributes:
        legend: The classes.
        scenes: All rasters, those of validation included.
        index: All tiles; ``split`` is ``train``, ``val`` or ``test``.
        notes: What was left out or decided, a sentence each.
    """

    legend: Legend
    scenes: LabelledScenes
    index: TileIndex
    notes: tuple[str, ...] = field(default=())

    def part(self, split: str) -> TileIndex | None:
        """The tiles of one split, if it has any."""
        return self.index.select(split) if (self.index.split == split).any() else None


def open_labelled(
    data: Any,
    labels: Any,
    legend: Legend | str | None,
    *,
    bands: Sequence[str] | str | None = None,
    ignore_alpha_tag: bool = False,
    mosaic: Path | None = None,
    class_field: str | None = None,
    network: bool = False,
) -> LabelledScenes:
    """Open rasters with their labels.

    Args:
        data: Rasters as for :func:`cl_remote_sensing.tiles.scenes.open_data`; or a list of pairs,
            a .csv with the columns ``image`` and ``label`` or a .txt with both on each line.
        labels: As for :func:`cl_remote_sensing.labels.pairs.pair_labels`, or in memory, one or a
            list with one for each raster; not for a list of pairs.
        legend: The classes, or the file that tells them; by default the codes that occur.
        bands: As for :func:`cl_remote_sensing.tiles.scenes.open_data`.
        ignore_alpha_tag: Likewise.
        mosaic: Where to write a virtual raster of all images; one of the labels is put beside it.
        class_field: Attribute of a vector file that holds the class.
        network: Whether lists and virtual rasters may name places on the network.

    Raises:
        InputError: If a file cannot be used, or images and labels do not go together.
    """
    images = data
    if labels is None:
        if not isinstance(data, str):
            raise InputError("labels are missing: give them with data in memory")
        if Path(data).suffix.lower() not in (".csv", ".txt"):
            raise InputError(
                f"--data {data}: labels are missing; give --labels, or as --data a .csv with the "
                "columns image and label"
            )
        rows = read_listing(data, ["image", "label"])
        images, labels = [find_listed(row["image"], data) for row in rows], data
    scenes = open_data(
        images, bands=bands, ignore_alpha_tag=ignore_alpha_tag, mosaic=mosaic, network=network
    )
    files = _paired(scenes, labels, mosaic)
    told: tuple[str, ...] = ()
    if not isinstance(legend, Legend):
        unique = list(dict.fromkeys(path for path, _ in files))
        if legend:
            legend = read_legend(legend)
        else:
            legend = discover(unique, field=class_field, network=network)
            if legend.ignored:
                told = ("255 is taken for no label; if it is a class, give a legend",)
    opened = [
        open_labels(scene, path if memory is None else memory, legend, field=class_field)
        for scene, (path, memory) in zip(scenes, files, strict=True)
    ]
    return LabelledScenes(tuple(scenes), tuple(opened), told)


def _paired(
    scenes: Sequence[Scene], labels: Any, mosaic: Path | None
) -> list[tuple[str, InMemory | None]]:
    """The labels of each scene, and what keeps them if they are no file."""
    if isinstance(labels, str):
        files = pair_labels(scenes, labels) if mosaic is None else _one_file(labels, mosaic)
        return [(str(file), None) for file in files]
    entries = list(labels) if isinstance(labels, list | tuple) else [labels]
    if len(entries) != len(scenes):
        raise InputError(
            f"{len(entries)} labels are given for {len(scenes)} rasters; give one each"
        )
    try:
        return [named(entry) for entry in entries]
    except ValueError as error:
        raise InputError(f"--labels: {error}") from error


def open_tile_sets(
    config: FinetuneConfig, run: Run, before: SavedModel | None = None
) -> LabelledTileSets:
    """Open what a fine-tuning names, and divide it.

    Args:
        config: Its options.
        run: Where virtual mosaics are written.
        before: The pretraining it starts from, whose bands and type count.

    Raises:
        InputError: If files do not fit, a part is left without tiles, or parts share ground.
    """
    first = open_labelled(
        config.data,
        config.labels,
        config.legend,
        bands=config.bands,
        ignore_alpha_tag=config.ignore_alpha_tag,
        mosaic=run.output("mosaic.vrt") if config.mosaic else None,
        class_field=config.class_field,
        network=config.allow_network,
    )
    first = _suited(first, config, before)
    legend = first.labels[0].legend
    if config.windows is None:
        index = _cut(first, config)
    else:
        index = read_windows(config.windows, first.scenes)
    scenes = first
    if config.val_data is not None:
        other = open_labelled(
            config.val_data,
            config.val_labels,
            legend,
            bands=config.bands,
            ignore_alpha_tag=config.ignore_alpha_tag,
            class_field=config.class_field,
            network=config.allow_network,
        )
        other = _suited(other, config, before)
        index = merge({"train": index, "val": _cut(other, config)})
        refuse_overlap(index)
        scenes = _together(first, other)
    elif config.windows is None:
        index = spatial_split(
            index,
            test=config.test,
            val=config.val,
            block=config.block or 4 * config.tile,
            seed=config.seed,
        )
    else:
        index = replace(index, split=np.full(len(index), "train")).noting(
            "no tiles to choose an epoch by: the last one is kept; give --val_data"
        )
    train = few_labels(
        index.select("train"), config.fraction, seed=config.seed, labels=scenes.labels
    )
    others = index.take(index.split != "train")
    index = merge({"train": train, "": others}) if len(others) else train
    return LabelledTileSets(legend, scenes, index, tuple(index.notes))


def _suited(
    labelled: LabelledScenes, config: FinetuneConfig, before: SavedModel | None
) -> LabelledScenes:
    """The scenes as the pretraining's model takes them; labels keep to the grid alone."""
    if before is None or config.run is None:
        return labelled
    scenes = suit(
        labelled.scenes,
        before,
        config.run,
        trusted=config.bands is not None,
        any_dtype=config.any_dtype,
    )
    return replace(labelled, scenes=tuple(scenes))


def open_kept(
    path: Path,
    split: str,
    legend: Legend,
    *,
    bands: str | None,
    ignore_alpha_tag: bool,
    class_field: str | None,
    network: bool = False,
) -> tuple[TileIndex, tuple[Labels, ...]]:
    """Open the tiles of a split of an earlier fine-tuning, and the labels of its scenes.

    Args:
        path: Its ``tiles.csv``.
        split: ``train``, ``val`` or ``test``.
        legend: The classes.
        bands: As for :func:`cl_remote_sensing.tiles.scenes.open_data`.
        ignore_alpha_tag: Likewise.
        class_field: As for :func:`open_labelled`.
        network: Likewise.

    Raises:
        InputError: If the file or what it lists is gone, or the split has no tile.
    """
    index = TileIndex.load(
        path,
        bands=split_bands(bands) if bands else None,
        ignore_alpha_tag=ignore_alpha_tag,
        network=network,
    ).select(split)
    files = pair_labels(index.scenes, path)
    labels = (
        open_labels(scene, file, legend, field=class_field)
        for scene, file in zip(index.scenes, files, strict=True)
    )
    return index, tuple(labels)


def _cut(labelled: LabelledScenes, config: FinetuneConfig) -> TileIndex:
    index = build_index(
        labelled.scenes,
        size=config.tile,
        stride=config.stride or config.tile,
        min_valid=config.min_valid,
    )
    return keep_labelled(index, labelled.labels)


def _together(first: LabelledScenes, other: LabelledScenes) -> LabelledScenes:
    """All scenes in the order in which :func:`merge` numbers them."""
    labels = dict(zip(other.scenes, other.labels, strict=True))
    labels |= dict(zip(first.scenes, first.labels, strict=True))
    scenes = tuple(dict.fromkeys((*first.scenes, *other.scenes)))
    told = tuple(dict.fromkeys((*first.told, *other.told)))
    return LabelledScenes(scenes, tuple(labels[scene] for scene in scenes), told)


def _one_file(labels: str, mosaic: Path) -> list[Path]:
    """The label file of a mosaic; tiles of labels become a virtual raster beside it."""
    if Path(labels).is_file() and Path(labels).suffix.lower() not in (".csv", ".txt"):
        return [Path(labels)]
    path = Path(labels)
    if path.is_dir():
        files: Sequence[str | Path] = list_rasters([path])
    else:
        files = [find_listed(row["label"], path) for row in read_listing(path, ["image", "label"])]
    together = mosaic.with_name("labels.vrt")
    write_vrt(files, together)
    return [together]
