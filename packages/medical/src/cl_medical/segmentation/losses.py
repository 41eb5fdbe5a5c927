r"""The segmentation loss: cross-entropy plus batch Dice a domain, then the mean over domains.

Pure functions of logits and labels, in float32 or wider whatever the precision of the network.
Where MONAI has the loss the values are MONAI's:
``DiceCELoss(include_background=False, softmax=True, to_onehot_y=True, batch=True, smooth_nr=1e-5,
smooth_dr=1e-5)``. It has neither voxels without a label nor the joint batch of several ranks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.distributed import sum_over_ranks

__all__ = ["IGNORE", "cross_entropy", "dice_loss", "dice_per_class", "mean_over_domains"]

IGNORE = 255
"""Label of voxels about which nothing is known."""


def cross_entropy(
    logits: Float[Tensor, "n k ..."],
    labels: Int64[Tensor, "n ..."],
    *,
    class_weights: Float[Tensor, " k"] | None = None,
    ignore_index: int = IGNORE,
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""Return $-\sum_i w_{y_i} \log p_{i y_i} / \sum_i w_{y_i}$ over the labelled voxels.

    Args:
        logits: Of the rows of one domain.
        labels: Its classes.
        class_weights: $w$; 1 by default.
        ignore_index: Label of voxels left out. If all are, the loss is 0.
        gather: Of the joint batch of all ranks, as in :func:`cl_core.losses.sup_con`.

    Returns:
        The loss in nats.
    """
    wide = _wide(logits)
    known = labels != ignore_index
    chosen = labels.where(known, 0)
    w = wide.new_ones(wide.shape[1]) if class_weights is None else class_weights.to(wide)
    picked = F.cross_entropy(wide, labels, w, ignore_index=ignore_index, reduction="sum")
    total = (w[chosen] * known).sum()
    if gather:
        picked, total = sum_over_ranks(picked), sum_over_ranks(total)
    return picked / total.clamp_min(torch.finfo(total.dtype).tiny)


def dice_per_class(
    logits: Float[Tensor, "n k ..."],
    labels: Int64[Tensor, "n ..."],
    *,
    smooth: float = 1e-5,
    ignore_index: int = IGNORE,
    gather: bool = False,
) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    r"""Return one minus the overlap of each structure, and how many voxels are labelled with it.

    With $p$ the probabilities, $o$ the one-hot labels and sums over batch *and* space,

    $$\ell_c = 1 - \frac{2 \sum p_c o_c + s}{\sum p_c + \sum o_c + s}.$$

    Sums over the batch, because many slices hold no structure: a Dice of each would be about 1.

    Args:
        logits: Of the rows of one domain.
        labels: Its classes.
        smooth: $s$, in voxels.
        ignore_index: Label of voxels left out.
        gather: Sum over the rows of all ranks.

    Returns:
        Both for the classes from 1 on, ``c = k - 1``.
    """
    known = labels != ignore_index
    p = _wide(logits).softmax(1) * known[:, None]
    size_p = p.transpose(0, 1).flatten(1).sum(1)
    flat = labels.where(known, 0).flatten()
    # The probability of the true class, summed by class; no one-hot copy of the labels.
    own = p.gather(1, labels.where(known, 0)[:, None]).flatten()
    overlap = torch.zeros_like(size_p).index_add(0, flat, own)
    size_o = torch.zeros_like(size_p).index_add(0, flat, known.flatten().to(p))
    if gather:
        overlap, size_p, size_o = map(sum_over_ranks, (overlap, size_p, size_o))
    dice = (2 * overlap + smooth) / (size_p + size_o + smooth)
    return 1 - dice[1:], size_o[1:]


def dice_loss(
    logits: Float[Tensor, "n k ..."],
    labels: Int64[Tensor, "n ..."],
    *,
    smooth: float = 1e-5,
    ignore_index: int = IGNORE,
    skip_absent_classes: bool = False,
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""Return the mean of :func:`dice_per_class` over the structures, in [0, 1].

    Args:
        logits: Of the rows of one domain.
        labels: Its classes.
        smooth: In voxels.
        ignore_index: Label of voxels left out.
        skip_absent_classes: Leave structures out of the mean that no voxel of the batch is
            labelled with; their term is about 1 and has next to no gradient. If all are, 0.
        gather: Of the joint batch of all ranks.
    """
    terms, sizes = dice_per_class(
        logits, labels, smooth=smooth, ignore_index=ignore_index, gather=gather
    )
    if not skip_absent_classes:
        return terms.mean()
    present = sizes > 0
    return (terms * present).sum() / present.sum().clamp_min(1)


def mean_over_domains(
    losses: Mapping[int, Float[Tensor, ""]], weights: Mapping[int, float] | None = None
) -> Float[Tensor, ""]:
    r"""Return $\frac{1}{|K|} \sum_{k \in K} w_k L_k$ over the domains $K$ present.

    Over domains and not over samples, so that a large domain does not rule.

    Args:
        losses: Of each domain present.
        weights: $w_k$; 1 by default.

    Raises:
        ValueError: If there is no domain.
    """
    if not losses:
        raise ValueError("a mean over domains needs one at least")
    weights = weights or {}
    terms = [weights.get(k, 1.0) * loss for k, loss in losses.items()]
    return torch.stack(terms).mean()


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
