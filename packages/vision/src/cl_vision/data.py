"""Files to batches: folders, manifests and the built-in digits, in the views of each method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from cl_core.errors import InputError
from cl_core.images import MAX_PIXELS, collection, loaders
from cl_core.images.decoding import Channels, ValueRange
from cl_core.images.loaders import evaluation_loader, training_loader
from cl_core.images.memory import MemoryImages, images_in_memory, memory_fingerprint
from cl_core.images.split_names import SplitChoice
from cl_core.runs.fingerprint import Fingerprint, of_arrays, of_files
from cl_core.transforms import standard
from cl_core.transforms.scaling import Statistics
from cl_core.transforms.standard import SMALL
from cl_vision.digits import DIGITS, DigitImages, DigitViews, load_digits
from cl_vision.methods.table import ViewsName
from cl_vision.methods.views import directclr, hcsc_multi_crop, moco_v2, simclr

__all__ = [
    "SMALL",
    "Images",
    "data_rows",
    "evaluation_loader",
    "evaluation_view",
    "fingerprint_of",
    "measure_statistics",
    "open_images",
    "probe_view",
    "training_loader",
    "training_views",
]


@dataclass(frozen=True, eq=False)
class Images(collection.Images):
    """Images to work on, of files or the built-in digits; see :class:`cl_core.images.Images`."""

    @property
    def is_digits(self) -> bool:
        """Whether these are the built-in digits."""
        return isinstance(self.dataset, DigitImages)


def data_rows() -> list[dict[str, str]]:
    """Every built-in data set by name: what ``list data`` shows."""
    about = "1,797 handwritten digits of 8 x 8 grey pixels in 10 classes, from scikit-learn"
    return [{"data": "digits", "what": about}]


def open_images(
    data: Any,
    *,
    root: Path | None = None,
    labels: str = "auto",
    splits: SplitChoice = "auto",
    channels: Channels = 3,
    on_error: Literal["stop", "skip"] = "stop",
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | Literal["auto"] | None = None,
    cache: Path | None = None,
    threads: int = 2,
) -> Images:
    """List the images of a folder, a manifest, or the built-in ``digits``.

    Args:
        data: Folder, manifest or ``digits``; or what :func:`cl_core.images.memory.images_in_memory`
            takes.
        root: As of :func:`cl_core.images.open_images`, as for the others.
        labels: Where classes come from.
        splits: Whether folders are splits.
        channels: Of every image.
        on_error: What to do about a file that cannot be read.
        max_pixels: The largest image to decode.
        value_range: The values of 32-bit files that become 0 and 1.
        cache: Folder for a file of decoded images.
        threads: How many decode at once.

    Raises:
        InputError: If there is nothing to read, or an option does not suit it.
    """
    if not isinstance(data, str | Path):
        held = images_in_memory(data)
        return Images(held.dataset, held.channels, held.notes)
    if str(data) == "digits":
        return Images(load_digits(), 1)
    opened = collection.open_images(
        data,
        root=root,
        labels=labels,
        splits=splits,
        channels=channels,
        on_error=on_error,
        max_pixels=max_pixels,
        value_range=value_range,
        cache=cache,
        threads=threads,
    )
    return Images(opened.dataset, opened.channels, opened.notes)


def fingerprint_of(images: Images) -> Fingerprint:
    """What tells these images from others, so that a run is not continued on others."""
    if isinstance(images.dataset, MemoryImages):
        return memory_fingerprint(images)
    if images.is_digits:
        return of_arrays("digits", {"rows": np.arange(len(images))})
    return of_files(images.table.files, root=images.table.root)


def measure_statistics(images: Images, source: Literal["data", "imagenet"]) -> Statistics:
    """Give the mean and spread that normalise these images; the digits' are known.

    Args:
        images: Those to train on.
        source: As of :func:`cl_core.images.measure_statistics`.

    Raises:
        InputError: As of :func:`cl_core.images.measure_statistics`.
    """
    if images.is_digits and source == "data":
        return DIGITS
    return loaders.measure_statistics(images, source)


def training_views(
    method: ViewsName,
    size: int,
    statistics: Statistics,
    *,
    channels: int,
    augmentation: Literal["auto"] | ViewsName = "auto",
    multi_crop: bool = False,
    digits: bool = False,
) -> list[nn.Module]:
    """Give the random views a method trains on, by its paper, for this size.

    Up to 64 pixels there is no blur and no solarisation; SimCLR's colour distortion is then half as
    strong (its CIFAR-10 setting), and DirectCLR's crops take at least 0.2 of the image.

    Args:
        method: Whose views, unless ``augmentation`` says otherwise.
        size: Edge in pixels.
        statistics: Normalise each view.
        channels: Of the images.
        augmentation: Whose views instead.
        multi_crop: Four smaller crops after the two views, at the published shares of ``size``.
        digits: The views of the digits, whatever the method.

    Raises:
        InputError: If small crops are asked for of digits.
    """
    if digits:
        if multi_crop:
            raise InputError("--hcsc.multi_crop needs larger images than the digits: leave it out")
        return [DigitViews(statistics)] * 2
    small = size <= SMALL
    common: dict[str, Any] = {"statistics": statistics, "channels": channels}
    if multi_crop:
        sizes = tuple(round(size * edge / 224) for edge in (224, 192, 160, 128, 96))
        return hcsc_multi_crop(size, sizes=sizes, **common)
    kind = method if augmentation == "auto" else augmentation
    if kind == "simclr":
        return [simclr(size, strength=0.5 if small else 1.0, **common)] * 2
    if kind == "directclr":
        scale = (0.2 if small else 0.08, 1.0)
        return list(directclr(size, scale=scale, **common))
    return [moco_v2(size, **common)] * 2


def evaluation_view(size: int, statistics: Statistics | None, *, digits: bool = False) -> nn.Module:
    """Give the view that measures: no chance; small images are not enlarged before the crop."""
    if digits:
        return standard.evaluation(size, resize=None, statistics=statistics)
    return standard.evaluation_view(size, statistics)


def probe_view(size: int, statistics: Statistics, *, digits: bool = False) -> nn.Module:
    """Give the random crop and flip that a published probe is trained on; digits do not flip."""
    if digits:
        return evaluation_view(size, statistics, digits=True)
    return standard.crop_and_flip(size, statistics=statistics)
