"""Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from cl_core.distributed import gather_rows, rank, sum_over_ranks, world_size
from cl_core.losses._rows import check_temperature, is_bounded, scaled_rows, similarities
from cl_core.losses._tiles import log_sums, self_log_sums

__all__ = ["sup_con"]


def sup_con(
    features: Float[Tensor, "n v d"],
    labels: Integer[Tensor, " n"] | None,
    temperature: float = 0.07,
    *,
    base_temperature: float | None = None,
    contrast: Literal["all", "one"] = "all",
    no_positive: Literal["skip", "zero"] = "skip",
    gather: bool = False,
    block_size: int | None = None,
) -> Float[Tensor, ""]:
    r"""Pull rows of one class together (SupCon; Khosla et al. 2020, Eq. 2, $L_{out}$).

    With $z$ the $nv$ unit-length rows, $s_{ik} = z_i^\top z_k / \tau$ and $P(i)$ the other rows
    with the label of row $i$,

    $$\ell_i = \frac{\tau}{\tau_0} \Bigl[ \log \sum_{k \ne i} e^{s_{ik}}
      - \frac{1}{|P(i)|} \sum_{p \in P(i)} s_{ip} \Bigr].$$

    The sum over positives is $z_i^\top (c_{y_i} - z_i) / \tau$ with $c_y$ the sum of the rows of
    class $y$, so no pair of rows is ever compared by label.

    Args:
        features: ``v`` views of ``n`` samples, any length.
        labels: Class of each sample, any integers. None: each sample is its own class (SimCLR).
        temperature: $\tau > 0$.
        base_temperature: $\tau_0$; None means $\tau_0 = \tau$, a factor of 1.
        contrast: ``"all"``: every view is an anchor. ``"one"``: only the first view is; the
            candidates are all rows in both cases.
        no_positive: What an anchor without positive does: ``"skip"`` leaves it out of the mean,
            ``"zero"`` lets it count with a loss of 0. If no anchor has a positive, the
            loss is 0 with zero gradient.
        gather: Contrast against the rows of all ranks. Each rank takes its own rows as anchors;
            the value, the same on every rank, and the gradient after DDP's averaging are
            those of the joint batch in one process. Every rank needs the same ``n`` and ``v``.
        block_size: Rows of a tile of the similarity matrix; changes speed and memory, not the loss.

    Returns:
        Mean of $\ell_i$ over the anchors, in nats, in float32 or wider.

    Raises:
        ValueError: If shapes do not fit, an option is unknown, or a temperature is not positive.

    Example:
        >>> features = torch.eye(2).reshape(2, 1, 2)
        >>> sup_con(features, torch.tensor([0, 0]), temperature=1.0).item()
        0.0
    """
    tau0 = temperature if base_temperature is None else base_temperature
    check_temperature(temperature)
    check_temperature(tau0, "base_temperature")
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"features must be (n, v, d), none of them 0, got {tuple(features.shape)}")
    if labels is not None and (labels.shape != features.shape[:1] or labels.is_floating_point()):
        raise ValueError(
            f"labels must be ({len(features)},) integers, one a sample, "
            f"got {tuple(labels.shape)} of {labels.dtype}"
        )
    if contrast not in ("all", "one"):
        raise ValueError(f'contrast must be "all" or "one", got {contrast!r}')
    if no_positive not in ("skip", "zero"):
        raise ValueError(f'no_positive must be "skip" or "zero", got {no_positive!r}')
    n, views, _ = features.shape
    world = world_size() if gather else 1
    # View-major, so that the anchors of contrast="one" come first.
    z = scaled_rows(features.transpose(0, 1).flatten(0, 1), temperature)
    y = torch.arange(n, device=z.device) + n * rank() if labels is None else labels
    y = y.repeat(views)
    first, num_anchors = 0, n * views if contrast == "all" else n
    candidates = z
    if world > 1:
        candidates, y, first = gather_rows(z), gather_rows(y, grad=False), len(z) * rank()
    if len(candidates) == 1:
        return (z * 0).sum()  # nothing to contrast with
    classes, label, class_size = torch.unique(y, return_inverse=True, return_counts=True)
    class_sum = z.new_zeros(len(classes), z.shape[1]).index_add(0, label, candidates)

    anchors, label = z[:num_anchors], label[first : first + num_anchors]
    bounded = is_bounded(temperature)
    if world == 1 and contrast == "all":
        log_z = self_log_sums(z, bounded=bounded, block_size=block_size)
    else:
        log_z = log_sums(anchors, candidates, own=first, bounded=bounded, block_size=block_size)
    num_positives = class_size[label] - 1
    valid = num_positives > 0
    positives = similarities(anchors, class_sum[label] - anchors) / num_positives.clamp_min(1)
    count = valid.sum() if no_positive == "skip" else torch.tensor(num_anchors, device=z.device)
    total = torch.where(valid, log_z - positives, 0).sum() * (temperature / tau0)
    if world > 1:
        total, count = sum_over_ranks(total), sum_over_ranks(count)
    return total / count.clamp_min(1)
