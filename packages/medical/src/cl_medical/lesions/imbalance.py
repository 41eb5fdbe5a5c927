r"""Losses and class weights for imbalanced classes, as pure functions.

With $n_c$ images of class $c$ of $C$, $N$ in all, and $p_c$ the softmax of the logits:

- class weights: inverse frequency $w_c = N / (C n_c)$; effective number (Cui et al. 2019, arXiv
  1901.05555) $w_c \propto (1 - \beta) / (1 - \beta^{n_c})$, scaled to sum to $C$;
- weighted cross-entropy: $\sum_i w_{y_i} (-\log p_{y_i}) / \sum_i w_{y_i}$;
- focal loss (Lin et al. 2017, arXiv 1708.02002): the mean of
  $-\alpha_y (1 - p_y)^\gamma \log p_y$;
- LDAM (Cao et al. 2019, arXiv 1906.07413): cross-entropy of $s (\cos_j - m_y [j = y])$ with margins
  $m_c \propto n_c^{-1/4}$, the largest of them 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

__all__ = [
    "CosineClassifier",
    "class_counts",
    "effective_number_weights",
    "focal_loss",
    "inverse_frequency_weights",
    "ldam_loss",
    "ldam_margins",
    "weighted_cross_entropy",
]


def class_counts(labels: Integer[Tensor, " n"], num_classes: int) -> Int[Tensor, " c"]:
    """Count the images of each class; those of no class (-1) are left out.

    Raises:
        ValueError: If a label is not below ``num_classes``.
    """
    labelled = labels[labels >= 0].to(torch.int64)
    if len(labelled) and int(labelled.max()) >= num_classes:
        raise ValueError(f"{num_classes} classes, but a label is {int(labelled.max())}")
    return torch.bincount(labelled, minlength=num_classes)


def inverse_frequency_weights(counts: Integer[Tensor, " c"]) -> Float[Tensor, " c"]:
    """Weigh each class by $N / (C n_c)$: every class then has the same share of the loss.

    Args:
        counts: Images of each class, all positive.

    Returns:
        Float64 weights whose mean over the images is 1.

    Raises:
        ValueError: If a class has no image.
    """
    n = _counted(counts)
    return n.sum() / (len(n) * n)


def effective_number_weights(
    counts: Integer[Tensor, " c"], beta: float = 0.999
) -> Float[Tensor, " c"]:
    r"""Weigh each class by $(1 - \beta) / (1 - \beta^{n_c})$, scaled to sum to $C$.

    $\beta = 0$ weighs all classes alike; towards 1 it becomes the inverse frequency.

    Args:
        counts: Images of each class, all positive.
        beta: In [0, 1).

    Returns:
        Float64 weights.

    Raises:
        ValueError: If a class has no image or ``beta`` is out of range.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), got {beta}")
    n = _counted(counts)
    w = (1 - beta) / (1 - beta**n)
    return w * len(w) / w.sum()


def weighted_cross_entropy(
    logits: Float[Tensor, "n c"], y: Integer[Tensor, " n"], weights: Float[Tensor, " c"]
) -> Float[Tensor, ""]:
    """Average the cross-entropy with the weight of each row's class, in float32 or wider."""
    wide = _wide(logits)
    return F.cross_entropy(wide, y, weight=weights.to(wide))


