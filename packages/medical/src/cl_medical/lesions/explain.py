r"""Where a network looked: Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391).

With $A_k$ the maps of the last convolutional block and $Y$ the logit of a class,

$$\alpha_k = \frac1{hw} \sum_{ij} \frac{\partial Y}{\partial A_{k,ij}}, \qquad
  M = \max\Bigl(0, \sum_k \alpha_k A_k\Bigr),$$

divided by its maximum. Behind a mean over positions and one linear layer $\alpha_k$ is that
layer's weight over $hw$, so that this is the class activation map up to a scale. A map tells what
raised the logit, not whether the lesion is malignant, and it is as coarse as the block's grid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer, UInt8
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["grad_cam", "heat_maps", "overlay"]


def grad_cam(
    activations: Float[Tensor, "*n k h w"], gradients: Float[Tensor, "*n k h w"]
) -> Float[Tensor, "*n h w"]:
    r"""Weigh maps by their mean gradient, keep what is positive, scale the largest to 1.

    Args:
        activations: $A$.
        gradients: $\partial Y / \partial A$.

    Returns:
        Maps in [0, 1]; all zero where nothing is positive.
    """
    alpha = gradients.mean(dim=(-2, -1), keepdim=True)
    cam = (alpha * activations).sum(dim=-3).clamp_min(0)
    largest = cam.amax(dim=(-2, -1), keepdim=True)
    return torch.where(largest > 0, cam / largest.clamp_min(torch.finfo(cam.dtype).tiny), 0)


def heat_maps(
    features: Callable[[Tensor], Tensor],
    classify: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    classes: Integer[Tensor, " n"],
) -> Float[Tensor, "n h w"]:
    """Explain one class of each image, at the size of the image.

    Args:
        features: Images to the maps of the last block, as ``Backbone.forward_features``.
        classify: Representations (the mean of the maps over positions) to logits.
        images: As the network takes them, in its evaluation mode.
        classes: The class of each to explain.

    Returns:
        Maps in [0, 1], enlarged bilinearly.

    Raises:
        ValueError: If ``features`` gives no maps.
    """
    with torch.enable_grad():
        maps = features(images)
        if maps.ndim != 4:
            raise ValueError(f"heat maps need maps (n, k, h, w), got {tuple(maps.shape)}")
        maps = maps.detach().requires_grad_()
        logits = classify(maps.mean(dim=(2, 3)))
        (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), maps)
    cam = grad_cam(maps.detach(), gradients)
    return F.interpolate(cam[:, None], images.shape[2:], mode="bilinear").squeeze(1)


def overlay(
    image: UInt8[Tensor, "3 h w"], heat: Float[Tensor, "h w"], *, strength: float = 0.5
) -> UInt8[NDArray[np.uint8], "h w 3"]:
    """Lay a heat map over a picture: where it is 0 the picture is unchanged.

    Args:
        image: RGB.
        heat: In [0, 1], of the same size.
        strength: Share of the colour where the map is 1.
    """
    from matplotlib import colormaps

    share = (strength * heat).unsqueeze(-1).numpy()
    colour = colormaps["inferno"](heat.numpy())[..., :3]
    picture = image.permute(1, 2, 0).numpy() / 255
    mixed = (1 - share) * picture + share * colour
    return np.asarray(np.rint(255 * mixed), dtype=np.uint8)
