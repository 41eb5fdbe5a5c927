"""Finished runs and the images they are used on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from torch import nn

from cl_core.errors import InputError
from cl_core.images import MAX_PIXELS
from cl_core.images.split_names import SplitChoice
from cl_core.runs import Run
from cl_core.runs.record import require_readable
from cl_vision.config import EncoderOptions, SavedRunOptions, ValueRange
from cl_vision.data import Images, open_images
from cl_vision.model import ImageModel, Own, load_any_encoder

__all__ = [
    "Trained",
    "evenly",
    "free_name",
    "images_of",
    "load_runs",
    "open_remembered",
    "own_of",
]


class Trained(NamedTuple):
    """A model, the options of its run and the rows of its ``history.csv``."""

    model: ImageModel
    options: dict[str, Any]
    history: list[dict[str, float]]


def own_of(config: EncoderOptions, encoder: nn.Module | None) -> Own:
    """What a command has to rebuild an encoder that is not of this suite."""
    return Own(encoder, () if config.allow is None else (config.allow,))


def load_runs(
    *paths: Path, own: Own | None = None, config: EncoderOptions | None = None
) -> dict[str, Trained]:
    """Load the models of some runs, saved encoders or weight files, under names that differ.

    Args:
        paths: Where they lie.
        own: For encoders that are not of this suite.
        config: Tells what their files do not.

    Raises:
        InputError: If there is nothing of the kind, or no model of this package in a run.
    """
    config = config or EncoderOptions()
    trained: dict[str, Trained] = {}
    for path in paths:
        model = load_any_encoder(
            path, backbone=config.backbone, image_size=config.image_size, own=own
        )
        name = free_name(trained, model.name, path)
        run = Run.open(path) if (path / "config.yaml").is_file() else None
        options, history = ({}, []) if run is None else (run.config, run.history.rows())
        trained[name] = Trained(model, options, history)
    return trained


def free_name(taken: Mapping[str, object], name: str, path: Path) -> str:
    """``name``, with its folder's if another model has it already."""
    if name not in taken:
        return name
    name = f"{name} ({path.name})"
    return name if name not in taken else f"{name} {len(taken) + 1}"


def images_of(config: SavedRunOptions, trained: Mapping[str, Trained]) -> Images:
    """Open the images a command names, or by default those of the first run.

    Raises:
        InputError: If they are not there or cannot be read.
    """
    first = next(iter(trained.values()))
    if not first.options and (config.data is None or getattr(config, "out", None) is None):
        raise InputError(
            f"--run {config.run} is no run, so it remembers no images and holds no results: give "
            "--data and --out"
        )
    return open_remembered(
        config.data,
        first.options or None,
        first.model.encoder.in_channels,
        place=config.run,
        root=config.root,
        labels=config.labels,
        splits=config.splits,
        on_error=config.on_error,
        max_pixels=config.max_pixels,
        value_range=config.value_range,
    )


def open_remembered(
    data: Any,
    before: Mapping[str, Any] | None,
    channels: int,
    *,
    place: Path = Path(),
    root: Path | None,
    labels: str | None = None,
    splits: SplitChoice | None = None,
    on_error: Literal["stop", "skip"] | None = None,
    max_pixels: int | None = None,
    value_range: ValueRange = None,
) -> Images:
    """Open images, by default those of an earlier run, read as it read them.

    Args:
        data: Others than the run's; then its other options do not count either, but for
            ``value_range``, by which the model was trained.
        before: The run's options, if there was one.
        channels: Of the encoder.
        place: The run, for messages.
        root: Over the run's, as are the others.
        labels: Where classes come from.
        splits: Whether folders are splits.
        on_error: What to do about a file that cannot be read.
        max_pixels: The largest image to decode.
        value_range: The values of 32-bit files that become 0 and 1.

    Raises:
        InputError: If they are not there or cannot be read.
    """
    own: dict[str, Any] = dict(before or {}) if data is None else {}
    scale = (before or {}).get("value_range") if value_range is None else value_range
    folder, cache = (Path(own[name]) if own.get(name) else None for name in ("root", "cache"))
    return open_images(
        require_readable(own, place) if data is None else data,
        root=root or folder,
        labels=labels or own.get("labels", "auto"),
        splits=splits or own.get("splits", "auto"),
        channels=cast(Any, channels if channels in (1, 3, 4) else "keep"),
        on_error=on_error or own.get("on_error", "stop"),
        max_pixels=max_pixels or own.get("max_pixels", MAX_PIXELS),
        value_range=tuple(scale) if isinstance(scale, list) else scale,
        cache=cache,
    )


def evenly(images: Images, most: int) -> Images:
    """At most so many of the images, evenly spaced."""
    if len(images) <= most:
        return images
    return images.select(np.unique(np.linspace(0, len(images) - 1, most).astype(int)))
