"""The words of a command line: which verbs and options there are, and what a misspelled one meant.

Read off the dataclasses of options, without the parser and without anything heavy, so that help,
completion and refusals cost a tenth of a second.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc, get_annotations
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cl_core.checks import OptionError, near, require_one_of
from cl_core.commands.options import flat_options, hints_of
from cl_core.commands.source import Source
from cl_core.errors import InputError
from cl_core.tables.documents import read_yaml

__all__ = [
    "Command",
    "CommandTable",
    "Option",
    "choices",
    "documented",
    "find_command",
    "metavar",
    "options_of",
    "paths_of",
    "spelled_out",
    "summary_of",
]

Command = tuple[Any, str]
CommandTable = Mapping[str, "Command | CommandTable"]

_METAVARS = {
    Path: "PATH",
    Source: "PATH",
    int: "N",
    float: "X",
    str: "TEXT",
    bool: "true|false",
}

OF_EVERY_COMMAND = ("config", "print_config", "help", "quiet")
"""Options that no dataclass lists."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option as a user types it.

    Attributes:
        name: Dotted, as in ``trainer.devices``.
        hint: Its type.
        default: Its value if it is not given; ``dataclasses.MISSING`` if it must be.
        about: What its documentation says.
        group: The part of the command it belongs to: the name of a nested group, or the summary of
            the dataclass that lists it.
        nested: Whether ``group`` is a nested one.
    """

    name: str
    hint: Any
    default: Any
    about: str
    group: str
    nested: bool

    @property
    def is_switch(self) -> bool:
        """Whether its name alone means yes."""
        return self.hint is bool

    @property
    def choices(self) -> tuple[Any, ...]:
        """All values it takes, if they are words of a list; else none."""
        return choices(self.hint)

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is dataclasses.MISSING


def choices(hint: Any) -> tuple[Any, ...]:
    """The words that a type lists, such as those of ``Literal["a", "b"] | None``; else none."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        if all(get_origin(kind) is Literal for kind in kinds):
            return tuple(word for kind in kinds for word in get_args(kind))
    return ()


@cache
def options_of(config_class: type) -> tuple[Option, ...]:
    """The options of a command, nested ones included, in the order of its dataclass."""
    return tuple(_options(config_class, "", ""))


def _options(kind: type, prefix: str, group: str) -> Iterator[Option]:
    about = documented(kind)
    hints = hints_of(kind)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], prefix + field.name
        if dataclasses.is_dataclass(hint):
            yield from _options(typing.cast(type, hint), f"{name}.", group or field.name)
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield Option(
            name=name,
            hint=hint,
            default=default,
            about=about.get(field.name, ""),
            group=group or summary_of(_lister(kind, field.name)),
            nested=bool(group),
        )


def _lister(kind: type, name: str) -> type:
    """The dataclass of a hierarchy that lists a field."""
    return next(base for base in kind.__mro__ if name in get_annotations(base))


def summary_of(thing: object) -> str:
    """The first paragraph of the documentation of a class or a package, in one line."""
    return " ".join(cleandoc(thing.__doc__ or "").partition("\n\n")[0].split())


