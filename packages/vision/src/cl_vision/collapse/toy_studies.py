"""The two toy studies of collapse, trained step by step and recorded.

They train linear encoders as the scripts of Jing et al. 2022 do; :mod:`cl_vision.collapse.theory`
says what is to be expected and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from cl_core.evaluation.spectrum import singular_values
from cl_vision.collapse.linear_run import LinearRun
from cl_vision.collapse.theory import layer_gradients, linear_step, product, x_matrix

__all__ = [
    "growth_rates",
    "implicit_regularization",
    "initial_layers",
    "predicted_x",
    "strong_augmentation",
]


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
    weight = _linear((width, width), width, generator)
    return _train(
        [weight],
        _linear((width,), width, generator),
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


def predicted_x(
    noise: float, *, seed: int = 0, width: int = 16, augmented: int = 8, samples: int = 512
) -> Tensor:
    r"""Return $X / n$ at the first weights of :func:`strong_augmentation`, before any training.

    Its negative eigenvalues are the directions that gradient flow makes decay.

    Args:
        noise: Strength of the augmentation.
        seed: As there; the weights are the same.
        width: As there.
        augmented: As there.
        samples: $n$, points with which the loss is taken.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = _linear((width, width), width, generator)
    clean = _gaussian((samples, width), generator)
    x, xp = clean.clone(), clean.clone()
    for view in (x, xp):
        view[:, width - augmented :] += noise * _gaussian((samples, augmented), generator)
    of_all: Tensor = x_matrix(x, xp, weight)
    return of_all / samples


def growth_rates(
    layers: int, *, seed: int = 0, width: int = 16, samples: int = 512
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Measure how fast singular values of *aligned* layers grow, beside the equation.

    All layers have the singular values $e^{-0.35 k}$, and neighbours share singular vectors. The
    loss is the theory's, divided by ``samples``; a singular value moves with the flow by
    $\dot\sigma^k = u_k^\top \dot W v_k$.

    Args:
        layers: Depth $L$.
        seed: Of data and weights.
        width: Of every layer.
        samples: Points, with augmentation of standard deviation 0.001.

    Returns:
        Sizes $\sigma^k$; measured $d \ln \sigma_1^k / dt$; and predicted rates
        $(\sigma^k)^{2 (L - 1)}\, v_k^\top X v_k$.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.exp(-0.35 * torch.arange(width, dtype=torch.float64))
    rotations = [
        torch.linalg.qr(_gaussian((width, width), generator))[0] for _ in range(layers + 1)
    ]
    weights = [after * sizes @ before.T for before, after in pairwise(rotations)]
    x = _gaussian((samples, width), generator)
    x, xp = (x + 1e-3 * _gaussian((samples, width), generator) for _ in range(2))
    x_of = x_matrix(x, xp, product(weights)) / samples
    v = rotations[0]
    predicted = sizes ** (2 * (layers - 1)) * (v * (x_of @ v)).sum(0)
    flow = -layer_gradients(weights, x_of)[0]
    measured = (rotations[1] * (flow @ v)).sum(0) / sizes
    return sizes, measured, predicted


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


def _linear(shape: tuple[int, ...], inputs: int, generator: torch.Generator) -> Tensor:
    """Draw as torch initialises a linear layer."""
    bound = inputs**-0.5
    drawn: Tensor = _uniform(shape, generator) * 2 * bound - bound
    return drawn


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _gaussian(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)
