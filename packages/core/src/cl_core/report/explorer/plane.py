"""Points on a plane, as every report shows embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cl_core.evaluation.labels import Array, as_array
from cl_core.report.explorer.page import explorer_block

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["scatter_2d"]


def scatter_2d(
    points: Array,
    labels: Array | None = None,
    names: Sequence[str] | None = None,
    hover_ids: Sequence[object] | None = None,
) -> Markup:
    """Draw points on a plane, coloured by class, with an identity under the pointer.

    Args:
        points: ``(n, 2)``, for example from :func:`cl_core.evaluation.project_2d`.
        labels: ``(n,)`` classes; rows labelled -1 or NaN are drawn grey, behind the others.
        names: Name of class ``i`` at place ``i``, for integer labels; the label itself by default.
        hover_ids: What to show for each point, row numbers by default.

    Returns:
        An explorer for :meth:`cl_core.report.Report.block`: pan, zoom, find, hide classes.

    Raises:
        ValueError: If the lengths differ.
    """
    xy = as_array(points).astype(np.float32)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"need points on a plane (n, 2), got {xy.shape}")
    return explorer_block(xy, labels=labels, classes=names, ids=hover_ids)
