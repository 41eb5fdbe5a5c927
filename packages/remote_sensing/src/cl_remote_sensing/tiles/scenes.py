"""From the options of a command to scenes, tiles and the scaling of values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl_core.errors import InputError
from cl_core.runs import Run, write_atomic
from cl_remote_sensing.config import TileOptions
from cl_remote_sensing.rasters.listing import list_rasters
from cl_remote_sensing.rasters.memory import is_in_memory
from cl_remote_sensing.rasters.mosaic import write_vrt
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import Scene, open_scenes
from cl_remote_sensing.rasters.statistics import BandStatistics, band_statistics
from cl_remote_sensing.tiles.build import TileIndex, build_index

__all__ = ["fit_normalization", "kept_index", "open_data", "split_bands"]


def open_data(
    data: Any,
    *,
    bands: str | Sequence[str] | None = None,
    ignore_alpha_tag: bool = False,
    mosaic: Path | None = None,
    network: bool = False,
) -> list[Scene]:
    """Open the rasters a command names.

    Args:
        data: A raster, a folder, a .vrt or a .txt list, or a raster in memory (an array, a
            :class:`~cl_remote_sensing.rasters.memory.Raster`, an open data set); or several.
        bands: Names separated by commas, or one by one; by default all but alpha.
        ignore_alpha_tag: As for :func:`cl_remote_sensing.rasters.raster.open_scene`.
        mosaic: Where to write the virtual raster that shows them as one; by default they stay
            apart.
        network: Whether lists and virtual rasters may name places on the network.

    Raises:
        InputError: If a raster cannot be used, or they do not go together.
    """
    entries: list[Any] = list(data) if isinstance(data, list | tuple) else [data]
    if mosaic is not None:
        if any(map(is_in_memory, entries)):
            raise InputError("--mosaic joins files; give rasters in memory without it")
        write_vrt(list_rasters(entries, network=network), mosaic, network=network)
        entries = [mosaic]
    if isinstance(bands, str):
        bands = split_bands(bands)
    try:
        return open_scenes(entries, bands=bands, ignore_alpha_tag=ignore_alpha_tag, network=network)
    except InputError:
        raise
    except ValueError as error:  # of what is in memory
        raise InputError(f"--data: {error}") from error


def split_bands(bands: str) -> list[str]:
    """``"1, 2,3"`` in single names."""
    return [band.strip() for band in bands.split(",") if band.strip()]


def kept_index(run: Run, scenes: Sequence[Scene], options: TileOptions) -> TileIndex:
    """The tiles of a run: built once and kept in its ``tiles.csv``.

    Raises:
        InputError: If no tile has enough valid pixels.
    """
    kept = run.output("tiles.csv")
    if run.resumed and kept.exists():
        return TileIndex.load(kept, scenes)
    index = build_index(
        scenes,
        size=options.tile,
        stride=options.stride or options.tile,
        min_valid=options.min_valid,
    )
    if run.writes:
        index.save(kept)
    return index


def fit_normalization(
    run: Run, index: TileIndex, options: TileOptions
) -> tuple[Normalization, BandStatistics, tuple[str, ...]]:
    """Measure the bands over the tiles, keep that as ``statistics.json``, and scale by it.

    Returns:
        The scaling, what it was measured on, and what the user should know of it.

    Raises:
        InputError: If the values do not suit the normalisation asked for.
    """
    statistics = band_statistics(
        index.scenes, index.windows(), approximate=options.statistics == "approximate"
    )
    if run.writes:
        names = list(index.scenes[0].names)
        with write_atomic(run.output("statistics.json")) as beside:
            beside.write_text(json.dumps({"bands": names, **statistics.to_dict()}, indent=2) + "\n")
    bands = index.scenes[0].names
    constant = [bands[place] for place in statistics.constant]
    notes = [*statistics.notes]
    if constant:
        notes.append(f"the same value everywhere in {', '.join(constant)}: leave out with --bands")
    try:
        return Normalization.fit(statistics, options.normalization), statistics, tuple(notes)
    except ValueError as error:
        raise InputError(f"--normalization {options.normalization}: {error}") from error
