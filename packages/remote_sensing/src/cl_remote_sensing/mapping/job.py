"""How scenes are mapped: everything about a mapping but the scene, its file and who shares it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cl_remote_sensing.mapping.plan import Probabilities
from cl_remote_sensing.mapping.prediction import Predict
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.mapping.writer import Compression
from cl_remote_sensing.rasters.normalization import Normalization

__all__ = ["MapJob"]


@dataclass(frozen=True, kw_only=True)
class MapJob:
    """What a mapping does with every scene.

    Attributes:
        predict: Windows ``(n, c, t, t)`` on ``device`` to probabilities ``(n, k, t, t)``; see
            :func:`~cl_remote_sensing.mapping.prediction.predictor`.
        normalization: That of the training.
        values: The classes, and the pixel value of each.
        tile: Edge of a window in pixels, at least that of the training.
        overlap: Share of a window that the next one covers again, in [0, 1).
        batch_size: Windows predicted at once.
        block: Width of a panel in pixels, rounded up to the file's blocks of 512; by default as
            wide as about 160 MB of buffers allow. Windows at a border between panels are computed
            for both.
        probabilities: ``confidence`` writes that of the chosen class, ``uint8`` those of all
            classes in steps of 1/250, ``float32`` those of all.
        cog: Write cloud-optimised GeoTIFFs, with overviews.
        compress: Of the blocks.
        resume: Go on from ``<out>.partial``, if it is there and of the same job.
        tta: Average over turns and flips of each window.
        device: Where ``predict`` works.
        model: Digest of the model; in the tags, and what is resumed must agree.
        skip_damaged: Leave out blocks that cannot be read instead of giving up.
    """

    predict: Predict
    normalization: Normalization
    values: MapValues
    tile: int = 256
    overlap: float = 0.5
    batch_size: int = 8
    block: int | None = None
    probabilities: Probabilities = "none"
    cog: bool = False
    compress: Compression = "deflate"
    resume: bool = True
    tta: bool = False
    device: torch.device | str = "cpu"
    model: str = ""
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        if self.tile < 1 or self.batch_size < 1 or not 0 <= self.overlap < 1:
            raise ValueError(
                "tile and batch_size must be positive and overlap in [0, 1), got "
                f"{self.tile}, {self.batch_size} and {self.overlap}"
            )

    @property
    def stride(self) -> int:
        """Pixels from one window to the next."""
        return max(1, self.tile - round(self.overlap * self.tile))
