"""Encoder-decoder networks for any number of bands, in parts that can be handed on by name.

Two layouts of DeepLabV3+ share one interface: ``smp`` takes the modules of
segmentation_models_pytorch with its many encoders, ``paper`` is the official layout of GLCNet
(Li et al., TGRS 2022) on torchvision's ResNets.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from jaxtyping import Float
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.networks.backbones import Backbone, build_backbone
from cl_core.networks.weights import load_weights, mismatches, read_weights
from cl_remote_sensing.networks.deeplab import ASPP, RATES, PaperDecoder, initialize, resize
from cl_remote_sensing.networks.smp_layout import smp_modules

__all__ = [
    "Encoded",
    "Layout",
    "LoadedParts",
    "Parts",
    "SegmentationNetwork",
    "build_network",
    "load_backbone",
    "load_parts",
]

Layout = Literal["smp", "paper"]
Parts = Literal["backbone", "encoder", "all"]

_MODULES: dict[Parts, tuple[str, ...]] = {  # what each choice of `load_parts` takes over
    "backbone": ("backbone",),
    "encoder": ("backbone", "aspp"),
    "all": ("backbone", "aspp", "decoder"),
}


class Encoded(NamedTuple):
    """What the encoder hands to the decoder.

    Attributes:
        low: Low-level features ``(b, c, h/4, w/4)``.
        e: The encoder's output after dropout ``(b, width, h/16, w/16)`` (``h/8`` at stride 8).
        size: Height and width of the image in pixels.
    """

    low: Tensor
    e: Tensor
    size: tuple[int, int]


class SegmentationNetwork(nn.Module):
    """Images ``(b, bands, h, w)`` to maps ``(b, outputs, h, w)``; made by :func:`build_network`.

    Attributes:
        backbone: The feature extractor.
        aspp: The pyramid on top of it; with the backbone it is what the paper calls encoder.
        decoder: Joins both up to a quarter of the resolution.
        classifier: The last 1x1 convolution.
        bands: Of an image.
        width: Channels of the encoder's output.
        outputs: Channels of the map: 64 in pretraining, the classes afterwards.
    """

    def __init__(
        self,
        backbone: nn.Module,
        aspp: nn.Module,
        decoder: nn.Module,
        classifier: nn.Module,
        card: dict[str, Any],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = aspp
        self.decoder = decoder
        self.classifier = classifier
        self.bands: int = card["bands"]
        self.width: int = card["width"]
        self.outputs: int = card["outputs"]
        self._card = card

    @property
    def card(self) -> dict[str, Any]:
        """Plain values with which ``build_network(**card)`` makes the same network."""
        return copy.deepcopy(self._card)

    def encode(self, images: Float[Tensor, "b c h w"]) -> Encoded:
        """Return low-level features and the encoder's output.

        Raises:
            ValueError: If the images have other bands than the network, or one image alone comes
                in training mode, whose pooled features batch norm cannot normalise.
        """
        if images.ndim != 4 or images.shape[1] != self.bands:
            raise ValueError(
                f"the network expects images (b, {self.bands}, h, w), got {tuple(images.shape)}"
            )
        if self.training and len(images) == 1:
            raise ValueError("training needs at least 2 images a batch: batch norm compares them")
        if isinstance(self.backbone, Backbone):
            stages = self.backbone.forward_stages(images)
            low, deep = stages[0], stages[-1]
        else:
            stages = self.backbone(images)  # smp: the image, then strides 2, 4, ...
            low, deep = stages[2], stages[-1]
        return Encoded(low, self.aspp(deep), (images.shape[-2], images.shape[-1]))

    def decode(self, encoded: Encoded, *, upsample: bool = True) -> Float[Tensor, "b outputs y x"]:
        """Return the map at the image's size, or as the decoder makes it, at a quarter of it.

        Args:
            encoded: Of :meth:`encode`.
            upsample: Whether to scale the map up, bilinearly with aligned corners.
        """
        outputs: Tensor = self.classifier(self.decoder(encoded.low, encoded.e))
        return resize(outputs, encoded.size) if upsample else outputs

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b outputs h w"]:
        return self.decode(self.encode(images))

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the ``backbone``, the ``encoder`` head and the ``decoder``.

        Every parameter is in exactly one: the head is the pyramid alone, and the decoder includes
        the classifier.
        """
        return {
            "backbone": list(self.backbone.parameters()),
            "encoder": list(self.aspp.parameters()),
            "decoder": [*self.decoder.parameters(), *self.classifier.parameters()],
        }


