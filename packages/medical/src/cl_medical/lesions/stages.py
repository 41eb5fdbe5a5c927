"""From the options of `train` to trained networks: the stages, each a run inside the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from cl_core.errors import InputError
from cl_core.networks.backbones import Backbone, build_backbone
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import FitResult, fit, restore_weights
from cl_core.training.share import ShareBatch
from cl_core.transforms import Statistics
from cl_medical.lesions.batches import Batches
from cl_medical.lesions.config import TrainConfig
from cl_medical.lesions.criteria import LOSS_OF, Loss, LossName, build_criterion
from cl_medical.lesions.data import Lesions, measure_statistics
from cl_medical.lesions.hyper import OptimizerHyper
from cl_medical.lesions.imbalance import class_counts
from cl_medical.lesions.model import build_classifier
from cl_medical.lesions.neighbours import BANK, KNN, every_nth, watch_neighbours
from cl_medical.lesions.supercon import Classification, Representation

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer

__all__ = ["NAMES", "Trained", "build_encoder", "train_stages"]

NAMES = {
    "supercon": "SuperCon",
    "simclr": "SimCLR",
    "cross_entropy": "Cross-entropy",
    "weighted": "Weighted cross-entropy",
    "focal": "Focal loss",
    "ldam": "LDAM",
}
"""The methods as reports call them."""

F1 = "val/macro_f1"


@dataclass
class Trained:
    """What the stages leave.

    Attributes:
        encoder: With the weights that were chosen.
        classifier: Likewise.
        scale: Of the classifier's outputs.
        statistics: Normalise the images.
        histories: Rows of each stage's history, by its name.
        seconds: Of all epochs together.
        notes: What a reader should know.
    """

    encoder: Backbone
    classifier: nn.Module
    scale: float
    statistics: Statistics
    histories: dict[str, list[dict[str, float]]]
    seconds: float
    notes: list[str]


def train_stages(config: TrainConfig, lesions: Lesions, run: Run) -> Trained:
    """Train by the method of the options, and choose epochs by the validation images.

    Args:
        config: Of the command.
        lesions: Divided; ``train`` is trained on, ``val`` chooses.
        run: Where the stages lie: ``stage1`` and ``stage2``, or ``training`` of one stage.

    Raises:
        InputError: If an option does not fit the images or the encoder.
        TrainingError: If the loss stops being a number.
    """
    stages = _Stages.of(config, lesions, run)
    if not config.two_stages:
        return stages.end_to_end()
    encoder, anew = stages.representation()
    return stages.classifier(encoder, anew=anew)


@dataclass
class _Stages:
    """The parts that the stages of one training share."""

    config: TrainConfig
    run: Run
    train: Lesions
    val: Lesions
    statistics: Statistics
    histories: dict[str, list[dict[str, float]]]
    notes: list[str]
    seconds: float = 0.0

    @property
    def batches(self) -> Batches:
        return Batches(self.config, self.statistics)

    @classmethod
    def of(cls, config: TrainConfig, lesions: Lesions, run: Run) -> _Stages:
        train = lesions.part("train")
        train.table.require_classes()
        statistics = measure_statistics(train, config.statistics)
        return cls(config, run, train, lesions.part("val"), statistics, {}, [])

    def representation(self) -> tuple[Backbone, bool]:
        """Stage 1; also tells whether anything was trained."""
        config, hyper = self.config, self.config.stage1
        seed_everything(config.seed)
        encoder = build_encoder(config)
        module = Representation(
            encoder,
            hyper,
            optimizer=config.optimizer_hyper(),
            classes=self.train.classes,
            labels=config.method == "supercon",
        )
        if config.representation is not None:
            restore_weights(module, _stage1_of(config))
            self.notes.append(f"stage 1 was taken over from {config.representation}")
            return encoder, False
        watch: list[Callback] = []
        if hyper.knn_every:
            watch.append(
                watch_neighbours(
                    self.batches.plain(every_nth(self.train, BANK)),
                    self.batches.plain(self.val),
                    num_classes=len(self.train.classes),
                    neighbours=hyper.neighbours,
                    every=hyper.knn_every,
                )
            )
        chosen = bool(hyper.knn_every) and config.select == "best"
        anew = self._fit(
            module,
            self.batches.of_two_views(self.train),
            name="stage1",
            epochs=config.first_epochs,
            monitor=KNN if chosen else None,
            callbacks=watch,
        )
        return encoder, anew

    def classifier(self, encoder: Backbone, *, anew: bool) -> Trained:
        """Stage 2."""
        config, hyper = self.config, self.config.stage2
        seed_everything(config.seed, 2)
        loss = self._criterion(hyper.loss)
        module = Classification(
            encoder,
            build_classifier(loss.classifier, encoder.out_features, len(self.train.classes)),
            loss.criterion,
            optimizer=OptimizerHyper(
                learning_rate=hyper.learning_rate,
                weight_decay=hyper.weight_decay,
                momentum=hyper.momentum,
                schedule=hyper.schedule,
            ),
            finetune=hyper.finetune,
            encoder_learning_rate=hyper.encoder_learning_rate or hyper.learning_rate / 10,
        )
        self._fit(
            module,
            self.batches.of_one_view(self.train),
            name="stage2",
            epochs=hyper.epochs,
            monitor=F1 if config.select == "best" else None,
            validate=True,
            restart=anew,
        )
        return self._trained(encoder, module.classifier, loss.scale)

    def end_to_end(self) -> Trained:
        """The only stage: the same network, views and epochs, trained by a loss of its own."""
        config = self.config
        seed_everything(config.seed)
        encoder = build_encoder(config)
        loss = self._criterion(LOSS_OF[config.method])
        module = Classification(
            encoder,
            build_classifier(loss.classifier, encoder.out_features, len(self.train.classes)),
            loss.criterion,
            optimizer=config.optimizer_hyper(),
        )
        self._fit(
            module,
            self.batches.of_two_views(self.train),
            name="training",
            epochs=config.epochs,
            monitor=F1 if config.select == "best" else None,
            validate=True,
        )
        return self._trained(encoder, module.classifier, loss.scale)

    def _fit(
        self,
        module: LightningModule,
        loader: DataLoader[Any],
        *,
        name: str,
        epochs: int,
        monitor: str | None,
        validate: bool = False,
        restart: bool = False,
        callbacks: list[Callback] | None = None,
    ) -> bool:
        """Train one stage as a run inside the run; tells whether there was anything left to do."""
        config = self.config
        folder = self.run.path / name
        begun = self.run.resumed and (folder / "config.yaml").exists()
        self.run.output(name)
        record = replace(config, resume=False, overwrite=False)
        with Run.create(
            folder, record, resume=begun and not restart, overwrite=begun and restart
        ) as stage:
            before = len(stage.history.rows())
            chosen: dict[str, Any] = {} if monitor is None else {"monitor": monitor, "mode": "max"}
            result = fit(
                module,
                loader,
                run=stage,
                epochs=epochs,
                seed=config.seed,
                trainer=config.trainer,
                val_loader=self.batches.plain(self.val) if validate else None,
                callbacks=[
                    ShareBatch(loader, config.batch_size),
                    Begun(self.run),
                    *(callbacks or []),
                ],
                **chosen,
            )
            self._choose(module, result, name, monitor)
        self.histories[name] = result.history
        self.seconds += result.seconds
        return restart or result.epochs > before

    def _choose(
        self, module: LightningModule, result: FitResult, name: str, monitor: str | None
    ) -> None:
        if monitor is None or result.best is None:
            return
        restore_weights(module, result.best)
        best = max((row for row in result.history if monitor in row), key=lambda row: row[monitor])
        self.notes.append(
            f"{name}: epoch {best['epoch']:.0f} of {result.epochs} was chosen, {monitor} "
            f"{best[monitor]:.3f}"
        )

    def _criterion(self, loss: LossName) -> Loss:
        counts = class_counts(torch.from_numpy(self.train.table.labels), len(self.train.classes))
        return build_criterion(loss, counts, self.config, classes=self.train.classes)

    def _trained(self, encoder: Backbone, classifier: nn.Module, scale: float) -> Trained:
        return Trained(
            encoder,
            classifier,
            scale,
            self.statistics,
            self.histories,
            self.seconds,
            self.notes,
        )


def build_encoder(config: TrainConfig) -> Backbone:
    """Build the encoder of the options.

    Raises:
        InputError: If the architecture is unknown or the weights do not fit.
    """
    named = config.weights not in ("none", "imagenet")
    return build_backbone(
        config.backbone,
        stem=config.stem,
        image_size=config.image_size,
        weights=config.weights if named else None,
        pretrained=config.weights == "imagenet",
    )


class Begun(Callback):
    """Tells the run that a stage in it has a result worth keeping."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.run.begun()


def _stage1_of(config: TrainConfig) -> Path:
    assert config.representation is not None
    folder = config.representation / "stage1" / "checkpoints"
    best, last = folder / "best.ckpt", folder / "last.ckpt"
    path = best if config.select == "best" and best.is_file() else last
    if not path.is_file():
        raise InputError(
            f"--representation {config.representation} holds no finished stage 1 ({path} is "
            "missing): give a run of `train --method supercon` or simclr"
        )
    return path
