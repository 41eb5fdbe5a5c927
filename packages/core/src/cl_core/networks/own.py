"""Encoders that a user brings: how wide they are, and how a file may name what rebuilds them.

A card can only say *where* the class of such an encoder lies. Importing it runs code, so a reader
does that for paths alone that its user has allowed, or takes the module from the user's hand.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib import import_module

import torch
from torch import Tensor, nn

from cl_core.errors import InputError

__all__ = ["OWN", "import_path", "is_own", "own_module", "representation_width"]

OWN = "import:"
"""How a card marks the import path of an encoder that is not of this suite."""

_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_TRIED = (64, 224)  # edges of the images that tell the width of an unknown encoder


def is_own(architecture: str) -> bool:
    """Whether an architecture is the import path of a user's encoder."""
    return architecture.startswith(OWN)


def import_path(module: nn.Module) -> str:
    """Where the class of a module lies, as in ``mine.nets:Net``."""
    return f"{type(module).__module__}:{type(module).__qualname__}"


def own_module(
    architecture: str, *, given: nn.Module | None = None, allow: Collection[str] = ()
) -> nn.Module:
    """The user's encoder that a card names.

    Args:
        architecture: Of the card, ``import:`` and the path.
        given: The module again, with any weights; then nothing is imported.
        allow: Import paths the user trusts; the class is called without arguments.

    Raises:
        InputError: If the module is not given and its path not allowed, or what lies there is no
            such class.
    """
    if given is not None:
        return given
    path = architecture.removeprefix(OWN)
    if path not in allow:
        raise InputError(
            f"model.json names an encoder of your own, {path!r}, and importing it runs its code: "
            f"allow that with --allow {path}, or give the module from Python as encoder="
        )
    if not _PATH.fullmatch(path):
        raise InputError(f"--allow {path}: an import path reads package.module:Class")
    name, _, attribute = path.partition(":")
    try:
        found: object = import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
        module = found() if isinstance(found, type) and issubclass(found, nn.Module) else None
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"--allow {path}: cannot be made ({error}); give the module from Python as encoder="
        ) from error
    if module is None:
        raise InputError(f"--allow {path}: is no class of torch.nn.Module")
    return module


def representation_width(
    encoder: nn.Module, *, in_channels: int | None = None, image_size: int | None = None
) -> int:
    """Width of what an encoder makes of images.

    It is what the encoder says as ``out_features``, ``num_features`` or ``embed_dim``; else images
    of zeros tell, in eval mode.

    Args:
        encoder: Maps images ``(n, c, h, w)`` to ``(n, d)``.
        in_channels: Of the images; by default those of the first convolution.
        image_size: Edge of the images in pixels; by default 64, then 224.

    Raises:
        ValueError: If it cannot be told.
    """
    for name in ("out_features", "num_features", "embed_dim"):
        if isinstance(width := getattr(encoder, name, None), int):
            return width
    channels = in_channels or next(
        (part.in_channels for part in encoder.modules() if isinstance(part, nn.Conv2d)), 3
    )
    told: Exception | None = None
    modes = [(part, part.training) for part in encoder.modules()]
    parameter = next(encoder.parameters(), torch.zeros(0))
    try:
        encoder.eval()
        for size in (image_size,) if image_size else _TRIED:
            try:
                with torch.no_grad():
                    images = torch.zeros(
                        1, channels, size, size, dtype=parameter.dtype, device=parameter.device
                    )
                    seen: Tensor = encoder(images)
            except (RuntimeError, ValueError, AssertionError) as error:
                told = error
                continue
            if seen.ndim != 2:
                raise ValueError(
                    "an encoder maps images to rows (n, d), got "
                    f"{tuple(seen.shape)}: pool and flatten its output"
                )
            return seen.shape[1]
    finally:
        for part, mode in modes:
            part.training = mode
    raise ValueError(
        f"how wide the encoder's output is cannot be told ({told}): give it an attribute "
        "out_features"
    )
