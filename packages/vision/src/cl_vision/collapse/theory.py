r"""Why contrastive learning loses dimensions: the equations and the two toy studies.

Jing et al. 2022 (arXiv 2110.09348), Sec. 4 and 5, for linear encoders $z = W x$. The loss is
InfoNCE with squared distances and negatives from the first view,

$$L = \sum_i \Bigl[ \tfrac12 \lVert z_i - z'_i \rVert^2 + \log \Bigl( \sum_{j \ne i}
  e^{-\lVert z_i - z_j \rVert^2 / 2} + e^{-\lVert z_i - z'_i \rVert^2 / 2} \Bigr) \Bigr].$$

With $\alpha_{ij}$ the softmax weights ($\alpha_{ii}$ the positive's), $\partial L / \partial W =
-W X$ and $X = \hat\Sigma_0 - \hat\Sigma_1$: the weighted variance of the data minus that of the
augmentation.

- **Strong augmentation.** Under gradient flow $\dot W = W X$ a direction $v$ with $v^\top X v < 0$
  decays exponentially: :func:`~cl_vision.collapse.toy_studies.strong_augmentation` makes the
  noise on half of the inputs stronger and stronger.
- **Implicit regularisation.** With $W = W_2 W_1$ and $G = -W_2 W_1 X$ the gradients are
  $W_2^\top G$ and $G W_1^\top$, $W_1 W_1^\top - W_2^\top W_2$ is conserved, and in aligned layers
  $\dot\sigma_1^k = \sigma_1^k (\sigma_2^k)^2 (v_k^\top X v_k)$: a singular value grows at a rate of
  its own size squared, so small ones stay behind although $X \succ 0$. In one layer all grow
  alike. :func:`~cl_vision.collapse.toy_studies.implicit_regularization` trains one layer and more.

The studies train as the paper's scripts do: cross-entropy of $z_1 z_2^\top / \tau$, one direction,
rows *not* scaled to unit length, plain gradient steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "alpha_weights",
    "distance_loss",
    "layer_gradients",
    "linear_step",
    "nce_gradients",
    "product",
    "weighted_covariances",
    "x_matrix",
]


def alpha_weights(z: Float[Tensor, "n e"], zp: Float[Tensor, "n e"]) -> Float[Tensor, "n n"]:
    r"""Softmax weights: $\alpha_{ij}$ of negative $j$, and on the diagonal that of the positive."""
    return torch.softmax(_logits(z, zp), dim=1)


def distance_loss(z: Float[Tensor, "n e"], zp: Float[Tensor, "n e"]) -> Float[Tensor, ""]:
    """The module docstring's loss $L$, a sum over rows."""
    return (torch.logsumexp(_logits(z, zp), dim=1) + (z - zp).square().sum(1) / 2).sum()


def weighted_covariances(
    x: Float[Tensor, "n d"], xp: Float[Tensor, "n d"], alpha: Float[Tensor, "n n"]
) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
    r"""Variance of the data and of the augmentation as the loss weighs them.

    $$\hat\Sigma_0 = \sum_{i \ne j} \alpha_{ij} (x_i - x_j)(x_i - x_j)^\top, \qquad
      \hat\Sigma_1 = \sum_i (1 - \alpha_{ii}) (x'_i - x_i)(x'_i - x_i)^\top.$$

    Args:
        x: Inputs of view 1.
        xp: Inputs of view 2.
        alpha: Of :func:`alpha_weights`.

    Returns:
        $\hat\Sigma_0$ and $\hat\Sigma_1$.
    """
    a = alpha - torch.diag(alpha.diagonal())
    degree = a.sum(0) + a.sum(1)
    sigma0 = x.T @ (degree[:, None] * x) - x.T @ (a + a.T) @ x
    difference = xp - x
    sigma1 = difference.T @ ((1 - alpha.diagonal())[:, None] * difference)
    return sigma0, sigma1


def x_matrix(
    x: Float[Tensor, "n d"], xp: Float[Tensor, "n d"], weight: Float[Tensor, "e d"]
) -> Float[Tensor, "d d"]:
    r"""Return $X = \hat\Sigma_0 - \hat\Sigma_1$ of the encoder $z = W x$."""
    sigma0, sigma1 = weighted_covariances(x, xp, alpha_weights(x @ weight.T, xp @ weight.T))
    return sigma0 - sigma1


def layer_gradients(weights: Sequence[Tensor], x_matrix: Float[Tensor, "d d"]) -> list[Tensor]:
    r"""Gradient of $L$ with respect to each layer of $W = W_L \cdots W_1$.

    Args:
        weights: $W_1, \dots, W_L$; one is the plain linear encoder, with gradient $-W X$.
        x_matrix: $X$ at these weights.

    Returns:
        A gradient a layer; of two layers $W_2^\top G$ and $G W_1^\top$, $G = -W_2 W_1 X$.
    """
    return _through_layers(weights, -product(weights) @ x_matrix)


def nce_gradients(
    z1: Float[Tensor, "n e"], z2: Float[Tensor, "n e"], temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, "n e"], Float[Tensor, "n e"]]:
    r"""The studies' loss, cross-entropy of $z_1 z_2^\top / \tau$, and its gradients.

    Returns:
        The mean over rows, and the gradients with respect to ``z1`` and ``z2``.
    """
    log_p = torch.log_softmax(z1 @ z2.T / temperature, dim=1)
    g = (log_p.exp() - torch.eye(len(z1), dtype=z1.dtype)) / (temperature * len(z1))
    return -log_p.diagonal().mean(), g @ z2, g.T @ z1


def linear_step(
    weights: Sequence[Tensor],
    bias: Float[Tensor, " e"] | None,
    x1: Float[Tensor, "n d"],
    x2: Float[Tensor, "n d"],
    *,
    learning_rate: float,
    temperature: float = 0.1,
) -> tuple[list[Tensor], Tensor | None, float]:
    """One plain gradient step of the studies.

    Args:
        weights: Layers, the first one first.
        bias: Of the last layer.
        x1: Inputs of view 1.
        x2: Inputs of view 2.
        learning_rate: Of the step.
        temperature: Of the loss.

    Returns:
        New weights, new bias, and the loss before the step.
    """
    total = product(weights)
    shift = 0.0 if bias is None else bias
    loss, g1, g2 = nce_gradients(x1 @ total.T + shift, x2 @ total.T + shift, temperature)
    gradients = _through_layers(weights, g1.T @ x1 + g2.T @ x2)
    new = [w - learning_rate * g for w, g in zip(weights, gradients, strict=True)]
    if bias is not None:
        bias = bias - learning_rate * (g1.sum(0) + g2.sum(0))
    return new, bias, float(loss)


def _logits(z: Tensor, zp: Tensor) -> Tensor:
    square = z.square().sum(1)
    distances = square[:, None] + square - 2 * z @ z.T
    positive = (z - zp).square().sum(1)
    eye = torch.eye(len(z), dtype=torch.bool)
    return -torch.where(eye, torch.diag(positive), distances) / 2


def product(weights: Sequence[Tensor]) -> Tensor:
    r"""Return $W_L \cdots W_1$ of layers given first to last, ``(..., d, d)`` each."""
    total = weights[0]
    for weight in weights[1:]:
        total = weight @ total
    return total


def _through_layers(weights: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """The gradient of each layer, given that of the product of all."""
    gradients = []
    for k in range(len(weights)):
        own = gradient
        if k + 1 < len(weights):
            own = product(weights[k + 1 :]).mT @ own
        if k > 0:
            own = own @ product(weights[:k]).mT
        gradients.append(own)
    return gradients
