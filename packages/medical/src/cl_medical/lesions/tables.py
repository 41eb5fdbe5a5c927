"""Tables of lesion images and class folders to one table, every fault in them told at once.

An image's *id* is its file name without folder and extension: in the public data sets that is what
names an image, whatever folder it lies in. The table that comes out has it as the column ``id``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cl_core.errors import InputError
from cl_core.images import ImageTable, list_images
from cl_core.tables.files import Table, read_table
from cl_core.tables.labels import class_names, encode_labels, is_missing
from cl_medical.lesions.conventions import Convention, Roles, find_roles
from cl_medical.lesions.locating import image_id, locate

__all__ = ["ID", "Naming", "read_lesions", "relabelled"]

ID = "id"
"""The column of a table that holds the images' ids."""

_SHOWN = 3  # examples in a message


@dataclass(frozen=True)
class Naming:
    """How a user's table calls things; what is ``None`` is recognised.

    Attributes:
        convention: See :mod:`cl_medical.lesions.conventions`.
        image: Column of the image.
        label: Column of the label.
        group: Column of the patient or lesion.
        split: Column of the split.
        mapping: Other names for labels; ``*`` is any other, ``None`` leaves images out.
    """

    convention: Convention = "auto"
    image: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None
    mapping: Mapping[str, Any] | None = None


@dataclass
class _Rows:
    """A table on its way: a value a row, and what was found on it."""

    source: str
    images: list[str]
    labels: list[str]
    groups: list[str] | None
    splits: list[str] | None
    about: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [image_id(image) for image in self.images]

    def keep(self, rows: Sequence[int]) -> None:
        for name in ("images", "labels", "groups", "splits"):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, [values[row] for row in rows])
        self.about = {name: [cells[row] for row in rows] for name, cells in self.about.items()}


def read_lesions(
    data: str | Path,
    *,
    roots: Sequence[Path] = (),
    metadata: Sequence[Path] = (),
    naming: Naming | None = None,
    conflicts: Literal["stop", "drop"] = "stop",
    on_error: Literal["stop", "skip"] = "stop",
    labelled: bool = True,
    files: bool = True,
) -> ImageTable:
    """Read a table, or a folder with a sub-folder per class.

    Rows that repeat an id with the same label are dropped, and counted in ``notes``.

    Args:
        data: Table (.csv, .tsv, .txt, .parquet) or folder.
        roots: Folders of the images; by default that of the table. An image is looked for at its
            path, with the usual extensions, then by its name anywhere below.
        metadata: Further tables, joined by the image.
        naming: How the table calls things.
        conflicts: At an id under two labels stop, or drop all its rows and note it.
        on_error: At a missing file or label stop, or drop the row and note it.
        labelled: Whether labels are needed; otherwise what lacks one stays, unlabelled.
        files: Look for the images; otherwise paths stay as they are written.

    Returns:
        The table. Its ``groups`` are patients or lesions, where the table tells, and ``columns``
        hold the ids and every other column.

    Raises:
        InputError: Telling every fault, in one line.
    """
    naming = naming or Naming()
    path = Path(data)
    if path.is_dir():
        rows, located = _of_folder(path, naming.mapping), True
    else:
        rows, located = _of_table(path, metadata, naming, labelled=labelled), False
    _settle_labels(rows, labelled=labelled, skip=on_error == "skip")
    _settle_repeats(rows, drop=conflicts == "drop")
    where = list(roots) or [path if path.is_dir() else path.parent]
    found: list[str | None] = list(rows.images)
    if files and not located:
        found, unsure = locate(rows.images, where)
        if unsure:
            rows.faults.append(
                f"{len(unsure)} images lie in several files that differ, {_examples(unsure)}: give "
                "their folder as --root, or write its name into the table"
            )
    if rows.faults:
        raise InputError(f"{rows.source}: {'; '.join(rows.faults)}")
    if None in found:
        found = _settle_missing(rows, found, where, skip=on_error == "skip")
    if not rows.images:
        raise InputError(f"{rows.source}: no image is left to work on; correct the table")
    classes = class_names(rows.labels)
    return ImageTable(
        source=rows.source,
        root=str(where[0]),
        files=tuple(str(file) for file in found),
        labels=encode_labels(rows.labels, classes, source=rows.source),
        classes=classes,
        groups=None if rows.groups is None else tuple(rows.groups),
        splits=None if rows.splits is None else tuple(rows.splits),
        notes=tuple(rows.notes),
        columns={ID: tuple(rows.ids)} | {k: tuple(v) for k, v in rows.about.items() if k != ID},
    )


