"""Where images come from: folder per class, flat folder, or manifest, by one function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from cl_core.checks import require_one_of
from cl_core.errors import InputError
from cl_core.images.folder import read_folder
from cl_core.images.manifest import read_image_manifest
from cl_core.images.split_names import SplitChoice
from cl_core.images.table import ImageTable
from cl_core.tables.files import TABLE_SUFFIXES
from cl_core.tables.labels import UNLABELLED

__all__ = ["list_images"]


def list_images(
    data: Path | str,
    *,
    root: Path | str | Sequence[Path | str] | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Literal["auto", "folder", "none"] = "auto",
    on_error: Literal["stop", "skip"] = "stop",
    splits: SplitChoice = "auto",
) -> ImageTable:
    """List the images of a folder or of a manifest; decodes none.

    A **folder** is searched through all its sub-folders for files with the suffixes of
    :data:`cl_core.images.opening.FORMATS`, in code-point order of the relative paths. Hidden
    entries are left out; pictures of other formats, such as HEIC, are counted in ``notes``.
    Symbolic links are followed, but an image is listed once, under its real place if that lies in
    the folder, so a loop of links ends.

    - images in sub-folders: the first sub-folder is the class;
    - images in the folder itself: no labels;
    - sub-folders called ``train`` (``training``), ``val`` (``valid``, ``validation``, ``dev``) or
      ``test`` (``testing``), in any case, are splits, and the folders in them the classes; images
      that lie in a split itself have no label. What holds where other folders lie beside them is
      told by :func:`cl_core.images.split_names.split_folders`.

    A **manifest** is a table that :func:`cl_core.tables.files.read_table` reads (``.csv``,
    ``.tsv``, ``.txt``, ``.parquet``) with a column ``image`` and, as far as known, ``label``,
    ``group`` and ``split``; capitals do not count, and all further columns are kept by name.
    Relative image paths start at ``root``, by default the manifest's folder; an extension may be
    missing. What is no label is told by :mod:`cl_core.tables.labels`. A row that repeats another
    is dropped, and counted in ``notes``.

    Args:
        data: The folder or the manifest.
        root: Folder, or folders tried in order, that a manifest's paths are relative to.
        columns: Other names for a manifest's columns, such as ``{"label": "dx"}``.
        labels: For a folder: ``folder`` makes sub-folders classes and images outside them
            unlabelled, ``none`` ignores them. ``auto`` decides as above and refuses a mixture.
        on_error: For a manifest: ``skip`` drops the rows whose file is missing, and notes them.
        splits: ``auto`` as above; ``folder`` takes what is called like a split as one, ``none``
            takes every folder as a class, and of a manifest ignores the column.

    Returns:
        The table; never empty.

    Raises:
        InputError: If there is nothing to read, no image, a column is missing, a file of a
            manifest is missing, or an image occurs with two labels, groups or splits.
    """
    require_one_of("splits", splits, ("auto", "folder", "none"))
    require_one_of("labels", labels, ("auto", "folder", "none"))
    path = Path(data)
    if path.is_dir():
        return _told(read_folder(path, labels, splits))
    if not path.exists():
        raise InputError(f"{path}: no such folder or manifest; check the path")
    if not path.name.lower().endswith(TABLE_SUFFIXES):
        raise InputError(
            f"{path}: neither a folder of images nor a manifest "
            f"({', '.join(TABLE_SUFFIXES)}); give one of these"
        )
    roots = [path.parent] if root is None else [root] if isinstance(root, str | Path) else root
    table = read_image_manifest(path, [Path(each) for each in roots], columns or {}, on_error)
    return _told(replace(table, splits=None) if splits == "none" else table)


def _told(table: ImageTable) -> ImageTable:
    """With a note on classes that only images held out have: no model can learn them."""
    if "train" not in (table.splits or ()):
        return table
    sides = np.asarray(table.splits)
    trained = set(table.labels[sides == "train"].tolist())
    if not trained - {UNLABELLED}:
        return table
    notes = []
    for side in sorted(set(sides.tolist()) - {"train"}):
        counts = Counter(table.labels[sides == side].tolist())
        alone = [k for k in sorted(counts) if k != UNLABELLED and k not in trained]
        if alone:
            told = ", ".join(f"{table.classes[k]} ({counts[k]} images)" for k in alone[:5])
            more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
            notes.append(f"classes in {side} that train has not: {told}{more}")
    return table.noting(notes)
