"""Options of the network, the losses and the data: plain numbers, standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cl_core.checks import (
    OptionError,
    require_at_least,
    require_positive,
    require_share,
)
from cl_core.commands.options import Options

__all__ = [
    "AugmentHyper",
    "ContrastHyper",
    "LossHyper",
    "Mode",
    "NetworkHyper",
    "PriorHyper",
    "VolumeHyper",
]

Mode = Literal["individual", "transfer", "shared", "domain_norm", "contrast"]

LARGEST_FILTERS = 4096
LARGEST_PATCH = 4096


@dataclass(frozen=True, kw_only=True)
class NetworkHyper(Options):
    """The shared network, one of MONAI's.

    Args:
        architecture: `dynunet`, `unet`, `basic_unet`, `segresnet` or `attention_unet`.
        filters: Channels of each level, the bottleneck last.
        synchronized: Take batch statistics over the samples of all devices, where each domain has
            batch norms of its own; else each device takes its own.
    """

    architecture: Literal["dynunet", "unet", "basic_unet", "segresnet", "attention_unet"] = (
        "dynunet"
    )
    filters: tuple[int, ...] = (32, 64, 128, 256)
    synchronized: bool = False

    def __post_init__(self) -> None:
        if not 3 <= len(self.filters) <= 8 or not all(
            1 <= count <= LARGEST_FILTERS for count in self.filters
        ):
            raise OptionError(
                f"network.filters must be 3 to 8 numbers of channels up to {LARGEST_FILTERS}, got "
                f"{list(self.filters)}"
            )


@dataclass(frozen=True, kw_only=True)
class ContrastHyper(Options):
    """The contrastive regularisation of the mode `contrast`.

    Args:
        weight: Of the term, the papers' lambda.
        temperature: Of the similarities, the papers' tau.
        levels: Where it acts: the `bottleneck`, `all` levels, or their numbers from the finest, as
            in [0,2,3].
        singles: A sample that is alone of its domain in the batch is left out of the mean
            (`exclude`), or counts with a loss of 0 (`all`).
        warmup: Share of the steps over which the weight rises to its value.
    """

    weight: float = 0.1
    temperature: float = 0.1
    levels: Literal["bottleneck", "all"] | tuple[int, ...] = "bottleneck"
    singles: Literal["exclude", "all"] = "exclude"
    warmup: float = 0.1

    def __post_init__(self) -> None:
        require_at_least(0, **{"contrast.weight": self.weight})
        require_positive(**{"contrast.temperature": self.temperature})
        require_share(**{"contrast.warmup": self.warmup})
        if not isinstance(self.levels, str) and not self.levels:
            raise OptionError("contrast.levels must name one level at least")


@dataclass(frozen=True, kw_only=True)
class LossHyper(Options):
    """Loss of the segmentation, and its optimisation by AdamW.

    Args:
        class_weights: Of the cross-entropy: `none`, or `inverse` to a class's frequency in its
            domain's training cases, at most 20 times that of the commonest.
        skip_absent_classes: Leave structures that no sample of the step shows out of the Dice.
        learning_rate: At the start; it falls to 0 as (1 - t/T)^0.9.
        weight_decay: Of filters; norms and biases do not decay.
        gradient_clip: Largest norm of the gradient.
    """

    class_weights: Literal["none", "inverse"] = "none"
    skip_absent_classes: bool = False
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    gradient_clip: float | None = 12.0

    def __post_init__(self) -> None:
        require_positive(
            **{
                "loss.learning_rate": self.learning_rate,
                "loss.gradient_clip": self.gradient_clip,
            }
        )
        require_at_least(0, **{"loss.weight_decay": self.weight_decay})


@dataclass(frozen=True, kw_only=True)
class AugmentHyper(Options):
    """Random changes of training samples; geometry acts within slices.

    Args:
        rotation: Degrees to either side.
        scale: Factors from and to.
        shift: Share of the patch to either side.
        geometry: Probability of the three together; 0 leaves samples as they lie.
        noise: Largest standard deviation of noise.
        gamma: Exponents from and to.
        gain: Factors of brightness from and to.
        offset: Brightness added, to either side.
        flip: Mirror along the last axis half of the time. Left and right are then one to the
            network.
    """

    rotation: float = 15.0
    scale: tuple[float, float] = (0.85, 1.15)
    shift: float = 0.1
    geometry: float = 0.9
    noise: float = 0.1
    gamma: tuple[float, float] = (0.7, 1.5)
    gain: tuple[float, float] = (0.8, 1.2)
    offset: float = 0.2
    flip: bool = False

    def __post_init__(self) -> None:
        require_share(**{"augment.geometry": self.geometry, "augment.shift": self.shift})
        require_at_least(
            0,
            **{
                "augment.rotation": self.rotation,
                "augment.noise": self.noise,
                "augment.offset": self.offset,
            },
        )
        for name in ("scale", "gamma", "gain"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise OptionError(
                    f"augment.{name} must be two positive numbers in order, got {low} and {high}"
                )


@dataclass(frozen=True, kw_only=True)
class PriorHyper(Options):
    """Anatomical priors: masks compared in the code of an auto-encoder of masks.

    Args:
        weight: Of the penalty, the follow-up's mu; 0 trains without, 0.1 is a start.
        filters: Channels of the auto-encoder's levels.
        epochs: Passes for training it on the true masks, before the network.
    """

    weight: float = 0.0
    filters: tuple[int, ...] = (16, 32, 64)
    epochs: int = 10

    def __post_init__(self) -> None:
        require_at_least(0, **{"prior.weight": self.weight})
        require_at_least(1, **{"prior.epochs": self.epochs})
        if not 2 <= len(self.filters) <= 8 or not all(
            1 <= count <= LARGEST_FILTERS for count in self.filters
        ):
            raise OptionError(
                f"prior.filters must be 2 to 8 numbers of channels, got {list(self.filters)}"
            )


@dataclass(frozen=True, kw_only=True)
class VolumeHyper(Options):
    """How volumes are prepared and cut.

    Args:
        dims: 2 trains on slices, 3 on patches of volumes.
        patch: Size of a sample in voxels, slice axis first if there is one; by default 256 x 256,
            or 32 x 64 x 64.
        percentiles: Where intensities are clipped, per cent.
        nonzero_only: Measure intensities on voxels that are not 0.
        channels: Images of a case; cases with fewer are filled up with zeros. By default as many
            as the cases have.
    """

    dims: Literal[2, 3] = 2
    patch: tuple[int, ...] | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    nonzero_only: bool = False
    channels: int | None = None

    def __post_init__(self) -> None:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise OptionError(
                f"volumes.percentiles must lie in order between 0 and 100, got {low} and {high}"
            )
        if self.patch is not None and (
            len(self.patch) != self.dims or not all(1 <= n <= LARGEST_PATCH for n in self.patch)
        ):
            raise OptionError(
                f"volumes.patch must be {self.dims} sizes for volumes.dims {self.dims}, got "
                f"{list(self.patch)}"
            )
        require_positive(**{"volumes.channels": self.channels})

    @property
    def size(self) -> tuple[int, ...]:
        """The size of a sample."""
        return self.patch or ((256, 256) if self.dims == 2 else (32, 64, 64))
