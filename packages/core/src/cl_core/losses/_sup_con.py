"""Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362) and its relatives."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Integer, Num
from torch import Tensor

from cl_core.distributed import gather_rows, rank, sum_over_ranks, world_size
from cl_core.losses._log_sums import log_sums, self_log_sums
from cl_core.losses._positives import of_classes, of_mask
from cl_core.losses._rows import (
    check_temperature,
    is_bounded,
    mean_similarities,
    one_positive,
    scaled_rows,
)
from cl_core.losses._tiles import Choice

__all__ = ["sup_con"]

_UNLABELLED = -1


def sup_con(
    features: Float[Tensor, "n v d"],
    labels: Integer[Tensor, " n"] | None = None,
    temperature: float | Tensor = 0.07,
    *,
    mask: Num[Tensor, "n m"] | Bool[Tensor, "n m"] | None = None,
    positives: Literal["class", "own"] = "class",
    denominator: Literal["all", "own_class", "no_false_negatives"] = "all",
    base_temperature: float | None = None,
    contrast: Literal["all", "one"] = "all",
    no_positive: Literal["skip", "zero"] = "skip",
    min_classes: int = 0,
    gather: bool = False,
    block_size: int | None = None,
) -> Float[Tensor, ""]:
    r"""Pull rows of one class together (SupCon; Khosla et al. 2020, Eq. 2, $L_{out}$).

    With $z$ the $nv$ unit-length rows, $s_{ik} = z_i^\top z_k / \tau$, $P(i)$ the positives of row
    $i$ and $A(i)$ its denominator, neither of which holds $i$ itself,

    $$\ell_i = \frac{\tau}{\tau_0} \Bigl[ \log \sum_{k \in A(i)} e^{s_{ik}}
      - \frac{1}{|P(i)|} \sum_{p \in P(i)} s_{ip} \Bigr].$$

    With $\text{own}(i)$ the other views of the sample and $\text{same}(i)$ the other rows of its
    class, ``positives`` and ``denominator`` choose

    - ``"class"``: $P = \text{own} \cup \text{same}$; ``"own"``: $P = \text{own}$;
    - ``"all"``: $A$ = all rows; ``"own_class"``: $A = \text{own} \cup \text{same}$;
      ``"no_false_negatives"``: $A$ = all rows but $\text{same} \setminus \text{own}$.

    Two views without labels make SimCLR's NT-Xent. With ``positives="own"``, labels only take
    false negatives out of the denominator (``"no_false_negatives"``), or contrast is sought inside
    each class (``"own_class"``).

    Contrast between domains, such as scanners or sites, is this loss of ``features[:, None]``
    with the domains as labels and ``min_classes=2``: where a batch holds one domain alone there
    is nothing to tell apart. The rule ``exclude`` for an anchor alone in its domain is
    ``no_positive="skip"``; dividing by all anchors is ``"zero"``.

    Args:
        features: ``v`` views of ``n`` samples, any length.
        labels: Class of each sample, any integers; -1 means unlabelled: such a sample is of no
            class, its positives are its own other views, and it is a negative for all others.
            None: no sample is labelled (SimCLR).
        temperature: $\tau > 0$; a tensor of one element gets its gradient.
        mask: In place of labels, what is of a sample's class: ``mask[i, j]`` makes the rows of
            sample ``j`` positives of those of sample ``i``, and ``mask[i, i]`` those of its own
            other views. Booleans or numbers 0 and 1, not necessarily symmetric. Under
            ``gather``, ``m`` are the samples of all ranks, in the order of the ranks; else
            ``m = n``.
        positives: What $P$ holds.
        denominator: What $A$ holds.
        base_temperature: $\tau_0$; None means $\tau_0 = \tau$, a factor of 1.
        contrast: ``"all"``: every view is an anchor. ``"one"``: only the first view is; the
            candidates are all rows in both cases.
        no_positive: What an anchor without positive does, or one whose denominator is its one
            positive: ``"skip"`` leaves it out of the mean, ``"zero"`` lets it count with a loss
            of 0. If there is no other anchor, the loss is 0 with zero gradient.
        min_classes: The loss is 0 with zero gradient where the labels of the batch (of all ranks
            under ``gather``) hold fewer classes.
        gather: Contrast against the rows of all ranks. Each rank takes its own rows as anchors;
            the value, the same on every rank, and the gradient after DDP's averaging are
            those of the joint batch in one process. Every rank needs the same ``n`` and ``v``.
        block_size: Rows of a tile of the similarity matrix; changes speed and memory, not the loss.

    Returns:
        Mean of $\ell_i$ over the anchors, in nats, in float32 or wider.

    Raises:
        ValueError: If shapes do not fit, an option is unknown, a temperature is not positive, or
            both labels and a mask are given.

    Example:
        >>> features = torch.eye(2).reshape(2, 1, 2)
        >>> sup_con(features, torch.tensor([0, 0]), temperature=1.0).item()
        0.0
    """
    check_temperature(temperature)
    if base_temperature is not None:
        check_temperature(base_temperature, "base_temperature")
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"features must be (n, v, d), none of them 0, got {tuple(features.shape)}")
    _check_one_of("positives", positives, ("class", "own"))
    _check_one_of("denominator", denominator, ("all", "own_class", "no_false_negatives"))
    _check_one_of("contrast", contrast, ("all", "one"))
    _check_one_of("no_positive", no_positive, ("skip", "zero"))
    n, views, _ = features.shape
    world = world_size() if gather else 1
    first = rank() * n if world > 1 else 0  # the number of this rank's first sample
    _check_labels(n, labels, mask, min_classes)
    mask = None if mask is None else _booleans(mask, n, n * world)

    # View-major, so that the anchors of contrast="one" come first.
    rows = features.transpose(0, 1).flatten(0, 1)
    candidates, squares = scaled_rows(rows, temperature)
    samples = torch.arange(first, first + n, device=rows.device).repeat(views)
    y = torch.full_like(samples, _UNLABELLED) if labels is None else labels.repeat(views)
    own, num_anchors = 0, n * views if contrast == "all" else n
    anchors, squares = candidates[:num_anchors], squares[:num_anchors]
    if world > 1:
        own = len(candidates) * rank()
        candidates = gather_rows(candidates)
        samples, y = gather_rows(samples, grad=False), gather_rows(y, grad=False)
    if len(candidates) == 1:
        return (anchors * 0).sum()  # nothing to contrast with
    mine = slice(own, own + num_anchors)
    classes, num_classes = samples, n * world
    if labels is not None:
        classes, num_classes, labelled = _numbered(y, samples)
    if mask is not None and positives == "class":
        positive = of_mask(anchors, candidates, own, samples, mask, first, views)
    elif positives == "class":
        positive = of_classes(anchors, candidates, own, classes, num_classes)
    else:
        positive = of_classes(anchors, candidates, own, samples, n * world)

    choice, partner = None, positive.partner
    if denominator != "all":
        keep: Literal["same", "other"] = "same" if denominator == "own_class" else "other"
        choice = Choice(keep, samples[mine], samples)
        if mask is None:
            choice = choice._replace(classes=classes[mine], classes_of_columns=classes)
        else:
            choice = choice._replace(mask=mask, first_sample=first)
        if keep == "other":  # a positive of the class is not in the denominator
            foreign = samples[partner.clamp_min(0)] != samples[mine]
            partner = partner.masked_fill(foreign, -1)
    bounded = is_bounded(temperature)
    if world == 1 and contrast == "all" and mask is None:
        log_rest = self_log_sums(
            anchors, partner=partner, choice=choice, bounded=bounded, block_size=block_size
        )
    else:
        log_rest = log_sums(
            anchors,
            candidates,
            diagonals=(own,),
            partner=partner,
            choice=choice,
            bounded=bounded,
            block_size=block_size,
        )
    mean = mean_similarities(anchors, squares, positive.total, positive.number, temperature)
    losses = torch.where(partner >= 0, one_positive(log_rest, mean), log_rest - mean)
    counted = (positive.number > 0) & (log_rest > -torch.inf)
    if min_classes > 0:
        counted = counted & (labelled >= min_classes)
    total = torch.where(counted, losses, 0).sum()
    if base_temperature is not None:
        total = total * (temperature / base_temperature)
    count = counted.sum()
    if no_positive == "zero":
        count = torch.full_like(count, num_anchors)
    if world > 1:
        total, count = sum_over_ranks(total), sum_over_ranks(count)
    return (total / count.clamp_min(1)).reshape(()).to(anchors.dtype)


def _numbered(y: Tensor, samples: Tensor) -> tuple[Tensor, int, Tensor]:
    """Return class numbers from 0 on, how many, and how many are of labelled rows.

    Every unlabelled sample is a class of its own.
    """
    lowest = y.min()
    key = torch.where(y == _UNLABELLED, lowest - 1 - samples, y.long())
    classes, numbers = torch.unique(key, return_inverse=True)
    return numbers, len(classes), (classes >= lowest).sum()


def _check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        names = [f'"{word}"' for word in known]
        raise ValueError(f"{name} must be {', '.join(names[:-1])} or {names[-1]}, got {value!r}")


def _check_labels(n: int, labels: Tensor | None, mask: Tensor | None, min_classes: int) -> None:
    if labels is not None and mask is not None:
        raise ValueError("labels and mask both say what is a positive: give one of the two")
    if labels is not None and (labels.shape != (n,) or labels.is_floating_point()):
        raise ValueError(
            f"labels must be ({n},) integers, one a sample, "
            f"got {tuple(labels.shape)} of {labels.dtype}"
        )
    if min_classes > 0 and labels is None:
        raise ValueError(f"min_classes={min_classes} counts the classes of labels: give labels")


def _booleans(mask: Tensor, n: int, m: int) -> Tensor:
    if mask.shape != (n, m):
        raise ValueError(
            f"mask must be ({n}, {m}), a row and a column a sample, got {tuple(mask.shape)}"
        )
    if mask.dtype == torch.bool:
        return mask
    if torch.compiler.is_compiling():
        raise ValueError(f"a compiled loss needs a mask of booleans, got {mask.dtype}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must hold 0 and 1 or booleans, it holds other numbers")
    return mask != 0
