"""The type of options that name data: a place on the command line, an object from Python."""

from __future__ import annotations

__all__ = ["Source"]


class _Anything(type):
    """Takes every value for one of its kind, as type checkers at run time ask."""

    def __instancecheck__(cls, value: object) -> bool:
        return True


class Source(metaclass=_Anything):
    """A path or a name on the command line; from Python also an object in memory.

    To static checkers it is ``Any``, as the stub beside says.
    """
