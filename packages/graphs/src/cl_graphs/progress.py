"""What a user sees of a long evaluation: a line now and then on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable

from cl_core.commands.terminal import is_quiet, say

__all__ = ["Progress", "silent"]


class Progress:
    """Counts the parts of a work and tells how far it is, when it takes long.

    Args:
        what: The work, such as ``evaluate``.
        total: Its parts.
        shown: Whether anything is told at all.
        pause: Seconds before the first line and between two.
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        shown: bool = True,
        pause: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.shown, self.pause, self.clock = what, total, shown, pause, clock
        self.done = 0
        self.begin = self.told = clock()

    def __call__(self, part: str = "") -> None:
        """Count one more part as done."""
        self.done += 1
        now = self.clock()
        if not self.shown or is_quiet() or now - self.told < self.pause:
            return
        self.told = now
        left = (now - self.begin) / self.done * (self.total - self.done)
        named = f" ({part})" if part else ""
        say(f"{self.what}: {self.done} of {self.total} done{named}, about {_span(left)} left")


def silent(part: str = "") -> None:
    """Tell nothing."""


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
