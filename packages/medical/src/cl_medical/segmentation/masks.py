"""Masks as users get them: raw ids of the domain, on the grid of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cl_medical.segmentation.nifti import VolumeFile, Voxels, write_like
from cl_medical.segmentation.saved import DomainCard

__all__ = ["raw_mask", "structure_ml", "write_mask"]


def raw_mask(classes: np.ndarray, card: DomainCard) -> tuple[Voxels, str]:
    """Give a mask the raw ids of its domain.

    Args:
        classes: On the file's grid.
        card: Of the domain.

    Returns:
        uint8 or uint16, and a note where the classes' own numbers had to do.
    """
    raw, note = card.domain().raw_ids()
    table = np.array(raw)
    kind = np.uint8 if table.min() >= 0 and table.max() < 2**8 else np.uint16
    if table.min() < 0 or table.max() >= 2**16:
        table, kind = np.arange(len(raw)), np.uint8
        note = f"{card.name}: ids beyond 65535, so masks hold the classes' numbers"
    return table.astype(kind)[classes], note


def write_mask(path: Path, classes: np.ndarray, source: VolumeFile, card: DomainCard) -> str:
    """Write :func:`raw_mask` on the grid of a file; returns its note."""
    mask, note = raw_mask(classes, card)
    write_like(path, mask, source)
    return note


def structure_ml(classes: np.ndarray, source: VolumeFile, card: DomainCard) -> dict[str, float]:
    """The volume of each structure, ml."""
    voxel = float(np.prod(source.spacing)) / 1000
    counts = np.bincount(classes.ravel(order="K"), minlength=len(card.classes))
    return {name: float(counts[k]) * voxel for k, name in enumerate(card.classes) if k}
