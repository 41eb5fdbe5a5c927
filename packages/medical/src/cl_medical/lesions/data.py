"""Files to batches: the images of a command, divided and checked, in the views of each stage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cl_core.errors import InputError
from cl_core.images import (
    DecodeCache,
    ImageDataset,
    ImageTable,
    channel_statistics,
    write_splits,
)
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_core.runs.fingerprint import Fingerprint, of_files
from cl_core.transforms import IMAGENET, Statistics
from cl_medical.lesions.augment import View, plain_view
from cl_medical.lesions.leaks import Overlap, find_overlaps, read_pixels
from cl_medical.lesions.options import SplitOptions, TableOptions
from cl_medical.lesions.sampling import Sampling, batch_order
from cl_medical.lesions.split import SPLITS, deal_folds, joined, with_splits
from cl_medical.lesions.tables import ID, Naming, read_lesions

__all__ = [
    "Lesions",
    "class_table",
    "fingerprint",
    "measure_statistics",
    "naming_of",
    "open_lesions",
    "plain_loader",
    "refuse_leaks",
    "split_digest",
    "training_loader",
    "write_lesions",
]


@dataclass(frozen=True, eq=False)
class Lesions:
    """The images of a command, divided, with what is worth knowing of them.

    Attributes:
        table: All images, each in a split.
        overlaps: What the splits share, a comparison a pair.
        cache: Decoded images, if asked for.
    """

    table: ImageTable
    overlaps: tuple[Overlap, ...]
    cache: DecodeCache | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        names: tuple[str, ...] = self.table.classes
        return names

    def part(self, split: str) -> Lesions:
        """The images of a split.

        Raises:
            InputError: If it has none.
        """
        return replace(self, table=self.table.of_split(split))

    @property
    def labels(self) -> Tensor:
        """Class of each image ``(n,)``."""
        return torch.from_numpy(self.table.labels)

    @property
    def groups(self) -> list[str]:
        """Patient or lesion of each image, the image itself where none is known."""
        ids = self.table.column(ID)
        if self.table.groups is None:
            return list(ids)
        return [group or own for group, own in zip(self.table.groups, ids, strict=True)]

    def dataset(self) -> ImageDataset:
        """Give the images as they are decoded."""
        return ImageDataset(self.table, cache=self.cache)

    def summary(self) -> list[str]:
        """What there is, what was left out, and what the splits share."""
        splits = self.table.splits or ()
        sizes = [f"{splits.count(name):,} {name}" for name in SPLITS if name in splits]
        told = f"{self.table.source}: {len(self.table):,} images, {len(self.classes)} classes"
        shared = [overlap.told() for overlap in self.overlaps if overlap]
        return [f"{told} ({', '.join(sizes)})", *self.table.notes, *shared]


def naming_of(options: TableOptions, *, split: str | None = None) -> Naming:
    """How the table of a command calls things."""
    return Naming(
        convention=options.convention,
        image=options.image,
        label=options.label,
        group=options.group,
        split=split,
        mapping=options.mapping,
    )


def open_lesions(
    options: SplitOptions,
    *,
    cache: Path | None = None,
    files: bool = True,
    folds: int = 0,
    pixels: bool | None = None,
    threads: int = 2,
) -> Lesions:
    """Read, divide and check the images of a command.

    Args:
        options: Of the command.
        cache: Folder for decoded images.
        files: Look for the images at all.
        folds: Divide into so many folds instead.
        pixels: Decode them to find unreadable and equal ones; by default as the options say, and
            always where unreadable ones are to be left out.
        threads: How many decode at once.

    Raises:
        InputError: Telling what is wrong with the table or the images.
    """
    naming = naming_of(options, split=options.split)

    def read(data: str | Path) -> ImageTable:
        return read_lesions(
            data,
            roots=options.roots,
            metadata=options.more,
            naming=naming,
            conflicts=options.conflicts,
            on_error=options.on_error,
            files=files,
        )

    table = read(options.data)
    if options.val is not None or options.test is not None:
        others = [None if path is None else read(path) for path in (options.val, options.test)]
        table = joined(table, *others)
    table.require_classes()
    seed, missing = options.split_seed, options.allow_missing
    if folds:
        table = deal_folds(table, folds, seed, missing)
    else:
        table = with_splits(
            table, options.shares, seed=seed, fold=options.fold, allow_missing=missing
        )
    look = options.pixels or options.on_error == "skip" if pixels is None else pixels
    seen = None
    if files and look:
        seen = read_pixels(table, threads=threads)
        if seen.unreadable:
            first = next(iter(seen.unreadable.values()))
            if options.on_error == "stop":
                raise InputError(
                    f"{table.source}: {len(seen.unreadable)} images cannot be read, first {first}"
                )
            kept = [row for row in range(len(table)) if row not in seen.unreadable]
            table = table.select(kept).noting(
                [f"{len(seen.unreadable)} images that cannot be read left out, first {first.path}"]
            )
            seen = replace(seen, digests=tuple(seen.digests[row] for row in kept), unreadable={})
    overlaps = tuple(find_overlaps(table, pixels=seen))
    return Lesions(table, overlaps, None if cache is None else _cache(cache, table, threads))


def refuse_leaks(lesions: Lesions) -> None:
    """Refuse splits that share images, groups or pixels.

    Raises:
        InputError: Telling what they share.
    """
    shared = [overlap.told() for overlap in lesions.overlaps if overlap]
    if shared:
        raise InputError(
            f"{lesions.table.source}: {'; '.join(shared)}: split anew with `cl-medical lesions "
            "prepare`, or say --allow_leaks"
        )


def measure_statistics(lesions: Lesions, source: Literal["imagenet", "data"]) -> Statistics:
    """Give the mean and spread that normalise images.

    Raises:
        InputError: If a channel of the data is constant.
    """
    if source == "imagenet":
        return IMAGENET
    try:
        return channel_statistics(lesions.dataset())
    except ValueError as error:
        raise InputError(f"{lesions.table.source}: {error}") from error


def training_loader(
    lesions: Lesions,
    views: Sequence[View],
    *,
    sampling: Sampling,
    batch_size: int,
    workers: int,
    seed: int,
    drop_last: bool = True,
) -> DataLoader[Any]:
    """Make the loader of a training; random, each rank its share.

    Args:
        lesions: Those to train on.
        views: A transform a view.
        sampling: What makes a batch.
        batch_size: Images a step, on each rank.
        workers: Processes.
        seed: The run's.
        drop_last: Leave out a last batch that is not full: it would mix classes otherwise.

    Raises:
        InputError: If there are fewer images than a batch.
    """
    if len(lesions.table) < batch_size:
        raise InputError(
            f"--batch_size {batch_size} is larger than the {len(lesions.table)} images to train "
            "on: lower it"
        )
    return make_loader(
        lesions.dataset().views(len(views), list(views)),
        batch_size=batch_size,
        shuffle=True,
        drop_last=drop_last,
        workers=workers,
        seed=seed,
        order=batch_order(lesions.table.labels, sampling, batch_size=batch_size),
    )


def plain_loader(
    lesions: Lesions,
    size: int,
    statistics: Statistics,
    *,
    batch_size: int,
    workers: int = 0,
) -> DataLoader[Any]:
    """Make a loader that gives each image once, in order, in the plain view."""
    return make_loader(
        lesions.dataset().views(1, plain_view(size, statistics)),
        batch_size=batch_size,
        shuffle=False,
        workers=workers,
        seed=0,
    )


def class_table(table: ImageTable) -> list[dict[str, object]]:
    """Count the images of each class in each split, with the imbalance of the training images."""
    splits = np.asarray(table.splits if table.splits is not None else ("all",) * len(table))
    names = [name for name in SPLITS if name in splits] or sorted(set(splits.tolist()))
    rows: list[dict[str, object]] = []
    first = table.labels[splits == names[0]]
    largest = max((int((first == k).sum()) for k in range(len(table.classes))), default=0)
    for k, label in enumerate(table.classes):
        own = table.labels == k
        row: dict[str, object] = {"class": label}
        row |= {name: int((own & (splits == name)).sum()) for name in names}
        row["all"] = int(own.sum())
        count = int((first == k).sum())
        row["largest to this"] = f"{largest / count:.1f}" if count else "none"
        rows.append(row)
    return rows


def write_lesions(run: Run, table: ImageTable, *, seed: int) -> str:
    """Write the table with its splits as ``lesions.csv``; gives its digest."""
    if run.writes:
        write_splits(run.output("lesions.csv"), table, table.splits or (), seed=seed)
    return split_digest(table)


def fingerprint(table: ImageTable) -> Fingerprint:
    """Tell what a run learns from: the images, their labels and their splits."""
    files = of_files(table.files)
    both = f"{files.digest} {split_digest(table)}"
    return Fingerprint(files.about, hashlib.sha256(both.encode()).hexdigest())


def split_digest(table: ImageTable) -> str:
    """Tell splits apart: a digest of ids, labels and splits, whatever the order."""
    splits = table.splits or ("",) * len(table)
    rows = sorted(
        f"{own}\0{table.classes[label] if label >= 0 else ''}\0{split}"
        for own, label, split in zip(table.column(ID), table.labels.tolist(), splits, strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _cache(folder: Path, table: ImageTable, threads: int) -> DecodeCache:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--cache {folder}: {error.strerror or error}") from error
    key = "\n".join(sorted(str(Path(file).resolve()) for file in table.files))
    digest = hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
    return DecodeCache.of(folder / f"lesions-{digest}.pixels", table, threads=threads)
