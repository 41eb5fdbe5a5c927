"""The verb ``list``: what a package knows by name."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from importlib import import_module

from cl_core.checks import OptionError, near
from cl_core.commands.manual import terminal_width
from cl_core.commands.own import ListConfig, Program
from cl_core.commands.recipes import recipe_about, recipe_names
from cl_core.commands.vocabulary import options_of, paths_of

__all__ = ["Row", "list_names", "names"]

Row = Mapping[str, object]

# Options whose words are a package's methods.
_METHODS = ("method", "mode")


def list_names(program: Program, config: ListConfig) -> str:
    """The list that was asked for, a name a line; without one, which lists there are.

    Raises:
        OptionError: If there is no such list.
    """
    known = [*_of_tables(program), *program.lists]
    if not config.what:
        return "\n".join(f"{program.name} list {name}" for name in known)
    what, *picked = config.what
    if what not in known:
        raise OptionError(f"no list {what!r}; {near(what, known)}there are {', '.join(known)}")
    rows = [
        row
        for row in names(program, what)
        if all(word.lower() in " ".join(map(str, row.values())).lower() for word in picked)
    ]
    if not rows:
        raise OptionError(f"list {what}: none holds {' '.join(picked)}")
    return "\n".join(_lines(rows))


def _lines(rows: list[Row]) -> list[str]:
    """A line a row; on a terminal the last column is folded beside the others."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = max(20, terminal_width() - before) if sys.stdout.isatty() else sys.maxsize
    lines = []
    for row in cells:
        head = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths[:-1], strict=False))
        first, *more = textwrap.wrap(row[-1], room) or [""]
        lines += [f"{head}{first}".rstrip(), *(" " * before + line for line in more)]
    return lines


def _of_tables(program: Program) -> dict[str, list[Row]]:
    """The lists that are read off the program's options."""
    recipes = list(_recipes(program))
    methods = list(_methods(program))
    return {name: rows for name, rows in (("recipes", recipes), ("methods", methods)) if rows}


def names(program: Program, what: str) -> list[Row]:
    """The rows of a list that the program has."""
    own = _of_tables(program)
    if what in own:
        return own[what]
    module, _, function = program.lists[what].partition(":")
    rows: list[Row] = getattr(import_module(module), function)()
    return rows


def _recipes(program: Program) -> Iterator[Row]:
    for verb, (config_class, _) in paths_of(program.commands):
        if any(option.name == "recipe" for option in options_of(config_class)):
            for name in recipe_names(config_class):
                yield {"recipe": name, "verb": verb, "what": recipe_about(config_class, name)}


def _methods(program: Program) -> Iterator[Row]:
    verbs: dict[str, list[str]] = {}
    for verb, (config_class, _) in paths_of(program.commands):
        for option in options_of(config_class):
            if option.name in _METHODS:
                for word in option.choices:
                    verbs.setdefault(f"--{option.name} {word}", []).append(verb)
    for words, of in verbs.items():
        yield {"method": words, "verb": ", ".join(of)}
