"""From the options of `pretrain` to what trains: encoder, method, loader, callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from cl_agriculture.claws import CLAWS, Optimization
from cl_agriculture.config import PretrainConfig
from cl_agriculture.data import Plants, evaluation_loader, training_loader
from cl_agriculture.model import PlantModel
from cl_agriculture.options import MODES
from cl_agriculture.views.plant_views import TrainingView, WholeView
from cl_core.networks.backbones import Backbone, build_backbone
from cl_core.training.online import OnlineKNN
from cl_core.training.share import ShareBatch

__all__ = ["NEIGHBOURS", "Training"]

NEIGHBOURS = 10
"""Of every kNN figure."""

BANK = 20_000
"""Images of an online kNN; more cost time at every look and change little."""


@dataclass
class Training:
    """All that `cl_core.training.fit` is given.

    Attributes:
        module: The method.
        loader: Its batches.
        callbacks: What watches it.
        plants: Images trained on.
        config: The options.
        notes: What a user should know before it starts.
    """

    module: CLAWS
    loader: DataLoader[Any]
    callbacks: list[Callback]
    plants: Plants
    config: PretrainConfig
    notes: list[str]

    @classmethod
    def of(cls, config: PretrainConfig, plants: Plants) -> Training:
        """Build everything; call `cl_core.seeding.seed_everything` before.

        Args:
            config: The options.
            plants: Images to train on, with masks if they are used.

        Raises:
            InputError: If an option does not fit the images or the encoder.
        """
        contrast, _, _ = MODES[config.mode]
        encoder = build_backbone(
            config.backbone,
            stem=config.stem,
            image_size=config.image_size,
            weights=config.weights,
        )
        labelled = bool((plants.labels >= 0).any())
        uses_labels = contrast != "instance" and labelled
        temperature = config.claws.temperature
        module = CLAWS(
            encoder,
            config.claws,
            contrast=contrast,  # type: ignore[arg-type]
            temperature=temperature or (0.1 if uses_labels else 0.2),
            optimization=Optimization(
                config.rate, config.weight_decay, config.momentum, config.warmup
            ),
        )
        loader = training_loader(
            plants,
            TrainingView(config.image_size, config.view, config.attention),
            pairs=contrast == "class_pair",
            batch_size=config.batch_size,
            workers=config.workers,
            seed=config.seed,
            balanced=config.order == "balanced",
        )
        training = cls(module, loader, [ShareBatch(loader, config.batch_size)], plants, config, [])
        if contrast != "instance" and not labelled:
            training.notes.append(
                f"no image has a weak label, so mode {config.mode} trains as "
                f"{'mask_only' if config.attention != 'off' else 'simclr'} does"
            )
        if config.knn_every and labelled:
            training.callbacks.append(training._neighbours())
        return training

    @property
    def name(self) -> str:
        """Of the method, as reports call it."""
        return MODES[self.config.mode][2]

    def model(self) -> PlantModel:
        """The encoder and head as they are now, to be saved."""
        config, encoder = self.config, self.module.encoder
        assert isinstance(encoder, Backbone)
        maker = self.plants.maker
        return PlantModel.of(
            encoder,
            self.module.head,
            mode=config.mode,
            name=self.name,
            view_size=config.image_size,
            attention=config.attention,
            fill=config.view.fill,
            sigma=config.view.sigma,
            rule=None if maker is None else maker.rule(),
            classes=self.plants.table.classes or None,
        )

    def _neighbours(self) -> OnlineKNN:
        config = self.config
        labelled = np.flatnonzero(self.plants.table.labels >= 0)
        bank = self.plants.select(labelled[:: -(-len(labelled) // BANK)])
        view = WholeView(config.image_size, config.view, config.attention)
        loader = evaluation_loader(bank, view, batch_size=config.batch_size, workers=config.workers)
        return OnlineKNN(loader, every=config.knn_every, k=NEIGHBOURS)
