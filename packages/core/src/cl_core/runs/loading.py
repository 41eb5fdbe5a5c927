"""The model of a run, whichever package saved it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from cl_core.errors import InputError
from cl_core.runs.card import Card, card_kind

__all__ = ["load_saved"]


def load_saved(folder: Path) -> Any:
    """Load a model by the ``load`` of the package whose card describes it.

    Only packages that are imported already are asked: a file cannot choose what is imported.

    Raises:
        InputError: If there is no model, or no package that knows its kind is imported.
    """
    kind = card_kind(folder, option="--out")
    for card in _subclasses(Card):
        if getattr(card, "kind", None) == kind:
            package = import_module(card.__module__.partition(".")[0])
            if hasattr(package, "load"):
                return package.load(folder)
    raise InputError(
        f"{folder} holds a model of kind {kind!r}: import its package, whose load() reads it"
    )


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for own in kind.__subclasses__():
        yield own
        yield from _subclasses(own)
