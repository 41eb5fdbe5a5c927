"""The methods of condensation and the published numbers, by name (standard library only)."""

from __future__ import annotations

from typing import Any, NamedTuple

from cl_core.checks import OptionError

__all__ = [
    "DIGIT_STRATEGY",
    "MATCHING",
    "OPERATIONS",
    "PRESETS",
    "PUBLISHED",
    "STRATEGY",
    "Matching",
    "nearest_published",
    "parse_strategy",
    "require_strategy",
]

OPERATIONS = (
    "brightness",
    "saturation",
    "contrast",
    "color",
    "crop",
    "cutout",
    "flip",
    "scale",
    "rotate",
)
"""What siamese augmentation can do."""

STRATEGY = "color_crop_cutout_flip_scale_rotate"
"""The released default."""

DIGIT_STRATEGY = "color_crop_cutout_scale_rotate"
"""The same for digits and letters, which do not survive a flip."""


class Matching(NamedTuple):
    """What sets a method apart.

    Attributes:
        contrast: Gradients are summed over classes before they are matched.
        augmented: Real and synthetic images are augmented alike before.
    """

    contrast: bool
    augmented: bool


MATCHING = {
    "dc": Matching(contrast=False, augmented=False),
    "dsa": Matching(contrast=False, augmented=True),
    "dcc": Matching(contrast=True, augmented=False),
    "dsac": Matching(contrast=True, augmented=True),
}
"""The methods."""

PRESETS: dict[str, dict[str, Any]] = {
    "cpu-smoke": {"outer_loop": 20, "width": 32, "real_batch": 64, "network_epochs": 5},
    "cpu": {"outer_loop": 100, "width": 64, "real_batch": 64, "network_epochs": 5},
    "gpu-paper": {"outer_loop": 1000, "width": 128, "real_batch": 256, "network_epochs": None},
}
"""What is not given comes from here; ``None`` is the published number for the images a class."""

PUBLISHED = {1: (10, 5), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Images a class -> matching steps a network, and its epochs between two of them."""


def nearest_published(ipc: int) -> int:
    """The nearest published number of images a class; of two as near the smaller."""
    return min(PUBLISHED, key=lambda known: (abs(known - ipc), known))


def parse_strategy(strategy: str) -> list[str]:
    """Give the operations of a strategy, which joins their names by ``_``.

    Raises:
        ValueError: If a name is unknown, or there is none.
    """
    names = strategy.split("_")
    unknown = [name for name in names if name not in OPERATIONS]
    if unknown:
        raise ValueError(
            f"strategy {strategy!r}: there is no operation {unknown[0]!r}; join names of "
            f"{', '.join(OPERATIONS)} by _"
        )
    return names


def require_strategy(strategy: str | None) -> None:
    """Refuse a strategy of unknown operations; an empty one is none.

    Raises:
        OptionError: Naming what there is.
    """
    if strategy:
        try:
            parse_strategy(strategy)
        except ValueError as error:
            raise OptionError(str(error)) from error
