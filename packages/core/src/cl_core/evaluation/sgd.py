"""Classifiers trained by SGD to be measured: the loop of the linear probe and of fine-tuning.

It is small on purpose: one process, one device, nothing written. A training to keep goes through
:func:`cl_core.training.fit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl_core.evaluation.features import frozen

__all__ = ["SGDResult", "SGDSettings", "new_layer", "train_classifier"]


@dataclass(frozen=True, kw_only=True)
class SGDSettings:
    r"""How a classifier is trained: momentum SGD with a schedule by epoch.

    ``"step"`` multiplies the learning rate by ``factor`` at each milestone; ``"cosine"`` lowers it
    to $\gamma_e = \tfrac12 \gamma (1 + \cos \pi e / E)$ in epoch $e$ of $E$, counted from 0.

    Args:
        epochs: $E$.
        batch_size: Rows a step.
        learning_rate: $\gamma$, the one used: no scaling by batch size happens.
        momentum: In [0, 1).
        weight_decay: Of all that is trained.
        schedule: See above.
        milestones: Epochs that begin with a lower rate; by default at 60 % and 80 % of ``epochs``.
        factor: See above.

    Raises:
        ValueError: If an option is out of range.
    """

    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 5.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] | None = None
    factor: float = 0.1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if self.schedule not in ("step", "cosine"):
            raise ValueError(f'schedule must be "step" or "cosine", got {self.schedule!r}')

    def rate_factor(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0, over the first one's."""
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        steps = self.milestones
        if steps is None:
            steps = (round(0.6 * self.epochs), round(0.8 * self.epochs))
        return self.factor ** sum(epoch >= step for step in steps)


@dataclass(frozen=True)
class SGDResult:
    """A trained classifier, and how it did on the test rows after each epoch.

    Args:
        accuracy: Share of test rows classified correctly after the last epoch, 0 to 1.
        top5_accuracy: Share whose class is among the five most probable, after the last epoch.
        best_accuracy: The largest over the epochs. It was chosen on the test rows, as published
            numbers are, and so is optimistic.
        best_epoch: Its epoch, from 1; the first of equals.
        accuracies: After each epoch.
        losses: Mean loss of each epoch's training rows, of cross-entropy in nats.
        classes: Labels in the order of the classifier's outputs.
        model: The classifier of the last epoch.
    """

    accuracy: float
    top5_accuracy: float
    best_accuracy: float
    best_epoch: int
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    classes: tuple[int, ...]
    model: nn.Module

    def metrics(self, name: str = "linear_accuracy") -> dict[str, float]:
        """The figures under the names that ``metrics.json`` uses."""
        return {
            name: self.accuracy,
            f"{name}_best": self.best_accuracy,
            f"{name}_top5": self.top5_accuracy,
        }


def new_layer(width: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with weights of N(0, 0.01²) and biases of 0."""
    # Without the usual initialisation, which would draw from the global generator.
    layer = nn.Linear(width, outputs, device="meta").to_empty(device="cpu")
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


@torch.enable_grad()
def train_classifier(
    model: nn.Module,
    groups: Sequence[dict[str, object]],
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    test: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    classes: Tensor,
    recipe: SGDSettings,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> SGDResult:
    """Minimise a loss over some epochs, testing after each.

    Args:
        model: Maps inputs to logits ``(n, c)``, in the mode to be trained in.
        groups: Parameter groups; one without ``"lr"`` takes the recipe's rate.
        batches: Gives an epoch's training batches, inputs and labels, where the model is.
        test: Gives the test batches.
        classes: The ``c`` labels in ascending order.
        recipe: Of the training.
        loss: Mean loss of a batch from its logits and the places of its labels in ``classes``,
            such as a weighted cross-entropy or a focal loss.

    Returns:
        The figures and ``model``, trained.

    Raises:
        ValueError: If the loss is not finite, or there is nothing to train on or to test.
    """
    sgd = torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(sgd, recipe.rate_factor)
    losses: list[float] = []
    scores: list[tuple[float, float]] = []
    for epoch in range(recipe.epochs):
        parts: list[tuple[Tensor, int]] = []
        for inputs, labels in batches(epoch):
            value = loss(model(inputs), torch.searchsorted(classes, labels))
            sgd.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            sgd.step()
            parts.append((value.detach(), len(labels)))
        schedule.step()
        losses.append(_mean(parts, epoch))
        scores.append(_score(model, test(), classes))
    accuracies = tuple(top1 for top1, _ in scores)
    best = max(range(len(accuracies)), key=accuracies.__getitem__)
    return SGDResult(
        accuracy=accuracies[-1],
        top5_accuracy=scores[-1][1],
        best_accuracy=accuracies[best],
        best_epoch=best + 1,
        accuracies=accuracies,
        losses=tuple(losses),
        classes=tuple(classes.tolist()),
        model=model,
    )


def _mean(parts: list[tuple[Tensor, int]], epoch: int) -> float:
    if not parts:
        raise ValueError("no training row is labelled: nothing to train on")
    loss = sum(float(part) * rows for part, rows in parts) / sum(rows for _, rows in parts)
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss is {loss} in epoch {epoch + 1}: lower the learning rate or scale the inputs"
        )
    return loss


def _score(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], classes: Tensor
) -> tuple[float, float]:
    """Shares of rows whose class is the most probable, and among the five most probable."""
    first, five, rows = 0, 0, 0
    with frozen(model):
        for inputs, labels in batches:
            counted = labels >= 0
            best = model(inputs).topk(min(5, len(classes)), dim=1).indices
            hits = (classes[best] == labels[:, None])[counted]
            first += int(hits[:, 0].sum())
            five += int(hits.sum())
            rows += len(hits)
    if not rows:
        raise ValueError("no test row is labelled: nothing to count")
    return first / rows, five / rows
