"""Trained encoders for others to use: a folder, a library's state dict, ONNX.

The folder holds ``model.safetensors``, with the library's own key names, and ``model.json``, the
card that says how to rebuild the encoder and what it was trained on. A run directory is such a
folder too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from cl_core._version import __version__
from cl_core.errors import InputError
from cl_core.networks.backbones import RESNETS, Backbone, build_backbone
from cl_core.networks.onnx_export import export_onnx
from cl_core.networks.trunks import create_trunk, known_name
from cl_core.networks.weights import load_weights, mismatches, read_weights
from cl_core.runs import write_atomic

__all__ = ["encoder_card", "export_onnx", "export_state_dict", "load_encoder", "save_encoder"]

_RECIPE = ("architecture", "in_channels", "stem", "image_size", "output_stride")


def encoder_card(encoder: Backbone, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Say in plain values how to rebuild ``encoder`` and how to feed it.

    Args:
        encoder: The encoder; what it was loaded with is kept.
        about: Further entries, which JSON can hold. Those with a meaning: ``mean`` and ``std``,
            per channel, with which images are normalised (``(image - mean) / std``; nothing
            normalises for you), and ``classes``, the class names in the order of their indices.

    Raises:
        InputError: If ``mean`` and ``std`` are not one number per channel, ``std`` positive, or
            ``classes`` are not distinct names.
    """
    card = encoder.card() | dict(about or {}) | {"version": __version__}
    changed = [key for key in _RECIPE if card[key] != encoder.card()[key]]
    if changed:
        raise ValueError(f"the card's {changed[0]} is the encoder's own: leave it out of about")
    _check_card(card, "the encoder's card")
    return card


