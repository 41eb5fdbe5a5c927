"""One command line for every package, made from a table of frozen dataclasses.

A table maps a verb to its configuration class and to the function that takes it::

    COMMANDS = {"pretrain": (PretrainConfig, "cl_graphs.pipeline:pretrain")}

The class's fields are the options, its docstring the help; the function is imported only after
the options have been understood, so that ``--help`` never pays for torch. A value may be another
table, which gives nested verbs. Values come, strongest first, from a flag, from the file named by
``--config``, from the recipe named by ``--recipe``, from the default.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib.metadata
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, cast, get_type_hints

import jsonargparse
import yaml
from jsonargparse import get_loader, set_loader
from jsonargparse.typing import register_type

from cl_core.commands.options import flat_options
from cl_core.commands.recipes import read_recipe
from cl_core.commands.source import Source
from cl_core.commands.terminal import printable, say
from cl_core.errors import InputError, TrainingError
from cl_core.runs.launch import launched_rank
from cl_core.tables.documents import parse_yaml, read_yaml

__all__ = ["Command", "CommandTable", "run_program"]

Command = tuple[Any, str]
CommandTable = Mapping[str, "Command | CommandTable"]


# What the parser says -> what a user reads.
_PLAIN = (
    (r'Parser key "([\w.]+)":', r"--\1:"),
    (r"(arguments are required: )(?:\w+\.)*(\w+)$", r"\1--\2"),
    (r'[Ee]xpected "[\w.]*command" to be one of {(.*)}, but it was.*', r"name a command: \1"),
    (r"argument command: invalid choice: ('.*') \(choose from (.*)\)", r"no command \1 in \2"),
    (r"Expected a (?:typing\.)?", "expected "),
    (r"<class '(\w+)'>", r"\1"),
)


class _Parser(jsonargparse.ArgumentParser):
    """A parser whose complaint is one line that names the option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(message.split())
        for pattern, plain in _PLAIN:
            line = re.sub(pattern, plain, line)
        raise InputError(f"{line} (see {self.prog.replace(' [options]', '')} --help)")


class _Scan(argparse.ArgumentParser):
    """Looks for two options alone; every other complaint is the real parser's to make."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def run_program(name: str, commands: CommandTable, argv: Sequence[str] | None = None) -> int:
    """Parse ``argv``, check it, and only then import and run the code that does the work.

    What the function returns is printed, if it is not ``None``; of several processes by the first.
    Its attribute ``code``, if it has one, is the exit code: see
    :class:`~cl_core.commands.outcome.Outcome`.

    Args:
        name: The program, which is also the distribution whose version ``--version`` tells.
        commands: Verb to configuration class and ``"module:function"``, or to another such table.
        argv: The arguments, by default those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 something the user can mend, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Before torch is imported: its threads then sleep while they wait for one that another
    # program has put off its core, instead of burning a core each.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    first = launched_rank() == 0  # a launcher's variables may be gone after a training
    config = None
    try:
        with _warnings_printable():
            run, config = _parse(name, commands, arguments)
            result = run(config)
        if result is not None and first:
            say(str(result), sys.stdout)
    except KeyboardInterrupt:
        say(f"{name}: interrupted")
        return 130
    except Exception as error:
        if os.environ.get("CL_TRACEBACK"):
            raise
        code, line = _told(error)
        say(f"{name}: {_spelled(line, config)}")
        return code
    return int(getattr(result, "code", 0))


def _told(error: Exception) -> tuple[int, str]:
    """The exit code and the line of what ended a command."""
    line = " ".join(str(error).split())
    if isinstance(error, InputError | TrainingError):
        return (2 if isinstance(error, InputError) else 1), line
    if isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC):
        # The machine's answer about a path that the user named: no place, no right, no such thing.
        place = f"{error.filename}: " if error.filename is not None else ""
        return 2, f"{place}{error.strerror or line}"
    if isinstance(error, MemoryError):
        return 1, f"not enough memory{f' ({line})' if line else ''}"
    return 1, f"failed, {type(error).__name__}: {line} (CL_TRACEBACK=1 tells where)"


def _spelled(line: str, config: Any) -> str:
    """A line whose advice, such as ``on_error=skip``, names the options of this command.

    What core refuses it tells in the words of Python; here they are typed with two dashes.
    """
    if not dataclasses.is_dataclass(config):
        return line
    names = "|".join(sorted((field.name for field in dataclasses.fields(config)), key=len))
    return re.sub(rf"(?<![^\s(])({names})=(\[[^\]]*\]|[^\s,;:)]+)", r"--\1 \2", line)


