"""The explorer: embeddings on a plane, with the images they stand for, in one HTML page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cl_core._version import __version__
from cl_core.errors import InputError
from cl_core.evaluation.labels import Array, as_array
from cl_core.evaluation.projection import project_2d
from cl_core.report.explorer.fields import category, field
from cl_core.report.figures import PALETTE
from cl_core.runs import write_atomic

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

    from cl_core.images.table import ImageTable
    from cl_core.report.explorer.thumbnails import Picture

__all__ = ["explorer_block", "explorer_page"]

# Steps of a coordinate on the page: finer than a pixel at the largest zoom that helps.
_STEPS = 100_000

# UMAP asks for 15 neighbours; of fewer points it makes no better picture than PCA.
_FEWEST_FOR_UMAP = 32


def explorer_block(
    x: Array | Mapping[str, Array],
    images: ImageTable | Sequence[Picture | None] | None = None,
    *,
    labels: Array | None = None,
    classes: Sequence[str] | None = None,
    clusters: Array | None = None,
    ids: Sequence[object] | None = None,
    columns: Mapping[str, Array] | None = None,
    thumbnail: int | None = None,
    neighbours: int = 8,
) -> Markup:
    """The explorer for a report: ``report.block(explorer_block(...))``.

    Pan, zoom, colour by any column, see image and fields under the pointer, pin a point, search,
    hide classes, swap points for pictures; all of it from the keyboard, too.

    Args:
        x: Embeddings ``(n, d)``: they are drawn by PCA and, where umap-learn is installed, by UMAP,
            and a pinned point shows its neighbours among them. Or points ``(n, 2)``, drawn as they
            are. Or several such planes by name, such as ``{"t-SNE": points}``.
        images: A picture a row, ``None`` for rows without one; or a table, which then gives ids,
            labels, classes, group and split.
        labels: Class of each row; -1, NaN or empty for none.
        classes: Name of class ``i`` at place ``i``, for integer labels.
        clusters: Cluster of each row, likewise.
        ids: What a row is called and found by; row numbers by default.
        columns: Further fields by name; see :func:`cl_core.report.explorer.fields.field` for
            their kinds.
        thumbnail: Longer side of a thumbnail in pixels. Default: 96 up to 4,000 images, 64 up to
            10,000, then 48.
        neighbours: Nearest rows, by cosine, listed with a pinned point; needs embeddings.

    Returns:
        HTML with style, script, data and thumbnails inside.

    Raises:
        ValueError: If the lengths differ or coordinates are not finite.
    """
    return _block(
        _data(x, images, labels, classes, clusters, ids, columns, thumbnail, neighbours), False
    )


def explorer_page(
    path: str | Path,
    x: Array | Mapping[str, Array],
    images: ImageTable | Sequence[Picture | None] | None = None,
    *,
    title: str = "Embeddings",
    subtitle: str = "",
    labels: Array | None = None,
    classes: Sequence[str] | None = None,
    clusters: Array | None = None,
    ids: Sequence[object] | None = None,
    columns: Mapping[str, Array] | None = None,
    thumbnail: int | None = None,
    neighbours: int = 8,
) -> Path:
    """Write the explorer as a page of its own, which ``page.html#point=ID`` opens at a point.

    The page loads nothing: a content security policy in it forbids every request, and every script
    but its own.

    Args:
        path: Usually ``explorer.html`` in the run directory; an earlier one is replaced.
        x: As for :func:`explorer_block`, like all that follow but the two headings.
        images: Pictures or a table.
        title: Heading of the page.
        subtitle: A line beside it.
        labels: Classes.
        classes: Their names.
        clusters: Clusters.
        ids: Names of the rows.
        columns: Further fields.
        thumbnail: Longer side of a thumbnail in pixels.
        neighbours: Nearest rows listed with a pinned point.

    Returns:
        The path.

    Raises:
        ValueError: As :func:`explorer_block`.
    """
    data = _data(x, images, labels, classes, clusters, ids, columns, thumbnail, neighbours)
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    page = _template("page.html.j2").render(
        title=_printable(title),
        subtitle=_printable(subtitle),
        block=_block(data, True),
        script_hash=digest,
        version=__version__,
    )
    path = Path(path)
    with write_atomic(path) as beside:
        beside.write_text(page, encoding="utf-8", newline="\n")
    return path


def _data(
    x: Array | Mapping[str, Array],
    images: ImageTable | Sequence[Picture | None] | None,
    labels: Array | None,
    classes: Sequence[str] | None,
    clusters: Array | None,
    ids: Sequence[object] | None,
    columns: Mapping[str, Array] | None,
    thumbnail: int | None,
    neighbours: int,
) -> dict[str, Any]:
    """Everything the script draws, ready for JSON."""
    planes, vectors = _planes(x)
    n = len(next(iter(planes.values())))
    columns = dict(columns or {})
    if images is not None:
        from cl_core.images.table import ImageTable

        if isinstance(images, ImageTable):
            table = images
            ids = [table.name(row) for row in range(len(table))] if ids is None else ids
            if labels is None and table.classes:
                labels, classes = table.labels, table.classes
            for name, values in (("group", table.groups), ("split", table.splits)):
                if values is not None:
                    columns.setdefault(name, values)
            images = table.files
    given = {"images": images, "labels": labels, "clusters": clusters, "ids": ids, **columns}
    for name, values in given.items():
        if values is not None and len(values) != n:
            raise ValueError(f"need one of {name} a point, got {len(values)} for {n} points")

    fields = [] if labels is None else [category("class", labels, classes)]
    fields += [] if clusters is None else [category("cluster", clusters)]
    fields += [field(name, values) for name, values in columns.items()]
    pictures = None
    if images is not None:
        from cl_core.report.explorer.thumbnails import thumbnails

        pictures = thumbnails(images, thumbnail or (96 if n <= 4000 else 64 if n <= 10_000 else 48))
    return {
        "ids": [str(name) for name in (range(n) if ids is None else ids)],
        "planes": [_steps(name, points) for name, points in planes.items()],
        "fields": fields,
        "pictures": pictures,
        "neighbours": _neighbours(vectors, neighbours) if vectors is not None else None,
        "palette": PALETTE,
    }


def _planes(x: Array | Mapping[str, Array]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Points by the name of their plane, and the embeddings if they were given."""
    planes = {name: as_array(p) for name, p in (x if isinstance(x, Mapping) else {"": x}).items()}
    vectors = None
    if not isinstance(x, Mapping) and planes[""].ndim == 2 and planes[""].shape[1] > 2:
        vectors = planes[""]
        if not np.isfinite(vectors).all():
            raise ValueError("the embeddings hold values that are not finite")
        planes = {"PCA": project_2d(vectors)}
        if len(vectors) >= _FEWEST_FOR_UMAP:
            with suppress(InputError):  # not installed
                planes = {"UMAP": project_2d(vectors, "umap"), **planes}
    shapes = {name: points.shape for name, points in planes.items()}
    if not planes or any(len(s) != 2 or s[1] != 2 or s[0] < 1 for s in shapes.values()):
        raise ValueError(
            f"need embeddings (n, d) or points (n, 2) of at least one row, got {shapes}"
        )
    if len({len(points) for points in planes.values()}) > 1:
        raise ValueError(f"the planes differ in their number of points: {shapes}")
    for name, points in planes.items():
        if not np.isfinite(points).all():
            raise ValueError(f"the points {name} hold coordinates that are not finite".strip())
    return planes, vectors


