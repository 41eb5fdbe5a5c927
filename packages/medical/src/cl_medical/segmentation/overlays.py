"""Pictures of masks: the slice that shows most, with the outlines of truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cl_medical.segmentation.manifest import IGNORE
from cl_medical.segmentation.scoring import CaseScores, Segmented

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "draw_overlays", "picked", "picture_of"]

_LARGEST = 320  # pixels of an edge


@dataclass(frozen=True)
class Picture:
    """One slice of a case.

    Attributes:
        image: In [0, 1], ``(h, w)``.
        truth: Classes.
        predicted: Classes.
        aspect: Height of a pixel over its width.
        number: Of the slice.
    """

    image: NDArray[np.float32]
    truth: NDArray[np.uint8] | None
    predicted: NDArray[np.uint8]
    aspect: float
    number: int


def picture_of(segmented: Segmented, truth: NDArray[np.uint8] | None) -> Picture:
    """Take the slice with most of the structures, true ones if they are known.

    Args:
        segmented: The mask.
        truth: Classes on the file's grid.
    """
    geometry = segmented.volume.geometry
    predicted = geometry.turned(segmented.result.classes)
    truth = None if truth is None else geometry.turned(truth)
    shown = predicted if truth is None else np.where(truth == IGNORE, 0, truth)
    number = int((shown > 0).sum((1, 2)).argmax())
    image = geometry.turned(segmented.image)[number]
    low, high = np.percentile(image, [0.5, 99.5])
    step = max(1, -(-max(image.shape) // _LARGEST))
    unit = np.clip((image - low) / max(float(high - low), 1e-12), 0, 1).astype(np.float32)
    _, tall, wide = geometry.spacing
    return Picture(
        image=unit[::step, ::step].copy(),
        truth=None if truth is None else truth[number, ::step, ::step].copy(),
        predicted=predicted[number, ::step, ::step].copy(),
        aspect=tall / wide,
        number=number,
    )


def picked(scores: Sequence[CaseScores]) -> list[tuple[str, CaseScores]]:
    """The best, the median and the worst case of each domain, each once."""
    chosen: list[tuple[str, CaseScores]] = []
    for domain in dict.fromkeys(one.domain for one in scores):
        own = sorted((one for one in scores if one.domain == domain), key=lambda one: -one.dice)
        places = {"best": 0, "median": len(own) // 2, "worst": len(own) - 1}
        seen: set[int] = set()
        for word, place in places.items():
            if place not in seen:
                chosen.append((word, own[place]))
                seen.add(place)
    return chosen


def draw_overlays(pictures: Sequence[tuple[str, Picture]], columns: int = 3) -> Figure:
    """Draw slices with outlines: the truth dashed, the mask in full, a colour a structure."""
    from cl_core.report.figures import PALETTE, new_figure

    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, panels = new_figure(rows, columns, width=3.2 * columns, height=3.2 * rows)
    for panel in panels:
        panel.set_axis_off()
    for panel, (title, picture) in zip(panels, pictures, strict=False):
        # Rows of the array run along R or A; shown with the second axis upright.
        panel.imshow(
            picture.image.T,
            cmap="gray",
            origin="lower",
            aspect=1 / picture.aspect,
            interpolation="nearest",
        )
        for mask, style in ((picture.truth, "dashed"), (picture.predicted, "solid")):
            if mask is not None:
                _outline(panel, mask, style, PALETTE)
        panel.set_title(title, fontsize=8, loc="left")
    return figure


def _outline(panel: Any, mask: NDArray[np.uint8], style: str, palette: Sequence[str]) -> None:
    for k in np.unique(mask).tolist():
        inside = mask == k
        if k in (0, IGNORE) or min(mask.shape) < 2 or inside.all():
            continue
        panel.contour(
            inside.T.astype(np.float32),
            levels=[0.5],
            colors=[palette[k % len(palette)]],
            linestyles=style,
            linewidths=1.0,
        )
