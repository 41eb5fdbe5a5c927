"""YAML and JSON that may come from a stranger: limits on size, depth and what aliases unfold to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import yaml

from cl_core.errors import InputError

__all__ = [
    "LARGEST_DEPTH",
    "LARGEST_DOCUMENT",
    "parse_json",
    "parse_yaml",
    "read_json",
    "read_text",
    "read_yaml",
]

LARGEST_DOCUMENT = 64 * 2**20
"""Bytes of a document; a configuration or a card has some thousands."""

LARGEST_DEPTH = 64
"""Mappings and lists inside each other."""

_MOST_NODES = 2_000_000  # after aliases have been unfolded


def read_text(path: Path, *, most: int = LARGEST_DOCUMENT) -> str:
    """The text of a regular file in UTF-8, with or without a byte-order mark.

    Args:
        path: The file.
        most: Refuse more bytes.

    Raises:
        InputError: If it cannot be read, is no regular file, too large, or not UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no file: give a file")
        size = path.stat().st_size
        if size > most:
            raise InputError(f"{path} has {size:,} bytes, more than the {most:,} that are read")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from error


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: mappings, lists, text and numbers alone.

    Raises:
        InputError: If the file cannot be read, is no YAML, or passes a limit of this module.
    """
    return parse_yaml(read_text(path), source=str(path))


def parse_yaml(text: str, *, source: str) -> Any:
    """The content of a YAML text, read as :func:`read_yaml` does.

    Args:
        text: The document.
        source: The file or option to name in a refusal.

    Raises:
        InputError: As there.
    """
    try:
        _refuse_bomb(text, source)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        told = error.problem or "it cannot be read"
        raise InputError(f"{source} is no YAML{place}: {told}; correct it") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InputError(f"{source} is no YAML: {_first_line(error)}; correct it") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file; ``NaN`` and ``Infinity`` are no JSON.

    Raises:
        InputError: If the file cannot be read, is no JSON, or is nested too deeply.
    """
    return parse_json(read_text(path), source=str(path))


def parse_json(text: str, *, source: str) -> Any:
    """The content of a JSON text, read as :func:`read_json` does.

    Args:
        text: The document.
        source: The file or option to name in a refusal.

    Raises:
        InputError: As there.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
        _refuse_depth(content, source)
    except RecursionError:
        raise _too_deep(source) from None
    except (ValueError, OverflowError) as error:
        raise InputError(f"{source} is damaged or no JSON: {_first_line(error)}") from error
    return content


def _refuse_bomb(text: str, source: str) -> None:
    """Follow the events of a document, which costs its length, before anything is built of it."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []  # anchors of the open collections, sizes around them
    size = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            open_.append((event.anchor, size + 1))
            size = 0
            if len(open_) > LARGEST_DEPTH:
                raise _too_deep(source)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, around = open_.pop()
            if anchor is not None:
                sizes[anchor] = size + 1
            size += around
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_):
                raise InputError(f"{source}: *{event.anchor} stands inside itself; correct it")
            size += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if size > _MOST_NODES:
            raise InputError(
                f"{source} unfolds to more than {_MOST_NODES:,} values: write it without aliases"
            )


def _refuse_depth(content: Any, source: str) -> None:
    level = [content]
    for _ in range(LARGEST_DEPTH + 1):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise _too_deep(source)


def _too_deep(source: str) -> InputError:
    return InputError(f"{source} is nested more than {LARGEST_DEPTH} deep: write it flatter")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
