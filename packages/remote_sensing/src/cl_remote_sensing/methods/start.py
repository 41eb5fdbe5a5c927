"""The network a training starts from: fresh, with a file's weights, or with those of a run."""

from __future__ import annotations

from dataclasses import dataclass

from cl_remote_sensing.config import FinetuneConfig
from cl_remote_sensing.hyper import NetworkHyper
from cl_remote_sensing.labels.legend import Legend
from cl_remote_sensing.networks.network import (
    SegmentationNetwork,
    build_network,
    load_backbone,
    load_parts,
)
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.saved import SavedModel
from cl_remote_sensing.suited import scaling_of

__all__ = ["Start", "new_network", "start_finetuning"]


@dataclass(frozen=True)
class Start:
    """Where a fine-tuning begins.

    Attributes:
        network: With an output a class.
        normalization: That of the pretraining; ``None`` from scratch, to be measured.
        loaded: Names of the weights taken over from the pretraining.
    """

    network: SegmentationNetwork
    normalization: Normalization | None
    loaded: tuple[str, ...]


def new_network(
    hyper: NetworkHyper, *, bands: int, outputs: int, fine_tuning: bool = False
) -> SegmentationNetwork:
    """Build a network of its options, with the weights of a file if they name one.

    Raises:
        InputError: If there is no such encoder, or the weights do not fit it.
    """
    network = build_network(
        encoder=hyper.encoder,
        layout=hyper.layout,
        width=hyper.width,
        output_stride=hyper.output_stride,
        bn_momentum=hyper.batch_norm_momentum,
        bands=bands,
        outputs=outputs,
        fine_tuning=fine_tuning,
    )
    if hyper.weights is not None:
        load_backbone(network, hyper.weights)
    return network


def start_finetuning(
    config: FinetuneConfig,
    before: SavedModel | None,
    scenes: tuple[Scene, ...],
    legend: Legend,
) -> Start:
    """Build the segmentation network, and load what the options name from a pretraining.

    Args:
        config: Says what is loaded, and the network where nothing is.
        before: The pretraining in ``config.run``, if there is one.
        scenes: To be trained on.
        legend: The classes.

    Raises:
        InputError: If the pretraining was made for other bands.
    """
    if before is None or config.run is None:
        network = new_network(
            config.network, bands=len(scenes[0].bands), outputs=len(legend), fine_tuning=True
        )
        return Start(network, None, ())
    normalization = scaling_of(scenes[0], before)
    network = build_network(
        **before.network.card | {"outputs": len(legend), "fine_tuning": True},
    )
    if config.init_from == "nothing":
        return Start(network, normalization, ())
    parts = load_parts(
        network, before.network.state_dict(), parts=config.init_from, source=config.run
    )
    return Start(network, normalization, parts.loaded)
