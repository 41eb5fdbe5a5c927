"""Where the image of a table's cell lies."""

from __future__ import annotations

import filecmp
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from cl_core.images.folder import find_images
from cl_core.images.opening import EXTENSIONS

__all__ = ["image_id", "locate"]


def image_id(image: str) -> str:
    """Give the file name without folder and extension; a dot that begins no extension stays.

    Example:
        >>> image_id("images/ISIC_0024306.jpg"), image_id("case 1.2")
        ('ISIC_0024306', 'case 1.2')
    """
    name = image.strip().replace("\\", "/").rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in EXTENSIONS else name


def locate(images: Sequence[str], roots: Sequence[Path]) -> tuple[list[str | None], list[str]]:
    """Find the files of images: at their paths, with the usual extensions, by their ids below.

    Args:
        images: Cells of a table.
        roots: Folders to look in, the first one first.

    Returns:
        The file of each image or ``None``, and the ids for which several files that differ were
        found, so that nobody can tell which is meant.
    """
    found = [_at(image, roots) for image in images]
    if None not in found:
        return found, []
    anywhere: dict[str, list[str]] = defaultdict(list)
    for root in roots:
        if root.is_dir():
            for name in find_images(root)[0]:
                anywhere[image_id(name)].append(str(root / name))
    unsure = []
    for row, image in enumerate(images):
        if found[row] is None and (files := anywhere.get(image_id(image))):
            found[row] = files[0]
            if not all(filecmp.cmp(files[0], other, shallow=False) for other in files[1:]):
                unsure.append(image_id(image))
    return found, unsure


def _at(image: str, roots: Sequence[Path]) -> str | None:
    """The file of a cell: at its path, or with an extension that it lacks."""
    for root in roots:
        path = os.path.join(root, image)  # noqa: PTH118 - a million of them; absolute cells win
        if os.path.isfile(path):  # noqa: PTH113
            return path
        for extension in (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG"):
            if os.path.isfile(path + extension):  # noqa: PTH113
                return path + extension
    return None
