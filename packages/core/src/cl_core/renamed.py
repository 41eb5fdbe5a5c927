"""Modules under the names they had before they moved into rooms, for scripts written then."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["keep_old_names"]


def keep_old_names(package: str, moved: Mapping[str, str]) -> None:
    """Let old module names of a package mean the modules that took their place.

    Importing an old name warns and gives the very module of the new one.

    Args:
        package: Such as ``cl_core``.
        moved: Old name to new one, both within the package, as in ``{"cli": "commands.cli"}``.
    """
    sys.meta_path.append(
        _Finder({f"{package}.{old}": f"{package}.{new}" for old, new in moved.items()})
    )


class _Finder(MetaPathFinder, Loader):
    """Comes last, so that it is only asked for names that do not exist any more."""

    def __init__(self, moved: Mapping[str, str]) -> None:
        self.moved = moved

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in self.moved else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, self.moved[module.__name__]
        warnings.warn(f"{old} is called {new} now", DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(new)
