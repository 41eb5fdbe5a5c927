"""Finished runs and the images they are used on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from cl_core.runs import Run
from cl_vision.config import SavedRunOptions
from cl_vision.data import Images, open_images
from cl_vision.model import ImageModel, load_model

__all__ = ["Trained", "evenly", "free_name", "images_of", "load_runs", "open_remembered"]


class Trained(NamedTuple):
    """A model, the options of its run and the rows of its ``history.csv``."""

    model: ImageModel
    options: dict[str, Any]
    history: list[dict[str, float]]


def load_runs(*paths: Path) -> dict[str, Trained]:
    """Load the models of some runs, under names that differ.

    Raises:
        InputError: If there is no such run, or it holds no model of this package.
    """
    trained: dict[str, Trained] = {}
    for path in paths:
        run = Run.open(path)
        model = load_model(run)
        name = free_name(trained, model.name, path)
        trained[name] = Trained(model, run.config, run.history.rows())
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
    return open_remembered(
        config.data,
        first.options,
        first.model.encoder.in_channels,
        root=config.root,
        labels=config.labels,
        on_error=config.on_error,
    )


def open_remembered(
    data: str | None,
    before: Mapping[str, Any] | None,
    channels: int,
    *,
    root: Path | None,
    labels: str | None = None,
    on_error: Literal["stop", "skip"] | None = None,
) -> Images:
    """Open images, by default those of an earlier run, read as it read them.

    Args:
        data: Others than the run's; then its other options do not count either.
        before: The run's options, if there was one.
        channels: Of the encoder.
        root: Over the run's.
        labels: Over the run's.
        on_error: Over the run's.

    Raises:
        InputError: If they are not there or cannot be read.
    """
    own: dict[str, Any] = dict(before or {}) if data is None else {}
    folder, cache = (Path(own[name]) if own.get(name) else None for name in ("root", "cache"))
    return open_images(
        data or own["data"],
        root=root or folder,
        labels=labels or own.get("labels", "auto"),
        channels=cast(Any, channels if channels in (1, 3, 4) else "keep"),
        on_error=on_error or own.get("on_error", "stop"),
        cache=cache,
    )


def evenly(images: Images, most: int) -> Images:
    """At most so many of the images, evenly spaced."""
    if len(images) <= most:
        return images
    return images.select(np.unique(np.linspace(0, len(images) - 1, most).astype(int)))
