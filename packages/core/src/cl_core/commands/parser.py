"""The parser of a command's options: jsonargparse, whose complaints become one line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import yaml
from jsonargparse import get_loader, set_loader
from jsonargparse.typing import register_type

from cl_core.commands.options import flat_options
from cl_core.commands.recipes import read_recipe
from cl_core.commands.source import Source
from cl_core.errors import InputError
from cl_core.tables.documents import parse_yaml, read_yaml

__all__ = ["parse_options"]

# What the parser says -> what a user reads.
_PLAIN = (
    (r'Parser key "([\w.]+)":', r"--\1:"),
    (r"(arguments are required: )(?:\w+\.)*(\w+)$", r"\1--\2"),
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
        raise InputError(f"{line} (see {self.prog} --help)")


class _Scan(argparse.ArgumentParser):
    """Looks for two options alone; every other complaint is the real parser's to make."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def parse_options(path: str, config_class: type, words: list[str]) -> dict[str, Any]:
    """The values of a command's options.

    Args:
        path: The program with its verb, for messages.
        config_class: The options.
        words: As :func:`~cl_core.commands.vocabulary.spelled_out` gives them.

    Raises:
        InputError: In one line, for what cannot be read, lacks, or has no value of its type.
    """
    named = _named(words)
    if named.config is not None and named.config.exists():
        read_yaml(named.config)  # refused in one line before the parser meets it
    parser = _Parser(prog=path)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(config_class, None, as_group=False)
    if "recipe" in config_class.__dataclass_fields__:  # type: ignore[attr-defined]
        parser.set_defaults(_recipe(config_class, named))
    try:
        values = parser.instantiate(parser.parse_args(words))  # makes the nested groups of options
    except (ValueError, OverflowError, RecursionError) as error:
        told = str(error)
        raise InputError(
            told if isinstance(error, ValueError) else f"a value of an option: {told}"
        ) from error
    return {key: value for key, value in vars(values).items() if key != "config"}


def _named(words: list[str]) -> argparse.Namespace:
    """The recipe and the file of options that a command line names."""
    scan = _Scan(add_help=False, allow_abbrev=False)
    scan.add_argument("--recipe")
    scan.add_argument("--config", type=Path)
    try:
        return scan.parse_known_args(words)[0]
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
