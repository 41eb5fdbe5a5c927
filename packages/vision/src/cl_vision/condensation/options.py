"""Options that commands of condensation share (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cl_core.checks import OptionError, require_at_least
from cl_core.commands.options import Options

__all__ = ["LabelledData"]


@dataclass(frozen=True, kw_only=True)
class LabelledData(Options):
    """Labelled images.

    Args:
        data: A folder of images in class sub-folders (or of train and test folders of such), a
            manifest (.csv, .tsv, .parquet with columns image and label), or the built-in `digits`.
        root: Folder that a manifest's paths start at; by default the manifest's.
        labels: Column of a manifest that holds the classes; `auto` is label.
        channels: 3 for colour, 1 for grey, 4 for colour and opacity, or `keep` for as many as the
            first image has, which all others must then have.
        image_size: Height and width to scale to, as one number or `[H, W]`; by default images stay
            as they are and must be of one size.
        on_error: At a file that cannot be read `stop`, or `skip` it and tell.
        test_share: Share of each class to test on, where the data has no split.
        seed: Of everything.
    """

    data: str
    root: Path | None = None
    labels: str = "auto"
    channels: Literal[1, 3, 4, "keep"] = "keep"
    image_size: int | tuple[int, int] | None = None
    on_error: Literal["stop", "skip"] = "stop"
    test_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size is not None:
            require_at_least(4, image_size=min(self.size))
        if not 0 < self.test_share < 1:
            raise OptionError(f"test_share must lie between 0 and 1, got {self.test_share}")
        require_at_least(0, seed=self.seed)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size