@contextmanager
def _warnings_printable() -> Iterator[None]:
    """Warnings as one line each, without what a terminal would obey."""
    before = warnings.formatwarning

    def one_line(message: Any, category: type[Warning], *_: Any, **__: Any) -> str:
        return printable(f"{category.__name__}: {' '.join(str(message).split())}") + "\n"

    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = before


def _parse(name: str, commands: CommandTable, argv: list[str]) -> Any:
    """The function to run and its configuration."""
    parser = _Parser(prog=name, version=importlib.metadata.version(name))
    argv = _spell_out_switches(argv, commands)
    named = _named(argv)
    if named.config is not None and named.config.exists():
        read_yaml(named.config)  # refused in one line before the parser meets it
    _add_commands(parser, commands, argv, named)
    try:
        parsed = parser.parse_args(argv)
        values = parser.instantiate(parsed)  # makes the nested groups of options
    except (ValueError, OverflowError, RecursionError) as error:
        told = str(error)
        raise InputError(
            told if isinstance(error, ValueError) else f"a value of an option: {told}"
        ) from error
    entry: Any = commands
    while isinstance(entry, Mapping):
        verb = values["command"]
        entry, values = entry[verb], values[verb]
    config_class, target = entry
    options = {key: value for key, value in vars(values).items() if key != "config"}
    try:
        config = config_class(**options)
    except ValueError as error:
        raise InputError(str(error)) from error
    module, _, function = target.partition(":")
    return getattr(import_module(module), function), config


def _add_commands(
    parser: _Parser, commands: CommandTable, argv: list[str], named: argparse.Namespace
) -> None:
    verbs = parser.add_subcommands(dest="command")
    for verb, entry in commands.items():
        if isinstance(entry, Mapping):
            summary = ", ".join(entry)
            nested = _Parser(description=f"One of {summary}.")
            verbs.add_subcommand(verb, nested, help=summary)
            # The same verb of another group is not the one that was typed.
            _add_commands(nested, entry, argv if verb in argv else [], named)
            continue
        config_class, _ = entry
        documentation = (config_class.__doc__ or "").partition("Args:")[0].strip()
        single = _Parser(description=documentation, usage="%(prog)s [--option VALUE ...]")
        if verb in argv:  # the options of the other verbs are not worth their time
            single.add_argument("--config", action="config")
            single.add_class_arguments(config_class, None, as_group=False)
            if "recipe" in config_class.__dataclass_fields__:
                single.set_defaults(_recipe(config_class, named))
        verbs.add_subcommand(verb, single, help=documentation.partition("\n")[0])


def _spell_out_switches(argv: list[str], commands: CommandTable) -> list[str]:
    """Let ``--resume`` alone mean ``--resume true``, as everywhere else."""
    entry: Any = commands
    for word in argv:
        if isinstance(entry, Mapping):
            entry = entry.get(word, entry)
    if isinstance(entry, Mapping):
        return argv
    switches = {f"--{name}" for name in _switches(entry[0])}
    spelled = []
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        alone = word in switches and following.lower() not in ("true", "false", "yes", "no")
        spelled.append(f"{word}=true" if alone else word)
    return spelled


def _switches(config_class: type, prefix: str = "") -> Iterator[str]:
    """The dotted names of the yes-or-no options."""
    for name, kind in get_type_hints(config_class).items():
        if kind is bool:
            yield prefix + name
        elif dataclasses.is_dataclass(kind):
            yield from _switches(cast(type, kind), f"{prefix}{name}.")


def _named(argv: list[str]) -> argparse.Namespace:
    """The recipe and the file of options that a command line names."""
    scan = _Scan(add_help=False, allow_abbrev=False)
    scan.add_argument("--recipe")
    scan.add_argument("--config", type=Path)
    try:
        return scan.parse_known_args(argv)[0]
    except argparse.ArgumentError:
        return argparse.Namespace(recipe=None, config=None)


def _recipe(config_class: type, named: argparse.Namespace) -> dict[str, Any]:
    """The defaults that the recipe named on the command line or in its file asks for."""
    name = named.recipe
    if name is None and named.config is not None and named.config.is_file():
        content = read_yaml(named.config)
        name = content.get("recipe") if isinstance(content, dict) else None
    return {} if name is None else flat_options(read_recipe(config_class, str(name)))


def _load(text: str) -> Any:
    parse_yaml(text, source="an option")  # bombs end here
    return _load_yaml(text)


# On the command line a source is text, whatever it looks like.
register_type(
    Source, serializer=str, deserializer=str, type_check=lambda value, _: type(value) is str
)
_load_yaml = get_loader("yaml")
set_loader("yaml", _load, (yaml.YAMLError, InputError))
