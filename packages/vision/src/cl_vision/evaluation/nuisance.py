"""What a representation still knows of an image beyond its class: rotation and brightness.

Contrastive learning pushes out of the representation what its views change. What it keeps all the
same is told by linear probes: every image is turned, or made brighter, by one of five known
amounts, and logistic regression on standardised features has to tell which. DirectCLR's channels
beyond ``d0``, which no loss acts on, keep more of it than a representation that the loss sees.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl_core.evaluation.features import frozen
from cl_core.evaluation.linear import logistic_accuracy
from cl_core.networks.devices import best_device
from cl_core.seeding import derive_seed
from cl_core.transforms import Normalize
from cl_vision.data import Images, evaluation_loader
from cl_vision.digits import transform_digits
from cl_vision.model import ImageModel

__all__ = ["GAINS", "ROTATIONS", "nuisance_scores"]

ROTATIONS = (-20.0, -10.0, 0.0, 10.0, 20.0)
"""Degrees."""
GAINS = (0.6, 0.8, 1.0, 1.2, 1.4)
"""Factors of the brightness."""

Change = Callable[[Tensor, Tensor], Tensor]


def nuisance_scores(
    model: ImageModel,
    train: Images,
    test: Images,
    *,
    batch_size: int = 256,
    workers: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Measure how well rotation and brightness can be told from the representation.

    Args:
        model: Frozen.
        train: Images that the probes learn from.
        test: Images they are tested on.
        batch_size: Images encoded at once.
        workers: Processes that load.
        seed: Of which image is changed by which amount; the same for every model.

    Returns:
        ``rotation/accuracy`` and ``brightness/accuracy``; chance is 0.2.
    """

    def turned(x: Tensor, which: Tensor) -> Tensor:
        return transform_digits(x, degrees=torch.tensor(ROTATIONS)[which])

    def brightened(x: Tensor, which: Tensor) -> Tensor:
        return x * torch.tensor(GAINS)[which][:, None, None, None]

    scores = {}
    for name, change in (("rotation", turned), ("brightness", brightened)):
        parts = []
        for side, images in enumerate((train, test)):
            generator = torch.Generator().manual_seed(derive_seed(seed, side))
            which = torch.randint(5, (len(images),), generator=generator)
            parts.append((_encode(model, images, change, which, batch_size, workers), which))
        (x, y), (x_test, y_test) = parts
        mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
        scores[f"{name}/accuracy"] = logistic_accuracy(
            (x - mean) / std, y, (x_test - mean) / std, y_test, cs=(0.1,), normalize=False
        )
    return scores


def _encode(
    model: ImageModel,
    images: Images,
    change: Change,
    which: Int[Tensor, " n"],
    batch_size: int,
    workers: int,
) -> Float[Tensor, "n d"]:
    """Representations of changed images; the change comes before the normalisation."""
    device = best_device()
    model.to(device)
    normalize = Normalize(model.statistics)
    loader = evaluation_loader(
        images, model.view(images, normalized=False), batch_size=batch_size, workers=workers
    )
    with frozen(model):
        parts = [
            model.encoder(normalize(change(batch.views[0], which[batch.row])).to(device)).cpu()
            for batch in loader
        ]
    return torch.cat(parts)
