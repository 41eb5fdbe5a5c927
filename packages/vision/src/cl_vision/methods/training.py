"""From the options of `pretrain` to what trains: encoder, method, loaders, callbacks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from cl_core.errors import InputError
from cl_core.loader import EpochBatches
from cl_core.networks.backbones import Backbone, build_backbone
from cl_core.networks.small_resnet import small_resnet_widths
from cl_core.networks.trunks import RESNETS
from cl_core.runs import Run
from cl_core.training.online import OnlineKNN
from cl_core.transforms import Statistics
from cl_vision.collapse.monitor import CollapseMonitor
from cl_vision.config import PretrainConfig
from cl_vision.data import (
    Images,
    evaluation_loader,
    evaluation_view,
    measure_statistics,
    training_loader,
    training_views,
)
from cl_vision.hcsc.module import HCSC
from cl_vision.hcsc.prototypes import suggest_clusters
from cl_vision.methods.directclr import DirectCLR
from cl_vision.methods.moco import MoCo, require_queue
from cl_vision.methods.projectors import FirstChannels
from cl_vision.methods.simclr import SimCLR
from cl_vision.model import ImageModel, ProjectorCard

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer

__all__ = ["NAMES", "Training", "build_encoder", "build_method", "resolved"]

NAMES = {"simclr": "SimCLR", "directclr": "DirectCLR", "moco": "MoCo v2", "hcsc": "HCSC"}
"""The methods as reports call them."""

BANK = 20_000
"""Images of an online kNN; more cost time at every look and change little."""


@dataclass
class Training:
    """All that `cl_core.training.fit` is given.

    Attributes:
        module: The method.
        loader: Its batches.
        callbacks: What watches it.
        images: Those trained on.
        statistics: Normalise them.
        config: The options, resolved.
        notes: What a user should know before it starts.
    """

    module: LightningModule
    loader: DataLoader[Any]
    callbacks: list[Callback]
    images: Images
    statistics: Statistics
    config: PretrainConfig
    notes: list[str]

    @classmethod
    def of(cls, config: PretrainConfig, images: Images, run: Run) -> Training:
        """Build everything; call `cl_core.seeding.seed_everything` before.

        Args:
            config: Of :func:`resolved`.
            images: Those to train on.
            run: Where the collapse spectrum is written.

        Raises:
            InputError: If an option does not fit the images or the encoder.
        """
        statistics = measure_statistics(images, config.statistics)
        views = training_views(
            config.method,
            config.image_size,
            statistics,
            channels=images.channels,
            augmentation=config.augmentation,
            multi_crop=config.method == "hcsc" and config.hcsc.multi_crop,
            digits=images.is_digits,
        )
        loader = training_loader(
            images,
            views,
            batch_size=config.batch_size,
            workers=config.workers,
            seed=config.seed,
        )
        plain = evaluation_view(config.image_size, statistics, digits=images.is_digits)
        encoder = build_encoder(config, images.channels)
        ordered = evaluation_loader(
            images, plain, batch_size=config.batch_size, workers=config.workers, shard=True
        )
        module = build_method(config, encoder, cluster_loader=ordered)
        training = cls(module, loader, [], images, statistics, config, [])
        training.callbacks += [ShareBatch(loader, config.batch_size)]
        training.callbacks += training._watchers(plain, run)
        training.notes += [*getattr(module, "notes", ())]
        queue = getattr(module, "queue", None)
        if queue is not None and len(queue) > len(images):
            training.notes.append(
                f"the queue of {len(queue):,} keys is longer than the {len(images):,} images, so "
                "it holds a query's own old keys: a third of the images does for small data"
            )
        return training

    def model(self) -> ImageModel:
        """The encoder and projector as they are now, to be saved."""
        encoder, projector = self.module.encoder, self.module.projector
        assert isinstance(encoder, Backbone)
        assert isinstance(projector, nn.Module)
        name = NAMES[self.config.method]
        if self.config.method == "simclr" and self.config.simclr.projector != "mlp":
            name += f" ({self.config.simclr.projector.replace('_', '-')} projector)"
            name = name.replace("none projector", "no projector")
        return ImageModel.of(
            encoder,
            projector,
            method=self.config.method,
            name=name,
            projector_card=_projector_card(self.config, projector, encoder.out_features),
            image_size=self.config.image_size,
            statistics=self.statistics,
        )

    def _watchers(self, plain: nn.Module, run: Run) -> list[Callback]:
        watchers: list[Callback] = []
        config = self.config
        if config.knn_every:
            labelled = np.flatnonzero(self.images.table.labels >= 0)
            if len(labelled) < 2:
                raise InputError("--knn_every needs labelled images: give labels or leave it out")
            bank = labelled[:: -(-len(labelled) // BANK)]
            watchers.append(
                OnlineKNN(self._look(self.images.select(bank), plain), every=config.knn_every, k=20)
            )
        if config.spectrum_every:
            rows = np.arange(len(self.images))
            seen = self.images.select(rows[:: -(-len(rows) // 10_000)])
            watchers.append(
                CollapseMonitor(self._look(seen, plain), run=run, every=config.spectrum_every)
            )
        return watchers

    def _look(self, images: Images, plain: nn.Module) -> DataLoader[Any]:
        return evaluation_loader(
            images, plain, batch_size=self.config.batch_size, workers=self.config.workers
        )


class ShareBatch(Callback):
    """Divides the batch among the devices, whose number is known only when they are there.

    Args:
        loader: Of :func:`cl_vision.data.training_loader`, made for the whole batch.
        batch_size: Images a step, of all devices together.
    """

    def __init__(self, loader: DataLoader[Any], batch_size: int) -> None:
        self.batches = loader.batch_sampler
        self.batch_size = batch_size

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        share, left = divmod(self.batch_size, trainer.world_size)
        if left or share < 2:
            raise InputError(
                f"--batch_size {self.batch_size} is of all devices together and must be a multiple "
                f"of their number, {trainer.world_size}, with at least 2 images on each"
            )
        assert isinstance(self.batches, EpochBatches)
        self.batches.batch_size = share


def resolved(config: PretrainConfig, images: Images) -> PretrainConfig:
    """Fill in what depends on the method and the images, so that the record holds it.

    What depends on the number of epochs, the two warm-ups, stays open: `--resume` may change it.
    """
    hyper = config.optimizer_hyper()
    backbone = config.backbone or ("resnet-16-32-128" if images.is_digits else "resnet18")
    zero = config.zero_init_residual
    if zero is None:
        is_resnet = backbone in RESNETS or small_resnet_widths(backbone) is not None
        zero = config.method in ("simclr", "directclr") and is_resnet and config.weights is None
    hcsc = config.hcsc
    if config.method == "hcsc" and not hcsc.clusters:
        hcsc = replace(hcsc, clusters=suggest_clusters(len(images))[0])
    return replace(
        config,
        channels=1 if images.is_digits else config.channels,
        image_size=8 if images.is_digits else config.image_size,
        backbone=backbone,
        zero_init_residual=zero,
        learning_rate=hyper.learning_rate,
        schedule=hyper.schedule,
        hcsc=hcsc,
    )


def build_encoder(config: PretrainConfig, channels: int) -> Backbone:
    """Build the encoder of resolved options.

    Raises:
        InputError: If the architecture is unknown or the weights do not fit.
    """
    assert config.backbone is not None
    return build_backbone(
        config.backbone,
        in_channels=channels,
        stem=config.stem,
        image_size=config.image_size,
        zero_init_residual=bool(config.zero_init_residual),
        weights=config.weights,
    )


def build_method(
    config: PretrainConfig, encoder: nn.Module, *, cluster_loader: DataLoader[Any]
) -> LightningModule:
    """Build what trains the encoder.

    Args:
        config: Resolved options.
        encoder: To be trained.
        cluster_loader: All training images in order, without augmentation; for HCSC.

    Raises:
        InputError: If the method's options do not fit the encoder, the batch or the images.
    """
    common: dict[str, Any] = {"optimizer": config.optimizer_hyper(), "seed": config.seed}
    if config.method in ("moco", "hcsc"):
        queue = config.moco.queue if config.method == "moco" else config.hcsc.queue
        require_queue(queue, config.batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what speaks against the options is told as notes
        try:
            if config.method == "simclr":
                return SimCLR(encoder, config.simclr, **common)
            if config.method == "directclr":
                return DirectCLR(encoder, config.directclr, **common)
            if config.method == "moco":
                return MoCo(encoder, config.moco, **common)
            return HCSC(encoder, config.hcsc, cluster_loader=cluster_loader, **common)
        except ValueError as error:
            raise InputError(f"--{config.method}: {error}") from error


def _projector_card(config: PretrainConfig, projector: nn.Module, width: int) -> ProjectorCard:
    if config.method == "directclr":
        d0 = cast(FirstChannels, projector).out_features
        return ProjectorCard(kind="first_channels", width=width, d0=d0)
    if config.method == "simclr":
        hyper = config.simclr
        return ProjectorCard(
            kind=hyper.projector,
            width=width,
            hidden=hyper.hidden,
            dim=hyper.dim,
            rank=hyper.rank,
        )
    own = config.moco if config.method == "moco" else config.hcsc
    return ProjectorCard(kind="moco", width=width, dim=own.dim, batch_norm=own.projector_norm)
