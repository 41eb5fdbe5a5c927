"""A picture of a map beside its image, at a size fit for a page whatever the size of the raster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from cl_core.report.figures import new_figure
from cl_core.runs import write_atomic
from cl_remote_sensing.labels.legend import default_colors
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.mapping.writer import open_raster
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.rasters.windows import Window

__all__ = ["quicklook", "shrunk_image", "shrunk_map"]

_GREY = (0.93, 0.93, 0.93)
"""Of pixels without data; told apart from white and black classes."""


def shrunk_image(scene: Scene, *, edge: int = 1024) -> NDArray[np.float32]:
    """The scene in colours, at most ``edge`` pixels a side, ``(h, w, 3)`` in [0, 1].

    Red, green and blue are the bands of these colours, else the first three, else the first as
    grey; each is stretched between its 2 and 98 % quantiles. Invalid pixels are light grey. Read
    from overviews where the file has them.
    """
    values, valid = scene.read(
        Window(0, 0, scene.height, scene.width), shape=_fit(scene.height, scene.width, edge)
    )
    picture = np.empty((*valid.shape, 3), np.float32)
    for channel, band in enumerate(_visible(scene.colors)):
        data = values[band].astype(np.float32)
        low, high = np.percentile(data[valid], (2, 98)) if valid.any() else (0.0, 1.0)
        picture[..., channel] = np.clip((data - low) / max(high - low, 1e-12), 0, 1)
    picture[~valid] = _GREY
    return picture


def shrunk_map(path: Path, values: MapValues, *, edge: int = 1024) -> NDArray[np.float32]:
    """A class map in its legend's colours, as :func:`shrunk_image`; nearest neighbour."""
    colors = values.colors or default_colors(len(values))
    with open_raster(path) as file:
        shape = _fit(file.height, file.width, edge)
        ids = values.decode(file.read(1, out_shape=shape, resampling=Resampling.nearest))
    table = np.full((len(colors) + 1, 3), _GREY, np.float32)
    table[: len(colors)] = np.asarray(colors, np.float32) / 255
    picture: NDArray[np.float32] = table[ids]
    return picture


def quicklook(
    path: Path,
    out: Path,
    *,
    scene: Scene,
    values: MapValues,
    edge: int = 1024,
) -> None:
    """Draw the image, the map beside it and the legend, as a PNG.

    Args:
        path: The class map, a GeoTIFF or a virtual raster over several.
        out: The picture to appear.
        scene: The image.
        values: Its classes.
        edge: Most pixels a side that each panel is made of.

    Raises:
        InputError: If one of the rasters cannot be read, or the picture not be written.
    """
    figure = draw(
        [("image", shrunk_image(scene, edge=edge)), ("map", shrunk_map(path, values, edge=edge))],
        values.names,
        values.colors or default_colors(len(values)),
    )
    with write_atomic(out) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def draw(
    pictures: Sequence[tuple[str, NDArray[np.float32]]],
    classes: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
) -> Any:
    """Pictures of one ground side by side, over a legend of the classes."""
    from matplotlib.patches import Patch

    tall, wide = pictures[0][1].shape[:2]
    height = min(6.0, 4.4 * tall / wide)
    figure, axes = new_figure(1, len(pictures), width=4.8 * len(pictures), height=height + 0.9)
    for panel, (title, picture) in zip(axes, pictures, strict=True):
        panel.imshow(picture, interpolation="nearest")
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_axis_off()
    patches = [
        Patch(facecolor=_hex(color), edgecolor="0.5", linewidth=0.4, label=name)
        for name, color in zip(classes, colors, strict=True)
    ]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=min(len(patches), 6),
        frameon=False,
        fontsize=9,
    )
    return figure


def _fit(height: int, width: int, edge: int) -> tuple[int, int]:
    scale = min(1.0, edge / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _visible(colors: Sequence[str]) -> tuple[int, int, int]:
    """Positions of the bands to show as red, green and blue."""
    if {"red", "green", "blue"} <= set(colors):
        return colors.index("red"), colors.index("green"), colors.index("blue")
    return (0, 1, 2) if len(colors) >= 3 else (0, 0, 0)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