def save_encoder(
    path: Path | str,
    encoder: Backbone,
    about: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write ``encoder`` to the folder ``path``; :func:`load_encoder` reads it back.

    Args:
        path: The folder; made with its parents if it does not exist.
        encoder: What to save.
        about: Entries for the card, see :func:`encoder_card`.
        overwrite: Whether an encoder that lies there is replaced.

    Raises:
        InputError: If an encoder lies there, the card is wrong, or nothing can be written there.
    """
    path = Path(path).expanduser()
    weights, description = path / "model.safetensors", path / "model.json"
    card = encoder_card(encoder, about)
    if not overwrite and (weights.exists() or description.exists()):
        raise InputError(f"{path} already holds a model: choose another folder or overwrite it")
    data = save(_plain_state(encoder.trunk))
    # A kill between the two files leaves a pair that load_encoder refuses by this checksum.
    card["weights_sha256"] = hashlib.sha256(data).hexdigest()
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}") from error
    with write_atomic(weights) as temporary:
        temporary.write_bytes(data)
    with write_atomic(description) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def load_encoder(path: Path | str) -> Backbone:
    """Rebuild a saved encoder, on the CPU and in evaluation mode.

    Args:
        path: A folder that :func:`save_encoder` wrote, or the run directory of an image encoder.

    Returns:
        The encoder; its ``card()`` holds the normalisation and the classes, if they were saved.

    Raises:
        InputError: If files are missing or damaged, do not belong together, or describe no image
            encoder.
    """
    path = Path(path).expanduser()
    weights, description = path / "model.safetensors", path / "model.json"
    card = _read_card(description)
    state = read_weights(weights)
    digest = card.pop("weights_sha256", None)
    if digest is not None and digest != hashlib.sha256(weights.read_bytes()).hexdigest():
        raise InputError(f"{weights} is not the file that {description} describes: save both again")
    try:
        built = build_backbone(
            card["architecture"],
            in_channels=card["in_channels"],
            stem=card["stem"],
            image_size=card["image_size"],
            output_stride=card["output_stride"],
        )
    except (ValueError, InputError) as error:
        raise InputError(f"{description}: {error}") from error
    load_weights(built.trunk, state, source=weights, name=f"the {built.name} of {description.name}")
    return Backbone(built.trunk, card | built.card()).eval()


def export_state_dict(
    encoder: Backbone, library: Literal["torchvision", "timm"]
) -> dict[str, Tensor]:
    """Return the weights under the names that the plain architecture of ``library`` has.

    Only the classifier (``fc`` of a ResNet) is missing:
    ``torchvision.models.resnet18().load_state_dict(state, strict=False)`` reports nothing else.
    For timm, create the model with the encoder's ``in_chans``, and with its ``img_size`` where
    the size is fixed. Dilation (``output_stride``) has no weights and is not carried along.

    Raises:
        InputError: If that architecture is not the library's, as with a CIFAR stem or, for
            torchvision, other than three channels.
    """
    if library not in ("torchvision", "timm"):
        raise ValueError(f"library must be torchvision or timm, got {library!r}")
    bare = encoder.name.removeprefix("timm/").partition(".")[0]
    channels = encoder.in_channels
    if library == "torchvision":
        if bare not in RESNETS:
            raise InputError(f"torchvision has no {bare} of the same layout: export it for timm")
        name, channels = bare, 3
    else:
        name = known_name(f"timm/{encoder.name.removeprefix('timm/')}")
    with torch.device("meta"):
        plain = create_trunk(
            name,
            in_channels=channels,
            image_size=encoder.card()["image_size"],
            zero_init_residual=False,
        )
    state = _plain_state(encoder.trunk)
    problems = mismatches(plain.net.state_dict(), state)
    if problems:
        raise InputError(f"this encoder is not {library}'s plain {bare}: {'; '.join(problems)}")
    return state


def _plain_state(net: nn.Module) -> dict[str, Tensor]:
    # Copies: safetensors refuses tensors that share memory or are not contiguous.
    return {k: v.detach().cpu().clone().contiguous() for k, v in net.state_dict().items()}


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read {path} ({error.strerror or error}): give a folder with model.json and "
            "model.safetensors, such as a run directory"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): save the encoder again") from error
    missing = [key for key in _RECIPE if key not in card] if isinstance(card, dict) else ["card"]
    if missing:
        raise InputError(f"{path} describes no image encoder: it has no {', '.join(missing)}")
    _check_card(card, str(path))
    return dict(card)


def _check_card(card: Mapping[str, Any], source: str) -> None:
    for key, kind in {"architecture": str, "in_channels": int}.items():
        if not isinstance(card[key], kind):
            raise InputError(f"{source}: {key} must be {kind.__name__}, got {card[key]!r}")
    for key, allowed in {"stem": ("imagenet", "cifar"), "output_stride": (8, 16, 32)}.items():
        if card[key] not in allowed:
            raise InputError(
                f"{source}: {key} must be one of {', '.join(map(str, allowed))}, got {card[key]!r}"
            )
    if not isinstance(card["image_size"], int | None):
        raise InputError(f"{source}: image_size must be int or null, got {card['image_size']!r}")
    given = [key for key in ("mean", "std") if card.get(key) is not None]
    for key in given:
        values = card[key]
        wanted = f"one number per channel ({card['in_channels']})"
        if not isinstance(values, list | tuple) or not all(_is_number(v) for v in values):
            raise InputError(f"{source}: {key} must be {wanted}, got {values!r}")
        if len(values) != card["in_channels"]:
            raise InputError(f"{source}: {key} must be {wanted}, got {len(values)}")
        if key == "std" and min(values) <= 0:
            raise InputError(f"{source}: std must be positive, got {min(values)}")
    if len(given) == 1:
        raise InputError(f"{source}: mean and std belong together, only {given[0]} is given")
    classes = card.get("classes")
    if classes is not None:
        named = isinstance(classes, list | tuple) and all(isinstance(c, str) for c in classes)
        if not named or len(set(classes)) != len(classes):
            raise InputError(f"{source}: classes must be distinct names, got {classes!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
