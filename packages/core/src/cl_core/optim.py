"""Optimiser, schedule and parameter groups of large-batch contrastive training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import ParamsT

__all__ = ["LARS", "cosine_with_warmup", "parameter_groups"]

_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch, synchronised and instance norm in any dimension
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


class LARS(Optimizer):
    r"""Stochastic gradient descent with a learning rate a layer (You et al. 2017).

    For a parameter $p$ with gradient $g$ and at least two dimensions,

    $$g \leftarrow g + \beta p, \qquad
    \mu \leftarrow m \mu + \eta \frac{\lVert p \rVert}{\lVert g \rVert} g, \qquad
    p \leftarrow p - \gamma \mu,$$

    with weight decay $\beta$, momentum $m$, trust coefficient $\eta$ and learning rate $\gamma$;
    the ratio is 1 if either norm is 0. Biases and the scales of norms, that is parameters of at
    most one dimension, take plain momentum steps without decay or ratio, as SimCLR does (Chen et
    al. 2020, App. B.6). This is the form of DirectCLR's and Barlow Twins' code; You et al. put the
    learning rate inside $\mu$, which differs only where it changes.

    Args:
        params: Parameters or groups of them.
        lr: $\gamma > 0$; the one used, no scaling by batch size happens here.
        momentum: $m$ in [0, 1).
        weight_decay: $\beta \ge 0$.
        trust_coefficient: $\eta > 0$.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust_coefficient: float = 1e-3,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr must not be negative, got {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {weight_decay}")
        if trust_coefficient <= 0:
            raise ValueError(f"trust_coefficient must be positive, got {trust_coefficient}")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust_coefficient": trust_coefficient,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` recomputes and returns the loss if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        if p.ndim > 1:
            g = g.add(p, alpha=group["weight_decay"])
            ratio = group["trust_coefficient"] * p.norm() / g.norm()
            # 0/0 and x/0 are not finite, and a parameter at 0 must be able to leave it.
            g = g * torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, torch.ones_like(ratio))
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        mu = state["momentum_buffer"].mul_(group["momentum"]).add_(g)
        p.add_(mu, alpha=-group["lr"])


def cosine_with_warmup(
    optimizer: Optimizer, *, warmup_steps: int, total_steps: int, final_factor: float = 0.0
) -> LambdaLR:
    r"""Raise the learning rate linearly, then lower it along half a cosine.

    With $w$ warm-up steps of $S$ and final factor $f$, the factor of step $s$ is $s / w$ while
    $s < w$, then $f + (1 - f) \tfrac12 (1 + \cos \pi \tfrac{s - w}{S - w})$, and $f$ from $S$ on.
    The first warm-up step has learning rate 0, as in SimCLR's and DirectCLR's code.

    Args:
        optimizer: Its present learning rates are the peaks.
        warmup_steps: $w$, in optimiser steps, from 0 to below ``total_steps``.
        total_steps: $S$, all optimiser steps of the training.
        final_factor: $f$ in [0, 1], learning rate at the end over the peak.

    Returns:
        The schedule; call its ``step`` after each optimiser step.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps must be at least 0 and below total_steps, got {warmup_steps} "
            f"and {total_steps}"
        )
    if not 0 <= final_factor <= 1:
        raise ValueError(f"final_factor must lie in [0, 1], got {final_factor}")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split trainable parameters into those that decay and those that do not.

    Biases, everything in a normalisation layer and other vectors or scalars (slopes, temperatures)
    do not decay. Frozen parameters are left out, shared ones occur once.

    Args:
        module: The model.
        weight_decay: Decay of the first group.

    Returns:
        Two groups for any optimiser, without an empty one.

    Raises:
        ValueError: If ``weight_decay`` is negative or nothing is trainable.
    """
    if weight_decay < 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}")
    decayed: dict[Tensor, None] = {}
    plain: dict[Tensor, None] = {}
    for layer in module.modules():
        for name, p in layer.named_parameters(recurse=False):
            if p.requires_grad:
                exempt = isinstance(layer, _NORMS) or p.ndim <= 1 or name.endswith("bias")
                (plain if exempt else decayed)[p] = None
    groups = [
        {"params": [p for p in decayed if p not in plain], "weight_decay": weight_decay},
        {"params": list(plain), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("the module has no trainable parameter")
    return groups
