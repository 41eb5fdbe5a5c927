r"""The matching losses: class by class (DC, DSA), all classes at once (DCC, DSAC), and the warm-up.

With $\theta$ a network's parameters, $T_c$ real and $S_c$ synthetic images of class $c$ (augmented
by the class's draw of the step, if any), CE the mean softmax cross-entropy of a batch, and $D$ the
:mod:`~cl_vision.condensation.gradient_distance`,

$$g_c^T = \nabla_\theta \mathrm{CE}(f(T_c), c),
\qquad g_c^S = \nabla_\theta \mathrm{CE}(f(S_c), c),$$
$$L_{DC} = \sum_c D(g_c^S, g_c^T), \qquad
L_{DCC} = D\Bigl(\tfrac1C \sum_c g_c^S,\ \tfrac1C \sum_c g_c^T\Bigr).$$

Sums of the losses over classes cancel what the classes have in common: matched one by one, class
gradients are alike as far as images are alike; their mean keeps the differences (Lee et al., ICML
2022, arXiv 2202.02916). Every class weighs $1/C$, however many images it brings. Real gradients are
constants: the loss is a function of the synthetic images.

These are the equations, which keep every graph. What is used is
:mod:`~cl_vision.condensation.chunks`: the same gradients in little memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cl_vision.condensation.gradient_distance import Metric, gradient_distance

__all__ = [
    "class_gradients",
    "dc_loss",
    "dcc_loss",
    "default_outer_warmup",
    "mean_gradient",
    "uses_contrast",
]


def uses_contrast(
    outer: int, step: int, *, outer_warmup: int, inner_warmup: int, contrast: bool = True
) -> bool:
    """Whether a matching step is contrastive (bi-level warm-up, a hard switch).

    Args:
        outer: Index of the outer iteration, from 0.
        step: Index of the matching step in it, from 0.
        outer_warmup: From this outer iteration on every step is.
        inner_warmup: Before that, steps from this one on are.
        contrast: Off for DC and DSA: never.
    """
    return contrast and (outer >= outer_warmup or step >= inner_warmup)


def default_outer_warmup(outer_loop: int) -> int:
    """A quarter of the outer iterations: 250 of the published 1,000."""
    return round(outer_loop / 4)


def class_gradients(
    network: nn.Module, images: Sequence[Tensor], *, create_graph: bool = False
) -> list[list[Tensor]]:
    """The gradient of each class's mean cross-entropy, in the order of ``parameters()``.

    Args:
        network: Images to logits.
        images: Those of each class, class 0 first, in any numbers.
        create_graph: Keep them differentiable.
    """
    parameters = list(network.parameters())
    gradients = []
    for label, x in enumerate(images):
        y = torch.full((len(x),), label, device=x.device)
        loss = F.cross_entropy(network(x), y)
        gradients.append(list(torch.autograd.grad(loss, parameters, create_graph=create_graph)))
    return gradients


def mean_gradient(gradients: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The mean over classes of their gradients."""
    return [torch.stack(parts).mean(0) for parts in zip(*gradients, strict=True)]


def dc_loss(
    network: nn.Module,
    real: Sequence[Tensor],
    synthetic: Sequence[Tensor],
    *,
    metric: Metric = "ours",
) -> Float[Tensor, ""]:
    """Match the gradients class by class.

    Args:
        network: Images to logits.
        real: Real images of each class.
        synthetic: Synthetic images of each class.
        metric: Of :func:`gradient_distance`.
    """
    targets = class_gradients(network, real)
    own = class_gradients(network, synthetic, create_graph=True)
    distances = [gradient_distance(s, t, metric=metric) for s, t in zip(own, targets, strict=True)]
    return torch.stack(distances).sum()


def dcc_loss(
    network: nn.Module,
    real: Sequence[Tensor],
    synthetic: Sequence[Tensor],
    *,
    metric: Metric = "ours",
) -> Float[Tensor, ""]:
    """Match the gradients of all classes together; arguments as of :func:`dc_loss`."""
    target = mean_gradient(class_gradients(network, real))
    own = mean_gradient(class_gradients(network, synthetic, create_graph=True))
    return gradient_distance(own, target, metric=metric)
