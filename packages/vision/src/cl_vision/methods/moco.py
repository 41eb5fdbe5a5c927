r"""MoCo v2: contrast with a queue of keys from a slowly moving encoder.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020 (arXiv
1911.05722); Chen et al., "Improved Baselines with Momentum Contrastive Learning", 2020 (arXiv
2003.04297). With query $q_i$ and key $k_i$ of two views of an image and the queue $n_j$, all of
unit length,

$$\ell = -\frac1n \sum_i \log \frac{e^{q_i^\top k_i / T}}
  {e^{q_i^\top k_i / T} + \sum_j e^{q_i^\top n_j / T}},
\qquad \theta_k \leftarrow m \theta_k + (1 - m) \theta_q.$$

Only parameters are averaged; the key encoder's batch norms follow its own forward passes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cl_core.distributed import gather_rows, rank, world_size
from cl_core.errors import InputError
from cl_core.images.batches import Batch, as_batch
from cl_core.losses import info_nce
from cl_core.networks.heads import build_head
from cl_core.networks.momentum import FeatureQueue, MomentumEncoder
from cl_core.networks.own import representation_width
from cl_core.seeding import derive_seed
from cl_vision.cards import ProjectorCard
from cl_vision.hcsc.equations import instance_logits, instance_loss
from cl_vision.hyper import MoCoHyper
from cl_vision.methods.optimisation import OptimizerHyper, configure

if TYPE_CHECKING:
    from cl_vision.config import PretrainConfig

__all__ = ["MoCo", "fitting_queue", "prepare", "projector_card", "require_queue", "unit_rows"]


def require_queue(queue: int, batch: int) -> None:
    """Refuse a queue that the batches of all devices together do not fill evenly.

    Raises:
        InputError: If it is smaller than ``batch`` or no multiple of it.
    """
    if queue < batch or queue % batch:
        nearest = max(1, round(queue / batch)) * batch
        raise InputError(
            f"queue {queue} is {'smaller than' if queue < batch else 'no multiple of'} the batch "
            f"of {batch} images over all devices: set queue to {nearest} or change the batch size"
        )


def prepare(config: PretrainConfig, images: int) -> tuple[PretrainConfig, list[str]]:
    """Fit what a recipe says of the queue to fewer images than its own; told in the notes."""
    hyper = config.moco
    queue, note = fitting_queue(hyper.queue, config.batch_size, images)
    if note and config.is_of_recipe("moco", "queue"):
        return replace(config, moco=replace(hyper, queue=queue)), [note]
    return config, []


def fitting_queue(queue: int, batch: int, images: int) -> tuple[int, str]:
    """A queue of a third of the images at most, in whole batches; and why, where it changes."""
    most = max(1, images // 3 // batch) * batch
    if queue <= max(most, batch) and queue % batch == 0:
        return queue, ""
    kept = min(most, max(1, queue // batch) * batch)
    return kept, (
        f"the recipe's queue of {queue:,} keys became {kept:,}: whole batches, and a third of the "
        f"{images:,} images at most"
    )


def projector_card(module: MoCo) -> ProjectorCard:
    """How to rebuild a module's projector."""
    hyper = module.hyper
    width = representation_width(module.encoder)
    return ProjectorCard(kind="moco", width=width, dim=hyper.dim, batch_norm=hyper.projector_norm)


