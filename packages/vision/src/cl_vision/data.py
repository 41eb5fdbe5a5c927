"""Files to batches: folders, manifests and the built-in digits, in the views of each method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cl_core.errors import InputError
from cl_core.images import (
    DecodeCache,
    ImageDataset,
    ImageTable,
    channel_statistics,
    list_images,
    read_image,
    split_by_group,
)
from cl_core.loader import make_loader
from cl_core.runs.fingerprint import Fingerprint, of_arrays, of_files
from cl_core.transforms import IMAGENET, Statistics, recipes
from cl_vision.digits import DIGITS, DigitImages, DigitViews, load_digits
from cl_vision.methods.table import ViewsName

__all__ = [
    "SMALL",
    "Images",
    "evaluation_loader",
    "evaluation_view",
    "fingerprint_of",
    "measure_statistics",
    "open_images",
    "probe_view",
    "training_loader",
    "training_views",
]

SMALL = 64
"""Edge in pixels up to which views are made as the papers make those of 32-pixel images."""

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Images:
    """Images to work on, not yet in any view.

    Attributes:
        dataset: Gives each image as it was decoded.
        channels: Of every image.
    """

    dataset: ImageDataset | DigitImages
    channels: int

    @property
    def table(self) -> ImageTable:
        """Files, classes and splits."""
        return self.dataset.table

    @property
    def labels(self) -> Tensor:
        """Class of each image ``(n,)``, -1 for none."""
        return torch.from_numpy(self.table.labels)

    @property
    def names(self) -> list[str]:
        """File of each image, relative to the folder."""
        return [self.table.name(row) for row in range(len(self))]

    @property
    def class_names(self) -> list[str | None]:
        """Name of each image's class."""
        classes = self.table.classes
        return [classes[k] if k >= 0 else None for k in self.table.labels.tolist()]

    @property
    def is_digits(self) -> bool:
        """Whether these are the built-in digits."""
        return isinstance(self.dataset, DigitImages)

    def __len__(self) -> int:
        return len(self.dataset)

    def select(self, rows: Iterable[int] | NDArray[np.int64]) -> Images:
        """The images of some rows, numbered anew."""
        kept = [int(row) for row in rows]
        data = self.dataset
        if isinstance(data, DigitImages):
            return replace(self, dataset=data.select(kept))
        return replace(self, dataset=_like(data, data.table.select(kept)))

    def training(self) -> Images:
        """Those filed under ``train``, or all if nothing is filed.

        Raises:
            InputError: If there are splits but no ``train``.
        """
        return self if self.table.splits is None else self._of_split("train")

    def train_and_test(self, share: float, *, seed: int) -> tuple[Images, Images]:
        """The splits ``train`` and ``test`` (else ``val``), or a split by class.

        Args:
            share: Of the images to test on, where there is no split.
            seed: Of that split; images of one group stay together.

        Raises:
            InputError: If a split is missing, or a class has too few images for both sides.
        """
        if self.table.splits is not None:
            other = "test" if "test" in self.table.splits else "val"
            return self._of_split("train"), self._of_split(other)
        splits = split_by_group(
            self.table.labels,
            self.table.groups,
            {"train": 1 - share, "test": share},
            seed=seed,
            classes=self.table.classes,
        )
        rows = np.asarray(splits) == "train"
        return self.select(np.flatnonzero(rows)), self.select(np.flatnonzero(~rows))

    def summary(self) -> list[str]:
        """What there is, and what was left out on the way in."""
        labelled = int((self.labels >= 0).sum())
        told = f"{self.table.source}: {len(self):,} images"
        if labelled:
            told += f", {len(self.table.classes)} classes"
        if 0 < labelled < len(self):
            told += f", {labelled:,} labelled"
        return [told, *self.table.notes]

    def _of_split(self, split: str) -> Images:
        table = self.table
        table.of_split(split)  # refused with the names there are
        return self.select(row for row, name in enumerate(table.splits or ()) if name == split)


def open_images(
    data: str,
    *,
    root: Path | None = None,
    labels: str = "auto",
    channels: Literal[1, 3, 4, "keep"] = 3,
    on_error: Literal["stop", "skip"] = "stop",
    cache: Path | None = None,
    threads: int = 2,
) -> Images:
    """List the images of a folder, a manifest, or the built-in ``digits``.

    Under ``on_error="skip"`` every file is decoded once, and those that cannot be are left out and
    told in the table's notes; under ``stop`` the first of them ends the work when it is met.

    Args:
        data: Folder, manifest or ``digits``.
        root: Folder that a manifest's paths start at.
        labels: ``auto``, ``none``, ``folder`` (images beside class folders are unlabelled), or the
            column of a manifest.
        channels: As :func:`cl_core.images.read_image`; ``keep`` takes those of the first image.
        on_error: See above.
        cache: Folder for a file of decoded images.
        threads: How many decode at once.

    Raises:
        InputError: If there is nothing to read, or an option does not suit it.
    """
    if data == "digits":
        return Images(load_digits(), 1)
    table = _list(data, root, labels, on_error)
    if cache is None:
        decoded = None
    else:
        decoded = DecodeCache.of(
            _cache_file(cache, table, channels), table, channels=channels, threads=threads
        )
    dataset = ImageDataset(table, channels=channels, on_error=on_error, cache=decoded)
    if on_error == "skip":
        dataset = dataset.checked(threads=threads)
    if channels == "keep":
        return Images(dataset, int(read_image(dataset.table.files[0], channels="keep").shape[0]))
    return Images(dataset, channels)


