"""Text for a terminal: what stands in names and cells never commands it."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["be_quiet", "in_notebook", "is_quiet", "printable", "say", "tell"]

# Direction overrides reorder what stands beside them; the others move, colour or ring.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Spell out what a terminal would obey: ESC becomes ``\x1b``. Line ends and tabs stay.

    Example:
        >>> print(printable("red\x1b[31m"))
        red\x1b[31m
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in _HIDDEN
        else character.encode("unicode_escape").decode()
        for character in text
    )


def say(text: str, stream: Any = None) -> None:
    """Print text to a stream, by default standard error, in characters that it takes."""
    stream = sys.stderr if stream is None else stream
    line = printable(text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


_quiet = False


def is_quiet() -> bool:
    """Whether the user asked for silence: no bars, no lines of progress, no results shown."""
    return _quiet


@contextmanager
def be_quiet(quiet: bool = True) -> Iterator[None]:
    """Show nothing but warnings and what went wrong, as ``--quiet`` does; for use from Python too.

    Args:
        quiet: ``False`` lets progress and results be shown.
    """
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


def in_notebook() -> bool:
    """Whether this runs in a kernel of Jupyter, where a bar is drawn without a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def tell(line: str) -> None:
    """Write a line of progress to standard error, unless silence is asked for."""
    if not _quiet:
        say(line)
