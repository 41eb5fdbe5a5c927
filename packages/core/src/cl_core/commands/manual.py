"""Help: what ``cl-x --help`` and ``cl-x VERB --help`` show, at the width of the terminal."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import cleandoc
from typing import Any

from cl_core.checks import near
from cl_core.commands.vocabulary import (
    CommandTable,
    Option,
    documented,
    metavar,
    options_of,
    paths_of,
    summary_of,
)
from cl_core.errors import InputError

__all__ = ["command_help", "program_help", "terminal_width"]

_WIDEST = 100
_COLUMN = 26  # where explanations begin


def terminal_width() -> int:
    """Columns to write in; a hundred at most, for lines that the eye can follow."""
    return max(40, min(_WIDEST, shutil.get_terminal_size().columns))


def program_help(name: str, commands: CommandTable, own: CommandTable, path: str = "") -> str:
    """The verbs of a program, or of one of its groups.

    Args:
        name: The program.
        commands: Its table, or that of the group.
        own: The verbs that every program has; none are shown of a group.
        path: The words that lead to the group.
    """
    lines = [f"usage: {' '.join(filter(None, [name, path]))} VERB [--option VALUE ...]", ""]
    about = _about(commands)
    if about and not path:
        lines += [*_filled(about), ""]
    found = [(verb, summary_of(entry[0])) for verb, entry in paths_of(commands)]
    lines += _listed(found)
    if not path:
        lines += ["", "for every kind of run:"]
        lines += _listed([(verb, summary_of(entry[0])) for verb, entry in paths_of(own)])
    verb = " ".join(filter(None, [name, path, "VERB"]))
    closing = "--version is told, --quiet says nothing but warnings and what went wrong."
    lines += ["", *_filled(f"{verb} --help tells a verb's options; {closing}")]
    return "\n".join(lines)


def _about(commands: CommandTable) -> str:
    """What the package says of itself, first of all."""
    first = next(paths_of(commands), None)
    package = sys.modules.get(first[1][0].__module__.partition(".")[0]) if first else None
    return summary_of(package) if package is not None else ""


def command_help(name: str, config_class: type, asked: str = "") -> str:
    """The options of a command, by group; the nested groups in a line each unless asked for.

    Args:
        name: The program with its verb.
        config_class: The options.
        asked: A nested group, or ``all``.

    Raises:
        InputError: If there is no such group.
    """
    options = options_of(config_class)
    nested = dict.fromkeys(option.group for option in options if option.nested)
    if asked and asked != "all" and asked not in nested:
        there = f"there are {', '.join(nested)} and all" if nested else "there are none, but all"
        raise InputError(f"--help: no group {asked!r}; {near(asked, nested)}{there}")
    if asked and asked != "all":
        own = [option for option in options if option.nested and option.group == asked]
        return "\n".join([f"{name} --{asked}.*", *_table(own)])
    lines = [f"usage: {name} {_usage(options)}", ""]
    for part in cleandoc(config_class.__doc__ or "").partition("Args:")[0].strip().split("\n\n"):
        lines += [*_filled(part), ""]
    plain = [option for option in options if not option.nested]
    for group in dict.fromkeys(option.group for option in plain):
        own_group = group == summary_of(config_class)
        lines += ["options:" if own_group else _heading(group)]
        lines += [*_table([option for option in plain if option.group == group]), ""]
    about = documented(config_class)
    if nested and asked == "all":
        for group in nested:
            lines += [_heading(about[group])]
            lines += [*_table([o for o in options if o.nested and o.group == group]), ""]
    elif nested:
        lines += [f"groups ({name} --help GROUP tells their options, --help all all of them):"]
        lines += [*_listed([(f"--{group}.*", about[group]) for group in nested]), ""]
    lines += ["of every command:"]
    lines += _listed(
        [
            ("--config FILE", "Options from a YAML file; those on the command line prevail."),
            ("--print_config", "Show the options that would be used, and stop."),
            ("--quiet", "Say nothing but warnings and what went wrong."),
        ]
    )
    return "\n".join(lines)


def _usage(options: Iterable[Option]) -> str:
    needed = [f"--{o.name} {metavar(o.hint)}" for o in options if o.is_required]
    return " ".join([*needed, "[--option VALUE ...]"])


def _heading(summary: str) -> str:
    return textwrap.shorten(summary.rstrip("."), terminal_width() - 1, placeholder=" ...") + ":"


def _table(options: Sequence[Option]) -> list[str]:
    rows = []
    for option in options:
        value = "" if option.is_switch else f" {metavar(option.hint)}"
        rows.append((f"--{option.name}{value}", f"{option.about}{_default(option)}"))
    return _listed(rows)


def _default(option: Option) -> str:
    """What holds if nothing is given, where that says something."""
    value: Any = option.default
    if option.is_required:
        return " (needed)"
    if value is None or value is False or value == () or dataclasses.is_dataclass(value):
        return ""
    if value is True:
        return f" (default: yes; --{option.name} false)"
    if isinstance(value, tuple):
        value = f"[{','.join(map(str, value))}]"
    elif isinstance(value, Mapping):
        return ""
    return f" (default: {value})"


def _listed(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [line for name, about in rows for line in _row(name, about)]


def _row(name: str, about: str) -> Iterator[str]:
    width = terminal_width()
    column = min(_COLUMN, width // 3)
    head = f"  {name}"
    text = textwrap.wrap(about, width - column, break_on_hyphens=False) or [""]
    if len(head) < column - 1:
        yield f"{head:<{column}}{text[0]}".rstrip()
        text = text[1:]
    else:
        yield head
    for line in text:
        yield " " * column + line


def _filled(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), terminal_width(), break_on_hyphens=False)
