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
import difflib
import importlib.metadata
import importlib.resources
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, cast, get_type_hints

import jsonargparse
import yaml

from cl_core.config import flat_options
from cl_core.errors import InputError, TrainingError
from cl_core.runs.folder import launched_rank

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


class _RecipeScan(argparse.ArgumentParser):
    """Looks for the recipe alone; every other complaint is the real parser's to make."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def run_program(
    name: str,
    commands: CommandTable,
    argv: Sequence[str] | None = None,
    *,
    recipes: str | None = None,
) -> int:
    """Parse ``argv``, check it, and only then import and run the code that does the work.

    What the function returns is printed, if it is not ``None``; of several processes by the first.

    Args:
        name: The program, which is also the distribution whose version ``--version`` tells.
        commands: Verb to configuration class and ``"module:function"``, or to another such table.
        argv: The arguments, by default those of the process.
        recipes: Package whose ``*.yaml`` files are the recipes; a configuration class takes
            them by having a field ``recipe``.

    Returns:
        The exit code: 0 done, 1 failed, 2 something the user can mend, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = launched_rank() == 0  # a launcher's variables may be gone after a training
    try:
        run, config = _parse(name, commands, arguments, recipes)
        result = run(config)
        if result is not None and first:
            print(result, flush=True)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("CL_TRACEBACK"):
            raise
        line = " ".join(str(error).split())
        if not isinstance(error, InputError | TrainingError):
            line = f"failed, {type(error).__name__}: {line} (CL_TRACEBACK=1 tells where)"
        print(f"{name}: {line}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


def _parse(name: str, commands: CommandTable, argv: list[str], recipes: str | None) -> Any:
    """The function to run and its configuration."""
    parser = _Parser(prog=name, version=importlib.metadata.version(name))
    argv = _spell_out_switches(argv, commands)
    _add_commands(parser, commands, argv, recipes)
    parsed = parser.parse_args(argv)
    try:
        values = parser.instantiate(parsed)  # makes the nested groups of options
    except ValueError as error:
        raise InputError(str(error)) from error
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
    parser: _Parser, commands: CommandTable, argv: list[str], recipes: str | None
) -> None:
    verbs = parser.add_subcommands(dest="command")
    for verb, entry in commands.items():
        if isinstance(entry, Mapping):
            summary = ", ".join(entry)
            nested = _Parser(description=f"One of {summary}.")
            verbs.add_subcommand(verb, nested, help=summary)
            _add_commands(nested, entry, argv, recipes)
            continue
        config_class, _ = entry
        documentation = (config_class.__doc__ or "").partition("Args:")[0].strip()
        single = _Parser(description=documentation, usage="%(prog)s [--option VALUE ...]")
        if verb in argv:  # the options of the other verbs are not worth their time
            single.add_argument("--config", action="config")
            single.add_class_arguments(config_class, None, as_group=False)
            if recipes is not None and "recipe" in config_class.__dataclass_fields__:
                single.set_defaults(_recipe(argv, recipes))
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


def _recipe(argv: list[str], package: str) -> dict[str, Any]:
    """The defaults that the recipe named on the command line or in its file asks for."""
    scan = _RecipeScan(add_help=False, allow_abbrev=False)
    scan.add_argument("--recipe")
    scan.add_argument("--config", type=Path)
    try:
        found, _ = scan.parse_known_args(argv)
    except argparse.ArgumentError:
        return {}
    name = found.recipe
    if name is None and found.config is not None and found.config.is_file():
        try:
            content = yaml.safe_load(found.config.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            return {}
        name = content.get("recipe") if isinstance(content, dict) else None
    if name is None:
        return {}
    files = {
        Path(item.name).stem: item
        for item in importlib.resources.files(package).iterdir()
        if item.name.endswith(".yaml")
    }
    if name not in files:
        near = difflib.get_close_matches(str(name).lower(), files, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(
            f"--recipe: there is no recipe {name!r}; {hint}there are {', '.join(sorted(files))}"
        )
    return flat_options(yaml.safe_load(files[name].read_text()))
