"""Optimisers and schedules of the four methods, as published."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cl_core.optim import LARS, cosine_with_warmup
from cl_vision.hyper import OptimizerHyper

__all__ = ["OptimizerHyper", "configure"]


def configure(
    modules: nn.Module | Iterable[nn.Module],
    hyper: OptimizerHyper,
    *,
    epochs: int,
    steps_per_epoch: int,
) -> dict[str, Any]:
    r"""Make what a LightningModule's ``configure_optimizers`` returns.

    The learning rate rises linearly over the warm-up, then falls along half a cosine: with every
    step (SimCLR, DirectCLR), or with every epoch, $\gamma_e = \gamma_f + \tfrac12 (1 + \cos \pi e /
    E) (\gamma - \gamma_f)$ (MoCo v2, HCSC). Parameters without gradient are left out.

    Args:
        modules: What is trained.
        hyper: Optimiser and schedule.
        epochs: $E$, of the whole training.
        steps_per_epoch: Optimiser steps of an epoch.

    Raises:
        ValueError: If nothing is trainable, or the warm-up is as long as the training.
    """
    parts = [modules] if isinstance(modules, nn.Module) else list(modules)
    parameters = dict.fromkeys(p for part in parts for p in part.parameters() if p.requires_grad)
    if not parameters:
        raise ValueError("none of the modules has a trainable parameter")
    optimizer = _optimizer(list(parameters), hyper)
    if hyper.schedule == "epoch":
        scheduler = cosine_with_warmup(
            optimizer, warmup_steps=0, total_steps=epochs, final_factor=hyper.final_factor
        )
    else:
        total = epochs * steps_per_epoch
        warmup = round(hyper.warmup_epochs * steps_per_epoch)
        if warmup >= total:
            raise ValueError(
                f"warmup_epochs must be fewer than the {epochs} epochs, got {hyper.warmup_epochs:g}"
            )
        scheduler = cosine_with_warmup(
            optimizer, warmup_steps=warmup, total_steps=total, final_factor=hyper.final_factor
        )
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": hyper.schedule},
    }


def _optimizer(parameters: list[nn.Parameter], hyper: OptimizerHyper) -> Optimizer:
    if hyper.optimizer in ("adam", "adamw"):
        adaptive = torch.optim.Adam if hyper.optimizer == "adam" else torch.optim.AdamW
        return adaptive(parameters, lr=hyper.learning_rate, weight_decay=hyper.weight_decay)
    kind = LARS if hyper.optimizer == "lars" else torch.optim.SGD
    return kind(
        parameters,
        lr=hyper.learning_rate,
        momentum=hyper.momentum,
        weight_decay=hyper.weight_decay,
    )
