"""Files to batches: images with their weak labels and masks, in the views they are used in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cl_agriculture.attention.maker import MaskMaker
from cl_agriculture.attention.store import MaskStore
from cl_core.errors import InputError
from cl_core.images import DecodeCache, ImageDataset, ImageTable, Sample, list_images
from cl_core.loader import make_loader
from cl_core.orders import Balanced

__all__ = [
    "MANIFEST",
    "ClassPairs",
    "Plants",
    "evaluation_loader",
    "open_plants",
    "training_loader",
]

MANIFEST = "manifest.csv"
"""What `prepare` writes."""

View = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Plants:
    """Images to work on, not yet in any view.

    Attributes:
        dataset: Decodes each image.
        maker: The rule of their masks; ``None`` where there are none.
        store: The masks.
    """

    dataset: ImageDataset
    maker: MaskMaker | None = None
    store: MaskStore | None = None

    @property
    def table(self) -> ImageTable:
        """Files, weak labels, splits, and the manifest's other columns."""
        return self.dataset.table

    @property
    def labels(self) -> Tensor:
        """Weak label of each image ``(n,)``, -1 for none."""
        return torch.from_numpy(self.table.labels)

    @property
    def names(self) -> list[str]:
        """File of each image, relative to the folder."""
        return [self.table.name(row) for row in range(len(self))]

    @property
    def class_names(self) -> list[str | None]:
        """Name of each image's weak label."""
        classes = self.table.classes
        return [classes[k] if k >= 0 else None for k in self.table.labels.tolist()]

    def __len__(self) -> int:
        return len(self.dataset)

    def select(self, rows: Iterable[int] | NDArray[np.int64]) -> Plants:
        """The images of some rows, numbered anew."""
        return self._of(self.table.select(rows))

    def rows_of(self, *splits: str) -> NDArray[np.int64]:
        """The rows filed under one of these splits; none without splits."""
        filed = self.table.splits or ()
        return np.array([row for row, name in enumerate(filed) if name in splits], dtype=np.int64)

    def training_rows(self) -> NDArray[np.int64]:
        """The rows filed under ``train``, or all if nothing is filed.

        Raises:
            InputError: If there are splits but no ``train``.
        """
        if self.table.splits is None:
            return np.arange(len(self))
        self.table.of_split("train")  # refused with the names there are
        return self.rows_of("train")

    def test_rows(self) -> NDArray[np.int64]:
        """The rows filed under ``test``, else ``val``; none without splits."""
        rows = self.rows_of("test")
        return rows if len(rows) else self.rows_of("val")

    def masked(self, maker: MaskMaker, root: Path, *, threads: int = 2) -> Plants:
        """The same images with their masks, made where they are not in the store at ``root``.

        Raises:
            InputError: If a mask cannot be made, or no mask can be used.
        """
        store = MaskStore.of(root, self.table, maker, threads=threads)
        plants = replace(self, maker=maker, store=store)
        reasons = [store.record(file).reason for file in self.table.files]
        if all(reasons):
            told = ", ".join(f"{reasons.count(r)} {r}" for r in dict.fromkeys(reasons))
            advice = {
                "excess_green": "excess green needs colour and living plants: give mask files "
                "with --masks, or train without masks (--mode supervised or simclr)",
                "files": "are they inverted (--mask.invert true), or is another value the plant "
                "(--mask.plant_values)?",
                "function": "look at what the function gives",
            }[maker.source]
            raise InputError(
                f"{self.table.source}: not one of {len(self)} masks can be used ({told}); {advice}"
            )
        return plants._of(self.table)

    def summary(self) -> list[str]:
        """What there is, and what was left out on the way in."""
        labelled = int((self.labels >= 0).sum())
        told = f"{self.table.source}: {len(self):,} images"
        if labelled:
            kinds = len(np.unique(self.table.labels[self.table.labels >= 0]))
            told += f", {kinds} weak labels"
        if 0 < labelled < len(self):
            told += f", {len(self) - labelled:,} images without one"
        return [told, *self.table.notes]

    def _of(self, table: ImageTable) -> Plants:
        data, masks = self.dataset, None
        if self.store is not None:
            masks = _StoredMasks(self.store, table.files)
        dataset = ImageDataset(
            table,
            channels=data.channels,
            on_error=data.on_error,
            cache=data.cache,
            masks=masks,
        )
        return replace(self, dataset=dataset)


class _StoredMasks:
    """The masks of a table by row number, as a data set asks for them."""

    def __init__(self, store: MaskStore, files: tuple[str, ...]) -> None:
        self.store = store
        self.files = files

    def __call__(self, row: int, image: Tensor) -> Tensor:
        return self.store.get(self.files[row])


