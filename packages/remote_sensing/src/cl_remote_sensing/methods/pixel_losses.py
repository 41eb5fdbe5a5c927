"""Losses of a segmentation: pure functions of logits and labels that skip unlabelled pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.errors import InputError
from cl_remote_sensing.evaluation.metrics import Array, as_ids

__all__ = ["class_weights", "dice_loss", "focal_loss"]


def focal_loss(
    logits: Float[Tensor, "b k h w"],
    labels: Int64[Tensor, "b h w"],
    *,
    gamma: float = 2.0,
    weights: Float[Tensor, " k"] | None = None,
    ignore: int = 255,
) -> Float[Tensor, ""]:
    r"""Cross-entropy that turns away from pixels already right (Lin et al. 2017, Eq. 5).

    With $p_i$ the probability of pixel $i$'s class $y_i$ and $w$ the class weights,

    $$\ell = \frac{\sum_i -w_{y_i} (1 - p_i)^\gamma \log p_i}{\sum_i w_{y_i}}.$$

    Args:
        logits: Scores of the classes.
        labels: Train ids.
        gamma: $\gamma \ge 0$; 0 is weighted cross-entropy.
        weights: $w \ge 0$; 1 by default.
        ignore: Id of pixels left out. If all are, the loss is 0.

    Returns:
        The loss in nats, in float32 or wider.

    Raises:
        ValueError: If ``gamma`` is negative.
    """
    if gamma < 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
    if weights is None:
        weights = log_p.new_ones(log_p.shape[1])
    weights = weights.to(log_p)
    # Without `reduction="none"` a batch of ignored pixels would be 0/0.
    loss = F.nll_loss(log_p, labels, weights, ignore_index=ignore, reduction="none")
    known = labels != ignore
    chosen = labels.where(known, 0)
    if gamma > 0:
        p = log_p.gather(1, chosen[:, None])[:, 0].exp()
        loss = loss * (1 - p).pow(gamma)
    total = (weights[chosen] * known).sum()
    return loss.sum() / total.clamp_min(torch.finfo(total.dtype).tiny)


def dice_loss(
    logits: Float[Tensor, "b k h w"],
    labels: Int64[Tensor, "b h w"],
    *,
    smooth: float = 1.0,
    ignore: int = 255,
) -> Float[Tensor, ""]:
    r"""One minus the soft Dice overlap, averaged over the classes in the labels.

    With $p$ the probabilities, $t$ the one-hot truth and sums over the labelled pixels of the
    batch, the overlap of class $c$ is $(2 \sum p_c t_c + s) / (\sum p_c + \sum t_c + s)$
    (Milletari et al. 2016, without their squares), so that a rare class counts as much as a
    frequent one.

    Args:
        logits: Scores of the classes.
        labels: Train ids.
        smooth: $s \ge 0$, in pixels.
        ignore: Id of pixels left out. If all are, the loss is 0.

    Returns:
        A value in [0, 1], in float32 or wider.
    """
    known = labels != ignore
    p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
    p = p * known[:, None]
    size_p = p.sum((0, 2, 3))
    flat = labels.where(known, 0).flatten()
    # The probability of the true class, summed by class; no one-hot copy of the labels.
    own = p.gather(1, labels.where(known, 0)[:, None]).flatten()
    overlap = torch.zeros_like(size_p).index_add(0, flat, own)
    size_t = torch.zeros_like(size_p).index_add(0, flat, known.flatten().to(p))
    occurs = size_t > 0
    if not bool(occurs.any()):
        return 0 * logits.sum()
    dice = (2 * overlap + smooth) / (size_p + size_t + smooth).clamp_min(1e-12)
    return 1 - dice[occurs].mean()


def class_weights(
    labels: Iterable[Array],
    num_classes: int,
    mode: Literal["inverse", "median"],
    *,
    ignore: int = 255,
) -> Float[Tensor, " k"]:
    r"""Weights against imbalance, counted in one pass over label windows.

    With $n_c$ the pixels of class $c$ of $n$ and $k$ classes that occur, ``inverse`` is
    $n / (k n_c)$, under which every class has the same total weight. ``median`` is
    $\operatorname{median}(f) / f_c$ with $f_c$ the share of class $c$ in the windows where it
    occurs (Eigen & Fergus 2015, Sec. 6.3), which is milder.

    Args:
        labels: Windows of train ids, of the *training* part alone.
        num_classes: Classes of the legend.
        mode: The rule.
        ignore: Id of pixels left out.

    Returns:
        float32; 1 for a class that does not occur.

    Raises:
        InputError: If no pixel is labelled.
    """
    count = torch.zeros(num_classes, dtype=torch.float64)
    room = torch.zeros(num_classes, dtype=torch.float64)  # labelled pixels where it occurs
    for window in labels:
        ids = as_ids(window)
        here = torch.bincount(ids[ids != ignore].long().cpu(), minlength=num_classes).double()
        if len(here) > num_classes:
            raise ValueError(f"the labels hold id {len(here) - 1}, expected 0 to {num_classes - 1}")
        count += here
        room += here.sum() * (here > 0)
    occurs = count > 0
    if not bool(occurs.any()):
        raise InputError("the training labels hold no labelled pixel: check labels and legend")
    if mode == "inverse":
        weights = count.sum() / (occurs.sum() * count)
    else:
        share = count / room
        weights = share[occurs].quantile(0.5) / share
    return weights.where(occurs, 1.0).float()
