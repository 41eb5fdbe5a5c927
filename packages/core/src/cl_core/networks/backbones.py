"""Image encoders of torchvision and timm, for any number of channels and for small images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.networks.own import OWN, import_path, is_own, representation_width
from cl_core.networks.trunks import (
    RESNETS,
    create_trunk,
    dilate,
    download_weights,
    is_resnet,
    known_name,
    resnet_stages,
    use_cifar_stem,
)
from cl_core.networks.weights import find_prefix, load_weights, read_weights

__all__ = ["RESNETS", "SMALL_IMAGE", "Backbone", "Stem", "build_backbone", "own_backbone"]

SMALL_IMAGE = 64
"""The largest edge, in pixels, for which ``stem="auto"`` takes the CIFAR stem."""

Stem = Literal["auto", "imagenet", "cifar"]


class Backbone(nn.Module):
    """An encoder: images ``(n, c, h, w)`` to representations ``(n, out_features)``.

    Made by :func:`build_backbone` or :func:`cl_core.load_encoder`.

    Attributes:
        trunk: The library's network without its classifier, under the library's own key names.
        name: The architecture as :func:`build_backbone` takes it.
        in_channels: Channels of an image.
        out_features: Width of the representation.
    """

    def __init__(self, trunk: nn.Module, card: dict[str, Any]) -> None:
        super().__init__()
        self.trunk = trunk
        self.name: str = card["architecture"]
        self.in_channels: int = card["in_channels"]
        self.out_features: int = card["out_features"]
        self._card = card

    def card(self) -> dict[str, Any]:
        """How to rebuild the encoder, in plain values, and what else its file told of it."""
        return copy.deepcopy(self._card)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        self._check(images)
        representations: Tensor = self.trunk(images)
        return representations

    def forward_features(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the features before pooling: ``(n, d, h', w')`` of a ResNet.

        Of another network it is what timm's ``forward_features`` gives, such as the
        ``(n, tokens, d)`` of a vision transformer.
        """
        if is_resnet(self.trunk):
            return self.forward_stages(images)[-1]
        self._check(images)
        features: Tensor = self.trunk.forward_features(images)  # type: ignore[operator]
        return features

    def forward_stages(self, images: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """Return the feature maps of a ResNet's four stages, from fine to coarse, for decoders.

        Raises:
            ValueError: If the network is no ResNet.
        """
        self._check(images)
        if not is_resnet(self.trunk):
            raise ValueError(f"forward_stages is for ResNets, and {self.name} is none")
        return resnet_stages(self.trunk, images)

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"{self.name} expects images (n, {self.in_channels}, h, w), "
                f"got {tuple(images.shape)}"
            )


