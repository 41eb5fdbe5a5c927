"""A memory of a few images a class, and learning one step after another from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from cl_vision.condensation import siamese

__all__ = ["RehearsalMemory", "distil_step", "forgetting"]

Fill = Callable[[Tensor, Tensor, int], Tensor]
"""Images and labels ``0..k-1`` of a task, and how many a class -> that many, grouped by class."""


class RehearsalMemory:
    """Images of past tasks, chosen or condensed from each task's own images only.

    Args:
        budget_per_class: Images a class and task.
        fill: How a task's images become those kept: see :data:`Fill`.
    """

    def __init__(self, budget_per_class: int, fill: Fill) -> None:
        if budget_per_class < 1:
            raise ValueError(f"budget_per_class must be at least 1, got {budget_per_class}")
        self.budget_per_class = budget_per_class
        self.fill = fill
        self.images = torch.zeros(0)
        self.labels = torch.zeros(0, dtype=torch.int64)

    def add_task(self, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]) -> None:
        """Keep some of a task.

        Args:
            images: All of the task, normalised.
            labels: Their classes, in any numbering.
        """
        classes = torch.unique(labels)
        own = torch.searchsorted(classes, labels)
        kept = self.fill(images, own, self.budget_per_class).detach()
        known = classes.repeat_interleave(self.budget_per_class)
        if len(kept) != len(known):
            raise ValueError(f"fill gave {len(kept)} images, {len(known)} were asked for")
        self.images = torch.cat([self.images, kept]) if len(self.images) else kept
        self.labels = torch.cat([self.labels, known])

    def sample(
        self, n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "m c h w"], Int[Tensor, " m"]]:
        """Draw up to ``n`` images without replacement."""
        rows = torch.randperm(len(self.labels), generator=generator)[:n]
        return self.images[rows], self.labels[rows]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the way it is filled."""
        return {
            "budget_per_class": self.budget_per_class,
            "images": self.images,
            "labels": self.labels,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            ValueError: If the budget is another.
        """
        if state["budget_per_class"] != self.budget_per_class:
            raise ValueError(
                f"the memory was kept with {state['budget_per_class']} images a class, not "
                f"{self.budget_per_class}"
            )
        self.images, self.labels = state["images"], state["labels"]


def distil_step(
    network: nn.Module,
    before: nn.Module | None,
    data: tuple[Tensor, Tensor],
    memory: RehearsalMemory,
    *,
    seen: Int[Tensor, " k"],
    known: Int[Tensor, " j"],
    epochs: int,
    strategy: str,
    generator: torch.Generator,
    temperature: float = 2.0,
    weight: float = 1.0,
    batch: int = 64,
) -> None:
    r"""Train on with a step's images and the memory, held to what the network said before.

    The loss is the cross-entropy over the classes seen, plus, over those known before,
    $w T^2 \mathrm{KL}(\mathrm{softmax}(z'/T) \,\Vert\, \mathrm{softmax}(z/T))$ with $z'$ the logits
    of the network before the step. SGD of learning rate 0.01, momentum 0.9, weight decay 5e-4; the
    rate is divided by five after 60 and 80 % of the epochs.

    Args:
        network: Trained in place.
        before: The network before the step; ``None`` in the first.
        data: Images and classes of the step.
        memory: Of earlier steps.
        seen: Classes so far, this step's included.
        known: Classes of earlier steps.
        epochs: Passes over images and memory.
        strategy: Siamese augmentation; empty for none.
        generator: Of order and augmentation.
        temperature: $T$.
        weight: $w$.
        batch: Images a step.
    """
    x, y = data
    if len(memory.labels):
        x, y = torch.cat([x, memory.images]), torch.cat([y, memory.labels])
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    marks = [max(1, round(0.6 * epochs)), max(1, round(0.8 * epochs))]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, marks, gamma=0.2)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(y), generator=generator), batch):
            images = x[rows]
            if strategy:
                size = (images.shape[2], images.shape[3])
                images = siamese.apply(
                    images, *siamese.augment(strategy, len(images), size, generator)
                )
            logits = network(images)
            loss = F.cross_entropy(logits[:, seen], torch.searchsorted(seen, y[rows]))
            if before is not None and len(known):
                with torch.no_grad():
                    said = F.log_softmax(before(images)[:, known] / temperature, dim=1)
                says = F.log_softmax(logits[:, known] / temperature, dim=1)
                held = F.kl_div(says, said, reduction="batchmean", log_target=True)
                loss = loss + weight * temperature**2 * held
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        schedule.step()


def forgetting(accuracies: list[list[float]]) -> float:
    """Mean over old tasks of the best accuracy it ever had less the last one.

    Args:
        accuracies: After each step, of each task so far.
    """
    last = accuracies[-1]
    lost = [
        max(row[task] for row in accuracies[:-1] if task < len(row)) - last[task]
        for task in range(len(last) - 1)
    ]
    return sum(lost) / len(lost) if lost else 0.0
