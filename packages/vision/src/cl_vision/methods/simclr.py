"""SimCLR: contrast two views of each image, through a projector or without one.

Chen, Kornblith, Norouzi, Hinton: "A Simple Framework for Contrastive Learning of Visual
Representations", ICML 2020 (arXiv 2002.05709). The projectors are those of the ablation in Jing et
al. 2022; with ``projector="none"`` this is that paper's baseline.
"""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor, nn

from cl_core.images.batches import views_of
from cl_core.networks.own import representation_width
from cl_vision.cards import ProjectorCard
from cl_vision.hyper import SimCLRHyper
from cl_vision.methods.contrast import Negatives, two_view_loss
from cl_vision.methods.optimisation import OptimizerHyper, configure
from cl_vision.methods.projectors import build_projector

__all__ = ["SimCLR", "TwoViewModule", "projector_card", "title", "two_view_loss"]


class TwoViewModule(L.LightningModule):
    """Trains ``encoder`` by a contrast of two views, seen through ``projector``.

    A batch is a :class:`~cl_core.images.Sample` of two views, or ``([view_1, view_2], labels)``.
    Every rank contrasts the joint batch, and batch norm is synchronised where there are several
    accelerators.

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

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        r1, r2 = (self.encoder(view) for view in views_of(batch, count=2))
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
        encoder: Maps images to representations ``(n, d)``.
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
            representation_width(encoder),
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


def projector_card(module: SimCLR) -> ProjectorCard:
    """How to rebuild a module's projector."""
    hyper = module.hyper
    return ProjectorCard(
        kind=hyper.projector,
        width=representation_width(module.encoder),
        hidden=hyper.hidden,
        dim=hyper.dim,
        rank=hyper.rank,
    )


def title(hyper: SimCLRHyper) -> str:
    """The method with its projector, where that is not the usual one."""
    if hyper.projector == "mlp":
        return "SimCLR"
    if hyper.projector == "none":
        return "SimCLR (no projector)"
    return f"SimCLR ({hyper.projector.replace('_', '-')} projector)"
