"""Figures of parts of the images: by sex, age, site, source, or any column of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.images import ImageTable
from cl_core.tables.labels import is_missing

__all__ = ["age_band", "default_subgroups", "label_agreement", "members", "subgroup_rows"]

_USUAL = (
    ("sex", "gender"),
    ("age", "age_approx"),
    ("localization", "anatom_site_general", "anatom_site_general_challenge", "site"),
    ("source", "dataset"),
    ("dx_type", "diagnosis_confirm_type"),
)

BAND = 20
"""Years of an age band."""


def default_subgroups(table: ImageTable) -> tuple[str, ...]:
    """Name the columns of sex, age, site, source and confirmation that a table has."""
    lower = {name.lower(): name for name in table.columns}
    return tuple(
        next(lower[name] for name in names if name in lower)
        for names in _USUAL
        if any(name in lower for name in names)
    )


def members(table: ImageTable, column: str) -> dict[str, NDArray[np.int64]]:
    """Give the rows of each value of a column; of ages, of each band.

    Raises:
        InputError: If there is no such column.
    """
    cells = table.column(column)
    bands = column.lower() in _USUAL[1]
    values = [age_band(cell) if bands else _spelled(cell) for cell in cells]
    return {
        value: np.array([row for row, own in enumerate(values) if own == value], dtype=np.int64)
        for value in sorted(set(values))
    }


def subgroup_rows(
    table: ImageTable,
    columns: Sequence[str],
    measure: Callable[[NDArray[np.int64], bool], Mapping[str, object]],
    *,
    fewest: int,
) -> list[dict[str, object]]:
    """Measure each subgroup.

    Args:
        table: The images.
        columns: To divide by.
        measure: Gives the cells of some rows, with intervals or without.
        fewest: Images below which intervals are left out: they would look surer than they are.

    Returns:
        A row a subgroup: its column, value, images, and what ``measure`` gives.

    Raises:
        InputError: If there is no such column.
    """
    found: list[dict[str, object]] = []
    for column in columns:
        for value, rows in members(table, column).items():
            head: dict[str, object] = {"column": column, "value": value, "images": len(rows)}
            found.append(head | dict(measure(rows, len(rows) >= fewest)))
    return found


def age_band(cell: str) -> str:
    """Give the band of an age, such as ``40 to 59``; what is no age is unknown.

    Example:
        >>> age_band("45.0"), age_band("unknown")
        ('40 to 59', 'unknown')
    """
    try:
        age = float(cell)
    except ValueError:
        return "unknown"
    if not 0 <= age < 150:
        return "unknown"
    low = int(age // BAND) * BAND
    return f"{low} to {low + BAND - 1}"


def label_agreement(table: ImageTable, column: str) -> float:
    """Tell how well a column alone predicts the label, 0 (not at all) to 1.

    Adjusted mutual information. A column such as the source of an image that predicts the label
    hints that a classifier may read the source instead of the lesion.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    cells: list[Any] = [_spelled(cell) for cell in table.column(column)]
    return float(adjusted_mutual_info_score(table.labels, cells))


def _spelled(cell: str) -> str:
    return "unknown" if is_missing(cell) else cell.strip()
