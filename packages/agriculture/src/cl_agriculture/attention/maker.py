"""One rule by which the mask of any image is made: excess green, mask files, or a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8

from cl_agriculture.attention.mask_files import find_masks, plant_of_file
from cl_agriculture.attention.plant_mask import PlantMask, green_mask, judged
from cl_agriculture.hyper import MaskHyper
from cl_core.errors import InputError
from cl_core.images import ImageTable, read_image
from cl_core.images.masks import fit_mask

__all__ = ["MaskFunction", "MaskMaker", "MaskSource", "read_rgb"]

MaskFunction = Callable[[UInt8[np.ndarray, "h w 3"]], Any]
"""Takes an image and gives what numpy reads as ``(h, w)``: true, or anything but 0, is plant."""

MaskSource = Literal["excess_green", "files", "function"]


@dataclass(frozen=True, eq=False)
class MaskMaker:
    """Makes masks by one rule.

    Args:
        hyper: Settings.
        files: Mask file of each image file, where masks are files.
        function: Any function of an image, where that makes them.
    """

    hyper: MaskHyper = field(default_factory=MaskHyper)
    files: Mapping[str, Path] | None = None
    function: MaskFunction | None = None

    @classmethod
    def of_folder(cls, folder: Path, table: ImageTable, hyper: MaskHyper) -> MaskMaker:
        """Take the mask files of a folder.

        Raises:
            InputError: If an image has none and ``hyper.missing`` is ``stop``.
        """
        names = {file: table.name(row) for row, file in enumerate(table.files)}
        found, missing = find_masks(folder, names, hyper.suffix)
        if missing and (hyper.missing == "stop" or not found):
            first = names[missing[0]]
            raise InputError(
                f"--masks {folder}: {len(missing)} of {len(names)} images have no mask, first "
                f"{first} (looked for its stem with '{hyper.suffix}' and any image extension); "
                "complete them, say --mask.suffix, or --mask.missing full"
            )
        return cls(hyper, files=found)

    @classmethod
    def of_column(cls, column: str, table: ImageTable, hyper: MaskHyper) -> MaskMaker:
        """Take the mask files that a manifest names, relative to its folder.

        Raises:
            InputError: If an image has none and ``hyper.missing`` is ``stop``.
        """
        cells = table.column(column)
        found = {f: Path(table.root, c) for f, c in zip(table.files, cells, strict=True) if c}
        missing = [row for row, cell in enumerate(cells) if not cell]
        if missing and (hyper.missing == "stop" or not found):
            raise InputError(
                f"{table.source}: {len(missing)} of {len(table)} images have no mask in column "
                f"'{column}', first {table.name(missing[0])}; complete it, or say --mask.missing "
                "full"
            )
        return cls(hyper, files=found)

    @property
    def source(self) -> MaskSource:
        """Where the masks come from."""
        if self.function is not None:
            return "function"
        return "excess_green" if self.files is None else "files"

    def rule(self) -> dict[str, Any]:
        """What makes two makers' masks comparable: recorded with a model, and asked for again."""
        hyper = self.hyper
        limits: dict[str, Any] = {
            "least_fraction": hyper.least_fraction,
            "most_fraction": hyper.most_fraction,
        }
        if self.function is not None:
            name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
            return {"source": self.source, "function": name, **limits}
        if self.files is not None:
            return {"source": self.source, **limits}
        low, high = hyper.bounds
        return {
            "source": self.source,
            "variant": hyper.variant,
            "least_threshold": low,
            "most_threshold": high,
            "min_component": hyper.min_component if hyper.clean else 0.0,
            "clean": hyper.clean,
            **limits,
        }

    def make(self, file: str) -> PlantMask:
        """Make the mask of an image.

        Raises:
            InputError: If the image or its mask cannot be read or they do not fit together.
        """
        rgb = read_rgb(file)
        image = torch.from_numpy(rgb).permute(2, 0, 1)
        if self.files is not None:
            own = self.files.get(file)
            if own is None:
                return PlantMask(np.ones(rgb.shape[:2], dtype=bool), 1.0, "missing")
            return judged(plant_of_file(own, self.hyper, image, file), self.hyper)
        if self.function is None:
            return green_mask(rgb, self.hyper)
        mask = np.asarray(self.function(rgb))
        if mask.ndim != 2:
            raise ValueError(f"{file}: a mask function must give (h, w), got {mask.shape}")
        fitted = fit_mask(torch.from_numpy(mask != 0), image, source=file)
        return judged(fitted.numpy(), self.hyper)


def read_rgb(file: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image upright to 8-bit RGB; deeper values are scaled.

    Raises:
        InputError: If the file cannot be read.
    """
    pixels = read_image(file, channels=3).permute(1, 2, 0).numpy()
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels.clip(0, 1) * 255)
    rgb: UInt8[np.ndarray, "h w 3"] = pixels.astype(np.uint8, copy=False)
    return rgb
