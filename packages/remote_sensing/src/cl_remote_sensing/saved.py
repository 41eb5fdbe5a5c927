"""What a run holds: a network, how its input is scaled, and what its outputs mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from cl_core.checks import OptionError, require_positive
from cl_core.commands.options import Options
from cl_core.runs import Run
from cl_core.runs.card import Card, card_kind
from cl_remote_sensing.labels.legend import Legend
from cl_remote_sensing.networks.network import Layout, SegmentationNetwork, build_network
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.suited import check_bands

__all__ = ["Kind", "SavedModel", "Training", "check_bands", "load_model", "load_run"]

Kind = Literal["pretrained", "segmentation"]


@dataclass(frozen=True, kw_only=True)
class NetworkCard(Options):
    """The arguments of :func:`~cl_remote_sensing.networks.network.build_network`."""

    encoder: str
    bands: int
    outputs: int
    layout: Layout
    output_stride: Literal[8, 16]
    width: int
    bn_momentum: float
    fine_tuning: bool

    def __post_init__(self) -> None:
        require_positive(bands=self.bands, outputs=self.outputs, width=self.width)
        for name in ("bands", "outputs", "width"):
            if getattr(self, name) > _WIDEST:
                raise OptionError(f"network.{name} must be at most {_WIDEST:,}")


@dataclass(frozen=True, kw_only=True)
class Training(Options):
    """What the rasters of a training were like, for others to be compared with.

    Attributes:
        dtype: Numpy name of their type.
        minimum: Of each band the least value that the scaling was measured on, as stored.
        maximum: The largest.
        scales: Of each band the factor of its tag.
        offsets: Of each band the offset of its tag.
        pixel: Side of a pixel on the ground in metres; ``None`` where that is not known.
        unseen: Classes of the legend that no training pixel has.
    """

    dtype: str
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    pixel: float | None = None
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PretrainedCard(Card):
    """A network pretrained without labels.

    Args:
        network: How to build it.
        normalization: How its input is scaled, fixed at training.
        bands: Name of each band.
        colors: What each band shows.
        tile: Edge of the training's tiles in pixels.
        training: What its rasters were like; older models do not tell.
    """

    kind: ClassVar[str] = "pretrained"
    made_by: ClassVar[str] = "cl-remote-sensing pretrain"

    network: NetworkCard
    normalization: Normalization
    bands: tuple[str, ...]
    colors: tuple[str, ...]
    tile: int
    legend: Legend | None = None
    training: Training | None = None

    def __post_init__(self) -> None:
        require_positive(tile=self.tile)
        if self.tile > _WIDEST:
            raise OptionError(f"tile must be at most {_WIDEST:,}, got {self.tile}")
        per_band: dict[str, tuple[Any, ...]] = {"bands": self.bands, "colors": self.colors}
        for name in ("low", "high", "mean", "std"):
            per_band[f"normalization.{name}"] = getattr(self.normalization, name)
        if self.training is not None:
            for name in ("minimum", "maximum", "scales", "offsets"):
                per_band[f"training.{name}"] = getattr(self.training, name)
        for name, values in per_band.items():
            if len(values) != self.network.bands:
                raise OptionError(
                    f"{name} must be one for each of the network's {self.network.bands} bands, "
                    f"got {len(values)}"
                )


@dataclass(frozen=True, kw_only=True)
class SegmentationCard(PretrainedCard):
    """A network that tells classes.

    Args:
        legend: The classes, in the order of the network's outputs.
    """

    kind: ClassVar[str] = "segmentation"
    made_by: ClassVar[str] = "cl-remote-sensing finetune"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.legend is None or len(self.legend) != self.network.outputs:
            raise OptionError(
                f"legend must name a class for each of the network's {self.network.outputs} outputs"
            )


_CARDS: dict[Kind, type[PretrainedCard]] = {
    "pretrained": PretrainedCard,
    "segmentation": SegmentationCard,
}
_WIDEST = 100_000


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A network as ``model.safetensors`` and ``model.json`` keep it.

    Attributes:
        network: In eval mode when it was loaded.
        normalization: How its input is scaled, fixed at training.
        bands: Name of each band.
        colors: What each band shows.
        tile: Edge of the training's tiles in pixels.
        legend: The classes; ``None`` after pretraining.
        training: What its rasters were like, where that is known.
        weights: SHA-256 of the weights, where they were loaded.
    """

    network: SegmentationNetwork
    normalization: Normalization
    bands: tuple[str, ...]
    colors: tuple[str, ...]
    tile: int
    legend: Legend | None = None
    training: Training | None = None
    weights: str = ""

    def save(self, run: Run) -> None:
        """Write the model into a run."""
        card = PretrainedCard if self.legend is None else SegmentationCard
        run.save_model(
            self.network,
            card(
                network=NetworkCard(**self.network.card),
                normalization=self.normalization,
                bands=self.bands,
                colors=self.colors,
                tile=self.tile,
                legend=self.legend,
                training=self.training,
            ),
        )

    @classmethod
    def load(cls, path: Path | Run, kind: Kind) -> SavedModel:
        """Read the model of a run.

        Raises:
            InputError: If there is none, or one of another kind.
        """
        saved = Run.open(path).load_model(_CARDS[kind])
        card = saved.card
        return cls(
            network=saved.build(lambda card: build_network(**vars(card.network))),
            normalization=card.normalization,
            bands=card.bands,
            colors=card.colors,
            tile=card.tile,
            legend=card.legend,
            training=card.training,
            weights=saved.digest,
        )


def load_model(run: Path | str) -> SavedModel:
    """The segmentation of a run that ``finetune`` wrote, with its legend and scaling.

    Raises:
        InputError: If there is no such run, or its files are damaged.
    """
    return SavedModel.load(Path(run), "segmentation")


def load_run(run: Run) -> SavedModel:
    """The model of a run, pretrained or a segmentation.

    Raises:
        InputError: If it holds neither, or its files are damaged.
    """
    return SavedModel.load(run, cast(Kind, card_kind(run.path)))
