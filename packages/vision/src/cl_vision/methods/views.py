"""The papers' augmentations by name, with the papers' numbers.

Each returns a transform (or several) that takes one uint8 or float image ``(c, h, w)`` of any size
and gives a float view. The random crop is resized to the view's size, so that an image smaller
than the view is enlarged, as in the papers. Nothing is normalised unless ``statistics`` are given.
Common arguments:

- ``size``: edge of a view in pixels. Up to :data:`cl_core.transforms.SMALL` pixels there is no blur
  and no solarisation, as the papers do for 32-pixel images.
- ``statistics``: for the last step, such as :data:`cl_core.transforms.IMAGENET`.
- ``channels``: of the images. Unless it is 3, hue stays as it is, and saturation and grey go by
  the mean of the channels.
"""

from __future__ import annotations

from torch import nn

from cl_core.transforms.blur import GaussianBlur
from cl_core.transforms.colour import ColorJitter, Grayscale, Solarize
from cl_core.transforms.geometry import Interpolation, RandomResizedCrop
from cl_core.transforms.scaling import Statistics
from cl_core.transforms.standard import SMALL, sequence

__all__ = ["directclr", "hcsc_multi_crop", "moco_v1", "moco_v2", "simclr"]


def simclr(
    size: int = 224,
    *,
    strength: float = 1.0,
    scale: tuple[float, float] = (0.08, 1.0),
    interpolation: Interpolation = "bilinear",
    statistics: Statistics | None = None,
    channels: int = 3,
) -> nn.Module:
    """Crop, flip, colour distortion, blur (SimCLR; Chen et al. 2020, arXiv 2002.05709, App. A).

    Crop area ``scale`` and aspect 3/4 to 4/3; flip .5; jitter (.8, .8, .8, .2) x ``strength`` with
    p .8; grey .2; blur of sigma U[.1, 2] with p .5. The paper uses strength 1 on ImageNet and 0.5
    on CIFAR-10; its code resizes by ``bicubic``, most ports bilinearly.
    """
    s = strength
    return sequence(
        _crop(size, scale, interpolation),
        _jitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s, p=0.8, channels=channels),
        Grayscale(0.2),
        *_unless_small(size, GaussianBlur(0.5)),
        statistics=statistics,
    )


def moco_v1(
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    statistics: Statistics | None = None,
    channels: int = 3,
) -> nn.Module:
    """MoCo's first recipe (He et al. 2020, arXiv 1911.05722): grey .2, jitter .4 always, flip."""
    return sequence(
        _crop(size, scale),
        Grayscale(0.2),
        _jitter(0.4, 0.4, 0.4, 0.4, p=1.0, channels=channels),
        statistics=statistics,
    )


def moco_v2(
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    statistics: Statistics | None = None,
    channels: int = 3,
) -> nn.Module:
    """MoCo v2's recipe (Chen et al. 2020, arXiv 2003.04297), which HCSC uses too.

    Crop area .2 to 1; jitter (.4, .4, .4, .1) with p .8; grey .2; blur of sigma U[.1, 2] with p .5;
    flip .5. The flip, drawn last there, is done first here: the steps between are symmetric.
    """
    return sequence(
        _crop(size, scale),
        _jitter(0.4, 0.4, 0.4, 0.1, p=0.8, channels=channels),
        Grayscale(0.2),
        *_unless_small(size, GaussianBlur(0.5)),
        statistics=statistics,
    )


def hcsc_multi_crop(
    size: int = 224,
    *,
    sizes: tuple[int, ...] = (224, 192, 160, 128, 96),
    min_scales: tuple[float, ...] = (0.2, 0.172, 0.143, 0.114, 0.086),
    max_scales: tuple[float, ...] = (1.0, 0.86, 0.715, 0.571, 0.429),
    statistics: Statistics | None = None,
    channels: int = 3,
) -> list[nn.Module]:
    """HCSC's crops (Guo et al. 2022, arXiv 2202.00455): MoCo v2's recipe at falling sizes.

    Returns:
        ``1 + len(sizes)`` transforms. The first is the query's global view, the second (first
        entry of ``sizes``) the key's, the others are local views. For
        ``dataset.views(len(crops), crops)``.
    """
    if not len(sizes) == len(min_scales) == len(max_scales):
        raise ValueError(
            f"a minimum and a maximum scale per size, got {sizes}, {min_scales}, {max_scales}"
        )
    first = moco_v2(size, statistics=statistics, channels=channels)
    others = zip(sizes, min_scales, max_scales, strict=True)
    return [first] + [
        moco_v2(edge, scale=(low, high), statistics=statistics, channels=channels)
        for edge, low, high in others
    ]


def directclr(
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    statistics: Statistics | None = None,
    channels: int = 3,
) -> tuple[nn.Module, nn.Module]:
    """The two different views of DirectCLR (Jing et al. 2022, arXiv 2110.09348; BYOL's).

    Bicubic crop, flip .5, jitter (.4, .4, .2, .1) with p .8, grey .2; then blur with p 1 and .1,
    solarisation from 128 of 255 with p 0 and .2.
    """

    def view(blur: float, solarize: float) -> nn.Module:
        return sequence(
            _crop(size, scale, "bicubic"),
            _jitter(0.4, 0.4, 0.2, 0.1, p=0.8, channels=channels),
            Grayscale(0.2),
            *_unless_small(size, GaussianBlur(blur), Solarize(solarize)),
            statistics=statistics,
        )

    return view(1.0, 0.0), view(0.1, 0.2)


def _crop(
    size: int, scale: tuple[float, float], interpolation: Interpolation = "bilinear"
) -> nn.Module:
    """While the image is still uint8, where resizing is fastest."""
    return RandomResizedCrop(size, scale, interpolation=interpolation, flip=0.5)


def _jitter(b: float, c: float, s: float, hue: float, *, p: float, channels: int) -> nn.Module:
    return ColorJitter(b, c, s, hue if channels == 3 else 0.0, p=p)


def _unless_small(size: int, *steps: nn.Module) -> list[nn.Module]:
    return [] if size <= SMALL else list(steps)
