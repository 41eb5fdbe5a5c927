"""How good a frozen encoder is: the protocols of the four papers, on images it did not train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cl_core.errors import InputError
from cl_core.evaluation.clustering import kmeans_scores
from cl_core.evaluation.finetune import SEMI_SETTINGS, fine_tune
from cl_core.evaluation.fraction import FractionResult, fraction_protocol, logistic_fractions
from cl_core.evaluation.knn import knn_accuracy
from cl_core.evaluation.linear import (
    DIRECTCLR_PROBE,
    HCSC_PROBE,
    MOCO_PROBE,
    linear_probe,
    logistic_accuracy,
    probe_encoder,
)
from cl_core.evaluation.spectrum import effective_rank
from cl_vision.config import EvaluateConfig
from cl_vision.data import Images, evaluation_loader, probe_view
from cl_vision.evaluation.nuisance import nuisance_scores
from cl_vision.model import ImageModel

__all__ = ["Measured", "measure", "require_classes"]

_RECIPES = {"hcsc": HCSC_PROBE, "moco": MOCO_PROBE, "directclr": DIRECTCLR_PROBE}


@dataclass(frozen=True)
class Measured:
    """An encoder's figures and what they were taken of.

    Attributes:
        name: Of the model.
        scores: Figures under the names of ``metrics.json``.
        features: Representations of the test images ``(m, d)``.
    """

    name: str
    scores: dict[str, float]
    features: Tensor


def require_classes(train: Images, test: Images) -> None:
    """Refuse to measure without labels.

    Raises:
        InputError: Unless at least two classes are labelled on both sides.
    """
    for images, part in ((train, "train"), (test, "test")):
        classes = np.unique(images.table.labels[images.table.labels >= 0])
        if len(classes) < 2:
            raise InputError(
                f"{images.table.source}: measuring needs at least 2 classes, the {part} images "
                f"have {len(classes)}; give class sub-folders, or a manifest with labels"
            )


def measure(
    name: str, model: ImageModel, train: Images, test: Images, config: EvaluateConfig
) -> Measured:
    """Measure one encoder.

    Args:
        name: As reports call it.
        model: Frozen.
        train: Images that probes learn from.
        test: Images that all figures are taken on.
        config: The protocol.
    """
    x, x_test = (
        model.represent(part, batch_size=config.batch_size, workers=config.workers)
        for part in (train, test)
    )
    y, y_test = train.labels, test.labels
    scores = _linear(model, train, test, (x, y, x_test, y_test), config)
    scores["knn_accuracy"] = knn_accuracy(x_test, y_test, x, y, k=config.neighbours)
    scores |= _clusters(x_test, y_test, config)
    scores["effective_rank"] = effective_rank(x_test)
    if config.few_labels != "none":
        for result in _few_labels(model, train, test, (x, y, x_test, y_test), config):
            place = f"label_{100 * result.fraction:g}pct"
            scores[f"{place}/accuracy"] = result.accuracy
            scores[f"{place}/accuracy_std"] = result.accuracy_std
    if config.nuisances:
        scores |= nuisance_scores(
            model,
            train,
            test,
            batch_size=config.batch_size,
            workers=config.workers,
            seed=config.seed,
        )
    return Measured(name, scores, x_test)


def _linear(
    model: ImageModel,
    train: Images,
    test: Images,
    features: tuple[Tensor, Tensor, Tensor, Tensor],
    config: EvaluateConfig,
) -> dict[str, float]:
    if config.probe == "logistic":
        return {"linear_accuracy": logistic_accuracy(*features, seed=config.seed)}
    recipe = _RECIPES[config.probe]
    if config.probe_epochs is not None:
        recipe = replace(recipe, epochs=config.probe_epochs)
    try:
        if not config.augment:
            return linear_probe(*features, recipe=recipe, seed=config.seed).metrics()
        view = probe_view(model.image_size, model.statistics, digits=train.is_digits)
        loaders = (
            evaluation_loader(part, v, batch_size=recipe.batch_size, workers=config.workers)
            for part, v in ((train, view), (test, model.view(test)))
        )
        result = probe_encoder(
            model.encoder, *loaders, recipe=recipe, seed=config.seed, cache=False
        )
    except ValueError as error:
        raise InputError(f"--probe {config.probe}: {error}; or take --probe logistic") from error
    return result.metrics()


def _clusters(x: Tensor, y: Tensor, config: EvaluateConfig) -> dict[str, float]:
    if config.clusters is not None and config.clusters > len(x):
        raise InputError(
            f"--clusters {config.clusters} is more than the {len(x)} test images: lower it"
        )
    return kmeans_scores(x, y, config.clusters, config.seed)


def _few_labels(
    model: ImageModel,
    train: Images,
    test: Images,
    features: tuple[Tensor, Tensor, Tensor, Tensor],
    config: EvaluateConfig,
) -> Sequence[FractionResult]:
    seeds = range(config.seed, config.seed + config.draws)
    if config.few_labels == "frozen":
        return logistic_fractions(*features, fractions=config.fractions, seeds=seeds)
    classes = torch.unique(train.labels[train.labels >= 0]).tolist()
    view = probe_view(model.image_size, model.statistics, digits=train.is_digits)
    augmented = train.dataset.views(1, view)
    tests = evaluation_loader(
        test, model.view(test), batch_size=config.batch_size, workers=config.workers
    )
    recipe = SEMI_SETTINGS
    if config.probe_epochs is not None:
        recipe = replace(recipe, epochs=config.probe_epochs, milestones=None)

    def accuracy(rows: np.ndarray, seed: int) -> float:
        return fine_tune(
            model.encoder,
            augmented,
            rows,
            tests,
            classes=classes,
            recipe=recipe,
            seed=seed,
            workers=config.workers,
        ).accuracy

    return fraction_protocol(train.labels, accuracy, fractions=config.fractions, seeds=seeds)
