"""Options of the network, of GLCNet and of fine-tuning: plain numbers, standard library only."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeVar

from cl_core.checks import OptionError, require_at_least, require_positive
from cl_core.commands.options import Options

__all__ = ["GLCNetHyper", "NetworkHyper", "SegmentationHyper", "options_of"]


T = TypeVar("T")


def options_of(kind: type[T], config: object) -> T:
    """The part of a command's options that a class of this module names."""
    return kind(**{f.name: getattr(config, f.name) for f in fields(kind)})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class NetworkHyper(Options):
    """The encoder-decoder.

    Args:
        encoder: `resnet18`, `resnet34`, `resnet50`, `resnet101`, or with the layout `smp` any
            encoder that segmentation_models_pytorch can dilate.
        layout: `smp` is DeepLabV3+ of segmentation_models_pytorch, with separable convolutions;
            `paper` the one of GLCNet's authors, several times heavier.
        width: Channels of the pyramid and of the decoder.
        output_stride: Pixels of the image per pixel of the encoder's output, 8 or 16.
        batch_norm_momentum: Weight of the last batch in running statistics; the authors' code has
            0.9, which keeps little but the last batch.
        weights: A file with an encoder's weights to start from, such as torchvision's.
    """

    encoder: str = "resnet50"
    layout: Literal["smp", "paper"] = "smp"
    width: int = 256
    output_stride: Literal[8, 16] = 16
    batch_norm_momentum: float = 0.1
    weights: str | None = None

    def __post_init__(self) -> None:
        require_positive(**{"network.width": self.width})
        if not 0 < self.batch_norm_momentum <= 1:
            raise OptionError(
                "network.batch_norm_momentum must be above 0 and at most 1, "
                f"got {self.batch_norm_momentum}"
            )


@dataclass(frozen=True, kw_only=True)
class GLCNetHyper(Options):
    """Hyper-parameters of GLCNet (Li et al. 2022, arXiv 2106.10605).

    Args:
        temperature: Of both contrasts.
        global_weight: Weight of the global term, the paper's lambda; the local one has the rest.
        regions: Matching regions drawn from a tile.
        region_size: Edge of a region in pixels, even; by default 0.214 of the view, 48 of 224.
        no_global: Train by local matching alone.
        no_local: Train by the global contrast alone.
        no_style: Contrast channel means without variances; with `no_local` that is SimCLR.
        positive_in_denominator: Count the positive among the terms it is compared with, as
            SimCLR does; the authors' code leaves it out.
        strict_nonoverlap: Keep the regions of a tile apart; as published only a region's centre
            never lies in an earlier region.
        augment_both: Augment the colours of both views; as published the first is only cropped.
        jitter_rgb: Change brightness and contrast of three-band images too; the authors' code
            does so for any other number of bands only.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        warmup: Share of the steps in which the learning rate rises; then it falls along a cosine.
    """

    temperature: float = 0.5
    global_weight: float = 0.5
    regions: int = 4
    region_size: int | None = None
    no_global: bool = False
    no_local: bool = False
    no_style: bool = False
    positive_in_denominator: bool = False
    strict_nonoverlap: bool = False
    augment_both: bool = False
    jitter_rgb: bool = True
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    warmup: float = 0.0

    def __post_init__(self) -> None:
        require_positive(
            temperature=self.temperature,
            regions=self.regions,
            region_size=self.region_size,
            learning_rate=self.learning_rate,
        )
        require_at_least(0, weight_decay=self.weight_decay, warmup=self.warmup)
        if not 0 <= self.global_weight <= 1:
            raise OptionError(f"global_weight must lie between 0 and 1, got {self.global_weight}")
        if self.warmup >= 1:
            raise OptionError(f"warmup is a share of the steps below 1, got {self.warmup}")
        if self.region_size is not None and self.region_size % 2:
            raise OptionError(f"region_size must be even, got {self.region_size}")
        if self.no_global and self.no_local:
            raise OptionError("no_global and no_local together leave nothing to train by")


@dataclass(frozen=True, kw_only=True)
class SegmentationHyper(Options):
    """Hyper-parameters of fine-tuning.

    Args:
        loss: `cross_entropy`, `focal`, or `dice`: cross-entropy plus Dice.
        class_weights: `none`, `inverse` frequency, or `median` frequency over frequency, of the
            labelled pixels trained on.
        learning_rate: Of Adam, for parts that start fresh.
        loaded_learning_rate: Of Adam, for parts loaded from the pretraining.
        weight_decay: Of Adam.
        schedule: `cosine` to zero over the steps, or `exponential`: 0.98 an epoch as published.
        freeze: Parts that stay as loaded: `none`, the `backbone`, or the whole `encoder`.
    """

    loss: Literal["cross_entropy", "focal", "dice"] = "cross_entropy"
    class_weights: Literal["none", "inverse", "median"] = "none"
    learning_rate: float = 1e-3
    loaded_learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    schedule: Literal["cosine", "exponential"] = "cosine"
    freeze: Literal["none", "backbone", "encoder"] = "none"

    def __post_init__(self) -> None:
        require_positive(
            learning_rate=self.learning_rate, loaded_learning_rate=self.loaded_learning_rate
        )
        require_at_least(0, weight_decay=self.weight_decay)
