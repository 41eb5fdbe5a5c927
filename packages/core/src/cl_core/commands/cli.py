"""One command line for every package, made from a table of frozen dataclasses.

A table maps a verb to its configuration class and to the function that takes it::

    COMMANDS = {"pretrain": (PretrainConfig, "cl_graphs.pipeline:pretrain")}

The class's fields are the options, its docstring the help; the function is imported only after
the options have been understood, so that ``--help`` never pays for torch. A value may be another
table, which gives nested verbs. Values come, strongest first, from a flag, from the file named by
``--config``, from the recipe named by ``--recipe``, from the default.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, get_origin

from cl_core.commands.manual import command_help, program_help
from cl_core.commands.own import OWN_COMMANDS, Program
from cl_core.commands.terminal import be_quiet, is_quiet, printable, say
from cl_core.commands.vocabulary import (
    Command,
    CommandTable,
    find_command,
    options_of,
    spelled_out,
)
from cl_core.errors import InputError, TrainingError
from cl_core.runs.folder import require_free
from cl_core.runs.launch import launched_rank

__all__ = ["Command", "CommandTable", "run_program"]


def run_program(
    name: str,
    commands: CommandTable,
    argv: Sequence[str] | None = None,
    *,
    lists: Mapping[str, str] | None = None,
) -> int:
    """Parse ``argv``, check it, and only then import and run the code that does the work.

    What the function returns is printed, if it is not ``None``; of several processes by the first.
    Its attribute ``code``, if it has one, is the exit code: see
    :class:`~cl_core.commands.outcome.Outcome`.

    Args:
        name: The program, which is also the distribution whose version ``--version`` tells.
        commands: Verb to configuration class and ``"module:function"``, or to another such table.
        argv: The arguments, by default those of the process.
        lists: What the verb ``list`` lists beside recipes and methods, by name: the function that
            makes the rows, mappings with the same keys, as ``"module:function"``.

    Returns:
        The exit code: 0 done, 1 failed, 2 something the user can mend, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    program = Program(name=name, commands=commands, lists=dict(lists or {}))
    if os.environ.get("CL_COMPLETE"):
        from cl_core.commands.completion import candidates

        say("\n".join(candidates({**commands, **OWN_COMMANDS}, arguments)), sys.stdout)
        return 0
    # Before torch is imported: its threads then sleep while they wait for one that another
    # program has put off its core, instead of burning a core each.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    first = launched_rank() == 0  # a launcher's variables may be gone after a training
    config = None
    try:
        with _warnings_printable(), be_quiet("--quiet" in arguments or is_quiet()):
            told = _told_at_once(program, arguments)
            if told is None:
                run, config = _parse(program, [word for word in arguments if word != "--quiet"])
                told = run(config)
            if told is not None and first and not is_quiet():
                show = getattr(told, "shown", None)
                say(show() if callable(show) else str(told), sys.stdout)
    except KeyboardInterrupt:
        say(f"{name}: interrupted")
        return 130
    except Exception as error:
        if os.environ.get("CL_TRACEBACK"):
            raise
        code, line = _told(error)
        say(f"{name}: {_spelled(line, config)}")
        return code
    return int(getattr(told, "code", 0))


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


def _told_at_once(program: Program, words: Sequence[str]) -> str | None:
    """What ``--help`` and ``--version`` tell; ``None`` if neither is asked for."""
    if words[:1] == ["--version"]:
        import importlib.metadata

        return f"{program.name} {importlib.metadata.version(program.name)}"
    places = [place for place, word in enumerate(words) if word in ("-h", "--help")]
    if not places:
        return None
    before, after = words[: places[0]], words[places[0] + 1 :]
    taken, entry = find_command({**program.commands, **OWN_COMMANDS}, before)
    if isinstance(entry, Mapping):
        commands = entry if taken else program.commands
        return program_help(program.name, commands, OWN_COMMANDS, " ".join(taken))
    group = after[0] if after and not after[0].startswith("-") else ""
    return command_help(" ".join([program.name, *taken]), entry[0], group)


def _parse(program: Program, words: list[str]) -> tuple[Callable[[Any], Any], Any]:
    """The function to run and its configuration."""
    taken, entry = find_command({**program.commands, **OWN_COMMANDS}, words)
    path, rest = " ".join([program.name, *taken]), words[len(taken) :]
    if isinstance(entry, Mapping):
        raise InputError(f"name a command: {', '.join(entry)} (see {path} --help)")
    config_class, target = entry
    rest = spelled_out(_gathered(rest, config_class), config_class)
    from cl_core.commands.parser import parse_options  # jsonargparse: a quarter of a second

    try:
        config = config_class(**parse_options(path, config_class, rest))
    except ValueError as error:
        raise InputError(str(error)) from error
    _require_place(config)
    module, _, function = target.partition(":")
    run = getattr(import_module(module), function)
    own = taken[0] in OWN_COMMANDS
    return (partial(run, program) if own else run), config


def _gathered(words: Sequence[str], config_class: type) -> list[str]:
    """Give the words without an option to the option that takes them, where a command has one."""
    name = getattr(config_class, "words", None)
    if name is None:
        return list(words)
    switches = {f"--{option.name}" for option in options_of(config_class) if option.is_switch}
    loose: list[str] = []
    rest: list[str] = []
    value_follows = False
    for word in words:
        is_option = word.startswith("--")
        if is_option or value_follows:
            rest.append(word)
            value_follows = is_option and "=" not in word and word not in switches
        else:
            loose.append(word)
    if loose:
        hint = next(option.hint for option in options_of(config_class) if option.name == name)
        many = get_origin(hint) is tuple or len(loose) > 1
        rest += [f"--{name}", json.dumps(loose) if many else loose[0]]
    return rest


def _require_place(config: Any) -> None:
    """Refuse a place for the results that will not do, before anything heavy is imported.

    What writes there looks again, and locks it. A command that overwrites by itself writes into
    folders of its own below the place.
    """
    kind: Any = type(config)
    given = {option.name: option for option in options_of(kind)}
    if "out" not in given or "overwrite" not in given or given["overwrite"].default:
        return
    out = config.out  # by default it lies in a run, whose data are looked at first
    if isinstance(out, Path) and launched_rank() == 0:
        require_free(
            out.expanduser(), resume=getattr(config, "resume", False), overwrite=config.overwrite
        )