def build_network(
    *,
    encoder: str = "resnet50",
    bands: int,
    outputs: int,
    layout: Layout = "smp",
    output_stride: int = 16,
    width: int = 256,
    bn_momentum: float = 0.1,
    fine_tuning: bool = False,
) -> SegmentationNetwork:
    """Build a DeepLabV3+ with random weights; nothing is downloaded.

    Args:
        encoder: Of the ``paper`` layout one of :data:`cl_core.networks.backbones.RESNETS`; of
            ``smp`` any encoder name of segmentation_models_pytorch that can be dilated,
            ``tu-NAME`` for timm's.
        bands: Of an image.
        outputs: Channels of the map: 64 for contrasting, the number of classes for segmentation.
        layout: ``paper`` has plain convolutions, a skip from the first stage and two 3x3 blocks in
            the decoder; ``smp`` has separable ones, and one such block after the pyramid and one
            in the decoder, for a third of the weights.
        output_stride: Pixels of the image per pixel of the encoder's output, 16 or 8.
        width: Channels of the pyramid and the decoder.
        bn_momentum: Share of the newest batch in the running statistics. The official code's 0.9
            looks like a slip between two conventions: its statistics are nearly the last batch's.
        fine_tuning: Whether the ``paper`` decoder has dropout (0.5 and 0.1), as in fine-tuning;
            in pretraining it has none, and the ``smp`` decoder never has.

    Raises:
        InputError: If the encoder is unknown or cannot have that output stride.
        ValueError: If a number is out of range.
    """
    if min(bands, outputs, width) < 1:
        raise ValueError(
            f"bands, outputs and width must be positive, got {bands}, {outputs} and {width}"
        )
    if layout not in get_args(Layout):
        raise ValueError(f"layout must be smp or paper, got {layout!r}")
    if output_stride not in RATES:
        raise ValueError(f"output_stride must be 16 or 8, got {output_stride}")
    if not 0 < bn_momentum <= 1:
        raise ValueError(f"bn_momentum must lie in (0, 1], got {bn_momentum}")
    card = {
        "encoder": encoder,
        "bands": bands,
        "outputs": outputs,
        "layout": layout,
        "output_stride": output_stride,
        "width": width,
        "bn_momentum": bn_momentum,
        "fine_tuning": fine_tuning,
    }
    if layout == "paper":
        network = _paper_network(card)
    else:
        network = SegmentationNetwork(*smp_modules(card), card)
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = bn_momentum
    return network


def _paper_network(card: dict[str, Any]) -> SegmentationNetwork:
    backbone = build_backbone(
        card["encoder"],
        in_channels=card["bands"],
        stem="imagenet",
        output_stride=card["output_stride"],
    )
    channels, width = backbone.out_features, card["width"]
    low_channels = channels // 8  # 64 or 256: each of three stages doubles them
    network = SegmentationNetwork(
        backbone,
        ASPP(channels, width, RATES[card["output_stride"]]),
        PaperDecoder(low_channels, width, dropout=(0.5, 0.1) if card["fine_tuning"] else (0, 0)),
        nn.Conv2d(width, card["outputs"], 1),
        card,
    )
    initialize(network)
    return network


class LoadedParts(NamedTuple):
    """What :func:`load_parts` did.

    Attributes:
        loaded: Names of the weights taken over.
        fresh: Names of those left as they were.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]


def load_parts(
    network: SegmentationNetwork,
    state: Mapping[str, Tensor],
    *,
    parts: Parts = "encoder",
    source: Path | str = "the pretrained network",
) -> LoadedParts:
    """Take over weights of another network of the same layout, encoder and bands.

    Args:
        network: Changed in place, and only if everything fits.
        state: The other's ``state_dict()``, or one with its names under ``network.``.
        parts: ``backbone``; ``encoder``, with the pyramid, as the official code does by default;
            or ``all``, also the decoder but for the last 1x1 convolution, which never is loaded.
        source: Where ``state`` comes from, for the message.

    Raises:
        InputError: If the networks see different bands, or a weight is missing, too many or of
            another shape.
    """

    def within(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = {key: key.removeprefix("network.") for key in tensors}
        return {
            names[key]: value
            for key, value in tensors.items()
            if names[key].partition(".")[0] in _MODULES[parts]
        }

    wanted, found = within(network.state_dict()), within(state)
    stem = found.get(f"backbone.{_stem(network.backbone)}.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] != network.bands:
        raise InputError(
            f"{source} was trained on {stem.shape[1]} bands, this network sees {network.bands}: "
            "choose the same bands"
        )
    problems = mismatches(wanted, found)
    if problems:
        raise InputError(
            f"{source} does not fit this network: {'; '.join(problems)}; build it with the "
            "encoder, layout and width of the pretraining"
        )
    network.load_state_dict(found, strict=False)
    fresh = tuple(key for key in network.state_dict() if key not in found)
    return LoadedParts(tuple(found), fresh)


def load_backbone(network: SegmentationNetwork, weights: Path | str) -> None:
    """Fill the backbone with a file of torchvision's, timm's or smp's weights for RGB images.

    Args:
        network: Changed in place.
        weights: What :func:`cl_core.networks.weights.read_weights` reads. For other than
            three bands the stem is adapted by
            :func:`cl_core.networks.weights.adapt_channels`; a classifier is dropped.

    Raises:
        InputError: If the file cannot be read or does not fit.
    """
    backbone = network.backbone
    load_weights(
        backbone.trunk if isinstance(backbone, Backbone) else backbone,
        read_weights(weights),
        source=weights,
        name=network.card["encoder"],
        ignore=("fc", "classifier", "last_linear", "head"),
        rgb=(_stem(backbone).removeprefix("trunk."),),
    )


def _stem(backbone: nn.Module) -> str:
    """Return the name of the convolution that sees the image."""
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Conv2d):
            return str(name)
    raise ValueError(f"{type(backbone).__name__} has no convolution")
