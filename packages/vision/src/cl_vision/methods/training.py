"""From the options of `pretrain` to what trains: encoder, method, loaders, callbacks."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from cl_core.errors import InputError
from cl_core.evaluation.features import frozen
from cl_core.networks.backbones import Backbone, build_backbone, own_backbone
from cl_core.networks.own import OWN, import_path
from cl_core.networks.small_resnet import small_resnet_widths
from cl_core.networks.trunks import RESNETS
from cl_core.runs import Run
from cl_core.seeding import RandomStream
from cl_core.training.online import OnlineKNN
from cl_core.training.share import ShareBatch
from cl_core.transforms import Statistics
from cl_vision.collapse.monitor import CollapseMonitor
from cl_vision.config import PretrainConfig, ValueRange
from cl_vision.data import (
    Images,
    evaluation_loader,
    evaluation_view,
    measure_statistics,
    training_loader,
    training_views,
)
from cl_vision.hyper import MoCoHyper
from cl_vision.methods.moco import require_queue
from cl_vision.methods.table import METHODS
from cl_vision.model import ImageModel

if TYPE_CHECKING:
    from lightning import LightningModule

__all__ = ["Training", "build_encoder", "build_method", "resolved"]

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
    def of(
        cls,
        config: PretrainConfig,
        images: Images,
        run: Run,
        *,
        encoder: nn.Module | None = None,
        method: LightningModule | None = None,
    ) -> Training:
        """Build everything; call `cl_core.seeding.seed_everything` before.

        Args:
            config: Of :func:`resolved`.
            images: Those to train on.
            run: Where the collapse spectrum is written.
            encoder: The caller's own, in place of ``config.backbone``.
            method: The caller's own, in place of ``config.method``; its ``encoder`` is what is
                kept.

        Raises:
            InputError: If an option does not fit the images or the encoder.
        """
        statistics = measure_statistics(images, config.statistics)
        views = training_views(
            METHODS[config.method].views,
            config.image_size,
            statistics,
            channels=images.channels,
            augmentation=config.augmentation,
            multi_crop=getattr(getattr(config, config.method), "multi_crop", False),
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
        module = method
        ordered = evaluation_loader(
            images, plain, batch_size=config.batch_size, workers=config.workers or 0, shard=True
        )
        if module is None:
            backbone = build_encoder(config, images.channels, own=encoder)
            _refuse_sizes(backbone, views, images.channels)
            module = build_method(config, backbone, cluster_loader=ordered)
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
        row = METHODS[self.config.method]
        own = not isinstance(self.module, row.load())
        encoder = own_backbone(
            _encoder_of(self.module),
            in_channels=self.images.channels,
            image_size=self.config.image_size,
        )
        projector: nn.Module = nn.Identity()
        card = None
        if own:
            name = type(self.module).__name__
        else:
            title, card_of = row.part("title"), row.part("projector_card")
            name = row.title if title is None else title(self.module.hyper)
            card = None if card_of is None else card_of(self.module)
            projector = cast(nn.Module, self.module.projector)
        return ImageModel.of(
            encoder,
            projector,
            method=name if own else self.config.method,
            name=name,
            projector_card=card,
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
            images, plain, batch_size=self.config.batch_size, workers=self.config.workers or 0
        )


def resolved(
    config: PretrainConfig, images: Images, *, encoder: nn.Module | None = None
) -> tuple[PretrainConfig, list[str]]:
    """Fill in what depends on the method and the images, so that the record holds it.

    What depends on the number of epochs, the two warm-ups, stays open: `--resume` may change it.

    Args:
        config: As it was given.
        images: Those to train on.
        encoder: The caller's own.

    Returns:
        The options, and what a user should know of how they came about.
    """
    row = METHODS[config.method]
    config, notes = _fitting_batch(config, len(images))
    if config.lr_scaling != "none":
        rate = config.optimizer_hyper().learning_rate
        notes.append(f"learning rate {rate:g}, scaled to the batch of {config.batch_size}")
    prepare = row.part("prepare")
    if prepare is not None:
        config, told = prepare(config, len(images))
        notes += told
    backbone = config.backbone or ("resnet-16-32-128" if images.is_digits else "resnet18")
    if encoder is not None:
        backbone = f"{OWN}{import_path(encoder)}"
    zero = config.zero_init_residual
    if zero is None:
        is_resnet = backbone in RESNETS or small_resnet_widths(backbone) is not None
        zero = row.zero_init_residual and is_resnet and config.weights is None
    options = replace(
        config,
        channels=1 if images.is_digits else config.channels,
        value_range=cast(ValueRange, images.value_range),
        image_size=8 if images.is_digits else config.image_size,
        backbone=backbone,
        zero_init_residual=zero,
        learning_rate=config.base_learning_rate,
        schedule=config.optimizer_hyper().schedule,
    )
    return options, notes


def _fitting_batch(config: PretrainConfig, images: int) -> tuple[PretrainConfig, list[str]]:
    """A recipe's batch on fewer images than its own: a quarter of them, and the rate with it."""
    if config.batch_size * 2 <= images or not config.is_of_recipe("batch_size"):
        return config, []
    batch = max(2, 2 ** int(np.log2(max(2, images // 4))))
    if batch >= config.batch_size:
        return config, []
    rate = config.base_learning_rate * batch / config.batch_size
    note = (
        f"the recipe's batch of {config.batch_size} images became {batch}, for there are "
        f"{images:,}, and its learning rate {rate:.3g} with it"
    )
    if config.lr_scaling != "none" or not config.is_of_recipe("learning_rate"):
        note = note.partition(", and its")[0]
        return replace(config, batch_size=batch), [note]
    return replace(config, batch_size=batch, learning_rate=rate), [note]


def build_encoder(
    config: PretrainConfig, channels: int, *, own: nn.Module | None = None
) -> Backbone:
    """Build the encoder of resolved options, or take the caller's own.

    Raises:
        InputError: If the architecture is unknown or the weights do not fit.
    """
    assert config.backbone is not None
    if own is not None:
        return own_backbone(own, in_channels=channels, image_size=config.image_size)
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
        cluster_loader: All training images in order, without augmentation, for a method that
            clusters them.

    Raises:
        InputError: If the method's options do not fit the encoder, the batch or the images.
    """
    row, hyper = METHODS[config.method], getattr(config, config.method)
    module = row.load()
    given: dict[str, Any] = {"optimizer": config.optimizer_hyper(), "seed": config.seed}
    if "cluster_loader" in inspect.signature(module).parameters:
        given["cluster_loader"] = cluster_loader
    if isinstance(hyper, MoCoHyper):
        require_queue(hyper.queue, config.batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what speaks against the options is told as notes
        try:
            built: LightningModule = module(encoder, hyper, **given)
        except ValueError as error:
            raise InputError(f"--{config.method}: {error}") from error
    return built


def _encoder_of(module: LightningModule) -> nn.Module:
    encoder = getattr(module, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise InputError(
            f"{type(module).__name__} has no encoder to keep: call the network that is trained "
            "`encoder`"
        )
    return encoder


def _refuse_sizes(encoder: Backbone, views: Sequence[Any], channels: int) -> None:
    """Find out before the training that an encoder takes views of one size only.

    Raises:
        InputError: If it does not take the smallest.
    """
    if len(views) == 2:
        return  # of one size, which the training's first step sees anyway
    zeros = torch.zeros(channels, 64, 64, dtype=torch.uint8)
    with RandomStream(0).running():
        sizes = sorted({view(zeros).shape[-1] for view in views})
    for size in sizes:
        try:
            with frozen(encoder):
                encoder(torch.zeros(1, channels, size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--backbone {encoder.name} does not take images of {size} pixels, as multi_crop "
                "cuts them: leave --hcsc.multi_crop out, or take a ResNet"
            ) from error