def focal_loss(
    logits: Float[Tensor, "n c"],
    y: Integer[Tensor, " n"],
    *,
    gamma: float = 2.0,
    alpha: float | Sequence[float] | Tensor | None = None,
    detach_pt: bool = False,
) -> Float[Tensor, ""]:
    r"""Weigh hard rows up: the mean of $-\alpha_y (1 - p_y)^\gamma \log p_y$ (Lin et al. 2017).

    The mean is over the rows, not over the sum of their $\alpha_y$. SuperCon's repository holds a
    version whose factor $(1 - p_y)^\gamma$ passes no gradient (``detach_pt``): the same value,
    another gradient. Its defaults are $\gamma = 5$ and $\alpha = 0.25$.

    Args:
        logits: A row per image.
        y: Classes.
        gamma: At least 0; 0 is cross-entropy.
        alpha: A weight per class; one number $a$ stands for $(a, 1 - a)$ of two; None for 1.
        detach_pt: See above.

    Returns:
        The mean, in nats, in float32 or wider.

    Raises:
        ValueError: If ``gamma`` is negative or ``alpha`` does not fit the classes.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    log_p = F.log_softmax(_wide(logits), dim=1)
    log_py = log_p.gather(1, y[:, None]).squeeze(1)
    # 1 - p_y as a sum of the others' probabilities: exact where p_y rounds to 1, and never below 0,
    # where a power below 1 has no derivative.
    others = log_p.scatter(1, y[:, None], float("-inf"))
    factor = (gamma * torch.logsumexp(others, dim=1)).exp()
    loss = -(factor.detach() if detach_pt else factor) * log_py
    if alpha is not None:
        loss = loss * _alpha(alpha, log_p)[y]
    return loss.mean()


def ldam_margins(counts: Integer[Tensor, " c"], largest: float = 0.5) -> Float[Tensor, " c"]:
    r"""Give rare classes the larger margins, $m_c \propto n_c^{-1/4}$ (Cao et al. 2019, Eq. 13).

    Args:
        counts: Images of each class, all positive.
        largest: That of the rarest class.

    Returns:
        Float64 margins.

    Raises:
        ValueError: If a class has no image or ``largest`` is not positive.
    """
    if not largest > 0:
        raise ValueError(f"the largest margin must be positive, got {largest}")
    m = _counted(counts) ** -0.25
    return largest * m / m.max()


def ldam_loss(
    cosines: Float[Tensor, "n c"],
    y: Integer[Tensor, " n"],
    margins: Float[Tensor, " c"],
    *,
    scale: float = 30.0,
    weights: Float[Tensor, " c"] | None = None,
) -> Float[Tensor, ""]:
    r"""Ask the true class's cosine for a margin (Cao et al. 2019, Eq. 12, hinge softened).

    Args:
        cosines: Between features and class weights, as of :class:`CosineClassifier`.
        y: Classes.
        margins: Of :func:`ldam_margins`.
        scale: $s > 0$.
        weights: Of the classes, as in :func:`weighted_cross_entropy` (the paper's deferred
            re-weighting).

    Returns:
        The cross-entropy of $s (\cos_j - m_y [j = y])$, in float32 or wider.

    Raises:
        ValueError: If ``scale`` is not positive.
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    cos = _wide(cosines)
    own = F.one_hot(y, cos.shape[1]).to(cos)
    logits = scale * (cos - margins.to(cos) * own)
    return F.cross_entropy(logits, y, weight=None if weights is None else weights.to(cos))


class CosineClassifier(nn.Module):
    """Cosines between features ``(n, d)`` and one direction a class, for LDAM's loss.

    Args:
        in_features: Width of the features.
        num_classes: Rows of the weight.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return F.linear(F.normalize(h, dim=1), F.normalize(self.weight, dim=1))


def _counted(counts: Tensor) -> Tensor:
    if counts.ndim != 1 or not len(counts) or bool((counts < 1).any()):
        raise ValueError(f"every class needs at least one image, got counts {counts.tolist()}")
    return counts.to(torch.float64)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _alpha(alpha: float | Sequence[float] | Tensor, log_p: Tensor) -> Tensor:
    classes = log_p.shape[1]
    if isinstance(alpha, int | float):
        if classes != 2:
            raise ValueError(
                f"one alpha stands for two classes, and there are {classes}: give each"
            )
        alpha = (alpha, 1 - alpha)
    weights = torch.as_tensor(alpha).to(log_p)
    if weights.shape != (classes,):
        raise ValueError(f"alpha needs {classes} weights, one a class, got {tuple(weights.shape)}")
    return weights
