"""Images that a command works on: opened by its options, divided, not yet in any view."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_core.checks import OptionError
from cl_core.errors import InputError
from cl_core.images.cache import DecodeCache
from cl_core.images.dataset import ImageDataset
from cl_core.images.decode import read_image
from cl_core.images.decoding import Channels, ValueRange
from cl_core.images.masks import MaskSource
from cl_core.images.opening import MAX_PIXELS
from cl_core.images.sources import list_images
from cl_core.images.split import split_by_group
from cl_core.images.split_names import SplitChoice
from cl_core.images.statistics import measure_value_range
from cl_core.images.table import ImageTable

__all__ = ["ImageSource", "Images", "open_images"]


@runtime_checkable
class ImageSource(Protocol):
    """What :class:`Images` needs of a data set: the table of its rows, and views of them."""

    table: ImageTable

    def views(self, n: int, transform: Any) -> Any:
        """The same images in ``n`` views; see :meth:`ImageDataset.views`."""

    def select(self, rows: Any) -> Any:
        """The images of some rows, numbered anew."""

    def __len__(self) -> int: ...


Own = TypeVar("Own", bound="Images")


@dataclass(frozen=True, eq=False)
class Images:
    """Images to work on, not yet in any view.

    Attributes:
        dataset: Gives each image as it was decoded.
        channels: Of every image.
        notes: What was decided after the images were listed, a sentence each.
    """

    dataset: ImageSource
    channels: int
    notes: tuple[str, ...] = ()

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
    def has_files(self) -> bool:
        """Whether each image is a file, which a page can show."""
        return isinstance(self.dataset, ImageDataset)

    @property
    def value_range(self) -> ValueRange | None:
        """What becomes 0 and 1 of 32-bit files, where it was given or measured."""
        return self.dataset.decoding.value_range if isinstance(self.dataset, ImageDataset) else None

    def __len__(self) -> int:
        return len(self.dataset)

    def select(self: Own, rows: Iterable[int] | NDArray[np.int64]) -> Own:
        """The images of some rows, numbered anew."""
        return replace(self, dataset=self.dataset.select([int(row) for row in rows]))

    def training(self: Own) -> Own:
        """Those filed under ``train``, or all if nothing is filed.

        Raises:
            InputError: If there are splits but no ``train``.
        """
        return self if self.table.splits is None else self.of_split("train")

    def of_split(self: Own, split: str) -> Own:
        """Those of one split.

        Raises:
            InputError: If there is no such split, naming those there are.
        """
        return self.select(self.table.rows_of(split))

    def train_and_test(self: Own, share: float, *, seed: int) -> tuple[Own, Own]:
        """The splits ``train`` and ``test`` (else ``val``), or a split by class.

        Classes that cannot be on both sides, as those of a single image or group, go to the
        training side; its notes tell which.

        Args:
            share: Of the images to test on, where there is no split.
            seed: Of that split; images of one group stay together.

        Raises:
            InputError: If a split is missing.
        """
        table = self.table
        if table.splits is not None:
            return self.of_split("train"), self.of_split(
                "test" if "test" in table.splits else "val"
            )
        splits = split_by_group(
            table.labels,
            table.groups,
            {"train": 1 - share, "test": share},
            seed=seed,
            rare="first",
            allow_missing=True,
            classes=table.classes,
        )
        rows = np.asarray(splits) == "train"
        train, test = self.select(np.flatnonzero(rows)), self.select(np.flatnonzero(~rows))
        counts = np.bincount(table.labels[table.labels >= 0], minlength=len(table.classes))
        alone = [
            f"{table.classes[k]} ({counts[k]})"
            for k in sorted({*train.table.labels.tolist()} - {*test.table.labels.tolist()})
            if k >= 0
        ]
        if alone:
            note = (
                "classes of too few images, or groups of them, to be tested too; all their images "
                f"are trained on: {', '.join(alone)}"
            )
            train = replace(train, notes=(*train.notes, note))
        return train, test

    def summary(self) -> list[str]:
        """What there is, and what was left out on the way in."""
        labelled = int((self.labels >= 0).sum())
        told = f"{self.table.source}: {len(self):,} images"
        if labelled:
            told += f", {len(self.table.classes)} classes"
        if 0 < labelled < len(self):
            told += f", {labelled:,} labelled"
        return [told, *self.table.notes, *self.notes]


def open_images(
    data: Path | str,
    *,
    root: Path | None = None,
    labels: str = "auto",
    columns: Mapping[str, str] | None = None,
    splits: SplitChoice = "auto",
    channels: Channels = 3,
    on_error: Literal["stop", "skip"] = "stop",
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | Literal["auto"] | None = None,
    cache: Path | None = None,
    masks: str | MaskSource | None = None,
    threads: int = 2,
) -> Images:
    """List the images of a folder or a manifest.

    Under ``on_error="skip"`` every file is decoded once, and those that cannot be are left out and
    told in the table's notes; under ``stop`` the first of them ends the work when it is met.

    Args:
        data: Folder or manifest.
        root: Folder that a manifest's paths start at.
        labels: ``auto``, ``none``, ``folder`` (images beside class folders are unlabelled), or the
            column of a manifest.
        columns: As of :func:`cl_core.images.list_images`.
        splits: As of :func:`cl_core.images.list_images`.
        channels: As of :class:`cl_core.images.Decoding`; ``keep`` takes those of the first image.
        on_error: See above.
        max_pixels: As of :class:`cl_core.images.Decoding`.
        value_range: As of :class:`cl_core.images.Decoding`; ``auto`` measures the images that are
            trained on, and takes the full scale that holds them.
        cache: Folder for a file of decoded images.
        masks: As of :class:`cl_core.images.ImageDataset`.
        threads: How many decode at once.

    Raises:
        InputError: If there is nothing to read, or an option does not suit it.
    """
    table = _listed(str(data), root, labels, columns, splits, on_error)
    notes: tuple[str, ...] = ()
    scale: ValueRange | None
    if value_range == "auto":
        rows = table.rows_of("train") if "train" in (table.splits or ()) else range(len(table))
        scale = measure_value_range([table.files[row] for row in rows], max_pixels=max_pixels)
        if scale is not None:
            notes = (f"values of 32-bit files: {scale[0]:g} becomes 0, {scale[1]:g} becomes 1",)
    else:
        scale = value_range
    options: dict[str, Any] = {
        "channels": channels,
        "max_pixels": max_pixels,
        "value_range": scale,
    }
    decoded = None
    if cache is not None:
        file = _cache_file(cache, table, channels, scale)
        decoded = DecodeCache.of(file, table, threads=threads, **options)
    dataset = ImageDataset(table, on_error=on_error, cache=decoded, masks=masks, **options)
    if on_error == "skip":
        dataset = dataset.checked(threads=threads)
    if channels == "keep":
        own = {"max_pixels": max_pixels, "value_range": scale}
        first = read_image(dataset.table.files[0], channels="keep", **cast(Any, own))
        return Images(dataset, int(first.shape[0]), notes)
    return Images(dataset, channels, notes)


def _listed(
    data: str,
    root: Path | None,
    labels: str,
    columns: Mapping[str, str] | None,
    splits: SplitChoice,
    on_error: Literal["stop", "skip"],
) -> ImageTable:
    own = labels not in ("auto", "folder", "none")
    if Path(data).is_dir():
        if own:
            raise OptionError(
                f"labels={labels}: of a folder the classes are its sub-folders: say labels=auto, "
                "labels=folder or labels=none"
            )
        return list_images(data, labels=cast(Any, labels), splits=splits, on_error=on_error)
    named = {**(columns or {}), "label": labels} if own else columns
    table = list_images(data, root=root, columns=named, splits=splits, on_error=on_error)
    if labels == "none":
        return replace(table, labels=np.full(len(table), -1, dtype=np.int64), classes=())
    return table


def _cache_file(
    folder: Path, table: ImageTable, channels: Channels, scale: ValueRange | None
) -> Path:
    """A file of its own for each data set and what decides its pixels."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cache={folder}: {error.strerror or error}") from error
    key = f"{Path(table.source).resolve()} {channels} {scale}"
    digest = hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
    return folder / f"{Path(table.source).stem}-{digest}.pixels"
