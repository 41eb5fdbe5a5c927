"""The images that a command uses an earlier training on, with the masks of its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_agriculture.data import Plants, open_plants
from cl_agriculture.masking import STORE, remembered_maker
from cl_agriculture.model import PlantModel
from cl_agriculture.options import OtherImagesOptions
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.runs.record import IN_MEMORY, require_readable

__all__ = ["images_of"]


def images_of(config: OtherImagesOptions, earlier: Run, model: PlantModel, run: Run) -> Plants:
    """The images a command names, by default those of the earlier run, with the model's masks."""
    options = earlier.config
    own = options if config.data is None else {}
    data = config.data or require_readable(options, earlier.path)
    root = config.root or (Path(own["root"]) if own.get("root") else None)
    plants = open_plants(
        data,
        root=root,
        labels=config.labels or own.get("labels") or "auto",
        on_error=config.on_error or own.get("on_error") or "stop",
        cache=Path(own["cache"]) if own.get("cache") else None,
        threads=max(2, config.workers),
    )
    rule = model.card.rule
    if rule is None:
        if config.masks is not None:
            raise InputError("--masks: the model was trained without masks: leave them out")
        return plants
    masks = config.masks
    if masks is None and config.data is None:
        masks = _recorded_masks(options)
    maker, kept = remembered_maker(rule, masks, plants.table)
    if kept is None and config.data is None and (earlier.path / STORE).is_dir():
        kept = earlier.path / STORE
    root = run.output(STORE) if kept is None else kept
    return plants.masked(maker, root, threads=max(2, config.workers))


def _recorded_masks(options: Mapping[str, Any]) -> str | None:
    """Where a training took its masks from, if it can be read again."""
    masks = options.get("masks")
    return masks if isinstance(masks, str) and not masks.startswith(IN_MEMORY) else None
