"""Masks that a user brings as image files: found by name, made to fit their images, or refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from cl_agriculture.hyper import MaskHyper
from cl_core.errors import InputError
from cl_core.images.folder import find_images
from cl_core.images.masks import fit_mask, read_mask
from cl_core.images.opening import open_image

__all__ = ["exif_turn", "find_masks", "plant_of_file"]

_ORIENTATION = 0x0112
"""EXIF's tag of how an image is turned; 5 to 8 swap rows and columns."""


def find_masks(
    folder: Path, images: Mapping[str, str], suffix: str
) -> tuple[dict[str, Path], list[str]]:
    """Find the mask file of each image: same stem, in the same sub-folder or in the folder itself.

    Args:
        folder: Of masks.
        images: Path relative to the data's folder, by file.
        suffix: Between stem and extension.

    Returns:
        Mask by image file, and the images without one.

    Raises:
        InputError: If the folder is not there, or a stem has two masks.
    """
    if not folder.is_dir():
        raise InputError(f"--masks {folder}: no such folder; give one of mask files")
    known: dict[str, list[str]] = {}
    for name in find_images(folder)[0]:
        known.setdefault(_stem(name), []).append(name)
    found: dict[str, Path] = {}
    missing: list[str] = []
    for file, name in images.items():
        stem = _stem(name)
        candidates = (stem + suffix, stem.rpartition("/")[2] + suffix)
        masks = next((known[key] for key in candidates if key in known), None)
        if masks is None:
            missing.append(file)
        elif len(masks) > 1:
            raise InputError(
                f"--masks {folder}: {masks[0]} and {masks[1]} are both a mask of {name}; keep one"
            )
        else:
            found[file] = folder / masks[0]
    return found, missing


def plant_of_file(
    path: Path, hyper: MaskHyper, image: Tensor, file: str
) -> Bool[np.ndarray, "h w"]:
    """Read a mask file and fit it to its image.

    Any value but 0 is plant; or those of ``hyper.plant_values``; or, if ``hyper.invert``, 0 is.

    Args:
        path: Of one channel, or a palette, whose numbers count.
        hyper: Meaning of the values, and whether the file is turned like its image.
        image: Decoded and upright, ``(c, h, w)``.
        file: Of the image.

    Raises:
        InputError: If the file cannot be read, or does not fit by an integer ratio.
    """
    values = read_mask(path)
    turn = exif_turn(file)
    if hyper.turn == "image":
        values = _upright(values, turn)
    height, width = image.shape[-2:]
    if (
        hyper.turn == "none"
        and turn >= 5
        and tuple(values.shape)
        == (width, height)
        != (
            height,
            width,
        )
    ):
        raise InputError(
            f"{path}: is {height} x {width} pixels, but its image is turned upright by its EXIF "
            f"orientation and then is {width} x {height}: save the mask upright, or say "
            "--mask.turn image"
        )
    v = fit_mask(values, image, source=str(path)).numpy()
    plant: Bool[np.ndarray, "h w"]
    if hyper.plant_values:
        plant = np.isin(v, hyper.plant_values)
    else:
        plant = (v == 0) if hyper.invert else (v != 0)
    return plant


def exif_turn(file: str) -> int:
    """How an image file is turned, 1 (upright) to 8, as EXIF numbers it.

    Raises:
        InputError: If the file cannot be read.
    """
    with open_image(file) as image:
        turn = image.getexif().get(_ORIENTATION, 1)
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def _upright(x: Tensor, turn: int) -> Tensor:
    """Turn as EXIF says: 2 to 4 by flips, 5 to 8 transposed first."""
    x = x.T if turn >= 5 else x
    axes = {2: [1], 3: [0, 1], 4: [0], 6: [1], 7: [0, 1], 8: [0]}.get(turn, [])
    return torch.flip(x, axes) if axes else x


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122 - a million of them
