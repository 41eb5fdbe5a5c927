"""Checks of options and arguments, one meaning each (standard library only)."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from cl_core.errors import InputError

__all__ = [
    "OptionError",
    "near",
    "require_at_least",
    "require_one_of",
    "require_positive",
    "require_rate",
    "require_share",
]


class OptionError(InputError, ValueError):
    """A value that an option does not take: a user's fault to a command, a caller's in Python."""


def near(word: object, known: Iterable[str]) -> str:
    """``"did you mean x or y? "`` if something known is spelled alike, else nothing."""
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(str(word).lower(), names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(names[name] for name in found)}? " if found else ""


def require_positive(**values: float | None) -> None:
    """Refuse what is not above 0; ``None`` stands for an option that was left open."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise OptionError(f"{name} must be positive, got {value}")


def require_at_least(bound: float, **values: float | None) -> None:
    """Refuse what is below ``bound``; ``None`` passes."""
    for name, value in values.items():
        if value is not None and not value >= bound:
            raise OptionError(f"{name} must be at least {bound}, got {value}")


def require_share(**values: float | None) -> None:
    """Refuse what is no share of a whole, in [0, 1]; ``None`` passes."""
    for name, value in values.items():
        if value is not None and not 0 <= value <= 1:
            raise OptionError(f"{name} must lie between 0 and 1, got {value}")


def require_rate(**values: float | None) -> None:
    """Refuse what is no rate, in [0, 1); ``None`` passes."""
    for name, value in values.items():
        if value is not None and not 0 <= value < 1:
            raise OptionError(f"{name} must lie in [0, 1), got {value}")


def require_one_of(name: str, value: Any, known: Collection[Any]) -> None:
    """Refuse what is not among ``known``, naming those that are spelled alike.

    Raises:
        OptionError: As in ``method must be 'ariel' or 'grace', got 'grac': did you mean grace?``
    """
    if any(value == word and type(value) is type(word) for word in known):
        return
    *first, last = (repr(word) for word in known)
    choice = f"{', '.join(first)} or {last}" if first else last
    hint = near(value, [word for word in known if isinstance(word, str)])
    raise OptionError(
        f"{name} must be {choice}, got {value!r}{f': {hint.strip()}' if hint else ''}"
    )
