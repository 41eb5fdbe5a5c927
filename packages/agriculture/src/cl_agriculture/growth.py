"""How groups change from date to date: plant cover, and where they lie among the components."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import numpy as np
from jaxtyping import Bool, Float64, Int64

from cl_core.errors import InputError
from cl_core.images import ImageTable

__all__ = ["dates_of", "growth_rows"]

COLUMN = "date"
_COMPONENTS = 3
"""Principal components told of each centre."""


def dates_of(table: ImageTable) -> list[date | None] | None:
    """The dates in a manifest's column ``date``.

    Returns:
        A date an image, ``None`` for a blank; ``None`` if there is no such column or no date in it.

    Raises:
        InputError: If a cell is no date as ISO 8601 writes it, such as 2024-05-31.
    """
    name = next((name for name in table.columns if name.lower() == COLUMN), None)
    if name is None:
        return None
    dates: list[date | None] = []
    for row, cell in enumerate(table.columns[name]):
        try:
            dates.append(datetime.fromisoformat(cell.strip()).date() if cell.strip() else None)
        except ValueError as error:
            raise InputError(
                f"{table.source}: the {COLUMN} of {table.name(row)} is {cell!r}; write dates as "
                "2024-05-31"
            ) from error
    return dates if any(dates) else None


def growth_rows(
    dates: Sequence[date | None],
    groups: Int64[np.ndarray, " n"],
    names: Int64[np.ndarray, " k"],
    scores: Float64[np.ndarray, "n d"],
    fractions: Float64[np.ndarray, " n"] | None = None,
    trusted: Bool[np.ndarray, " n"] | None = None,
) -> list[dict[str, object]]:
    """A row a group and date: images, mean plant cover, centre on the first principal components.

    Args:
        dates: ``None`` where it is not known; those images do not count.
        groups: Component of each image.
        names: Numbers by which groups are called.
        scores: On the principal components.
        fractions: Plant cover of each image; without masks that column is left out.
        trusted: Images whose mask is used; the cover of the others does not count.
    """
    places: dict[tuple[int, date], list[int]] = {}
    for place, (group, day) in enumerate(zip(groups.tolist(), dates, strict=True)):
        if day is not None:
            places.setdefault((group, day), []).append(place)
    rows: list[dict[str, object]] = []
    for (group, day), members in sorted(
        places.items(), key=lambda item: (int(names[item[0][0]]), item[0][1])
    ):
        row: dict[str, object] = {
            "cluster": int(names[group]),
            "date": day.isoformat(),
            "images": len(members),
        }
        if fractions is not None:
            own = [m for m in members if trusted is None or trusted[m]]
            row["mask_fraction"] = float(fractions[own].mean()) if own else None
        centre = scores[members].mean(axis=0)[:_COMPONENTS]
        row |= {f"pc{k}": float(value) for k, value in enumerate(centre, start=1)}
        rows.append(row)
    return rows
