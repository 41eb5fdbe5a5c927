"""Which images train, which choose, which test: as a table says, or dealt by patient or lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cl_core.errors import InputError
from cl_core.images import ImageTable, fold_by_group, split_by_group
from cl_medical.lesions.tables import ID

__all__ = ["SPLITS", "deal", "deal_folds", "joined", "with_splits"]

SPLITS = ("train", "val", "test")

_USUAL = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def joined(
    train: ImageTable, val: ImageTable | None = None, test: ImageTable | None = None
) -> ImageTable:
    """Make one table of those of the splits, each row under its split.

    The classes are those of the training table.

    Raises:
        InputError: If another table has a label that the training table does not.
    """
    parts = [(train, "train")]
    parts += [
        (part.with_classes(train.classes), name)
        for part, name in ((val, "val"), (test, "test"))
        if part is not None
    ]
    tables = [part for part, _ in parts]
    columns = {
        name: tuple(cell for part in tables for cell in part.columns.get(name, ("",) * len(part)))
        for name in dict.fromkeys(name for part in tables for name in part.columns)
    }
    known = any(part.groups is not None for part in tables)
    return ImageTable(
        source=", ".join(part.source for part in tables),
        root=train.root,
        files=tuple(file for part in tables for file in part.files),
        labels=np.concatenate([part.labels for part in tables]),
        classes=train.classes,
        groups=tuple(g for part in tables for g in part.groups or ("",) * len(part))
        if known
        else None,
        splits=tuple(name for part, name in parts for _ in range(len(part))),
        notes=tuple(note for part in tables for note in part.notes),
        columns=columns,
    )


def with_splits(
    table: ImageTable,
    shares: Sequence[float],
    *,
    seed: int,
    fold: int | None = None,
    allow_missing: bool = False,
) -> ImageTable:
    """Give every row a split: the one it has, or one that is dealt.

    Where a table tells train and test but nothing to choose on, a part of the training groups is
    set aside as ``val``, as large as ``shares`` says beside ``train``. Rows without a split are
    left out.

    Args:
        table: With splits of any usual spelling, or none.
        shares: Of train, val and test.
        seed: Of the deal.
        fold: Of a table of folds, the one to test on; the next one chooses, the others train.
        allow_missing: Accept splits that lack a class.

    Raises:
        InputError: If a class has too few groups, there is no such fold, or there are splits but
            no ``train``.
    """
    if table.splits is None:
        return deal(table, dict(zip(SPLITS, shares, strict=True)), seed, allow_missing)
    names = [_USUAL.get(name.strip().lower(), name.strip()) for name in table.splits]
    if fold is not None or all(name.isdecimal() for name in names if name):
        names = _of_folds(table, names, fold)
    unknown = sorted({name for name in names if name and name not in SPLITS})
    if unknown:
        raise InputError(
            f"{table.source}: splits are train, val and test, not {', '.join(unknown[:5])}: rename "
            "them, or name another column as --split"
        )
    table = replace(table, splits=tuple(names))
    kept = [row for row, name in enumerate(names) if name]
    if len(kept) < len(names):
        table = table.select(kept).noting([f"{len(names) - len(kept)} images in no split left out"])
    if "train" not in names:
        raise InputError(f"{table.source}: no image is in split train: name another as --split")
    return table if "val" in names else _with_val(table, shares, seed, allow_missing)


def deal(
    table: ImageTable, shares: dict[str, float], seed: int, allow_missing: bool = False
) -> ImageTable:
    """Deal whole groups to splits, each class spread by ``shares``.

    Raises:
        InputError: If a class has fewer groups than there are splits.
    """
    table.require_classes()
    splits = split_by_group(
        table.labels,
        _groups(table),
        shares,
        seed=seed,
        allow_missing=allow_missing,
        classes=table.classes,
    )
    return replace(table, splits=splits)


def deal_folds(table: ImageTable, folds: int, seed: int, allow_missing: bool = False) -> ImageTable:
    """Deal whole groups to the folds of a cross-validation, named ``0``, ``1``, ...

    Raises:
        InputError: If a class has fewer groups than there are folds.
    """
    table.require_classes()
    numbers = fold_by_group(
        table.labels,
        _groups(table),
        folds,
        seed=seed,
        allow_missing=allow_missing,
        classes=table.classes,
    )
    return replace(table, splits=tuple(str(number) for number in numbers.tolist()))


def _of_folds(table: ImageTable, names: Sequence[str], fold: int | None) -> list[str]:
    folds = sorted({name for name in names if name}, key=lambda name: (len(name), name))
    told = f"{table.source} has the folds {', '.join(folds)}"
    if fold is None:
        raise InputError(f"{told}: say which to test on, as --fold 0")
    if len(folds) < 3 or str(fold) not in folds:
        raise InputError(f"--fold {fold}: {told}, and needs three with that among them")
    val = folds[(folds.index(str(fold)) + 1) % len(folds)]
    roles = {str(fold): "test", val: "val"}
    return [roles.get(name, "train") if name else "" for name in names]


def _with_val(
    table: ImageTable, shares: Sequence[float], seed: int, allow_missing: bool
) -> ImageTable:
    rows = [row for row, name in enumerate(table.splits or ()) if name == "train"]
    train, val = shares[0] / (shares[0] + shares[1]), shares[1] / (shares[0] + shares[1])
    dealt = deal(table.select(rows), {"train": train, "val": val}, seed, allow_missing)
    splits = list(table.splits or ())
    for row, name in zip(rows, dealt.splits or (), strict=True):
        splits[row] = name
    count = splits.count("val")
    return replace(table, splits=tuple(splits)).noting(
        [f"the table names no images to choose on: {count:,} of train are set aside as val"]
    )


def _groups(table: ImageTable) -> tuple[str, ...]:
    """The patients or lesions; the image itself where none is known."""
    ids: tuple[str, ...] = table.column(ID)
    if table.groups is None:
        return ids
    return tuple(group or f"image {own}" for group, own in zip(table.groups, ids, strict=True))
