r"""Which images make a batch, where classes are rare.

With natural sampling a batch of $B$ holds none of a class of share $p$ with probability
$(1 - p)^B$ and at most one with $(1 - p)^B + B p (1 - p)^{B-1}$. Of 1.76 % melanomas and $B = 128$
these are 10 % and 34 %, and a lone melanoma's only positive is its own second view.

- ``natural``: every image once an epoch, shuffled (the released code);
- ``stratified``: each batch holds $\max(m, \mathrm{round}(B n_c / N))$ images of class $c$, those
  of rare classes shuffled anew and used again;
- ``sqrt``: images drawn with replacement, a class as often as the square root of its size.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Int, Integer
from torch import Tensor

from cl_medical.lesions.imbalance import class_counts

__all__ = ["Sampling", "batch_quotas", "lone_batch_probabilities", "sampling_order"]

Sampling = Literal["natural", "stratified", "sqrt"]


def lone_batch_probabilities(share: float, batch_size: int) -> tuple[float, float]:
    """Tell how often a batch drawn at random lacks a partner for a rare class.

    Args:
        share: Of the class among the images, 0 to 1.
        batch_size: Images a batch.

    Returns:
        The probability of no image of the class, and of at most one.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> [round(p, 4) for p in lone_batch_probabilities(467 / 26500, 128)]
        [0.1027, 0.3386]
    """
    if not 0 <= share <= 1 or batch_size < 1:
        raise ValueError(f"need a share in [0, 1] and a batch, got {share} and {batch_size}")
    none = (1 - share) ** batch_size
    return none, none + batch_size * share * (1 - share) ** (batch_size - 1)


def batch_quotas(
    counts: Integer[Tensor, " c"], batch_size: int, *, least: int = 2
) -> Int[Tensor, " c"]:
    """Divide a batch among the classes as they are in the data, but at least ``least`` of each.

    What rounding and the least leave over or take too much is settled with the largest classes.

    Args:
        counts: Images of each class; a class without any gets none.
        batch_size: Images a batch.
        least: Images of each class in every batch: 2, so that each has a partner.

    Returns:
        Images of each class, summing to ``batch_size``.

    Raises:
        ValueError: If the batch cannot hold ``least`` of each class.
    """
    present = counts > 0
    classes = int(present.sum())
    if least < 1 or classes < 1 or classes * least > batch_size:
        raise ValueError(
            f"a batch of {batch_size} cannot hold {least} images of each of {classes} classes"
        )
    share = batch_size * counts.to(torch.float64) / counts.sum()
    quotas = torch.where(present, share.round().to(torch.int64).clamp_min(least), 0)
    while (left := batch_size - int(quotas.sum())) != 0:
        # The class furthest from its share in the direction that is needed, among those free.
        distance = (share - quotas) * (1 if left > 0 else -1)
        free = present if left > 0 else quotas > least
        quotas[torch.where(free, distance, -torch.inf).argmax()] += 1 if left > 0 else -1
    return quotas


def sampling_order(
    labels: Integer[Tensor, " n"],
    sampling: Sampling,
    *,
    batch_size: int,
    generator: torch.Generator,
) -> Int[Tensor, " m"]:
    """Draw the order of one epoch; cut into pieces of ``batch_size`` it gives the batches.

    Args:
        labels: Class of each image; those of no class (-1) are never drawn but by ``natural``.
        sampling: See the module.
        batch_size: Images a batch.
        generator: Draws everything.

    Returns:
        Row numbers. ``natural`` has each once. The others have as many rows as there are labelled
        images, ``stratified`` rounded down to whole batches, at least one.

    Raises:
        ValueError: If nothing is labelled, or the batch is too small for the classes.
    """
    if sampling == "natural":
        return torch.randperm(len(labels), generator=generator)
    labelled = (labels >= 0).nonzero().squeeze(1)
    if not len(labelled):
        raise ValueError(f"sampling {sampling} needs labels")
    counts = class_counts(labels, int(labels.max()) + 1)
    if sampling == "sqrt":
        weights = counts[labels[labelled]].to(torch.float64) ** -0.5  # n_c rows share n_c^(1/2)
        drawn = torch.multinomial(weights, len(labelled), replacement=True, generator=generator)
        return labelled[drawn]
    if sampling != "stratified":
        raise ValueError(f"sampling must be natural, stratified or sqrt, got {sampling!r}")
    quotas = batch_quotas(counts, batch_size)
    batches = max(1, len(labelled) // batch_size)
    columns = [
        _reused((labels == c).nonzero().squeeze(1), batches * int(quota), generator).view(
            batches, int(quota)
        )
        for c, quota in enumerate(quotas.tolist())
        if quota
    ]
    return torch.cat(columns, dim=1).flatten()


def _reused(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """So many of ``rows``, all of them shuffled anew before any is used again."""
    rounds = -(-count // len(rows))
    shuffled = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)]
    return torch.cat(shuffled)[:count]
