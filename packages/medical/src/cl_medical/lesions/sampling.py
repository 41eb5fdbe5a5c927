r"""Which images make a batch, where classes are rare.

With natural sampling a batch of $B$ holds none of a class of share $p$ with probability
$(1 - p)^B$ and at most one with $(1 - p)^B + B p (1 - p)^{B-1}$. Of 1.76 % melanomas and $B = 128$
these are 10 % and 34 %, and a lone melanoma's only positive is its own second view.

- ``natural``: every image once an epoch, shuffled (the released code);
- ``stratified``: each batch holds its share of each class, but at least two images, those of rare
  classes used again;
- ``sqrt``: a class as often as the square root of its size.
"""

from __future__ import annotations

from typing import Literal

from cl_core.errors import InputError
from cl_core.orders import Labels, Order, Stratified, Weighted

__all__ = ["Sampling", "batch_order", "lone_batch_probabilities"]

Sampling = Literal["natural", "stratified", "sqrt"]


def batch_order(labels: Labels, sampling: Sampling, *, batch_size: int) -> Order | None:
    """Give the order of :func:`cl_core.loader.make_loader`; ``None`` for ``natural``.

    Args:
        labels: Class of each image.
        sampling: See the module.
        batch_size: Images a batch.

    Raises:
        InputError: If a batch cannot hold two images of each class.
    """
    if sampling == "natural":
        return None
    if sampling == "sqrt":
        return Weighted(labels, power=0.5)
    order = Stratified(labels)
    try:
        order.quotas(batch_size)
    except ValueError as error:
        raise InputError(f"--sampling stratified: {error}") from error
    return order


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