def documented(kind: type) -> dict[str, str]:
    """By field, what the ``Args:`` of a hierarchy say of each field."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, listed = cleandoc(base.__dict__.get("__doc__") or "").partition("Args:\n")
        for name, text in re.findall(r"^    (\w+): ((?:.*\n?)(?:^ {8}.*\n?)*)", listed, re.M):
            found[name] = " ".join(text.split()).replace("``", "`")
    return found


def paths_of(commands: CommandTable, before: str = "") -> Iterator[tuple[str, Command]]:
    """Every command with its words, as in ``lesions train``."""
    for verb, entry in commands.items():
        if isinstance(entry, Mapping):
            yield from paths_of(entry, f"{before}{verb} ")
        else:
            yield before + verb, entry


def find_command(
    commands: CommandTable, words: Sequence[str]
) -> tuple[list[str], Command | CommandTable]:
    """Follow the first words to a command, or to the table at which they end.

    Args:
        commands: The program's table.
        words: What was typed.

    Returns:
        The words that led there, and what they led to.

    Raises:
        InputError: If a word is no command of its table, with those spelled alike.
    """
    entry: Any = commands
    taken: list[str] = []
    for word in words:
        if not isinstance(entry, Mapping) or word.startswith("-"):
            break
        if word not in entry:
            deeper = [path for path, _ in paths_of(entry) if path.split()[-1] == word]
            hint = f"did you mean {' or '.join(deeper)}? " if deeper else near(word, entry)
            raise InputError(f"no command {word!r}; {hint}there are {', '.join(entry)}")
        entry = entry[word]
        taken.append(word)
    return taken, entry


def spelled_out(words: Sequence[str], config_class: type) -> list[str]:
    """The words of a command as the parser takes them, or a refusal that names what was meant.

    Hyphens in the name of an option become underscores, ``--resume`` alone ``--resume=true``. Names
    and listed values are checked here, in the file of ``--config`` too.

    Raises:
        OptionError: If there is no such option, or it does not take that value.
    """
    known = {option.name: option for option in options_of(config_class)}
    groups = {name.rpartition(".")[0] for name in known} - {""}
    spelled: list[str] = []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        typed, equals, value = word.partition("=")
        if not typed.startswith("--") or typed == "--":
            spelled.append(word)
            continue
        name = typed[2:].replace("-", "_")
        option = known.get(name)
        if option is None and name not in groups | set(OF_EVERY_COMMAND):
            if not _inside_mapping(name, known):
                raise _unknown("", name, known, dashes="--")
        elif option is not None and option.is_switch and not equals:
            alone = following.lower() not in ("true", "false", "yes", "no")
            equals, value = ("=", "true") if alone else ("", "")
        elif option is not None and option.choices:
            _require_choice(f"--{name}", value if equals else following, option)
        if name == "config":
            _check_file(Path(value if equals else following), known)
        spelled.append(f"--{name}{equals}{value}")
    return spelled


def _require_choice(name: str, typed: str, option: Option) -> None:
    words = option.choices
    open_ = option.hint is not Literal and type(None) in get_args(option.hint)
    if typed not in map(str, words) and not (open_ and typed == "null"):
        require_one_of(name, typed, words)


def _check_file(file: Path, known: Mapping[str, Option]) -> None:
    """Refuse what a file of options names wrongly; whether it can be read is told by the parser."""
    if not file.is_file():
        return
    content = read_yaml(file)
    if not isinstance(content, dict):
        return
    groups = {name.rpartition(".")[0] for name in known}
    for name, value in flat_options({str(key): item for key, item in content.items()}).items():
        option = known.get(name)
        if option is not None and option.choices and isinstance(value, str):
            _require_choice(f"{file}: {name}", value, option)
        elif option is None and name not in groups and not _inside_mapping(name, known):
            raise _unknown(f"{file}: ", name, known, dashes="")


def _inside_mapping(name: str, known: Mapping[str, Option]) -> bool:
    """Whether a name lies in an option that is itself a mapping, whose keys are the user's."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        option = known.get(".".join(parts[:length]))
        if option is not None:
            return any(
                getattr(kind, "__name__", "") in ("dict", "Mapping")
                for kind in (get_origin(option.hint), *map(get_origin, get_args(option.hint)))
            )
    return False


def _unknown(place: str, name: str, known: Mapping[str, Option], *, dashes: str) -> OptionError:
    """Tell what may have been meant: an option of that last name in a group, or one alike."""
    last = name.rpartition(".")[2]
    meant = [known_name for known_name in known if known_name.rpartition(".")[2] == last]
    if meant:
        hint = f": did you mean {' or '.join(dashes + option for option in meant[:3])}?"
    else:
        alike = near(name, known).replace(" or ", f" or {dashes}")
        hint = f": {alike.replace('mean ', f'mean {dashes}', 1).strip()}" if alike else ""
    return OptionError(f"{place}there is no option {dashes}{name}{hint}")


def metavar(hint: Any) -> str:
    """What stands for a value of a type in help: short, and never Python."""
    words = choices(hint)
    if words:
        return "|".join(map(str, words))
    if get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [metavar(kind) for kind in get_args(hint) if kind is not type(None)]
        return "|".join(dict.fromkeys(kinds))
    if get_origin(hint) is tuple:
        kinds = [kind for kind in get_args(hint) if kind is not Ellipsis]
        inside = ",".join(metavar(kind) for kind in kinds)
        return f"[{inside}{',...' if Ellipsis in get_args(hint) else ''}]"
    if get_origin(hint) is not None:
        return "{KEY: VALUE}"
    return _METAVARS.get(hint, "VALUE")
