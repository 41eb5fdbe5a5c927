"""The papers' augmentations by name, with the papers' numbers.

Each recipe returns a transform (or several) that takes one uint8 or float image ``(c, h, w)`` of
any size and gives a float view. The random crop is resized to the view's size, so that an image
smaller than the view is enlarged, as in the papers. Nothing is normalised unless ``statistics``
are given. Common arguments:

- ``size``: edge of a view in pixels. Up to 64 pixels there is no blur and no solarisation, as the
  papers do for 32-pixel images.
- ``statistics``: for the last step, such as :data:`cl_core.transforms.IMAGENET`.
- ``channels``: of the images. Unless it is 3, hue stays as it is, and saturation and grey go by
  the mean of the channels.
"""

from __future__ import annotations

from types import ModuleType
from typing import Literal

from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.transforms.blur import GaussianBlur
from cl_core.transforms.colour import ColorJitter, Grayscale
from cl_core.transforms.scaling import CenterCrop, Normalize, Statistics, to_unit_range

__all__ = [
    "crop_and_flip",
    "directclr",
    "evaluation",
    "hcsc_multi_crop",
    "moco_v1",
    "moco_v2",
    "simclr",
    "supercon",
]

Interpolation = Literal["bilinear", "bicubic"]
_SMALL = 64


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
    return _sequence(
        *_crop_and_flip(size, scale, interpolation),
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
    return _sequence(
        *_crop_and_flip(size, scale),
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
    return _sequence(
        *_crop_and_flip(size, scale),
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
    v2 = _torchvision()

    def view(blur: float, solarize: float) -> nn.Module:
        return _sequence(
            *_crop_and_flip(size, scale, "bicubic"),
            _jitter(0.4, 0.4, 0.2, 0.1, p=0.8, channels=channels),
            Grayscale(0.2),
            *_unless_small(size, GaussianBlur(blur), v2.RandomSolarize(128 / 255, p=solarize)),
            statistics=statistics,
        )

    return view(1.0, 0.0), view(0.1, 0.2)


def supercon(
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    statistics: Statistics | None = None,
    channels: int = 3,
) -> nn.Module:
    """The augmented view of SuperCon (Chen et al. 2022, arXiv 2202.05685), as its code has it.

    Crop; jitter (.8, .8, .8, .2) with p .3; grey .2; flip .5; with p .2 a blur of sigma U[1, 2]
    whose kernel is 3 pixels wide.
    """
    return _sequence(
        *_crop_and_flip(size, scale),
        _jitter(0.8, 0.8, 0.8, 0.2, p=0.3, channels=channels),
        Grayscale(0.2),
        GaussianBlur(0.2, (1.0, 2.0), radius=1),
        statistics=statistics,
    )


def crop_and_flip(
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    statistics: Statistics | None = None,
) -> nn.Module:
    """Random resized crop and flip: how a linear probe is trained in these papers."""
    return _sequence(*_crop_and_flip(size, scale), statistics=statistics)


def evaluation(
    size: int = 224,
    *,
    resize: int | Literal["auto", "square"] | None = "auto",
    interpolation: Interpolation = "bilinear",
    statistics: Statistics | None = None,
) -> nn.Module:
    """No chance: resize and cut the centre.

    Args:
        size: Edge of the result in pixels.
        resize: What the shorter side becomes before the crop; ``auto`` is ``size`` x 256 / 224.
            ``square`` resizes both sides to ``size``, the aspect not kept, and cuts nothing
            (SuperCon). ``None`` only crops, and refuses a smaller image.
        interpolation: Bilinear as usual, or bicubic (HCSC's kNN).
        statistics: See the module.
    """
    v2 = _torchvision()
    mode = v2.InterpolationMode(interpolation)
    if resize == "square":
        steps = [v2.Resize((size, size), mode, antialias=True)]
    elif resize is None:
        steps = [CenterCrop(size)]
    else:
        edge = round(size * 256 / 224) if resize == "auto" else int(resize)
        if edge < size:
            raise ValueError(f"resize must be at least the crop of {size} pixels, got {edge}")
        steps = [v2.Resize(edge, mode, antialias=True), CenterCrop(size)]
    return _sequence(*steps, statistics=statistics)


class _ToUnitRange(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return to_unit_range(image)


def _sequence(*steps: nn.Module, statistics: Statistics | None) -> nn.Module:
    last = [_ToUnitRange()] if statistics is None else [Normalize(statistics)]
    return nn.Sequential(*steps, *last)


def _crop_and_flip(
    size: int, scale: tuple[float, float], interpolation: Interpolation = "bilinear"
) -> list[nn.Module]:
    """While the image is still uint8, where resizing is fastest."""
    v2 = _torchvision()
    mode = v2.InterpolationMode(interpolation)
    crop = v2.RandomResizedCrop(size, scale, interpolation=mode, antialias=True)
    return [crop, v2.RandomHorizontalFlip()]


def _jitter(b: float, c: float, s: float, hue: float, *, p: float, channels: int) -> nn.Module:
    return ColorJitter(b, c, s, hue if channels == 3 else 0.0, p=p)


def _unless_small(size: int, *steps: nn.Module) -> list[nn.Module]:
    return [] if size <= _SMALL else list(steps)


def _torchvision() -> ModuleType:
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise InputError(
            "augmenting images needs torchvision; run pip install cl-core[images]"
        ) from error
    module: ModuleType = v2
    return module
