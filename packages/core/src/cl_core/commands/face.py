"""The public face of a package: names that cost nothing until they are used.

A verb is a function that imports its pipeline when it is called, so that ``cl_graphs.pretrain`` can
be had, documented and completed without torch; ``load`` reads a run's card before anything else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import lazy_loader

from cl_core.errors import InputError

__all__ = ["Verb", "attach"]


class Verb:
    """A verb's function, imported when it is called or asked about.

    Args:
        module: Where it lies.
        name: What it is called there.
    """

    def __init__(self, module: str, name: str) -> None:
        self.__module__ = module
        self.__name__ = self.__qualname__ = name

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module(self.__module__), self.__name__)
        return found

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.__wrapped__.__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.__wrapped__)

    def __call__(self, *args: Any, **given: Any) -> Any:
        return self.__wrapped__(*args, **given)

    def __reduce__(self) -> tuple[type[Verb], tuple[str, str]]:
        return Verb, (self.__module__, self.__name__)

    def __repr__(self) -> str:
        return f"<verb {self.__module__}.{self.__name__}>"


def attach(
    package: str,
    names: Mapping[str, Collection[str]],
    *,
    verbs: Mapping[str, Collection[str]],
    loads: Mapping[str, str] | None = None,
    rooms: Collection[str] = (),
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Args:
        package: Its name.
        names: Module to the names that are had from it.
        verbs: Module to the names of its verbs.
        loads: Kind of a model, as its card says, to what makes it of a :class:`~cl_core.runs.Run`,
            as ``module:function``. Where there are any, the package has a function ``load``.
        rooms: Modules that are had as they are.
    """
    get, _, listed = lazy_loader.attach(package, submodules=rooms, submod_attrs=dict(names))
    own: dict[str, Any] = {
        name: Verb(f"{package}.{module}", name) for module, found in verbs.items() for name in found
    }
    if loads:
        own["load"] = _loader(package, loads)
    known = sorted({*listed, *own})

    return (
        lambda name: own[name] if name in own else get(name),
        lambda: list(known),
        list(known),
    )


def _loader(package: str, loads: Mapping[str, str]) -> Callable[..., Any]:
    def load(run: Path | str, **how: Any) -> Any:
        """Load the model of a run, in eval mode and ready to use.

        Args:
            run: Run directory, or a folder of ``export``.
            how: What the package asks for models of a user's own, such as ``encoder``.

        Raises:
            InputError: If there is no run, or it holds no model of this package.
        """
        from cl_core.runs import Run
        from cl_core.runs.card import CARD, card_kind

        place = Path(run).expanduser()
        # A folder of `export` holds the model alone.
        alone = (place / CARD).is_file() and not (place / "config.yaml").exists()
        opened = Run(place) if alone else Run.open(place)
        kind = card_kind(opened.path)
        if kind not in loads:
            told = " or ".join(map(repr, loads))
            raise InputError(f"--run {opened.path} holds a model of kind {kind!r}, not {told}")
        module, _, path = loads[kind].partition(":")
        made: Any = import_module(f"{package}.{module}")
        for name in path.split("."):
            made = getattr(made, name)
        return made(opened, **how)

    load.__module__ = package
    return load