def _steps(name: str, points: np.ndarray) -> dict[str, Any]:
    """Whole-number coordinates: short in the page, and alike in scale on both axes."""
    points = points.astype(np.float64)
    low = points.min(axis=0)
    scale = _STEPS / max(float(np.ptp(points, axis=0).max()), 1e-300)
    steps = np.rint((points - low) * scale).astype(int)
    return {"name": name, "x": steps[:, 0].tolist(), "y": steps[:, 1].tolist()}


def _neighbours(vectors: np.ndarray, k: int, block: int = 1024) -> list[list[int]] | None:
    """Rows of largest cosine with each row, without itself, nearest first."""
    k = min(k, len(vectors) - 1)
    if k < 1:
        return None
    z = torch.nn.functional.normalize(torch.from_numpy(vectors.astype(np.float32)), dim=1)
    nearest: list[list[int]] = []
    for start in range(0, len(z), block):
        cosine = z[start : start + block] @ z.T
        own = torch.arange(len(cosine))
        cosine[own, start + own] = -torch.inf
        nearest += cosine.topk(k, dim=1).indices.tolist()
    return nearest


def _block(data: Mapping[str, Any], alone: bool) -> Markup:
    from jinja2.utils import htmlsafe_json_dumps
    from markupsafe import Markup

    return Markup(
        _template("block.html.j2").render(
            style=Markup(_source("style.css")),
            script=Markup(_script()),
            data=htmlsafe_json_dumps(data, separators=(",", ":"), allow_nan=False),
            colourable=[f["name"] for f in data["fields"] if f["kind"] != "text"],
            planes=[plane["name"] for plane in data["planes"]],
            pictures=data["pictures"] is not None,
            n=len(data["ids"]),
            alone=alone,
        )
    )


def _script() -> str:
    parts = "".join(_source(f"{part}.js") for part in ("data", "view", "points", "hands"))
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


@cache
def _source(name: str) -> str:
    return (
        files("cl_core")
        .joinpath("templates/explorer", name)
        .read_text("utf-8")
        .replace("\r\n", "\n")
    )


def _template(name: str) -> Template:
    from jinja2 import Environment

    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _source(name)
    )


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