def build_backbone(
    name: str,
    *,
    in_channels: int = 3,
    stem: Stem = "auto",
    image_size: int | None = None,
    output_stride: Literal[8, 16, 32] = 32,
    zero_init_residual: bool = False,
    weights: Path | str | None = None,
    pretrained: bool = False,
) -> Backbone:
    """Build an image encoder; nothing is downloaded unless ``pretrained`` is asked for.

    Args:
        name: One of :data:`RESNETS` (torchvision's), a small ResNet by its widths such as
            ``resnet-16-32-128``, or a model that timm knows; ``timm/NAME`` says that it is timm's.
        in_channels: Channels of the images. Weights made for RGB are adapted by the rule of
            :func:`cl_core.networks.weights.adapt_channels`.
        stem: ``imagenet`` is the library's own; ``cifar`` is a 3x3 convolution of stride 1 without
            max-pooling (SimCLR, appendix B.9), for ResNets only. ``auto`` takes the stem that the
            weights have, if any; else ``cifar`` for a ResNet and images up to 64 px.
        image_size: Edge of the images in pixels. A ResNet runs on any size, and only ``auto`` asks
            for it; a network of fixed size, such as a vision transformer, is built for it.
        output_stride: Pixels of the image per pixel of the last feature map. 16 and 8 replace the
            stride of the last one or two stages by dilation (DeepLab); for torchvision's ResNets
            with the ImageNet stem.
        zero_init_residual: Start the residual branches of a ResNet at zero (Goyal et al. 2017), as
            DirectCLR does. timm's ResNets always do.
        weights: A file or folder that :func:`cl_core.networks.weights.read_weights` reads; a
            classifier in it is dropped.
        pretrained: Download the library's weights, or take them from its cache.

    Raises:
        InputError: If the name is unknown (the nearest are named), an option does not suit the
            architecture, the weights do not fit, or the download fails.
        ValueError: If a value is out of range.

    Example:
        >>> import torch
        >>> encoder = build_backbone("resnet18", in_channels=4, image_size=32)
        >>> encoder(torch.zeros(2, 4, 32, 32)).shape, encoder.card()["stem"]
        (torch.Size([2, 512]), 'cifar')
    """
    if in_channels < 1 or (image_size is not None and image_size < 1):
        raise ValueError(
            f"in_channels and image_size must be positive, got {in_channels} and {image_size}"
        )
    if stem not in get_args(Stem):
        raise ValueError(f"stem must be one of {', '.join(get_args(Stem))}, got {stem!r}")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
    if weights is not None and pretrained:
        raise InputError("give either a weight file or pretrained, not both")
    if is_own(name):
        raise InputError(f"{name} is an encoder of your own: give it from Python as encoder=")
    state = None if weights is None else read_weights(weights)
    name = known_name(name)
    trunk = create_trunk(
        name,
        in_channels=in_channels,
        image_size=image_size,
        zero_init_residual=zero_init_residual,
    )
    net, first = trunk.net, trunk.first
    if pretrained:
        state = download_weights(name, image_size=image_size)
    if stem == "auto":
        small = image_size is not None and image_size <= SMALL_IMAGE
        cifar = small if state is None else _has_cifar_stem(state, net)
        stem = "cifar" if cifar and is_resnet(net) else "imagenet"
    if stem == "cifar":
        if not is_resnet(net):
            raise InputError(f"the CIFAR stem is for ResNets, and {name} is none: leave it out")
        use_cifar_stem(net, in_channels)
        first = ("conv1",)
    if output_stride != 32:
        if name not in RESNETS or stem == "cifar":
            raise InputError(
                f"output_stride {output_stride} is for torchvision's ResNets with the ImageNet "
                f"stem, not for {name} with the {stem} stem"
            )
        dilate(net, output_stride)
    if state is not None:
        source = f"the pretrained {name}" if weights is None else weights
        load_weights(net, state, source=source, name=name, ignore=trunk.classifier, rgb=first)
    card = {
        "architecture": name,
        "in_channels": in_channels,
        "stem": stem,
        "image_size": trunk.image_size or image_size,
        "output_stride": output_stride,
        "out_features": trunk.out_features,
    }
    return Backbone(net, card)


def own_backbone(
    encoder: nn.Module, *, in_channels: int, image_size: int | None = None
) -> Backbone:
    """Take a user's own encoder for a backbone.

    Args:
        encoder: Maps images ``(n, c, h, w)`` to ``(n, d)``; a :class:`Backbone` stays as it is.
        in_channels: Of the images.
        image_size: Edge of the images in pixels.

    Raises:
        InputError: If the width of its output cannot be told, see
            :func:`cl_core.networks.own.representation_width`.
    """
    if isinstance(encoder, Backbone):
        return encoder
    try:
        width = representation_width(encoder, in_channels=in_channels, image_size=image_size)
    except ValueError as error:
        raise InputError(f"the encoder given: {error}") from error
    card = {
        "architecture": f"{OWN}{import_path(encoder)}",
        "in_channels": in_channels,
        "stem": "imagenet",
        "image_size": image_size,
        "output_stride": 32,
        "out_features": width,
    }
    return Backbone(encoder, card)


def _has_cifar_stem(state: dict[str, Tensor], net: nn.Module) -> bool:
    kernel = state.get(find_prefix(state, net.state_dict()) + "conv1.weight")
    return kernel is not None and kernel.shape[2:] == (3, 3)