def relabelled(labels: Sequence[str], mapping: Mapping[str, Any], source: str) -> list[str | None]:
    """Give labels other names; ``None`` where the mapping leaves an image out.

    Args:
        labels: As they stand in the table; those that are missing stay so.
        mapping: Label to name; ``*`` stands for every other label.
        source: The file, for the message.

    Raises:
        InputError: If a label has no other name.

    Example:
        >>> relabelled(["mel", "nv", ""], {"mel": 1, "*": 0}, "a.csv")
        ['1', '0', '']
    """
    names = {str(label).strip(): name for label, name in mapping.items()}
    strange = {label for label in labels if not is_missing(label) and label not in names}
    if strange and "*" not in names:
        raise InputError(
            f"{source}: --mapping has no name for the labels {_examples(sorted(strange))}; add "
            'them, or "*" for all others'
        )
    found: list[str | None] = []
    for label in labels:
        name = label if is_missing(label) else names.get(label, names.get("*"))
        found.append(None if name is None else str(name))
    return found


def _of_folder(path: Path, mapping: Mapping[str, Any] | None) -> _Rows:
    table = list_images(path)
    labels = [table.classes[k] if k >= 0 else "" for k in table.labels.tolist()]
    rows = _Rows(
        source=str(path),
        images=list(table.files),
        labels=labels,
        groups=None,
        splits=None if table.splits is None else list(table.splits),
        about={},
        notes=list(table.notes),
    )
    tables = sorted(file.name for file in path.iterdir() if file.suffix.lower() in {".csv", ".tsv"})
    if tables and len(table.classes) < 2:
        raise InputError(
            f"{path} has no folder per class but holds {tables[0]}: give that table as --data"
        )
    return _mapped(rows, mapping)


def _of_table(path: Path, metadata: Sequence[Path], naming: Naming, *, labelled: bool) -> _Rows:
    table = _joined(
        read_table(path, header="yes"),
        [(more, read_table(more, header="yes")) for more in metadata],
        str(path),
        naming,
    )
    names, columns = list(table), list(table.values())
    if not columns or not columns[0]:
        raise InputError(f"{path} has no rows: list an image in each")
    roles = find_roles(
        names,
        columns,
        source=str(path),
        convention=naming.convention,
        image=naming.image,
        label=naming.label,
        group=naming.group,
        split=naming.split,
        labelled=labelled,
    )
    rows = _Rows(
        source=str(path),
        images=columns[roles.image],
        labels=_labels(names, columns, roles),
        groups=None if roles.group is None else _groups(columns[roles.group]),
        splits=None if roles.split is None else columns[roles.split],
        about={
            name: cells
            for k, (name, cells) in enumerate(zip(names, columns, strict=True))
            if k not in {roles.image, roles.label, roles.group, roles.split, *roles.one_hot}
        },
    )
    if roles.one_hot:
        _check_one_hot(rows, [columns[k] for k in roles.one_hot])
    if roles.group is not None:  # subgroups may be asked of it by its name
        rows.about[names[roles.group]] = columns[roles.group]
    return _mapped(rows, naming.mapping)


def _groups(cells: Sequence[str]) -> list[str]:
    """Patients or lesions; images whose one is "unknown" do not belong together for that."""
    return ["" if is_missing(cell) else cell.strip() for cell in cells]


def _mapped(rows: _Rows, mapping: Mapping[str, Any] | None) -> _Rows:
    if mapping is None or rows.faults:
        return rows
    labels = relabelled(rows.labels, mapping, rows.source)
    kept = [row for row, label in enumerate(labels) if label is not None]
    rows.labels = [label or "" for label in labels]
    if len(kept) < len(labels):
        rows.notes.append(f"{len(labels) - len(kept)} images left out by the mapping of labels")
        rows.keep(kept)
    return rows


def _labels(names: Sequence[str], columns: Sequence[Sequence[str]], roles: Roles) -> list[str]:
    if roles.label is not None:
        return list(columns[roles.label])
    if not roles.one_hot:
        return [""] * len(columns[roles.image])
    chosen = [[float(cell or "nan") == 1 for cell in columns[k]] for k in roles.one_hot]
    return [
        next((names[k] for k, hit in zip(roles.one_hot, row, strict=True) if hit), "")
        for row in zip(*chosen, strict=True)
    ]


def _check_one_hot(rows: _Rows, columns: Sequence[Sequence[str]]) -> None:
    sums = [sum(float(cell or "nan") for cell in row) for row in zip(*columns, strict=True)]
    strange = [row for row, total in enumerate(sums) if total != 1]
    if strange:
        told = _examples([f"{rows.ids[row]} ({sums[row]:g})" for row in strange])
        rows.faults.append(
            f"{len(strange)} rows have not exactly one 1 among the columns of the classes, {told}: "
            "correct them"
        )


