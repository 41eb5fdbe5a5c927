r"""The linear probe of image representations: a softmax layer trained by SGD on frozen features.

He et al. 2020 (MoCo, Sec. 4.1) and those after train $W, b$ with $W \sim N(0, 0.01^2)$, $b = 0$ by
momentum SGD on the cross-entropy, with a learning rate far larger than a network's. They report
the best epoch *on the test set*; here the last epoch is the figure and the best stands beside it.
:func:`logistic_accuracy` is the exact alternative, without a learning rate to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl_core.evaluation.features import extract_features, first_view
from cl_core.evaluation.labels import Array, as_array, is_labelled
from cl_core.evaluation.probe import C_GRID, fit_logistic
from cl_core.evaluation.sgd import SGDResult, SGDSettings, new_layer, train_classifier

__all__ = [
    "DIRECTCLR_PROBE",
    "HCSC_PROBE",
    "MOCO_PROBE",
    "linear_probe",
    "logistic_accuracy",
    "probe_encoder",
]

_TEST_ROWS = 16_384  # tested at once

#: Guo et al. 2022, for pooled features of a ResNet-50.
HCSC_PROBE = SGDSettings()
#: He et al. 2020.
MOCO_PROBE = SGDSettings(learning_rate=30.0)
#: Jing et al. 2022.
DIRECTCLR_PROBE = SGDSettings(learning_rate=0.1, weight_decay=1e-6, schedule="cosine")


def linear_probe(
    x: Array,
    y: Array,
    x_test: Array,
    y_test: Array,
    *,
    recipe: SGDSettings = HCSC_PROBE,
    normalize: bool = False,
    seed: int = 0,
) -> SGDResult:
    """Train a softmax layer on features by SGD and test it after every epoch.

    The published learning rates suit the pooled features of a ResNet-50, as they are. For other
    features, give ``normalize=True``, try several rates, or take :func:`logistic_accuracy`.

    Args:
        x: Training features ``(n, d)``; computed in float32, on their device.
        y: Their classes ``(n,)``, integers; rows labelled -1 are left out.
        x_test: Test features ``(m, d)``.
        y_test: Their classes. A class that ``y`` lacks is always missed.
        recipe: Of the training; by default HCSC's.
        normalize: Scale rows to unit length first.
        seed: Of initial weights and order. The global generators are not used.

    Returns:
        Figures and layer.

    Raises:
        ValueError: If shapes do not fit, features or loss are not finite, fewer than two classes
            are labelled, or no test row is.
    """
    rows, labels = _prepared(x, y, "training", normalize)
    test = _prepared(x_test, y_test, "test", normalize)
    if rows.shape[1] != test[0].shape[1]:
        raise ValueError(
            f"training and test features differ in width: {rows.shape[1]} and {test[0].shape[1]}"
        )
    generator = torch.Generator().manual_seed(seed)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(rows), generator=generator).to(rows.device)
        for part in torch.split(order, recipe.batch_size):
            yield rows[part], labels[part]

    return _train_layer(batches, torch.unique(labels), test, recipe, generator)


def probe_encoder(
    encoder: nn.Module,
    loader: Iterable[Any],
    test_loader: Iterable[Any],
    *,
    recipe: SGDSettings = HCSC_PROBE,
    normalize: bool = False,
    seed: int = 0,
    cache: bool = True,
    read: Callable[[Any], tuple[Tensor, Tensor]] = first_view,
) -> SGDResult:
    """Probe a frozen encoder, in eval mode; it is left as it was found.

    Args:
        encoder: As for :func:`~cl_core.evaluation.features.extract_features`.
        loader: Labelled training batches.
        test_loader: Labelled test batches.
        recipe: Of the training.
        normalize: Scale features to unit length.
        seed: As in :func:`linear_probe`.
        cache: Encode each row once. Otherwise ``loader`` is read anew each epoch, in its batches
            and its order, so that random crops and flips count as in the papers; that costs
            ``recipe.epochs`` times as much and uses whatever generators the loader does.
        read: Takes inputs and labels out of a batch.

    Returns:
        As :func:`linear_probe`.

    Raises:
        ValueError: As :func:`linear_probe`.
    """
    x, y = extract_features(encoder, loader, read=read)
    x_test, y_test = extract_features(encoder, test_loader, read=read)
    if cache:
        return linear_probe(x, y, x_test, y_test, recipe=recipe, normalize=normalize, seed=seed)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in loader:
            h, labels = extract_features(encoder, [batch], read=read)
            if bool((labels >= 0).any()):
                yield _prepared(h, labels, "training", normalize)

    classes = torch.unique(_prepared(x, y, "training", normalize)[1])
    test = _prepared(x_test, y_test, "test", normalize)
    return _train_layer(batches, classes, test, recipe, torch.Generator().manual_seed(seed))


def logistic_accuracy(
    x: Array,
    y: Array,
    x_test: Array,
    y_test: Array,
    *,
    cs: Sequence[float] = C_GRID,
    folds: int = 5,
    normalize: bool = True,
    seed: int = 0,
) -> float:
    """Test accuracy, 0 to 1, of logistic regression solved exactly: no learning rate, no epochs.

    Args:
        x: Training features ``(n, d)``.
        y: Their labels ``(n,)``; rows labelled -1 or NaN are left out.
        x_test: Test features ``(m, d)``.
        y_test: Their labels; unlabelled rows are not counted.
        cs: Values of $C$ to choose from by cross-validation; a single one is taken as it is.
        folds: Of the cross-validation, in random order, so rows sorted by class do no harm.
        normalize: Scale rows to unit length first.
        seed: Of that order.

    Raises:
        ValueError: As :func:`~cl_core.evaluation.fit_logistic`, or if no test row is labelled.
    """
    truth = as_array(y_test)
    counted = is_labelled(truth)
    if not counted.any():
        raise ValueError("no test row is labelled: nothing to count")
    order = np.random.default_rng(seed).permutation(len(as_array(y)))
    model = fit_logistic(x, y, order, cs=cs, folds=folds, normalize=normalize, selection="argmax")
    return float((model.predict(x_test) == truth)[counted].mean())


def _train_layer(
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    classes: Tensor,
    test: tuple[Tensor, Tensor],
    recipe: SGDSettings,
    generator: torch.Generator,
) -> SGDResult:
    if len(classes) < 2:
        raise ValueError(f"a probe needs at least 2 classes to train on, got {classes.tolist()}")
    layer = new_layer(test[0].shape[1], len(classes), generator).to(test[0].device)
    groups: list[dict[str, object]] = [{"params": list(layer.parameters())}]
    pieces = list(zip(*(torch.split(part, _TEST_ROWS) for part in test), strict=True))
    return train_classifier(layer, groups, batches, lambda: pieces, classes, recipe)


def _prepared(x: Array, y: Array, name: str, normalize: bool) -> tuple[Tensor, Tensor]:
    """The labelled rows in float32 and their classes."""
    rows = torch.as_tensor(x).detach()
    labels = torch.as_tensor(y, device=rows.device)
    if rows.ndim != 2 or labels.shape != rows.shape[:1]:
        raise ValueError(
            f"need {name} features (n, d) and one label a row, got {tuple(rows.shape)} and "
            f"labels {tuple(labels.shape)}"
        )
    if labels.is_floating_point():
        raise ValueError(f"{name} labels must be integers, got {labels.dtype}")
    rows, labels = rows[labels >= 0].to(torch.float32), labels[labels >= 0].to(torch.int64)
    if not len(rows):
        raise ValueError(f"no {name} row is labelled")
    if not bool(torch.isfinite(rows).all()):
        raise ValueError(f"{name} features must be finite, got NaN or infinity")
    return (F.normalize(rows, dim=1) if normalize else rows), labels
