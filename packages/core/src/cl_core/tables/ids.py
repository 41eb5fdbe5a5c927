"""Whose row is it: tables joined by the names that stand in them, never by position if they do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.files import Table

__all__ = ["OWNERS", "Owner", "counts_rows", "find_owner", "owners_rows"]

OWNERS = (
    "id", "ids", "node", "node_id", "nodeid", "node id", "vertex", "vertex_id", "name", "index",
    "image", "image_id", "image_name", "file", "filename", "file_name", "path", "sample",
    "sample_id",
)  # fmt: skip
"""Names of columns that say whose row it is, in any case."""

_NAMELESS = ("", "unnamed: 0")  # how tables call the index that a data frame writes


class Owner(NamedTuple):
    """The column that says whose row it is.

    Attributes:
        column: Its place in the table.
        told: Why it was taken, for a note; empty where its name says it.
    """

    column: int
    told: str


def find_owner(
    table: Table, ids: Collection[str] | None = None, *, names: Sequence[str] = OWNERS
) -> Owner | None:
    """Find the column that says whose row it is.

    By its name; or a nameless first column, as the index of a data frame is written; or a first
    column of several whose cells are all different and are all among ``ids``.

    Args:
        table: The table.
        ids: What the rows' owners are called, if known.
        names: Names that mean an owner, in any case, the strongest first.

    Returns:
        The column, or ``None`` if the table does not say.
    """
    index = table.index(*names)
    if index is not None:
        return Owner(index, "")
    if len(table.columns) < 2:
        return None
    first = table.columns[0].text
    if table.names is not None and table.lower[0] in _NAMELESS:
        return Owner(0, f"{table.path.name}: the nameless first column says whose row it is")
    if ids is not None and len(set(first)) == len(first) and set(first) <= set(ids):
        called = f"'{table.names[0]}'" if table.names else "without header"
        return Owner(
            0,
            f"{table.path.name}: the first column ({called}) holds ids and says whose row it is",
        )
    return None


def counts_rows(cells: Sequence[str], first: int) -> bool:
    """Whether the cells are ``first``, ``first + 1``, ... in this order."""
    return all(cell == str(k) for k, cell in enumerate(cells, first))


def owners_rows(
    table: Table, owner: Owner, ids: Sequence[str], *, what: str = "row"
) -> NDArray[np.int64]:
    """The place in ``ids`` of each row's owner.

    Args:
        table: The table.
        owner: Of :func:`find_owner`.
        ids: What the owners are called, all different.
        what: What is owned, for messages: ``label``, ``row``.

    Raises:
        InputError: If a row belongs to none of ``ids``, or two rows to one, naming the place.
    """
    place = {name: k for k, name in enumerate(ids)}
    column = table.columns[owner.column]
    rows = np.empty(len(column), dtype=np.int64)
    taken: dict[int, int] = {}
    for k, name in enumerate(column.text):
        row = place.get(name)
        if row is None:
            raise InputError(
                f"{table.path}, {column.place(k)}: {name!r} is not one of the {len(ids):,} ids "
                f"(such as {ids[0]!r}); correct it or remove the line"
            )
        if row in taken:
            raise InputError(
                f"{table.path}, {column.place(k)}: {name!r} has a {what} already in "
                f"{column.place(taken[row])}; keep one"
            )
        taken[row] = k
        rows[k] = row
    return rows
