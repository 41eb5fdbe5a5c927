"""A pre-trained encoder as the start of a classifier, trained as a whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from cl_core.evaluation.features import Pooled, device_of, extract_features, first_view
from cl_core.evaluation.labels import Array, as_array
from cl_core.evaluation.sgd import SGDResult, SGDSettings, new_layer, train_classifier
from cl_core.loader import make_loader
from cl_core.seeding import RandomStream

__all__ = ["SEMI_SETTINGS", "fine_tune"]

#: On a fraction of ImageNet (Guo et al. 2022, after Caron et al. 2020).
SEMI_SETTINGS = SGDSettings(epochs=70, learning_rate=0.005, milestones=(30, 60))


def fine_tune(
    encoder: nn.Module,
    dataset: Dataset[Any],
    rows: Array,
    test_loader: Iterable[Any],
    *,
    classes: Sequence[int],
    recipe: SGDSettings = SEMI_SETTINGS,
    head_learning_rate: float = 0.02,
    seed: int = 0,
    workers: int = 0,
    read: Callable[[Any], tuple[Tensor, Tensor]] = first_view,
) -> SGDResult:
    """Train a copy of the encoder and a new softmax layer on some rows of a data set.

    For :func:`fraction_protocol`: ``measure = lambda rows, seed: fine_tune(encoder, dataset, rows,
    test_loader, classes=classes, seed=seed).accuracy``. One process, where the encoder is.

    Args:
        encoder: Maps inputs to ``(n, d)``; itself left as it is.
        dataset: Labelled training rows, augmented as they should be.
        rows: Numbers of those to train on.
        test_loader: Labelled test batches.
        classes: All labels there are.
        recipe: Of the training; its rate is that of the encoder.
        head_learning_rate: Rate of the new layer, on the same schedule.
        seed: Of the new layer, the order, augmentation and dropout (on a CPU). The global
            generators are as before when this returns.
        workers: Processes that load.
        read: Takes inputs and labels out of a batch.

    Returns:
        Figures and the classifier, encoder and layer in sequence.

    Raises:
        ValueError: If ``rows`` is empty, a label is not in ``classes``, or the loss is not finite.
    """
    if not head_learning_rate > 0:
        raise ValueError(f"head_learning_rate must be positive, got {head_learning_rate}")
    trunk = copy.deepcopy(encoder).train()
    device = device_of(trunk)
    names = torch.tensor(sorted(classes), device=device)
    loader = make_loader(
        Subset(dataset, as_array(rows).tolist()),
        batch_size=recipe.batch_size,
        shuffle=True,
        workers=workers,
        seed=seed,
        shard=False,
    )

    def moved(batches: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in map(read, batches):
            yield inputs.to(device), labels.to(device)

    def labelled() -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in moved(loader):
            if not bool(torch.isin(labels, names).all()):
                raise ValueError(
                    f"every row to train on needs a label of {names.tolist()}, got "
                    f"{torch.unique(labels).tolist()}"
                )
            yield inputs, labels

    with RandomStream(seed).running():
        width = extract_features(trunk, islice(test_loader, 1), read=read)[0].shape[1]
        head = new_layer(width, len(names), torch.Generator().manual_seed(seed)).to(device)
        groups: list[dict[str, object]] = [
            {"params": [p for p in trunk.parameters() if p.requires_grad]},
            {"params": list(head.parameters()), "lr": head_learning_rate},
        ]
        return train_classifier(
            nn.Sequential(trunk, Pooled(), head),
            groups,
            lambda epoch: labelled(),
            lambda: moved(test_loader),
            names,
            recipe,
        )
