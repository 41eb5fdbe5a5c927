"""A condensation as something that is trained: a module whose parameters are the images.

An epoch of :func:`cl_core.training.fit` is an outer iteration of
:mod:`~cl_vision.condensation.loop`. What a checkpoint holds beyond the images and their optimiser
is the state of the generator that every draw comes from: a resumed run continues bit by bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from torch import Tensor, nn

from cl_core.seeding import derive_seed
from cl_vision.condensation.convnet import fresh
from cl_vision.condensation.loop import Loop, outer_iteration
from cl_vision.condensation.real_images import RealImages

__all__ = ["Condensation"]


class Condensation(LightningModule):
    """The images as parameters.

    Args:
        real: What they are learned from.
        start: Where they start, normalised, grouped by class.
        build: Makes a network of any weights.
        loop: The numbers.
        seed: Of every draw.
        time_budget: Seconds after which the run ends with the iteration it is in.
        snapshots: At most so many states of the set are kept for the report.
    """

    def __init__(
        self,
        real: RealImages,
        start: Float[Tensor, "n c h w"],
        build: Callable[[], nn.Module],
        loop: Loop,
        *,
        seed: int,
        time_budget: float | None = None,
        snapshots: int = 8,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.images = nn.Parameter(start.clone())
        self.register_buffer("start", start.clone())
        self.start: Tensor
        number = len(real.classes)
        self.register_buffer("labels", torch.arange(number).repeat_interleave(len(start) // number))
        self.labels: Tensor
        self.real = real
        self.build = build
        self.loop = loop
        self.time_budget = time_budget
        self.generator = torch.Generator().manual_seed(derive_seed(seed, 14))
        self.snapshots: dict[int, Tensor] = {}
        self._due = snapshot_times(loop.outer_loop, snapshots)
        self._begin = time.monotonic()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            [self.images], lr=self.loop.image_lr, momentum=self.loop.image_momentum
        )

    def on_train_start(self) -> None:
        self._begin = time.monotonic()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        network = fresh(self.build, self.generator, self.device)
        network.to(self.images.dtype)
        steps = outer_iteration(
            self.images,
            self.labels,
            network,
            self.optimizers(),
            self.loop,
            outer=self.current_epoch,
            real_batches=self._draw,
            generator=self.generator,
            bounds=self._bounds() if self.loop.clamp else None,
        )
        losses, averaged, contrast = zip(*steps, strict=True)
        self.log("matching/averaged", torch.stack(averaged).mean(), on_step=False, on_epoch=True)
        self.log("matching/contrastive_share", sum(contrast) / len(steps), on_epoch=True)
        return torch.stack(losses).mean()

    def on_train_epoch_end(self) -> None:
        done = self.current_epoch + 1
        if done in self._due:
            self.snapshots[done] = self.images.detach().cpu().clone()
        late = self.time_budget is not None and time.monotonic() - self._begin > self.time_budget
        if late:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["condensation"] = {
            "generator": self.generator.get_state(),
            "snapshots": dict(self.snapshots),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["condensation"]
        self.generator.set_state(kept["generator"])
        self.snapshots = dict(kept["snapshots"])

    def _draw(self) -> list[Tensor]:
        return [
            self.real.draw(label, self.loop.real_batch, self.generator).to(self.images)
            for label in range(len(self.real.classes))
        ]

    def _bounds(self) -> tuple[Tensor, Tensor]:
        mean, std = (
            self.images.new_tensor(v)[:, None, None] for v in (self.real.mean, self.real.std)
        )
        return (0 - mean) / std, (1 - mean) / std


def snapshot_times(outer_loop: int, most: int) -> set[int]:
    """Iterations after which the set is kept: dense at first, where most happens."""
    if most < 1:
        return set()
    ratios = [i / most for i in range(1, most + 1)]
    return {max(1, round(outer_loop**ratio)) for ratio in ratios}
