"""Rasters that are to be used together, or by one model: the same bands, in the same order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cl_core.errors import InputError

if TYPE_CHECKING:
    from cl_remote_sensing.rasters.scene import Scene

__all__ = ["descriptions", "in_order", "require_alike", "require_one_scale", "told_scale"]

_NUMBERED = re.compile(r"band \d+")


def descriptions(names: Sequence[str]) -> tuple[str, ...]:
    """Descriptions of bands by their names: empty where a name is only a number."""
    return tuple("" if _NUMBERED.fullmatch(name) else name for name in names)


def in_order(scene: Scene, wanted: Sequence[str], source: str, *, trusted: bool = False) -> Scene:
    """The scene with its bands in the order that their descriptions ask for.

    Where a band has no description, here or there, its place counts.

    Args:
        scene: With as many bands as are wanted.
        wanted: Description of each band, empty where there is none.
        source: What gave them, for messages: a raster, a model.
        trusted: Take the bands as they are, the user having named them, and tell.

    Raises:
        InputError: If descriptions contradict and are no other order of the same bands.
    """
    own = descriptions(scene.names)
    one, other = ([name.casefold() for name in names] for names in (own, wanted))
    if not any(a and b and a != b for a, b in zip(one, other, strict=True)):
        if any(wanted) and not any(own):
            told = f"names no band; taken in the order of {source}: {', '.join(wanted)}"
            return scene.with_bands(range(len(own)), f"{scene.path}: {told}")
        return scene
    if trusted:
        told = f"{', '.join(own)} taken for {', '.join(wanted)} of {source}, as --bands says"
        return scene.with_bands(range(len(own)), f"{scene.path}: {told}")
    if all(one) and sorted(one) == sorted(other) and len(set(one)) == len(one):
        order = [one.index(name) for name in other]
        told = f"its bands {', '.join(own)} are put in the order of {source}: {', '.join(wanted)}"
        return scene.with_bands(order, f"{scene.path}: {told}")
    raise InputError(
        f"{scene.path} has the bands {', '.join(scene.names)}, but {source} "
        f"{', '.join(name or 'one without a name' for name in wanted)}; name the bands in that "
        "order with --bands"
    )


def require_alike(scene: Scene, first: Scene) -> None:
    """Check that two rasters have bands of one number, type, scale and order of colours.

    Raises:
        InputError: Naming both and what differs.
    """
    if len(scene.bands) != len(first.bands):
        raise InputError(
            f"{scene.path} has {len(scene.bands)} bands but {first.path} has "
            f"{len(first.bands)}; choose the same with --bands, or leave one out"
        )
    if scene.dtype != first.dtype:
        raise InputError(
            f"{scene.path} is {scene.dtype} but {first.path} is {first.dtype}; convert one, or "
            "leave it out"
        )
    if _colors(scene) and _colors(first) and _colors(scene) != _colors(first):
        raise InputError(
            f"{scene.path} has the bands {', '.join(scene.colors)} but {first.path} "
            f"{', '.join(first.colors)}; choose by colour, as --bands red,green,blue"
        )


def require_one_scale(scene: Scene, first: Scene) -> None:
    """Check that the tags of two rasters give their values one meaning.

    Raises:
        InputError: Naming both.
    """
    if (scene.scales, scene.offsets) != (first.scales, first.offsets):
        raise InputError(
            f"{scene.path} is tagged with {told_scale(scene)} but {first.path} with "
            f"{told_scale(first)}, so that their values differ in meaning; bring them to one "
            "(gdal_translate -unscale), or leave one out"
        )


def told_scale(scene: Scene) -> str:
    """The scales and offsets of a scene in words."""
    units = dict.fromkeys(zip(scene.scales, scene.offsets, strict=True))
    return " and ".join(f"scale {scale:g}, offset {offset:g}" for scale, offset in units)


def _colors(scene: Scene) -> list[str]:
    """Where red, green and blue are, if the file tells."""
    return [color for color in scene.colors if color in ("red", "green", "blue")]
