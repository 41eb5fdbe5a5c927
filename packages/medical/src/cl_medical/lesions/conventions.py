"""Which column of a table is which: the public data sets' conventions, by name or recognised.

=============== ========================= =============================== ====================
convention      image                     label                           group
=============== ========================= =============================== ====================
``isic2020``    image_name                target                          patient_id
``isic2019``    image                     MEL, NV, ... one column a class lesion_id (metadata)
``ham10000``    image_id                  dx                              lesion_id
``supercon``    image                     label ("Train19+20.txt")        none
``prepared``    image                     label                           group, and split
``auto``        the first of these, and of other usual names, that the table has
=============== ========================= =============================== ====================

Capitals, and blanks around a name or in it, do not count: the lists of SuperCon's repository have
a blank before ``label``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cl_core.checks import near
from cl_core.errors import InputError

__all__ = ["Convention", "Roles", "find_roles"]

Convention = Literal["auto", "isic2019", "isic2020", "ham10000", "supercon", "prepared"]

_SPLITS = ("split", "partition", "subset")


@dataclass(frozen=True)
class _Names:
    """The names a role may have, the first that is there counts; no label name: one-hot columns."""

    image: tuple[str, ...]
    label: tuple[str, ...]
    group: tuple[str, ...] = ()


_AUTO = _Names(
    image=(
        *("image", "image_name", "image_id", "isic_id", "img", "filename", "file_name", "file"),
        *("image_path", "filepath", "path", "id", "name"),
    ),
    label=(
        *("label", "target", "dx", "diagnosis", "class", "diagnosis_1", "benign_malignant"),
        *("melanoma", "malignant", "category", "y"),
    ),
    group=("group", "patient_id", "patient", "lesion_id", "lesion"),
)

_KNOWN: Mapping[str, _Names] = {
    "auto": _AUTO,
    "isic2020": _Names(("image_name",), ("target", "benign_malignant"), ("patient_id",)),
    "isic2019": _Names(("image",), (), ("lesion_id",)),
    "ham10000": _Names(("image_id",), ("dx",), ("lesion_id",)),
    "supercon": _Names(("image",), ("label",)),
    "prepared": _Names(("image",), ("label",), ("group",)),
}


@dataclass(frozen=True)
class Roles:
    """Which column is which, by place.

    Attributes:
        image: The image.
        label: The label; ``None`` if there is none, or one column per class.
        one_hot: The columns of the classes.
        group: The patient or lesion; ``None`` if there is none.
        split: The split; ``None`` if there is none.
    """

    image: int
    label: int | None
    one_hot: tuple[int, ...]
    group: int | None
    split: int | None


def find_roles(
    names: Sequence[str],
    columns: Sequence[Sequence[str]],
    *,
    source: str,
    convention: Convention = "auto",
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    split: str | None = None,
    labelled: bool = True,
) -> Roles:
    """Tell the columns of a table apart.

    Args:
        names: Of the columns.
        columns: Their cells.
        source: The file, for messages.
        convention: See the module.
        image: The user's name of the image column; likewise the next three.
        label: See above.
        group: See above.
        split: See above.
        labelled: Whether a label is needed.

    Raises:
        InputError: If the image, or a label that is needed, is not to be found, naming the columns
            there are.
    """
    known = _KNOWN[convention]
    keys = [_key(name) for name in names]

    def place(option: str, given: str | None, usual: Sequence[str]) -> int | None:
        if given is not None:
            if _key(given) in keys:
                return keys.index(_key(given))
            raise InputError(
                f"{source}: --{option} {given}: no such column; {near(given, names)}"
                f"the columns are {_told(names)}"
            )
        return next((keys.index(name) for name in usual if name in keys), None)

    at_image = place("image", image, known.image)
    if at_image is None:
        raise InputError(
            f"{source}: none of the columns {_told(names)} names the images "
            f"(looked for {', '.join(known.image)}): say which, as --image COLUMN"
        )
    at_label = place("label", label, known.label)
    at_group = place("group", group, known.group)
    at_split = place("split", split, _SPLITS)
    one_hot: tuple[int, ...] = ()
    if at_label is None:
        taken = {at_image, at_group, at_split}
        one_hot = tuple(
            k for k, cells in enumerate(columns) if k not in taken and _is_one_hot(cells)
        )
        one_hot = one_hot if len(one_hot) > 1 else ()
    if labelled and at_label is None and not one_hot:
        wanted = ", ".join(known.label) if known.label else "one column of 0 and 1 per class"
        raise InputError(
            f"{source}: none of the columns {_told(names)} holds labels (looked for {wanted}): say "
            "which, as --label COLUMN"
        )
    return Roles(at_image, at_label, one_hot, at_group, at_split)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def _told(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _is_one_hot(cells: Sequence[str]) -> bool:
    """Whether a column holds 0 and 1 alone, or nothing in a few cells."""
    return {cell.strip() for cell in cells} <= {"0", "1", "0.0", "1.0", "", "nan"}
