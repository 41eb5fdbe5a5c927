"""Views of an image and its mask: random ones to train on, one without chance to measure with."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor, nn

from cl_agriculture.hyper import ViewHyper
from cl_agriculture.views.attention import Attention, attend
from cl_agriculture.views.geometry import draw_accepted, nearest_mask
from cl_core.transforms import (
    IMAGENET,
    ColorJitter,
    GaussianBlur,
    Geometry,
    Grayscale,
    Normalize,
    RandomResizedCrop,
    to_unit_range,
)

__all__ = ["PlantView", "TrainingView", "WholeView"]


class PlantView(nn.Module):
    """What any view ends with: background replaced, then ImageNet's normalisation.

    A view takes an image ``(c, h, w)``, uint8 or in [0, 1], and gives a normalised one
    ``(c, size, size)``; with a mask ``(h, w)`` it gives the view and its mask.

    Args:
        size: Edge of the view in pixels.
        hyper: Of the views; of it fill and sigma count here.
        attention: What becomes of the background.
    """

    def __init__(self, size: int, hyper: ViewHyper, attention: Attention) -> None:
        super().__init__()
        self.size = size
        self.hyper = hyper
        self.attention: Attention = attention
        self.normalize = Normalize(IMAGENET)

    @overload
    def forward(self, image: Tensor) -> Tensor: ...

    @overload
    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]: ...

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Make the view."""
        if mask is None:
            return self._finished(self._pixels(image, self._geometry(image, None)))
        geometry = self._geometry(image, mask)
        x = self._pixels(image, geometry)
        m = nearest_mask(geometry, mask, self.size)
        return self._finished(x if self._shows_all() else self._attended(x, m)), m

    def _geometry(self, image: Tensor, mask: Tensor | None) -> Geometry:
        height, width = image.shape[-2:]
        return Geometry(0, 0, height, width)

    def _pixels(self, image: Tensor, geometry: Geometry) -> Tensor:
        x: Tensor = to_unit_range(geometry.apply(image, (self.size, self.size)))
        return x

    def _shows_all(self) -> bool:
        return self.attention == "off"

    def _attended(self, x: Tensor, mask: Tensor) -> Tensor:
        fill, sigma = self.hyper.fill, self.hyper.sigma
        x = x.clamp(0, 1)
        attended: Tensor = attend(x, mask, attention=self.attention, fill=fill, sigma=sigma)
        return attended

    def _finished(self, x: Tensor) -> Tensor:
        view: Tensor = self.normalize(x.clamp(0, 1) if self.attention == "off" else x)
        return view


class WholeView(PlantView):
    """The whole image, both sides resized to the view's, the aspect not kept; no chance."""


class TrainingView(PlantView):
    """A random view: one geometry for image and mask, colours of the image alone, then the mask.

    Everything is drawn from torch's generator.

    Args:
        size: Edge of the view in pixels.
        hyper: Probabilities and strengths.
        attention: What becomes of the background.
    """

    def __init__(self, size: int, hyper: ViewHyper, attention: Attention) -> None:
        super().__init__(size, hyper, attention)
        strength = hyper.brightness
        self.crop = RandomResizedCrop(
            size, (hyper.least_scale, 1.0), flip=0.5, flip_vertical=0.5, turn=hyper.turns
        )
        self.colours = nn.Sequential(
            ColorJitter(strength, strength, strength, hyper.hue, p=hyper.jitter_p),
            Grayscale(hyper.grey_p),
            GaussianBlur(hyper.blur_p),
        )

    def _geometry(self, image: Tensor, mask: Tensor | None) -> Geometry:
        height, width = image.shape[-2:]
        return self.crop.draw(height, width) if mask is None else draw_accepted(self.crop, mask)

    def _pixels(self, image: Tensor, geometry: Geometry) -> Tensor:
        x: Tensor = self.colours(geometry.apply(image, (self.size, self.size)))
        return x

    def _shows_all(self) -> bool:
        p = self.hyper.background_p
        return super()._shows_all() or (p > 0 and bool(torch.rand(()) < p))
