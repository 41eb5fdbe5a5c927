"""What a toy study saw of the training of a linear encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cl_vision.collapse.theory import product

__all__ = ["LinearRun"]


@dataclass(frozen=True)
class LinearRun:
    """What a study saw of one training, at some of its steps.

    Attributes:
        noise: Standard deviation of the augmentation.
        augmented: The last so many inputs have the noise.
        steps: ``(t,)`` steps taken so far.
        weights: A ``(t, d, d)`` tensor a layer, the first layer first.
        spectra: ``(t, d)`` singular values of the embeddings' covariance on clean points, falling.
        losses: ``(s,)`` of every step.
    """

    noise: float
    augmented: int
    steps: Tensor
    weights: tuple[Tensor, ...]
    spectra: Tensor
    losses: Tensor

    @property
    def products(self) -> Tensor:
        """``(t, d, d)``: the whole linear map at each step."""
        return product(self.weights)

    @property
    def effective_ranks(self) -> Tensor:
        """``(t,)`` effective rank of the embeddings."""
        p = self.spectra / self.spectra.sum(1, keepdim=True)
        ranks: Tensor = torch.special.entr(p).sum(1).exp()
        return ranks

    @property
    def alive(self) -> Tensor:
        """``(t,)`` how many singular values exceed a thousandth of the largest."""
        counts: Tensor = (self.spectra > 1e-3 * self.spectra[:, :1]).sum(1)
        return counts

    @property
    def weight_ratio(self) -> Tensor:
        """``(t,)`` weights of the inputs with noise over those of the others, as Frobenius norms.

        Of no meaning (NaN or infinite) where every input has the noise.
        """
        clean = self.weights[0].shape[-1] - self.augmented
        w = self.products
        ratio: Tensor = w[..., clean:].norm(dim=(1, 2)) / w[..., :clean].norm(dim=(1, 2))
        return ratio

    @property
    def layer_singular_values(self) -> tuple[Tensor, ...]:
        """Singular values ``(t, d)`` of each layer, falling."""
        return tuple(torch.linalg.svdvals(w) for w in self.weights)

    @property
    def product_singular_values(self) -> Tensor:
        """``(t, d)`` of the whole map, falling."""
        values: Tensor = torch.linalg.svdvals(self.products)
        return values

    def alignment(self, at: int = -1) -> Tensor:
        r"""Return $|V_2^\top U_1|$, the overlap of neighbouring layers' singular vectors.

        The first layers' if there are more than two. Rows and columns follow falling singular
        values; blocks of nearly equal ones rotate freely, so look at blocks, not at the diagonal.

        Args:
            at: Which of the recorded steps.

        Raises:
            ValueError: If there is one layer only.
        """
        if len(self.weights) < 2:
            raise ValueError("alignment needs two layers, got one")
        u1 = torch.linalg.svd(self.weights[0][at])[0]
        v2 = torch.linalg.svd(self.weights[1][at])[2]
        overlap: Tensor = (v2 @ u1).abs()
        return overlap

    @property
    def conserved(self) -> Tensor:
        r"""``(t, d, d)``: $W_1 W_1^\top - W_2^\top W_2$, constant under gradient flow."""
        if len(self.weights) < 2:
            raise ValueError("the conserved quantity needs two layers, got one")
        w1, w2 = self.weights[:2]
        difference: Tensor = w1 @ w1.mT - w2.mT @ w2
        return difference

    @property
    def drift(self) -> Tensor:
        """``(t,)`` how far :attr:`conserved` has moved, relative to the first layer's square."""
        moved = (self.conserved - self.conserved[0]).norm(dim=(1, 2))
        share: Tensor = moved / (self.weights[0][0] @ self.weights[0][0].mT).norm()
        return share
