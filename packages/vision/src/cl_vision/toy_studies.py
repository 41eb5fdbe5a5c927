"""The two toy studies of collapse, trained step by step and recorded.

They train linear encoders as the scripts of Jing et al. 2022 do; :mod:`cl_vision.collapse_theory`
says what is to be expected and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cl_core.evaluation.spectrum import singular_values
from cl_vision.collapse_theory import linear_step, product

__all__ = ["LinearRun", "implicit_regularization", "initial_layers", "strong_augmentation"]


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


def strong_augmentation(
    noise: float,
    *,
    steps: int = 2000,
    seed: int = 0,
    width: int = 16,
    augmented: int = 8,
    samples: int = 10_000,
    batch: int = 128,
    learning_rate: float = 1e-3,
    temperature: float = 0.1,
    record: int = 100,
) -> LinearRun:
    r"""Train one linear layer while noise hits half of its inputs (Jing et al. 2022, Sec. 4).

    Inputs are $\mathcal N(0, I)$; both views add noise of standard deviation ``noise`` to the last
    ``augmented`` of them.

    Args:
        noise: Strength of the augmentation; 0 is none.
        steps: Gradient steps.
        seed: Of data, noise, batches and the first weights; nothing else is random.
        width: Inputs and outputs.
        augmented: Inputs with noise.
        samples: Points in the data set.
        batch: Points a step, without repetition.
        learning_rate: Of plain gradient descent.
        temperature: Of the loss.
        record: Steps between two records.

    Raises:
        ValueError: If a number is out of range.
    """
    if not 1 <= augmented < width:
        raise ValueError(f"augmented must lie between 1 and {width - 1}, got {augmented}")
    generator = torch.Generator().manual_seed(seed)
    bound = width**-0.5  # torch's initialisation of a linear layer
    weight = _uniform((width, width), generator) * 2 * bound - bound
    bias = _uniform((width,), generator) * 2 * bound - bound
    return _train(
        [weight],
        bias,
        noise=noise,
        augmented=augmented,
        steps=steps,
        generator=generator,
        samples=samples,
        batch=batch,
        learning_rate=learning_rate,
        temperature=temperature,
        record=record,
    )


def implicit_regularization(
    layers: int = 2,
    *,
    steps: int = 3000,
    seed: int = 0,
    width: int = 16,
    noise: float = 1e-3,
    samples: int = 10_000,
    batch: int = 128,
    learning_rate: float = 0.01,
    temperature: float = 0.1,
    record: int = 100,
) -> LinearRun:
    """Train a deep linear network almost without augmentation (Jing et al. 2022, Sec. 5).

    The singular values of each layer start as $e^{-0.35 k}$. With one layer all of them grow; with
    two or more the small ones stay behind.

    Args:
        layers: Depth; one is the control.
        steps: Gradient steps.
        seed: Of everything random.
        width: Of every layer.
        noise: Standard deviation of the augmentation, on all inputs.
        samples: Points in the data set.
        batch: Points a step, without repetition.
        learning_rate: Of plain gradient descent.
        temperature: Of the loss.
        record: Steps between two records.

    Raises:
        ValueError: If a number is out of range.
    """
    generator = torch.Generator().manual_seed(seed)
    return _train(
        initial_layers(layers, width, generator),
        None,
        noise=noise,
        augmented=width,
        steps=steps,
        generator=generator,
        samples=samples,
        batch=batch,
        learning_rate=learning_rate,
        temperature=temperature,
        record=record,
    )


def initial_layers(
    layers: int, width: int, generator: torch.Generator, *, decay: float = 0.35
) -> list[Tensor]:
    r"""Draw layers $U \operatorname{diag}(e^{-0.35 k}) V^\top$, $U$ and $V$ of a uniform matrix."""
    if layers < 1:
        raise ValueError(f"layers must be at least 1, got {layers}")
    values = torch.exp(-decay * torch.arange(width, dtype=torch.float64))
    drawn = []
    for _ in range(layers):
        u, _, vh = torch.linalg.svd(_uniform((width, width), generator))
        drawn.append(u * values @ vh)
    return drawn


def _train(
    weights: list[Tensor],
    bias: Tensor | None,
    *,
    noise: float,
    augmented: int,
    steps: int,
    generator: torch.Generator,
    samples: int,
    batch: int,
    learning_rate: float,
    temperature: float,
    record: int,
) -> LinearRun:
    if noise < 0 or steps < 1 or record < 1 or not 2 <= batch <= samples:
        raise ValueError(
            "need noise of at least 0, positive steps and record, and a batch of 2 to all samples, "
            f"got {noise}, {steps}, {record} and {batch} of {samples}"
        )
    width = weights[0].shape[1]
    x = _gaussian((samples, width), generator)
    clean = _gaussian((1000, width), generator)
    at: list[int] = []
    kept: list[list[Tensor]] = []
    spectra, losses = [], []
    for step, rows in enumerate(_batches(samples, batch, steps, generator)):
        if step % record == 0:
            at, kept = [*at, step], [*kept, weights]
            spectra.append(singular_values(clean @ product(weights).T, normalize=False))
        if step == steps:
            break
        x1, x2 = x[rows], x[rows]
        for view in (x1, x2):
            view[:, width - augmented :] += noise * _gaussian((batch, augmented), generator)
        weights, bias, loss = linear_step(
            weights, bias, x1, x2, learning_rate=learning_rate, temperature=temperature
        )
        losses.append(loss)
    if at[-1] != steps:
        at, kept = [*at, steps], [*kept, weights]
        spectra.append(singular_values(clean @ product(weights).T, normalize=False))
    return LinearRun(
        noise=noise,
        augmented=augmented,
        steps=torch.tensor(at),
        weights=tuple(torch.stack(layer) for layer in zip(*kept, strict=True)),
        spectra=torch.stack(spectra),
        losses=torch.tensor(losses, dtype=torch.float64),
    )


def _batches(samples: int, batch: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of each step, a shuffled data set after the other; one more than there are steps."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps + 1):
        if len(order) < batch:
            order = torch.randperm(samples, generator=generator)
        yield order[:batch]
        order = order[batch:]


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _gaussian(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)
