"""SGD with momentum and the four schedules, by step or by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.optim import lr_scheduler

from cl_medical.lesions.hyper import OptimizerHyper

__all__ = ["configure"]


def configure(
    module: L.LightningModule,
    hyper: OptimizerHyper,
    *,
    parts: Sequence[tuple[nn.Module, float | None]] | None = None,
) -> dict[str, Any]:
    r"""Make what a LightningModule's ``configure_optimizers`` returns.

    ``step`` multiplies the rate by 0.1 after every $\lfloor E / 3 \rfloor$ epochs of $E$, as the
    released code does (which divides by zero below three epochs; here a step is one epoch then).

    Args:
        module: It knows how long the training will be.
        hyper: Optimiser and schedule.
        parts: What is trained, with a learning rate of its own or ``None``; by default the module.

    Raises:
        ValueError: If nothing is trainable.
    """
    groups: list[dict[str, Any]] = []
    for part, rate in parts or [(module, None)]:
        parameters = [p for p in part.parameters() if p.requires_grad]
        if parameters:
            groups.append(
                {"params": parameters, "lr": hyper.learning_rate if rate is None else rate}
            )
    if not groups:
        raise ValueError("none of the parts has a trainable parameter")
    sgd = torch.optim.SGD(
        groups,
        lr=hyper.learning_rate,
        momentum=hyper.momentum,
        weight_decay=hyper.weight_decay,
    )
    epochs = max(1, module.trainer.max_epochs or 1)
    if hyper.schedule == "constant":
        return {"optimizer": sgd}
    schedule: Any
    if hyper.schedule == "step":
        schedule = lr_scheduler.StepLR(sgd, step_size=max(1, epochs // 3), gamma=0.1)
    elif hyper.schedule == "cosine":
        schedule = lr_scheduler.CosineAnnealingLR(sgd, T_max=epochs)
    else:
        schedule = lr_scheduler.OneCycleLR(
            sgd,
            max_lr=[group["lr"] for group in groups],
            total_steps=int(module.trainer.estimated_stepping_batches),
            cycle_momentum=False,
        )
    by_step = hyper.schedule == "one_cycle"
    return {
        "optimizer": sgd,
        "lr_scheduler": {"scheduler": schedule, "interval": "step" if by_step else "epoch"},
    }
