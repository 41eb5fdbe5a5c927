"""What is wrong with a user's data: told all at once, with domain, case, path and reason."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cl_core.errors import InputError

__all__ = ["ManifestError", "Problem", "Problems"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        reason: What, and what to do.
        domain: Where.
        case: Of which case.
        path: In which file.
    """

    reason: str
    domain: str = ""
    case: str = ""
    path: str = ""

    def __str__(self) -> str:
        place = "/".join(part for part in (self.domain, self.case) if part)
        return ": ".join(part for part in (place, self.path, self.reason) if part)


class ManifestError(InputError):
    """All that is wrong with the data, in one line.

    Attributes:
        problems: One by one.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, source: str, problems: Sequence[Problem]) -> ManifestError:
        """Tell the problems of one source."""
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        told = "; ".join(f"({n}) {p}" for n, p in enumerate(problems, 1))
        return cls(f"{source} has {count}: {told}", problems)


@dataclass
class Problems:
    """Collects what is wrong while a manifest is read.

    Attributes:
        base: The folder that paths are relative to.
        found: So far.
    """

    base: Path
    found: list[Problem] = field(default_factory=list)

    def tell(self, reason: str, domain: str = "", case: str = "", path: object = "") -> None:
        """Add one."""
        self.found.append(Problem(reason, domain, case, str(path)))

    def unknown_keys(
        self, record: Mapping[str, Any], known: Sequence[str], domain: str = "", case: str = ""
    ) -> None:
        """Other keys are the user's notes, unless they look like a slip."""
        for key in map(str, record):
            alike = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
            if key not in known and alike:
                self.tell(f"unknown entry {key!r}: did you mean {alike[0]}?", domain, case)
