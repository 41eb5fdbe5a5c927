"""Which label file belongs to which image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from cl_core.errors import InputError
from cl_remote_sensing.labels.vectors import VECTOR_SUFFIXES
from cl_remote_sensing.rasters.listing import RASTER_SUFFIXES
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.tiles.manifest import find_listed, read_listing

__all__ = ["pair_labels"]

_ROLES = frozenset(
    (
        "annotation",
        "annotations",
        "class",
        "classes",
        "dop",
        "ground",
        "groundtruth",
        "gt",
        "image",
        "images",
        "img",
        "label",
        "labels",
        "landcover",
        "lc",
        "mask",
        "masks",
        "ortho",
        "orthophoto",
        "patch",
        "raster",
        "reference",
        "rgb",
        "rgbir",
        "rgbn",
        "sat",
        "scene",
        "seg",
        "segmentation",
        "tile",
        "top",
        "truth",
    )
)
"""Words of a file name that say what it holds, not which place it shows."""


def pair_labels(scenes: Sequence[Scene], labels: Path | str) -> list[Path]:
    """Find the label file of each scene.

    Args:
        scenes: The images.
        labels: One of

            - a label file: of the one scene, or of all if it covers them;
            - a ``.csv`` with the columns ``image`` and ``label``, or a ``.txt`` with those two
              words a line; paths are relative to its folder or to the folder above;
            - a folder, searched through its sub-folders: a label has the stem of its image, or
              the same but for words such as *image* and *mask*, or the same numbers in it;
              a folder with one label belongs to a single scene whatever the names.

    Returns:
        A path per scene.

    Raises:
        InputError: If a scene has no label, or it cannot be told which.
    """
    path = Path(labels)
    if path.is_dir():
        return _from_folder(scenes, path)
    if not path.exists():
        raise InputError(f"{path}: no such label file or folder; check the path")
    if path.suffix.lower() in (".csv", ".txt"):
        return _from_manifest(scenes, path)
    return [path] * len(scenes)


def _from_manifest(scenes: Sequence[Scene], path: Path) -> list[Path]:
    listed: dict[Path, Path] = {}
    for row in read_listing(path, ["image", "label"]):
        image = find_listed(row["image"], path).resolve()
        label = find_listed(row["label"], path)
        if listed.setdefault(image, label) != label:
            raise InputError(f"{path}: lists {row['image']} with two labels; keep one")
    lost = [scene.path for scene in scenes if Path(scene.path).resolve() not in listed]
    if lost:
        raise InputError(
            f"{path}: lists no label for {lost[0]} ({len(lost)} of {len(scenes)} images); add "
            "the rows, or leave those images out"
        )
    return [listed[Path(scene.path).resolve()] for scene in scenes]


def _from_folder(scenes: Sequence[Scene], folder: Path) -> list[Path]:
    kinds = (RASTER_SUFFIXES | VECTOR_SUFFIXES) - {".json"}  # mostly descriptions of rasters
    images = {Path(scene.path).resolve() for scene in scenes}
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in kinds
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.resolve() not in images
    )
    if not files:
        raise InputError(f"{folder}: holds no label raster or vector file; name another folder")
    if len(files) == len(scenes) == 1:
        return files
    for key in (_stem, _without_roles, _numbers):
        paired = _pair(scenes, files, key)
        if paired is not None:
            return paired
    stems = {_stem(file) for file in files} | {_without_roles(file) for file in files}
    alone = [
        scene.path
        for scene in scenes
        if not {_stem(Path(scene.path)), _without_roles(Path(scene.path))} & stems
    ] or [scenes[0].path]
    raise InputError(
        f"{folder}: cannot tell which of its {len(files)} files labels {alone[0]} "
        f"({len(alone)} of {len(scenes)} images); give them the names of the images, or a CSV "
        "with the columns image and label"
    )


def _pair(
    scenes: Sequence[Scene], files: Sequence[Path], key: Callable[[Path], str]
) -> list[Path] | None:
    """One file for each scene by a key of their names, if that is certain."""
    by_key = defaultdict(list)
    for file in files:
        by_key[key(file)].append(file)
    paired = []
    for scene in scenes:
        image = Path(scene.path)
        found = by_key.get(key(image), []) if key(image) else []
        if len(found) > 1:  # the same names in several folders: those of one folder belong together
            found = [file for file in found if file.parent.name == image.parent.name]
        if len(found) != 1:
            return None
        paired.append(found[0])
    # Two scenes with one label: the key says too little.
    return paired if len(set(paired)) == len(paired) else None


def _stem(file: Path) -> str:
    return file.stem


def _words(file: Path) -> list[str]:
    """Words and numbers of a name: ``2023_patchN_7`` has ``2023``, ``patchn`` and ``7``."""
    return [word for word in re.split(r"[\W_]+", file.stem.lower()) if word]


def _without_roles(file: Path) -> str:
    return " ".join(word for word in _words(file) if word not in _ROLES)


def _numbers(file: Path) -> str:
    return " ".join(word for word in _words(file) if any(c.isdigit() for c in word))
