"""What a run records about itself: its options as plain values, and its environment."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from collections.abc import Mapping
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

from cl_core.commands.options import flat_options, takes_objects
from cl_core.errors import InputError
from cl_core.tables.documents import read_yaml

__all__ = [
    "HOW_CALLED",
    "IN_MEMORY",
    "changed_options",
    "environment",
    "plain",
    "read_config",
    "require_readable",
]

HOW_CALLED = ("resume", "overwrite", "time_budget")
"""Options that say how a command was called; recorded, they would be repeated with the run."""

IN_MEMORY = "(in memory) "
"""How the record names data that were handed over as an object and cannot be read again."""

_FREE = ("epochs", "out", "trainer")


def plain(config: object) -> dict[str, Any]:
    """A dataclass or mapping as nested plain values, for YAML and JSON.

    Paths become strings, tuples and arrays lists, enumerations their names.

    Raises:
        ValueError: If a value has no plain form.
    """
    record = _plain(config, "")
    if not isinstance(record, dict):
        raise ValueError(f"options must be a dataclass or a mapping, got {type(config).__name__}")
    return record


def _plain(value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        objects = takes_objects(type(value))
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        for option in objects:
            if not isinstance(value[option], str | None):
                value[option] = f"{IN_MEMORY}{type(value[option]).__name__}"
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{name}.{key}".strip(".")) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, os.PathLike):
        return str(Path(value))
    if hasattr(value, "tolist"):  # arrays and scalars of numpy and torch
        return _plain(value.tolist(), name)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{name} cannot be recorded: {value!r} is not a plain value")


def read_config(path: Path) -> dict[str, Any]:
    """The options recorded in the run directory ``path``.

    Raises:
        InputError: If they cannot be read.
    """
    file = path / "config.yaml"
    record = read_yaml(file)
    if not isinstance(record, dict):
        raise InputError(f"{file} holds no options: restore it or start a new run")
    return record


def require_readable(record: Mapping[str, Any], path: Path, option: str = "data") -> Any:
    """The recorded place of a run's data, to read them again.

    Raises:
        InputError: If they were handed over in memory, or the record names none.
    """
    value = record.get(option)
    if isinstance(value, str) and value.startswith(IN_MEMORY):
        raise InputError(
            f"--run {path} was trained on data in memory ({value.removeprefix(IN_MEMORY)}), which "
            f"cannot be read again: give --{option}"
        )
    if not isinstance(value, str):
        raise InputError(f"{path / 'config.yaml'} names no {option}: give --{option}")
    return value


def changed_options(*, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the first option that defines a run and differs, with both values; empty if none."""
    left, right = flat_options(before), flat_options(now)
    for name in [*right, *(name for name in left if name not in right)]:
        if name.partition(".")[0] in (*_FREE, *HOW_CALLED):
            continue
        if name not in left or name not in right or left[name] != right[name]:
            return f"{name} is {right.get(name, 'absent')} but was {left.get(name, 'absent')}"
    return ""


def environment() -> dict[str, Any]:
    """Versions and hardware; torch is asked only if the run has imported it."""
    packages = {
        name.lower(): distribution.version
        for distribution in metadata.distributions()
        if (name := distribution.metadata["Name"] or "").lower().startswith("cl-")
    }
    for name in ("torch", "lightning", "numpy", "scikit-learn"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # pragma: no cover
            continue
    torch = sys.modules.get("torch")
    device, threads = platform.machine(), os.cpu_count()
    if torch is not None:
        threads = torch.get_num_threads()
        if torch.cuda.is_initialized():
            device = torch.cuda.get_device_name()
    return {
        "python": platform.python_version(),
        "packages": dict(sorted(packages.items())),
        "platform": platform.platform(),
        "device": device,
        "cpu_count": os.cpu_count(),
        "threads": threads,
    }
