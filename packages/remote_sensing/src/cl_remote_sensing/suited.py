"""Whether rasters suit a model: bands, type, scale of values, size of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_core.errors import InputError
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.order import descriptions, in_order, told_scale
from cl_remote_sensing.rasters.raster import Scene

if TYPE_CHECKING:
    from cl_remote_sensing.saved import SavedModel, Training

__all__ = ["check_bands", "ground_pixel", "scaling_of", "suit"]

ALIKE = 1.25
"""Ratio of pixel sizes up to which they count as the same."""


def check_bands(
    scenes: Sequence[Scene], model: Any, run: Path | str, *, trusted: bool = False
) -> list[Scene]:
    """The scenes with their bands in the order of a model's.

    Args:
        scenes: To be mapped, measured or learnt from.
        model: Has the names of its ``bands``, and their ``colors``.
        run: Where it comes from, for messages.
        trusted: Take bands in the order they are in, the user having named them.

    Raises:
        InputError: If their number differs, descriptions differ and are no other order of the same,
            or both say their colours and these differ.
    """
    fitted = []
    for scene in scenes:
        if len(scene.bands) != len(model.bands):
            raise InputError(
                f"{scene.path} has {len(scene.bands)} bands ({', '.join(scene.names)}), but the "
                f"model in {run} was trained on {len(model.bands)} ({', '.join(model.bands)}); "
                "choose with --bands"
            )
        source = f"the model in {run}"
        scene = in_order(scene, descriptions(model.bands), source, trusted=trusted)
        told = [
            (own, trained)
            for own, trained in zip(scene.colors, model.colors, strict=True)
            if {own, trained}.isdisjoint({"gray", "undefined"})
        ]
        if any(own != trained for own, trained in told):
            raise InputError(
                f"{scene.path} has the bands {', '.join(scene.colors)}, but the model in {run} was "
                f"trained on {', '.join(model.colors)}; put them in that order with --bands"
            )
        fitted.append(scene)
    return fitted


def suit(
    scenes: Sequence[Scene],
    model: SavedModel,
    run: Path,
    *,
    trusted: bool = False,
    any_dtype: bool = False,
) -> list[Scene]:
    """The scenes as a model takes them, with notes on what is unlike its training.

    Args:
        scenes: To be mapped, measured or learnt from.
        model: The model.
        run: Where it comes from, for messages.
        trusted: As for :func:`check_bands`.
        any_dtype: Take another type of values than the training's.

    Raises:
        InputError: As :func:`check_bands`, or if the type of values differs.
    """
    fitted = check_bands(scenes, model, run, trusted=trusted)
    if model.training is None:
        return fitted
    return [_compared(scene, model.training, run, any_dtype) for scene in fitted]


def _compared(scene: Scene, training: Training, run: Path, any_dtype: bool) -> Scene:
    if scene.dtype != training.dtype and not any_dtype:
        raise InputError(
            f"{scene.path} is {scene.dtype}, but the model in {run} was trained on "
            f"{training.dtype}, whose values mean something else; convert it, or give --any_dtype "
            "if they mean the same"
        )
    notes = []
    if (scene.scales, scene.offsets) != (training.scales, training.offsets):
        units = zip(training.scales, training.offsets, strict=True)
        trained = " and ".join(dict.fromkeys(f"scale {s:g}, offset {o:g}" for s, o in units))
        notes.append(
            f"{scene.path}: tagged with {told_scale(scene)}, the training with {trained}; its "
            "values are brought to those of the training"
        )
    pixel = ground_pixel([scene])
    if pixel is not None and training.pixel is not None:
        ratio = pixel / training.pixel
        if max(ratio, 1 / ratio) > ALIKE:
            notes.append(
                f"{scene.path}: has pixels of {pixel:.3g} m, the model was trained at "
                f"{training.pixel:.3g} m; what it learnt may not fit that size"
            )
    return replace(scene, notes=(*scene.notes, *notes))


def scaling_of(scene: Scene, model: SavedModel) -> Normalization:
    """The model's scaling for the values of a scene, as its tags say what they mean."""
    training = model.training
    if training is None or (scene.scales, scene.offsets) == (training.scales, training.offsets):
        return model.normalization
    pairs = list(zip(scene.scales, training.scales, strict=True))
    if any(own == 0 or trained == 0 or own / trained < 0 for own, trained in pairs):
        raise InputError(
            f"{scene.path}: its scale is of another sign than the training's, or 0; "
            "correct the tag (gdal_edit.py -scale)"
        )
    factors = [own / trained for own, trained in pairs]
    offsets = zip(scene.offsets, training.offsets, training.scales, strict=True)
    shifts = [(own - trained) / scale for own, trained, scale in offsets]
    return model.normalization.in_units(factors, shifts)


def ground_pixel(scenes: Sequence[Scene]) -> float | None:
    """Side of a pixel on the ground in metres, the median of some scenes; ``None`` if unknown."""
    from cl_remote_sensing.mapping.area import pixel_areas

    sides = []
    for scene in scenes[:: max(1, len(scenes) // 64)]:
        if scene.crs is not None and scene.georeferenced:
            sides.append(math.sqrt(float(np.median(pixel_areas(scene)[0]))))
    return float(np.median(sides)) if sides else None
