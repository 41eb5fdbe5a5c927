"""Trained encoders for others to use: a folder, a library's state dict, ONNX.

The folder holds ``model.safetensors``, with the library's own key names, and ``model.json``, the
card that says how to rebuild the encoder and what it was trained on. A run directory is such a
folder too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from cl_core.checks import OptionError, require_positive
from cl_core.commands.options import hints_of
from cl_core.errors import InputError
from cl_core.networks.backbones import RESNETS, Backbone, build_backbone, own_backbone
from cl_core.networks.onnx_export import export_onnx
from cl_core.networks.own import is_own, own_module
from cl_core.networks.trunks import create_trunk, known_name
from cl_core.networks.weights import load_weights, mismatches
from cl_core.runs.card import Card, CardOf, load_model, plain_state, save_model
from cl_core.runs.record import plain

__all__ = [
    "EncoderCard",
    "encoder_card",
    "export_onnx",
    "export_state_dict",
    "load_encoder",
    "save_encoder",
]

_RECIPE = ("architecture", "in_channels", "stem", "image_size", "output_stride")


@dataclass(frozen=True, kw_only=True)
class EncoderCard(Card):
    """How to rebuild an image encoder and how to feed it.

    Args:
        architecture: As :func:`cl_core.networks.backbones.build_backbone` takes it.
        in_channels: Of an image.
        stem: ``cifar`` or ``imagenet``.
        image_size: Edge of the images in pixels, where the network needs to know.
        output_stride: Pixels of the image per pixel of the last feature map.
        out_features: Width of the representation.
        mean: Per channel; images are normalised by ``(image - mean) / std`` before they come.
        std: Per channel, positive.
        classes: Class names in the order of their indices.
        more: Whatever else the file tells, kept as it is.
    """

    kind: ClassVar[str] = "image encoder"
    made_by: ClassVar[str] = "cl_core.networks.export.save_encoder"

    architecture: str
    in_channels: int
    stem: Literal["imagenet", "cifar"]
    image_size: int | None
    output_stride: Literal[8, 16, 32]
    out_features: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_positive(
            in_channels=self.in_channels,
            image_size=self.image_size,
            out_features=self.out_features,
        )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.in_channels:
                raise OptionError(
                    f"{name} must be one number per channel ({self.in_channels}), got {len(values)}"
                )
            if values is not None and not all(map(math.isfinite, values)):
                raise OptionError(f"{name} must be finite, got {list(values)}")
        if self.std is not None and min(self.std) <= 0:
            raise OptionError(f"std must be positive, got {min(self.std)}")
        if (self.mean is None) != (self.std is None):
            given = "std" if self.mean is None else "mean"
            raise OptionError(f"mean and std belong together, only {given} is given")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise OptionError(f"classes must be distinct names, got {list(self.classes)}")

    @classmethod
    def of_record(cls: type[CardOf], record: Mapping[str, Any], source: str) -> CardOf:
        known = hints_of(cls)
        more = {name: value for name, value in record.items() if name not in known}
        own = {name: value for name, value in record.items() if name in known and name != "more"}
        return super().of_record({**own, "more": more} if more else own, source)

    def record(self) -> dict[str, Any]:
        entries = plain(self)
        more = entries.pop("more")
        return {name: value for name, value in entries.items() if value is not None} | {
            "image_size": self.image_size,
            **more,
        }

    def build(self, *, encoder: nn.Module | None = None, allow: Collection[str] = ()) -> Backbone:
        """The encoder with random weights; nothing is downloaded.

        Args:
            encoder: A user's own encoder again, if the card is of one.
            allow: Import paths of own encoders that may be imported.

        Raises:
            InputError: If there is no such architecture, an entry does not suit it, or it is an
                own encoder that is neither given nor allowed.
        """
        if is_own(self.architecture):
            own = own_module(self.architecture, given=encoder, allow=allow)
            return own_backbone(own, in_channels=self.in_channels, image_size=self.image_size)
        return build_backbone(
            self.architecture,
            in_channels=self.in_channels,
            stem=self.stem,
            image_size=self.image_size,
            output_stride=self.output_stride,
        )


def encoder_card(encoder: Backbone, about: Mapping[str, Any] | None = None) -> EncoderCard:
    """Say in plain values how to rebuild ``encoder`` and how to feed it.

    Args:
        encoder: The encoder; what it was loaded with is kept.
        about: Further entries, which JSON can hold; see :class:`EncoderCard` for those with a
            meaning. Nothing normalises for you.

    Raises:
        InputError: If ``mean`` and ``std`` are not one number per channel, ``std`` positive, or
            ``classes`` are not distinct names.
        ValueError: If ``about`` changes how the encoder is built.
    """
    own = encoder.card()
    card = own | dict(about or {})
    changed = [key for key in _RECIPE if card[key] != own[key]]
    if changed:
        raise ValueError(f"the card's {changed[0]} is the encoder's own: leave it out of about")
    return EncoderCard.of_record(plain(card), "the encoder's card")


def save_encoder(
    path: Path | str,
    encoder: nn.Module,
    about: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    in_channels: int = 3,
) -> None:
    """Write ``encoder`` to the folder ``path``; :func:`load_encoder` reads it back.

    Args:
        path: The folder; made with its parents if it does not exist.
        encoder: What to save: a backbone, or an encoder of your own, of which the card keeps the
            import path.
        about: Entries for the card, see :func:`encoder_card`.
        overwrite: Whether an encoder that lies there is replaced.
        in_channels: Of the images of an own encoder.

    Raises:
        InputError: If an encoder lies there, the card is wrong, or nothing can be written there.
    """
    path = Path(path).expanduser()
    weights, description = path / "model.safetensors", path / "model.json"
    encoder = own_backbone(encoder, in_channels=in_channels)
    card = encoder_card(encoder, about)
    if not overwrite and (weights.exists() or description.exists()):
        raise InputError(f"{path} already holds a model: choose another folder or overwrite it")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}") from error
    save_model(path, encoder.trunk, card)


def load_encoder(
    path: Path | str, *, encoder: nn.Module | None = None, allow: Collection[str] = ()
) -> Backbone:
    """Rebuild a saved encoder, on the CPU and in evaluation mode.

    Args:
        path: A folder that :func:`save_encoder` wrote, or the run directory of an image encoder.
        encoder: An encoder of your own again, with any weights, if one was saved.
        allow: Import paths of own encoders that may be imported, such as ``mine.nets:Net``.

    Returns:
        The encoder; its ``card()`` holds the normalisation and the classes, if they were saved.

    Raises:
        InputError: If files are missing or damaged, do not belong together, or describe no image
            encoder.
    """
    path = Path(path).expanduser()
    source = path / "model.json"
    saved = load_model(path, EncoderCard, option="the encoder", any_kind=True)
    try:
        built = saved.card.build(encoder=encoder, allow=allow)
    except (ValueError, InputError) as error:
        raise InputError(f"{source}: {error}") from error
    name = f"the {built.name} of {source.name}"
    load_weights(built.trunk, saved.state, source=path / "model.safetensors", name=name)
    return Backbone(built.trunk, saved.card.record() | built.card()).eval()


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
    state = plain_state(encoder.trunk)
    problems = mismatches(plain.net.state_dict(), state)
    if problems:
        raise InputError(f"this encoder is not {library}'s plain {bare}: {'; '.join(problems)}")
    return state
