"""What the options of a command are: a frozen dataclass that means the same from everywhere.

``PretrainConfig(data="Cora", out="runs/cora", recipe="cora")`` is what ``cl-graphs pretrain --data
Cora --out runs/cora --recipe cora`` makes of its words: the same values, the same refusals. Given
values come first, then the recipe's, then the defaults. Standard library only: ``--help`` imports
this.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from cl_core.checks import OptionError, near, require_one_of
from cl_core.commands.source import Source

__all__ = [
    "LARGEST_INTEGER",
    "Options",
    "Source",
    "flat_options",
    "hints_of",
    "lacking_fields",
    "takes_objects",
]

LARGEST_INTEGER = 2**53
"""No option counts further; larger integers are mistyped, and break what computes with them."""

_PLAIN = {
    Path: "a path",
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
}


Made = TypeVar("Made", bound="Options")


class _Resolving(type):
    """Resolves the recipe and checks what is given, before a dataclass of options is made."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        """Resolve the types of its fields here, where they are written.

        Left as text, they would be looked up where a subclass is written, and a type which is not
        imported there be taken for any.
        """
        super().__init__(name, bases, namespace)
        with suppress(NameError):  # types that exist for the checker alone
            hints = typing.get_type_hints(cls, include_extras=True)
            own = namespace.get("__annotations__", {})
            cls.__annotations__ = {field: hints[field] for field in own}

    def __call__(cls, *args: Any, **given: Any) -> Any:
        name = given.get("recipe")
        if name is not None and "recipe" in cls.__dataclass_fields__:  # type: ignore[attr-defined]
            from cl_core.commands.recipes import read_recipe

            given = _merged(read_recipe(cls, name), given)
        return super().__call__(*args, **_fitted(cls, given))


@dataclass(frozen=True, kw_only=True)
class Options(metaclass=_Resolving):
    """Base of every dataclass of options.

    Making one resolves its ``recipe``, makes nested groups of mappings, paths of strings, tuples of
    lists and numbers of whole numbers, and refuses values of another type, unknown names and
    literals, each in one line. A subclass checks ranges in ``__post_init__``.
    """

    @classmethod
    def from_recipe(cls: type[Made], name: str, **given: Any) -> Made:
        """The options of a recipe, over which those ``given`` prevail; same as ``recipe=name``.

        Raises:
            OptionError: If there is no such recipe of this command, or a value does not fit.
        """
        return cls(**{"recipe": name, **given})


def flat_options(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested options their dotted names, as the command line spells them."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= flat_options(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


@cache
def hints_of(kind: type) -> dict[str, Any]:
    """The types of the fields of a dataclass, marks included, by name."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def lacking_fields(kind: type, given: Mapping[str, Any]) -> list[str]:
    """The fields of a dataclass that have no default and are not given."""
    return [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]


@cache
def takes_objects(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass that are a :data:`Source`."""
    try:
        hints = hints_of(kind)
    except NameError:  # types that exist for the checker alone
        return ()
    return tuple(name for name, hint in hints.items() if Source in (hint, *get_args(hint)))


def _merged(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Nested: a group given as an object stands for all of the group."""
    merged = {**recipe, **given}
    for name, value in recipe.items():
        if isinstance(value, Mapping) and isinstance(given.get(name), Mapping):
            merged[name] = _merged(value, given[name])
    return merged


def _fitted(cls: type, given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    hints = hints_of(cls)
    for name in given:
        if name not in hints:
            hint = near(name, hints) or f"there are {', '.join(hints)}"
            raise OptionError(f"there is no option {prefix}{name}: {hint.strip()}")
    return {name: _fit(value, hints[name], prefix + name) for name, value in given.items()}


def _fit(value: Any, hint: Any, name: str) -> Any:
    """``value`` as the type ``hint``, which is one of those that options have."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Source:
        if isinstance(value, (str, bytes, int, float, type(None), os.PathLike)):
            return _fit_plain(value, str, name)
        return value
    if origin is Literal:
        require_one_of(name, value, args)
        return value
    if origin in (typing.Union, types.UnionType):
        return _fit_one_of(value, args, name)
    if origin is tuple:
        return _fit_tuple(value, args, name)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return _fit_mapping(value, args, name)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            lacking = lacking_fields(hint, value)
            if lacking:
                raise OptionError(f"{name} has no {', '.join(lacking)}")
            return hint(**_fitted(hint, value, f"{name}."))
        raise _unfit(name, value, f"a {hint.__name__} or a mapping of its options")
    if hint is Any:
        return value
    return _fit_plain(value, hint, name)


def _fit_plain(value: Any, hint: type, name: str) -> Any:
    if hint is Path and isinstance(value, (str, os.PathLike)):
        if "\0" in str(value):
            raise _unfit(name, value, "a path")
        return Path(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > LARGEST_INTEGER:
            raise OptionError(f"{name} must be below 2^53, got {value.bit_length()} bits")
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value) if abs(value) <= LARGEST_INTEGER or isinstance(value, float) else None
        if number is None or math.isnan(number):
            raise _unfit(name, value, "a number")
        return number
    if hint is str and isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise _unfit(name, value, _spelled(hint))


def _fit_one_of(value: Any, kinds: tuple[Any, ...], name: str) -> Any:
    named = [kind for kind in kinds if kind is not type(None)]
    if value is None and len(named) < len(kinds):
        return None
    if len(named) == 1:
        return _fit(value, named[0], name)
    for kind in sorted(named, key=lambda kind: type(value) is not kind):
        try:
            return _fit(value, kind, name)
        except OptionError:
            continue
    raise _unfit(name, value, " or ".join(_spelled(kind) for kind in named))


def _fit_tuple(value: Any, kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise _unfit(name, value, "a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_fit(item, kinds[0], f"{name}[{k}]") for k, item in enumerate(value))
    if len(value) != len(kinds):
        raise _unfit(name, value, f"{len(kinds)} values")
    pairs = enumerate(zip(value, kinds, strict=True))
    return tuple(_fit(item, kind, f"{name}[{k}]") for k, (item, kind) in pairs)


def _fit_mapping(value: Any, kinds: tuple[Any, ...], name: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _unfit(name, value, "a mapping")
    if not kinds:
        return dict(value)
    return {
        _fit(key, kinds[0], name): _fit(item, kinds[1], f"{name}.{key}")
        for key, item in value.items()
    }


def _spelled(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(repr(word) for word in get_args(kind))
    if origin is tuple:
        return "a list"
    return _PLAIN.get(kind, getattr(kind, "__name__", str(kind)))


def _unfit(name: str, value: Any, wanted: str) -> OptionError:
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        shown = f"a number of {value.bit_length()} bits"
    else:
        shown = repr(value)
    return OptionError(f"{name} must be {wanted}, got {shown[:80]}{'...' * (len(shown) > 80)}")
