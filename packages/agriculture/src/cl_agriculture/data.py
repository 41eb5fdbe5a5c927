"""Files to batches: images with their weak labels and masks, in the views they are used in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
from cl_core.images import ImageDataset, Sample, collection, loaders
from cl_core.images.loaders import evaluation_loader
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
class Plants(collection.Images):
    """Images to work on, with their masks; see :class:`cl_core.images.Images`.

    Attributes:
        maker: The rule of their masks; ``None`` where there are none.
        store: The masks.
    """

    dataset: ImageDataset
    maker: MaskMaker | None = None
    store: MaskStore | None = None

    def select(self, rows: Iterable[int] | NDArray[np.int64]) -> Plants:
        """The images of some rows, numbered anew."""
        return super().select(rows)._with_masks()

    def testing(self) -> Plants:
        """Those filed under ``test``, else ``val``; none without splits."""
        filed = self.table.splits or ()
        split = "test" if "test" in filed else "val"
        return self.select([row for row, name in enumerate(filed) if name == split])

    def masked(self, maker: MaskMaker, root: Path, *, threads: int = 2) -> Plants:
        """The same images with their masks, made where they are not in the store at ``root``.

        Raises:
            InputError: If a mask cannot be made, or no mask can be used.
        """
        store = MaskStore.of(root, self.table, maker, threads=threads)
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
        return replace(self, maker=maker, store=store)._with_masks()

    def _with_masks(self) -> Plants:
        """With the masks by the row numbers of the table as it is now."""
        if self.store is None:
            return self
        masks = _StoredMasks(self.store, self.table.files)
        return replace(self, dataset=self.dataset.with_masks(masks))


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
        self.table = images.table
        labels = images.table.labels
        self.members: dict[int, NDArray[np.int64]] = {}
        for label in np.unique(labels[labels >= 0]):
            rows = np.flatnonzero(labels == label)
            if len(rows) > 1:
                self.members |= dict.fromkeys(rows.tolist(), rows)

    def views(self, n: int, transform: Sequence[View]) -> ClassPairs:
        """The same pairs through a transform, which is that of both views."""
        first, *others = transform
        if n != 2 or others != [first]:
            raise ValueError("a pair has two views of one kind")
        return ClassPairs(self.images.views(1, first))

    def select(self, rows: Iterable[int]) -> ClassPairs:
        """The pairs among the images of some rows."""
        return ClassPairs(self.images.select(rows))

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

    Args:
        data: Folder, manifest or run directory.
        root: As of :func:`cl_core.images.open_images`, as for the others.
        labels: Where weak labels come from.
        on_error: What to do about a file that cannot be read.
        cache: Folder for a file of decoded images.
        threads: How many decode at once.

    Raises:
        InputError: If there is nothing to read, or an option does not suit it.
    """
    place = Path(data)
    if (place / MANIFEST).is_file() and (place / "config.yaml").is_file():
        place = place / MANIFEST
    opened = collection.open_images(
        place, root=root, labels=labels, on_error=on_error, cache=cache, threads=threads
    )
    assert isinstance(opened.dataset, ImageDataset)
    return Plants(opened.dataset, opened.channels, opened.notes)


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
    images: collection.Images = plants
    if pairs:
        images = collection.Images(ClassPairs(plants.dataset), plants.channels)
    return loaders.training_loader(
        images,
        [view, view],
        batch_size=batch_size,
        workers=workers,
        seed=seed,
        order=Balanced(plants.table.labels) if balanced else None,
    )