def fingerprint_of(images: Images) -> Fingerprint:
    """What tells these images from others, so that a run is not continued on others."""
    if isinstance(images.dataset, DigitImages):
        return of_arrays("digits", {"rows": np.arange(len(images))})
    return of_files(images.table.files, root=images.table.root)


def measure_statistics(images: Images, source: Literal["data", "imagenet"]) -> Statistics:
    """Give the mean and spread that normalise these images.

    Args:
        images: Those to train on.
        source: ``data`` measures up to 5,000 of them.

    Raises:
        InputError: If a channel is constant, images differ in channels, or ImageNet's three
            numbers are asked for other than three channels.
    """
    if source == "imagenet":
        if images.channels != 3:
            raise InputError(
                f"--statistics imagenet is for 3 channels, the images have {images.channels}: "
                "say data"
            )
        return IMAGENET
    if isinstance(images.dataset, DigitImages):
        return DIGITS
    try:
        return channel_statistics(images.dataset)
    except ValueError as error:
        raise InputError(f"{images.table.source}: {error}") from error


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
        return recipes.hcsc_multi_crop(size, sizes=sizes, **common)
    kind = method if augmentation == "auto" else augmentation
    if kind == "simclr":
        return [recipes.simclr(size, strength=0.5 if small else 1.0, **common)] * 2
    if kind == "directclr":
        scale = (0.2 if small else 0.08, 1.0)
        return list(recipes.directclr(size, scale=scale, **common))
    return [recipes.moco_v2(size, **common)] * 2


def evaluation_view(size: int, statistics: Statistics | None, *, digits: bool = False) -> nn.Module:
    """Give the view that measures: no chance; small images are not enlarged before the crop."""
    if digits:
        return recipes.evaluation(size, resize=None, statistics=statistics)
    return recipes.evaluation(size, resize=size if size <= SMALL else "auto", statistics=statistics)


def probe_view(size: int, statistics: Statistics, *, digits: bool = False) -> nn.Module:
    """Give the random crop and flip that a published probe is trained on; digits do not flip."""
    if digits:
        return evaluation_view(size, statistics, digits=True)
    return recipes.crop_and_flip(size, statistics=statistics)


def training_loader(
    images: Images, views: Sequence[View], *, batch_size: int, workers: int, seed: int
) -> DataLoader[Any]:
    """Make the loader of a training: shuffled, in full batches, each rank its share.

    Args:
        images: Those to train on.
        views: A transform a view.
        batch_size: Images a step, on each rank.
        workers: Processes.
        seed: The run's.

    Raises:
        InputError: If there are fewer than two images, or fewer than a batch.
    """
    if len(images) < 2:
        raise InputError(
            f"{images.table.source}: {len(images)} image to train on, and a contrast needs at "
            "least 2: give more images"
        )
    if len(images) < batch_size:
        raise InputError(
            f"--batch_size {batch_size} is larger than the {len(images)} images to train on: "
            "lower it"
        )
    return make_loader(
        images.dataset.views(len(views), list(views)),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        workers=workers,
        seed=seed,
    )


def evaluation_loader(
    images: Images, view: View, *, batch_size: int, workers: int = 0, shard: bool = False
) -> DataLoader[Any]:
    """Make a loader that gives each image once, in order.

    Args:
        images: All of them.
        view: One view of each.
        batch_size: Images a batch.
        workers: Processes.
        shard: Give each rank its share.
    """
    return make_loader(
        images.dataset.views(1, view),
        batch_size=batch_size,
        shuffle=False,
        workers=workers,
        seed=0,
        shard=shard,
    )


def _list(
    data: str, root: Path | None, labels: str, on_error: Literal["stop", "skip"]
) -> ImageTable:
    if Path(data).is_dir():
        if labels not in ("auto", "folder", "none"):
            raise InputError(
                f"--labels {labels}: of a folder the classes are its sub-folders: say auto, folder "
                "or none"
            )
        return list_images(data, labels=cast(Any, labels), on_error=on_error)
    columns = None if labels in ("auto", "folder", "none") else {"label": labels}
    table = list_images(data, root=root, columns=columns, on_error=on_error)
    if labels == "none":
        return replace(table, labels=np.full(len(table), -1, dtype=np.int64), classes=())
    return table


def _like(dataset: ImageDataset, table: ImageTable) -> ImageDataset:
    return ImageDataset(
        table, channels=dataset.channels, on_error=dataset.on_error, cache=dataset.cache
    )


def _cache_file(folder: Path, table: ImageTable, channels: object) -> Path:
    """A file of its own for each data set and number of channels."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--cache {folder}: {error.strerror or error}") from error
    key = f"{Path(table.source).resolve()} {channels}"
    digest = hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
    return folder / f"{Path(table.source).stem}-{digest}.pixels"
