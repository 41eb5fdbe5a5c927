"""Many small pictures side by side, a block for a report."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_core.errors import InputError

if TYPE_CHECKING:
    from markupsafe import Markup

    from cl_core.images.table import ImageTable
    from cl_core.report.explorer.thumbnails import Picture

__all__ = ["contact_sheet"]


def contact_sheet(
    images: ImageTable | Sequence[Picture],
    captions: Sequence[object] | None = None,
    groups: Sequence[object] | None = None,
    *,
    columns: int = 8,
    size: int = 112,
    per_group: int = 24,
    seed: int | None = None,
) -> Markup:
    """Lay out thumbnails in rows, a heading above each class or cluster.

    Args:
        images: Pictures, or a table, whose file names and classes then are captions and groups.
        captions: A text below each picture.
        groups: Class or cluster of each picture; numbers are ordered as numbers, -1, ``None`` and
            an empty text come last as "unlabelled". Default: no headings.
        columns: Most pictures in a row; a narrow window shows fewer.
        size: Side of a tile in pixels of the page; the picture in it is half as fine again.
        per_group: Most pictures of a group; the heading tells how many there are.
        seed: Draw the pictures of a large group at random; ``None`` shows its first ones, so that
            pictures given in some order (distance to a centroid, loss) show its head.

    Returns:
        HTML with the thumbnails inside. A file that cannot be read leaves a tile that says so.

    Raises:
        ValueError: If the lengths differ, or ``columns``, ``size`` or ``per_group`` is below 1.
        InputError: If there is no image.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    from cl_core.images.table import ImageTable
    from cl_core.report.explorer.thumbnails import PREFIX, thumbnails

    titles = captions
    if isinstance(images, ImageTable):
        table = images
        if captions is None:  # the folders only under the pointer: they would fill the line
            names = [table.name(row) for row in range(len(table))]
            titles, captions = names, [name.rpartition("/")[2] for name in names]
        if groups is None and table.classes:
            groups = [table.classes[k] if k >= 0 else "" for k in table.labels]
        images = table.files
    if min(columns, size, per_group) < 1:
        raise ValueError(
            f"columns, size and per_group start at 1, got {columns}, {size}, {per_group}"
        )
    for what, values in (("captions", captions), ("groups", groups)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"need one of {what} an image, got {len(values)} for {len(images)}")
    if not len(images):
        raise InputError("a contact sheet needs at least one image, got none; check the selection")

    sections = []
    for name, rows in _grouped(groups, len(images)):
        shown = rows[:per_group]
        if seed is not None and len(rows) > per_group:
            shown = np.random.default_rng(seed).choice(rows, per_group, replace=False).tolist()
        tiles = [
            {
                "address": PREFIX + small if small else "",
                "caption": _printable(captions[row]) if captions is not None else "",
                "title": _printable(titles[row]) if titles is not None else "",
            }
            for row, small in zip(
                shown, thumbnails([images[row] for row in shown], 3 * size // 2), strict=True
            )
        ]
        sections.append({"name": name, "count": len(rows), "tiles": tiles})
    source = files("cl_core").joinpath("templates/contact_sheet.html.j2").read_text("utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    return Markup(template.render(sections=sections, columns=columns, size=size))


def _grouped(groups: Sequence[object] | None, n: int) -> list[tuple[str, list[int]]]:
    """Name and rows of each group, in the order of the headings."""
    if groups is None:
        return [("", list(range(n)))]
    rows_of: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        value = group.item() if isinstance(group, np.generic) else group
        missing = value is None or value in ("", -1) or value != value
        rows_of.setdefault("" if missing else value, []).append(row)
    named = [key for key in rows_of if key != ""]
    try:
        named.sort()
    except TypeError:  # numbers beside text
        named.sort(key=str)
    ordered = [(_printable(key), rows_of[key]) for key in named]
    return ordered + ([("unlabelled", rows_of[""])] if "" in rows_of else [])


def _printable(text: object) -> str:
    """As text that can be written in UTF-8: a file's name may hold bytes that are none."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