class ClassPairs(Dataset[Sample]):
    """Two views, the second of another image of the same weak label.

    The partner is drawn uniformly from torch's generator. An image without a label, or alone with
    it, is its own partner.

    Args:
        images: In one view.
    """

    def __init__(self, images: ImageDataset) -> None:
        self.images = images
        labels = images.table.labels
        self.members: dict[int, NDArray[np.int64]] = {}
        for label in np.unique(labels[labels >= 0]):
            rows = np.flatnonzero(labels == label)
            if len(rows) > 1:
                self.members |= dict.fromkeys(rows.tolist(), rows)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        first = self.images[index]
        second = self.images[self.partner(first.row)]
        return Sample(
            (*first.views, *second.views), first.label, first.row, (*first.masks, *second.masks)
        )

    def partner(self, row: int) -> int:
        """Draw another image of the same weak label; the image itself if there is none."""
        mine = self.members.get(row)
        if mine is None:
            return row
        place = int(torch.randint(len(mine) - 1, ()))
        return int(mine[place] if mine[place] < row else mine[place + 1])


def open_plants(
    data: str,
    *,
    root: Path | None = None,
    labels: str = "auto",
    on_error: Literal["stop", "skip"] = "stop",
    cache: Path | None = None,
    threads: int = 2,
) -> Plants:
    """List the images of a folder, a manifest, or a run of `prepare`.

    Under ``on_error="skip"`` every file is decoded once, and those that cannot be are left out and
    told in the table's notes; under ``stop`` the first of them ends the work when it is met.

    Args:
        data: Folder, manifest or run directory.
        root: Folder that a manifest's paths start at.
        labels: ``auto``, ``none``, ``folder`` (images beside class folders are unlabelled), or the
            column of a manifest.
        on_error: See above.
        cache: Folder for a file of decoded images.
        threads: How many decode at once.

    Raises:
        InputError: If there is nothing to read, or an option does not suit it.
    """
    table = _list(data, root, labels, on_error)
    decoded = None
    if cache is not None:
        decoded = DecodeCache.of(_cache_file(cache, table), table, channels=3, threads=threads)
    dataset = ImageDataset(table, channels=3, on_error=on_error, cache=decoded)
    if on_error == "skip":
        dataset = dataset.checked(threads=threads)
    return Plants(dataset)


def training_loader(
    plants: Plants,
    view: View,
    *,
    pairs: bool = False,
    balanced: bool = False,
    batch_size: int,
    workers: int,
    seed: int,
) -> DataLoader[Any]:
    """Make the loader of a training: two views of each image, shuffled, in full batches.

    Args:
        plants: Those to train on.
        view: Makes a random view.
        pairs: Let the second view be of another image of the same weak label.
        balanced: Every weak label equally often; images without one count as one more.
        batch_size: Images a step, on each rank.
        workers: Processes.
        seed: The run's.

    Raises:
        InputError: If there are fewer than two images, or fewer than a batch.
    """
    if len(plants) < 2:
        raise InputError(
            f"{plants.table.source}: {len(plants)} image to train on, and a contrast needs at "
            "least 2: give more images"
        )
    if len(plants) < batch_size:
        raise InputError(
            f"--batch_size {batch_size} is larger than the {len(plants)} images to train on: "
            "lower it"
        )
    dataset: Dataset[Any]
    dataset = plants.dataset.views(1 if pairs else 2, view)
    if pairs:
        dataset = ClassPairs(dataset)
    return make_loader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        workers=workers,
        seed=seed,
        order=Balanced(plants.table.labels) if balanced else None,
    )


def evaluation_loader(
    plants: Plants, view: View, *, batch_size: int, workers: int = 0
) -> DataLoader[Any]:
    """Make a loader that gives each image once, in order.

    Args:
        plants: All of them.
        view: One view of each.
        batch_size: Images a batch.
        workers: Processes.
    """
    images = plants.dataset.views(1, view)
    return make_loader(images, batch_size=batch_size, shuffle=False, workers=workers, seed=0)


def _list(
    data: str, root: Path | None, labels: str, on_error: Literal["stop", "skip"]
) -> ImageTable:
    place = Path(data)
    if (place / MANIFEST).is_file() and (place / "config.yaml").is_file():
        place = place / MANIFEST
    if place.is_dir():
        if labels not in ("auto", "folder", "none"):
            raise InputError(
                f"--labels {labels}: of a folder the weak labels are its sub-folders: say auto, "
                "folder or none"
            )
        return list_images(place, labels=labels, on_error=on_error)
    columns = None if labels in ("auto", "folder", "none") else {"label": labels}
    table = list_images(place, root=root, columns=columns, on_error=on_error)
    if labels == "none":
        return replace(table, labels=np.full(len(table), -1, dtype=np.int64), classes=())
    return table


def _cache_file(folder: Path, table: ImageTable) -> Path:
    """A file of its own for each data set."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--cache {folder}: {error.strerror or error}") from error
    key = str(Path(table.source).resolve())
    digest = hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
    return folder / f"{Path(table.source).stem}-{digest}.pixels"
