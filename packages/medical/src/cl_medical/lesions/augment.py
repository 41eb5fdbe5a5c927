r"""Views of dermoscopic images: the published set, and one that spares what tells a diagnosis.

Both crop, change colours, grey, turn or flip, and blur, in this order:

=============== ===================================== =========================================
step            ``official`` (SuperCon's code)        ``recommended``
=============== ===================================== =========================================
crop            area .08 to 1, aspect 3/4 to 4/3      area .3 to 1: the lesion stays in view
jitter (p .3)   .8, .8, .8, hue .2                    .8, .8, .8, hue .05: colour is diagnostic
grey            .2                                    .05
turn, flip      horizontal flip .5                    any of the square's eight symmetries
blur (p .2)     3 pixels wide, sigma 1 to 2           the same
=============== ===================================== =========================================

This is the only room of the suite that imports albumentations (MIT up to 2.0.8, no longer
maintained). ``library="torchvision"`` gives the same steps without it.

albumentations keeps random numbers of its own: under a plain loader every worker and every epoch
draws the same. Worse, seeding a pipeline of it gives each step a generator of the *same* seed, so
that both flips happen together or not at all. Here every call seeds one generator for all steps
from torch's, which loaders set for each worker and epoch.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.transforms import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    Normalize,
    Statistics,
    evaluation,
)

__all__ = ["Augmentation", "Dermoscopy", "Library", "View", "augmented_view", "plain_view"]

Augmentation = Literal["recommended", "official"]
Library = Literal["albumentations", "torchvision"]
View = Callable[[Tensor], Tensor]

_RATIO = (3 / 4, 4 / 3)
_JITTER = (0.8, 0.8, 0.8)


def plain_view(size: int, statistics: Statistics | None) -> nn.Module:
    """Resize both sides, the aspect not kept, and normalise: view 0, and all that is measured.

    Args:
        size: Edge in pixels.
        statistics: Normalise by them; None leaves values in [0, 1].
    """
    view: nn.Module = evaluation(size, resize="square", statistics=statistics)
    return view


def augmented_view(
    size: int,
    statistics: Statistics,
    *,
    augmentation: Augmentation = "recommended",
    library: Library = "albumentations",
) -> View:
    """Give the random view that stages 1 and 2 train on.

    Args:
        size: Edge in pixels.
        statistics: Normalise by them.
        augmentation: See the module.
        library: What does it.

    Returns:
        A function of a uint8 or float RGB image ``(3, h, w)`` of any size.

    Raises:
        InputError: If albumentations is asked for and not installed.
        ValueError: If an option is unknown.
    """
    if augmentation not in ("recommended", "official"):
        raise ValueError(f"augmentation must be recommended or official, got {augmentation!r}")
    if library == "albumentations":
        return Dermoscopy(size, statistics, augmentation)
    if library != "torchvision":
        raise ValueError(f"library must be albumentations or torchvision, got {library!r}")
    return _torchvision(size, statistics, augmentation)


class Dermoscopy:
    """The random view by albumentations, drawing from torch's generator.

    Args:
        size: Edge in pixels.
        statistics: Normalise by them.
        augmentation: See the module.

    Raises:
        InputError: If albumentations is not installed.
    """

    def __init__(self, size: int, statistics: Statistics, augmentation: Augmentation) -> None:
        self.steps = _albumentations(size, augmentation)
        self.normalize = Normalize(statistics)

    def __call__(self, image: Shaped[Tensor, "3 h w"]) -> Float[Tensor, "3 s s"]:
        """Augment one image; it stays as it was."""
        seed = int(torch.randint(2**31, ()))
        self.steps.set_random_state(np.random.Generator(np.random.PCG64(seed)), random.Random(seed))
        # Decoded images are strided channels last, which is what albumentations takes: no copy.
        pixels = self.steps(image=image.permute(1, 2, 0).numpy())["image"]
        view: Tensor = self.normalize(torch.from_numpy(pixels).permute(2, 0, 1))
        return view


def _albumentations(size: int, augmentation: Augmentation) -> Any:
    # It asks the registry for its newest version at import, two seconds long where there is none.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations as A
        import cv2
    except ImportError as error:
        raise InputError(
            "--library albumentations is not installed: run pip install 'cl-medical[lesions]', or "
            "say --library torchvision"
        ) from error
    cv2.setNumThreads(0)  # its own threads would fight those of loaders and of torch
    official = augmentation == "official"
    return A.Compose(
        [
            A.RandomResizedCrop(
                (size, size),
                scale=(0.08 if official else 0.3, 1.0),
                ratio=_RATIO,
                area_for_downscale="image",  # as Pillow: no aliasing
            ),
            A.ColorJitter(*_JITTER, hue=0.2 if official else 0.05, p=0.3),
            A.ToGray(p=0.2 if official else 0.05),
            A.HorizontalFlip(p=0.5) if official else A.SquareSymmetry(p=1.0),
            A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(1.0, 2.0), p=0.2),
        ]
    )


class _SquareSymmetry(nn.Module):
    """One of the eight turns and flips of a square, each as likely."""

    def forward(self, image: Tensor) -> Tensor:
        draw = int(torch.randint(8, ()))
        turned = torch.rot90(image, draw % 4, (-2, -1))
        return turned.flip(-1) if draw >= 4 else turned


def _torchvision(size: int, statistics: Statistics, augmentation: Augmentation) -> nn.Module:
    from torchvision.transforms import v2

    official = augmentation == "official"
    return nn.Sequential(
        v2.RandomResizedCrop(
            size, scale=(0.08 if official else 0.3, 1.0), ratio=_RATIO, antialias=True
        ),
        v2.RandomHorizontalFlip() if official else _SquareSymmetry(),
        ColorJitter(*_JITTER, 0.2 if official else 0.05, p=0.3),
        Grayscale(0.2 if official else 0.05),
        GaussianBlur(0.2, (1.0, 2.0), radius=1),
        Normalize(statistics),
    )
