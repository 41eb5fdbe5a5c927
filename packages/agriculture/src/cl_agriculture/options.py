"""Options that several commands share (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cl_core.checks import require_at_least
from cl_core.commands.options import Options, Source

__all__ = ["MODES", "DataOptions", "Mode", "OtherImagesOptions"]

Mode = Literal[
    "claws",
    "supervised",
    "mask_only",
    "simclr",
    "within_class",
    "class_pair",
    "no_false_neg",
]

MODES: dict[str, tuple[str, bool, str]] = {
    "claws": ("class_all", True, "CLAWS"),
    "supervised": ("class_all", False, "supervised SimCLR"),
    "mask_only": ("instance", True, "SimCLR with masks"),
    "simclr": ("instance", False, "SimCLR"),
    "within_class": ("within_class", True, "CLAWS within classes"),
    "class_pair": ("class_pair", True, "CLAWS by pairs of a class"),
    "no_false_neg": ("no_false_neg", True, "CLAWS without false negatives"),
}
"""Of each mode the contrast, whether it masks, and its name in reports."""


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Where the images come from and how they are read.

    Args:
        data: A folder of images (weak label = sub-folder, or flat), a manifest (.csv, .tsv,
            .parquet with a column image and, as far as known, label, mask, group, split, date), or
            a run of `prepare`.
        root: Folder that a manifest's paths start at; by default the manifest's.
        labels: Where weak labels come from: `auto` (sub-folders, or the column label), `none`, or
            another column of the manifest.
        on_error: At a file that cannot be read `stop`, or `skip` it and tell.
        cache: Folder for decoded images: each file is then decoded once, not once an epoch. For
            small images.
        workers: Processes or threads that prepare images.
    """

    data: str
    root: Path | None = None
    labels: str = "auto"
    on_error: Literal["stop", "skip"] = "stop"
    cache: Path | None = None
    workers: int = 0


@dataclass(frozen=True, kw_only=True)
class OtherImagesOptions(Options):
    """Images to use a finished run on.

    Args:
        data: Other images than the run was trained on.
        root: Folder that a manifest's paths start at; by default the run's.
        labels: As for `pretrain`; by default the run's. Another column gives the labels to compare
            with, such as audited ones.
        masks: Where the masks of these images come from, where the model's are files or a function:
            a folder, a column of the manifest, a run of `mask`, or from Python the function.
        on_error: At a file that cannot be read `stop`, or `skip` it and tell; by default the run's.
        batch_size: Images encoded at once.
        workers: Processes or threads that prepare images.
        overwrite: Replace the results in `out`.
    """

    data: str | None = None
    root: Path | None = None
    labels: str | None = None
    masks: Source | None = None
    on_error: Literal["stop", "skip"] | None = None
    batch_size: int = 256
    workers: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size)
        require_at_least(0, workers=self.workers)
