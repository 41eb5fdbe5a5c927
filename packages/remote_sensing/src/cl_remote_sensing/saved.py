"""What a run holds: a network, how its input is scaled, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from cl_core.errors import InputError
from cl_core.runs import Run
from cl_remote_sensing.labels.legend import Legend
from cl_remote_sensing.networks.network import SegmentationNetwork, build_network
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import Scene

__all__ = ["Kind", "SavedModel", "check_bands"]

Kind = Literal["pretrained", "segmentation"]
_VERB: dict[Kind, str] = {"pretrained": "pretrain", "segmentation": "finetune"}


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
        weights: SHA-256 of the weights, where they were loaded.
    """

    network: SegmentationNetwork
    normalization: Normalization
    bands: tuple[str, ...]
    colors: tuple[str, ...]
    tile: int
    legend: Legend | None = None
    weights: str = ""

    def save(self, run: Run) -> None:
        """Write the model into a run."""
        run.save_model(
            self.network,
            {
                "kind": "pretrained" if self.legend is None else "segmentation",
                "network": self.network.card,
                "normalization": self.normalization.to_dict(),
                "bands": list(self.bands),
                "colors": list(self.colors),
                "tile": self.tile,
                "legend": None if self.legend is None else self.legend.to_dict(),
            },
        )

    @classmethod
    def load(cls, path: Path, kind: Kind) -> SavedModel:
        """Read the model of a run.

        Raises:
            InputError: If there is none, or one of another kind.
        """
        run = Run.open(path)
        state, card = run.load_model()
        if card.get("kind") != kind:
            raise InputError(
                f"--run {path}: model.json says {card.get('kind')!r}, expected {kind!r}; give a "
                f"run of cl-remote-sensing {_VERB[kind]}"
            )
        try:
            return cls._restored(card, state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{path}: model.json and its weights do not fit together") from error

    @classmethod
    def _restored(cls, card: Mapping[str, Any], state: Mapping[str, Tensor]) -> SavedModel:
        network = build_network(**card["network"])
        network.load_state_dict(state)
        return cls(
            network=network.eval(),
            normalization=Normalization.from_dict(card["normalization"]),
            bands=tuple(card["bands"]),
            colors=tuple(card["colors"]),
            tile=int(card["tile"]),
            legend=None if card["legend"] is None else Legend.from_dict(card["legend"]),
            weights=card.get("weights_sha256", ""),
        )


def check_bands(scenes: Sequence[Scene], model: SavedModel, run: Path) -> None:
    """Refuse scenes whose bands are not those of a model.

    Raises:
        InputError: If their number differs, or both say their colours and these differ.
    """
    for scene in scenes:
        if len(scene.bands) != len(model.bands):
            raise InputError(
                f"{scene.path} has {len(scene.bands)} bands ({', '.join(scene.names)}), but the "
                f"model in {run} was trained on {len(model.bands)} ({', '.join(model.bands)}); "
                "choose with --bands"
            )
        told = [
            (own, trained)
            for own, trained in zip(scene.colors, model.colors, strict=True)
            if {own, trained}.isdisjoint({"gray", "undefined"})
        ]
        if any(own != trained for own, trained in told):
            raise InputError(
                f"{scene.path} has the bands {', '.join(scene.colors)}, but the model in {run} was "
                f"trained on {', '.join(model.colors)}; put them in that order with --bands"
            )
