"""Pictures of a set: the grid of first and last, and how it grew."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cl_core.report.figures import new_figure
from cl_vision.condensation.condensed_set import CondensedSet, picture_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_png", "grid_figure", "growth_figure"]

_CLASSES, _COLUMNS = 30, 10  # of larger sets the first ones

Picture = NDArray[np.uint8]


def grid_figure(found: CondensedSet) -> Figure:
    """A row a class: the images it started from on the left, what became of them on the right."""
    ipc = found.card.ipc
    shown = min(ipc, _COLUMNS)
    before, after = (_pictures(x, found) for x in (found.start, found.images))
    rows = [
        [*before[first : first + shown], None, *after[first : first + shown]]
        for first in _starts(found)
    ]
    heads = ["first", *[""] * shown, "last", *[""] * (shown - 1)]
    return _mosaic(rows, found, heads)


def growth_figure(found: CondensedSet, snapshots: Mapping[int, Tensor]) -> Figure:
    """A row a class: its first image as it was after some outer iterations."""
    states = {0: found.start, **dict(sorted(snapshots.items()))}
    columns = [_pictures(images, found) for images in states.values()]
    rows = [[column[first] for column in columns] for first in _starts(found)]
    return _mosaic(rows, found, [str(done) for done in states])


def figure_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return buffer.getvalue()


def _starts(found: CondensedSet) -> list[int]:
    return [row * found.card.ipc for row in range(min(len(found.card.classes), _CLASSES))]


def _pictures(x: Tensor, found: CondensedSet) -> list[Picture]:
    pixels = picture_pixels(x, found.card.mean, found.card.std).permute(0, 2, 3, 1).numpy()
    colour = pixels.repeat(3, axis=3) if pixels.shape[3] < 3 else pixels
    return list(colour[..., :3])


def _mosaic(
    rows: Sequence[Sequence[Picture | None]], found: CondensedSet, heads: Sequence[str]
) -> Figure:
    """All pictures in one panel: one for each would take seconds to lay out."""
    h, w = found.card.height, found.card.width
    gap = max(1, w // 16)
    canvas = np.full(
        (len(rows) * (h + gap) - gap, len(rows[0]) * (w + gap) - gap, 3), 255, dtype=np.uint8
    )
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            if picture is not None:
                top, left = i * (h + gap), j * (w + gap)
                canvas[top : top + h, left : left + w] = picture
    edge = 0.55
    figure, (axes,) = new_figure(
        width=edge * len(rows[0]) + 1.3, height=edge * len(rows) * h / w + 0.5
    )
    axes.imshow(canvas, interpolation="nearest")
    axes.set_yticks(
        [i * (h + gap) + h / 2 for i in range(len(rows))], found.card.classes[: len(rows)]
    )
    axes.xaxis.tick_top()
    axes.set_xticks([j * (w + gap) + w / 2 for j in range(len(heads))], list(heads))
    axes.tick_params(length=0, labelsize=8)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure
