"""Matplotlib figures as elements of a page, a panel at a time, so that phones show one a row."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

__all__ = ["figure_pictures"]

# A vector figure with more text than this (many points) is smaller and faster as a picture.
_SVG_LIMIT = 1_000_000


def figure_pictures(figure: Figure, name: str) -> list[dict[str, str]]:
    """The figure, or each of its panels where they stand on their own.

    Panels do unless something spans them: a title or legend of the whole figure, or a colour bar.
    All panels get the same size.

    Args:
        figure: Left as it was.
        name: Tells its identifiers from those of other figures of the page.

    Returns:
        A ``svg`` or, with very many elements, a ``png`` in base 64, and the ``width`` in inches.
    """
    panels = _panels(figure)
    if len(panels) < 2:
        return [_picture(figure, name, None)]
    layout = figure.get_layout_engine()
    shown = {axes: axes.get_visible() for axes in figure.axes}
    figure.draw_without_rendering()  # settles the layout while all panels are there
    figure.set_layout_engine("none")
    try:
        boxes = _same_size(figure, panels)
        pictures = []
        for number, (panel, box) in enumerate(zip(panels, boxes, strict=True)):
            for axes in figure.axes:
                axes.set_visible(axes is panel)
            pictures.append(_picture(figure, f"{name}-{number}", box))
    finally:
        for axes, visible in shown.items():
            axes.set_visible(visible)
        figure.set_layout_engine(layout)
    return pictures


def _panels(figure: Figure) -> list[Axes]:
    """The panels in reading order; none if they do not stand on their own."""
    shown = [axes for axes in figure.axes if axes.get_visible()]
    spans = figure.get_suptitle() or figure.legends or figure.texts or figure.images
    specs = [axes.get_subplotspec() for axes in shown]
    if spans or any(spec is None or axes.get_label() == "<colorbar>"
                    for spec, axes in zip(specs, shown, strict=True)):  # fmt: skip
        return []
    places = [(spec.rowspan.start, spec.colspan.start) for spec in specs if spec is not None]
    if len(set(places)) < len(places) or len({id(s.get_gridspec()) for s in specs if s}) > 1:
        return []  # two axes in one place share their ink
    return [axes for _, axes in sorted(zip(places, shown, strict=True), key=lambda pair: pair[0])]


def _same_size(figure: Figure, panels: list[Axes]) -> list[Bbox]:
    """The box of each panel in inches: its own right and upper edge, the size of the largest."""
    from matplotlib.transforms import Bbox

    pad = 0.05
    scale = figure.dpi_scale_trans.inverted()
    tight: list[Any] = [panel.get_tightbbox() for panel in panels]
    own = [box.transformed(scale) for box in tight]
    width = max(box.width for box in own) + 2 * pad
    height = max(box.height for box in own) + 2 * pad
    return [
        Bbox.from_extents(box.x1 + pad - width, box.y1 + pad - height, box.x1 + pad, box.y1 + pad)
        for box in own
    ]


def _picture(figure: Figure, name: str, box: Bbox | None) -> dict[str, str]:
    width = box.width if box is not None else figure.get_figwidth()
    svg = _svg(figure, name, box)
    png = _png(figure, box) if len(svg) > _SVG_LIMIT else ""
    return {"svg": "" if png else svg, "png": png, "width": f"{width:.2f}"}


def _svg(figure: Figure, name: str, box: Bbox | None) -> str:
    """The figure as an SVG element that can stand beside others in one page."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches=box,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Matplotlib numbers its identifiers from one in every figure.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("#000000", "currentColor")


def _png(figure: Figure, box: Bbox | None) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white", bbox_inches=box)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