class MoCo(L.LightningModule):
    """Train ``encoder`` by MoCo v2; evaluation uses its output, not the projector's.

    Where several devices train, ``hyper.batch_norm`` says how batch statistics, by which an encoder
    could tell which key shares its batch, are kept from giving the positive away: ``shuffle`` lets
    every device encode a random share of all keys (the paper), ``sync`` takes statistics over all
    devices for queries and keys (needs GPUs), ``local`` does nothing. On one device they are equal.

    Args:
        encoder: Maps images ``(n, c, h, w)`` to ``(n, out_features)``.
        hyper: Hyper-parameters.
        optimizer: Optimiser and schedule.
        seed: Of the queue's first rows and the shuffling.
    """

    def __init__(
        self, encoder: nn.Module, hyper: MoCoHyper, *, optimizer: OptimizerHyper, seed: int = 0
    ) -> None:
        super().__init__()
        width = representation_width(encoder)
        self.encoder = encoder
        self.projector = build_head("moco", width, hyper.dim, batch_norm=hyper.projector_norm)
        self.key = MomentumEncoder(nn.Sequential(encoder, self.projector), hyper.momentum)
        self.queue = FeatureQueue(hyper.queue, hyper.dim, seed=seed)
        self.hyper = hyper
        self.optimizer = optimizer
        self.seed = seed

    def setup(self, stage: str) -> None:
        # Alike on every rank by construction, so DDP need not send them before every step.
        same = [n for n, _ in self.named_buffers() if n.startswith(self._same_on_every_rank())]
        self._ddp_params_and_buffers_to_ignore = same
        if stage != "fit" or self.hyper.batch_norm != "sync" or world_size() == 1:
            return
        if self.trainer.strategy.root_device.type != "cuda":
            raise InputError("batch_norm sync needs GPUs: use shuffle")
        for part in (self.encoder, self.projector, self.key):
            # Replaces what is inside, in place.
            nn.SyncBatchNorm.convert_sync_batchnorm(part)  # type: ignore[no-untyped-call]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        batch = as_batch(batch)
        if batch_idx == 0:
            self._check(batch)
        h, q = self.query(batch.views[0])
        self.key.update(nn.Sequential(self.encoder, self.projector))
        k = self.keys(batch.views[1])
        terms = self.objective(q, k, batch)
        self.enqueue(k, batch.row)
        for name, value in terms.items():
            self.log(f"train/{name}", value.detach(), batch_size=len(q), prog_bar=name == "loss")
        return {"loss": terms["loss"], "embedding": h.detach()}

    def query(self, images: Tensor) -> tuple[Tensor, Float[Tensor, "n d"]]:
        """Return representations and queries of unit length, in float32 or wider."""
        h = self.encoder(images)
        return h, unit_rows(self.projector(h))

    @torch.no_grad()
    def keys(self, images: Tensor) -> Float[Tensor, "n d"]:
        """Return keys of unit length, computed as ``hyper.batch_norm`` says."""
        world, n = world_size(), len(images)
        if world == 1 or self.hyper.batch_norm != "shuffle":
            return unit_rows(self.key(images))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.global_step))
        order = torch.randperm(n * world, generator=generator).to(images.device)
        mine = slice(rank() * n, (rank() + 1) * n)
        k = unit_rows(self.key(gather_rows(images, grad=False)[order[mine]]))
        return gather_rows(k, grad=False)[order.argsort()[mine]]

    def objective(self, q: Tensor, k: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` and what else is logged; the queue is as before this batch."""
        return {"loss": self.contrast(q, k, self.own_keys(batch))}

    def contrast(self, q: Tensor, k: Tensor, own: Tensor | None) -> Float[Tensor, ""]:
        """Return the loss against the queue, without the negatives ``own``."""
        if own is None:
            return info_nce(q, k, self.hyper.temperature, negatives=self.queue.features)
        negatives = self.queue.features.to(q.dtype, copy=True)  # it changes before backward
        logits = instance_logits(q, k, negatives, self.hyper.temperature)
        return instance_loss(logits, own[None])[0]

    def own_keys(self, batch: Batch) -> Bool[Tensor, "n r"] | None:
        """Return which keys are earlier ones of the query's own image; None if they may stay."""
        if not self.hyper.mask_own_keys:
            return None
        own: Tensor = batch.row[:, None] == self.queue.ids
        return own

    def enqueue(self, k: Tensor, rows: Tensor) -> None:
        """Let the queue forget its oldest keys and take these of all ranks."""
        self.queue.enqueue(k, rows)

    def configure_optimizers(self) -> Any:
        epochs = self.trainer.max_epochs or 1
        return configure(
            [self.encoder, self.projector],
            self.optimizer,
            epochs=epochs,
            steps_per_epoch=int(self.trainer.estimated_stepping_batches) // epochs,
        )

    def _same_on_every_rank(self) -> tuple[str, ...]:
        return ("queue.",)

    def _check(self, batch: Batch) -> None:
        if len(batch.views) < 2:
            raise ValueError(f"a step needs two views of every image, got {len(batch.views)}")
        if self.hyper.mask_own_keys and bool((batch.row < 0).any()):
            raise InputError("mask_own_keys needs batches that tell each image's row")
        require_queue(self.hyper.queue, len(batch.row) * world_size())


def unit_rows(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Scale rows to unit length, in float32 or wider."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)