def _joined(
    table: Table, more: Sequence[tuple[Path, Table]], source: str, naming: Naming
) -> dict[str, list[str]]:
    """The columns of a table, and those of further tables at the same images."""
    names = list(table.names or ())
    joined = {name: list(column.text) for name, column in zip(names, table.columns, strict=True)}
    if not more:
        return joined
    at = find_roles(
        names, list(joined.values()), source=source, image=naming.image, labelled=False
    ).image
    ids = [image_id(cell) for cell in list(joined.values())[at]]
    for path, other in more:
        columns = [list(column.text) for column in other.columns]
        own = find_roles(list(other.names or ()), columns, source=str(path), labelled=False).image
        row_of: dict[str, int] = {}
        torn = []
        for row, cell in enumerate(columns[own]):
            first = row_of.setdefault(image_id(cell), row)
            if any(cells[row] != cells[first] for k, cells in enumerate(columns) if k != own):
                torn.append(image_id(cell))
        if torn:
            raise InputError(
                f"{path}: {len(torn)} rows say other things of an image than an earlier row, "
                f"{_examples(torn)}: keep one"
            )
        if not row_of.keys() & set(ids):
            raise InputError(f"{path}: none of its images is in {source}; check --metadata")
        for k, (name, cells) in enumerate(zip(list(other.names or ()), columns, strict=True)):
            if k != own and name not in joined:
                joined[name] = [cells[row_of[i]] if i in row_of else "" for i in ids]
    return joined


def _settle_labels(rows: _Rows, *, labelled: bool, skip: bool) -> None:
    if not labelled:
        return
    missing = [row for row, label in enumerate(rows.labels) if is_missing(label)]
    if not missing or rows.faults:
        return
    told = f"{len(missing)} images have no label, {_examples([rows.ids[row] for row in missing])}"
    if skip:
        rows.notes.append(f"{told}; left out")
        rows.keep([row for row, label in enumerate(rows.labels) if not is_missing(label)])
    else:
        rows.faults.append(f"{told}: give one, or say --on_error skip")


def _settle_repeats(rows: _Rows, *, drop: bool) -> None:
    """Keep one row of each id; an id under two labels is a fault."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(rows.ids):
        rows_of[name].append(row)
    torn = {n: own for n, own in rows_of.items() if len({rows.labels[row] for row in own}) > 1}
    if torn:
        pairs = Counter(
            " and ".join(sorted({rows.labels[row] or "none" for row in own}))
            for own in torn.values()
        )
        told = f"{len(torn)} images stand under two labels, "
        told += ", ".join(f"{count} under {pair}" for pair, count in pairs.most_common(_SHOWN))
        told += f", first '{next(iter(torn))}'"
        crossing = _crossing(rows, torn)
        told += f"; {crossing} of them in two splits" if crossing else ""
        if drop:
            rows.notes.append(f"{told}; left out")
        else:
            rows.faults.append(f"{told}: correct them, or say --conflicts drop")
    again = sum(len(own) - 1 for name, own in rows_of.items() if name not in torn)
    if again:
        rows.notes.append(f"{again} rows that repeat an image left out")
    crossing = _crossing(rows, {n: own for n, own in rows_of.items() if n not in torn})
    if crossing:
        rows.faults.append(f"{crossing} images stand in two splits: keep each in one")
    rows.keep(sorted(own[0] for name, own in rows_of.items() if name not in torn or not drop))


def _crossing(rows: _Rows, rows_of: Mapping[str, Sequence[int]]) -> int:
    splits = rows.splits
    if splits is None:
        return 0
    return sum(len({splits[row] for row in own}) > 1 for own in rows_of.values())


def _settle_missing(
    rows: _Rows, found: Sequence[str | None], roots: Sequence[Path], *, skip: bool
) -> list[str | None]:
    kept = [row for row, file in enumerate(found) if file is not None]
    first = rows.images[next(row for row, file in enumerate(found) if file is None)]
    told = (
        f"{len(found) - len(kept)} of {len(found)} images are missing, first '{first}' (looked in "
        f"{', '.join(map(str, roots))})"
    )
    if not skip or not kept:
        raise InputError(
            f"{rows.source}: {told}: correct the table or --root, or say --on_error skip"
        )
    rows.notes.append(f"{told}; left out")
    rows.keep(kept)
    return [found[row] for row in kept]


def _examples(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
