"""Encoders of a user's own: handed over as modules, or named as ``module:maker``.

A model card keeps the name alone. Loading such a run imports nothing by itself: the caller gives
the name again, which allows it, or the module.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cl_core.checks import OptionError
from cl_core.errors import InputError
from cl_core.runs.record import IN_MEMORY

__all__ = ["encoder_again", "made_encoder", "name_of"]


def name_of(encoder: Any) -> str:
    """What a model card calls an encoder: its ``module:maker``, or that it was in memory."""
    if encoder is None:
        return ""
    if isinstance(encoder, str):
        return encoder
    named = encoder if hasattr(encoder, "__name__") else type(encoder)
    return f"{IN_MEMORY}{named.__name__}"


def made_encoder(encoder: Any, in_features: int) -> nn.Module:
    """Make the encoder that an option stands for; what is handed over is copied.

    Args:
        encoder: A module; a function or class that makes one of the number of features; or
            ``module:maker``, such a function's place, imported from where Python looks and from
            the working directory.
        in_features: Features of a node.

    Raises:
        InputError: If there is no such place, or it gives no module.
    """
    if isinstance(encoder, nn.Module):
        return copy.deepcopy(encoder)
    maker = _imported(encoder) if isinstance(encoder, str) else encoder
    if not callable(maker):
        raise OptionError(
            f"encoder must be a module, a function that makes one, or 'module:maker', got a "
            f"{type(encoder).__name__}"
        )
    try:
        made = maker(in_features)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"encoder {name_of(encoder)}: making it of {in_features} features failed: {reason}"
        ) from error
    if not isinstance(made, nn.Module):
        raise InputError(
            f"encoder {name_of(encoder)} made a {type(made).__name__}, not a torch module"
        )
    return made


def encoder_again(saved: str, given: Any, path: Path) -> Any:
    """What rebuilds the encoder of a run: nothing for one of the package's own.

    Args:
        saved: Its name in the model card.
        given: What the caller gives, or None.
        path: The run, for messages.

    Raises:
        InputError: If the run has an encoder of its owner's and the caller gives none.
    """
    if not saved:
        return None
    if given is not None:
        return given
    if saved.startswith(IN_MEMORY):
        kind = saved.removeprefix(IN_MEMORY)
        raise InputError(
            f"--run {path} was trained with an encoder in memory ({kind}): give encoder=, the same "
            "module, or --encoder module:maker"
        )
    raise InputError(
        f"--run {path} was trained with an encoder of its owner's, {saved!r}, and importing it "
        f"runs its code: if you trust it, allow it by --encoder {saved}"
    )


@contextmanager
def _working_directory() -> Iterator[None]:
    """Let modules of the working directory be imported, after all others."""
    place = str(Path.cwd())
    sys.path.append(place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _imported(name: str) -> Callable[[int], Any]:
    module, separator, attribute = name.partition(":")
    parts = module.split(".")
    if not separator or not attribute.isidentifier() or not all(p.isidentifier() for p in parts):
        raise OptionError(f"encoder must be a place such as my_encoders:sage, got {name!r}")
    try:
        with _working_directory(), torch.device("cpu"):
            found = getattr(import_module(module), attribute, None)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"encoder {name}: importing {module} failed: {reason}") from error
    if not callable(found):
        raise InputError(f"encoder {name}: {module} has no function or class {attribute}")
    maker: Callable[[int], Any] = found
    return maker
