"""SimCLR: contrast two views of each image, through a projector or without one.

Chen, Kornblith, Norouzi, Hinton: "A Simple Framework for Contrastive Learning of Visual
Representations", ICML 2020 (arXiv 2002.05709). The projectors are those of the ablation in Jing et
al. 2022; with ``projector="none"`` this is that paper's baseline.
"""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.images import Sample
from cl_core.losses import info_nce, nt_xent
from cl_vision.hyper import SimCLRHyper
from cl_vision.optimisation import OptimizerHyper, configure
from cl_vision.projectors import build_projector

__all__ = ["Negatives", "SimCLR", "TwoViewModule", "two_view_loss"]

Negatives = Literal["all", "cross"]


def two_view_loss(
    z1: Float[Tensor, "n e"],
    z2: Float[Tensor, "n e"],
    *,
    temperature: float = 0.1,
    negatives: Negatives = "all",
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""Contrast the embeddings of two views, row by row.

    With $u$ the rows at unit length and $S = u_1 u_2^\top / \tau$, ``cross`` is the cross-entropy
    over the rows and over the columns of $S$, averaged: $n - 1$ negatives an anchor (DirectCLR's
    released code). ``all`` is NT-Xent (Chen et al. 2020, Eq. 1), which adds the other images of the
    anchor's own view: $2n - 2$ negatives.

    A row of length 0 stands for no direction: it has similarity 0 to all others and here gets no
    gradient, where the equation's would be $10^{12}$ times too large.

    Args:
        z1: Embeddings of view 1, any length; row ``i`` pairs with row ``i`` of ``z2``.
        z2: Embeddings of view 2.
        temperature: $\tau > 0$.
        negatives: See above.
        gather: Contrast against the rows of all ranks, with the gradient of the joint batch.

    Returns:
        Mean over anchors, in nats, in float32 or wider also under autocast. Nothing is detached.

    Raises:
        ValueError: If the shapes differ, there is no negative, or an option is out of range.
    """
    if negatives not in ("all", "cross"):
        raise ValueError(f"negatives must be 'all' or 'cross', got {negatives!r}")
    z1, z2 = _without_zero_gradient(z1), _without_zero_gradient(z2)
    if negatives == "all":
        return nt_xent(z1, z2, temperature, gather=gather)
    return info_nce(z1, z2, temperature, symmetric=True, gather=gather)


def _without_zero_gradient(z: Tensor) -> Tensor:
    zero = z.detach().float().norm(dim=1, keepdim=True) <= 1e-12
    return torch.where(zero, z.detach(), z)


class TwoViewModule(L.LightningModule):
    """Trains ``encoder`` by a contrast of two views, seen through ``projector``.

    A batch is a :class:`~cl_core.images.Sample` of two views. Every rank contrasts the joint batch,
    and batch norm is synchronised where there are several accelerators.

    Args:
        encoder: Maps images ``(n, c, h, w)`` to representations ``(n, d)``; it is what is kept.
        projector: Maps representations to what the loss sees.
        temperature: Of the contrast.
        negatives: As in :func:`two_view_loss`.
        optimizer: Optimiser and schedule.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        *,
        temperature: float,
        negatives: Negatives,
        optimizer: OptimizerHyper,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.temperature = temperature
        self.negatives: Negatives = negatives
        self.optimizer = optimizer

    def training_step(self, batch: Sample, batch_idx: int) -> dict[str, Tensor]:
        r1, r2 = (self.encoder(view) for view in batch.views)
        z1, z2 = self.projector(r1), self.projector(r2)
        loss = two_view_loss(
            z1, z2, temperature=self.temperature, negatives=self.negatives, gather=True
        )
        positive = nn.functional.cosine_similarity(z1.detach().float(), z2.detach().float())
        self.log("train/loss", loss, batch_size=len(r1), prog_bar=True)
        self.log("train/positive_similarity", positive.mean(), batch_size=len(r1))
        return {"loss": loss, "embedding": r1.detach()}

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1 and self.trainer.strategy.root_device.type == "cuda":
            for name in ("encoder", "projector"):
                part = nn.SyncBatchNorm.convert_sync_batchnorm(getattr(self, name))  # type: ignore[no-untyped-call]
                setattr(self, name, part)

    def configure_optimizers(self) -> Any:
        epochs = self.trainer.max_epochs or 1
        steps = int(self.trainer.estimated_stepping_batches) // epochs
        return configure(self, self.optimizer, epochs=epochs, steps_per_epoch=steps)


class SimCLR(TwoViewModule):
    """Train ``encoder`` without labels; evaluation uses its output, not the projector's.

    Args:
        encoder: Maps images to representations; ``encoder.out_features`` is their width.
        hyper: Hyper-parameters.
        optimizer: Optimiser and schedule.
        seed: Of the projector's fixed matrix, if it has one.

    Raises:
        ValueError: If the projector does not fit the encoder's width.
    """

    def __init__(
        self,
        encoder: nn.Module,
        hyper: SimCLRHyper,
        *,
        optimizer: OptimizerHyper,
        seed: int = 0,
    ) -> None:
        projector = build_projector(
            hyper.projector,
            int(encoder.out_features),  # type: ignore[arg-type]
            hidden=hyper.hidden,
            dim=hyper.dim,
            rank=hyper.rank,
            seed=seed,
        )
        super().__init__(
            encoder,
            projector,
            temperature=hyper.temperature,
            negatives=hyper.negatives,
            optimizer=optimizer,
        )
        self.hyper = hyper
