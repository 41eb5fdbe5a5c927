"""What is watched while a model trains: the loss, collapse of the embedding, the time."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor

from cl_core.errors import TrainingError
from cl_core.runs import Run
from cl_core.training.checkpoints import last_good

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer

__all__ = ["Collapse", "Recorder"]


class Recorder(Checkpoint):
    """Writes the row of each epoch and stops the run when the loss is not finite.

    It is a ``Checkpoint`` only for Lightning to call it after the module's own epoch hook.

    Args:
        run: Where to.
        collapse: The gauge of the embedding.
        check_every: Steps between looks at the loss on an accelerator, where a look waits for
            the device; on a CPU every step is looked at.
    """

    def __init__(self, run: Run, collapse: Collapse, *, check_every: int) -> None:
        self.run = run
        self.collapse = collapse
        self.check_every = check_every
        self.row: dict[str, float] = {}
        self._losses: list[Tensor] = []  # since the last look
        self._sum, self._count = 0.0, 0
        self.started = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = True
        if self.run.writes:  # a run killed after its last checkpoint left rows to be made again
            self.run.history.truncate(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()
        self._losses.clear()
        self._sum, self._count = 0.0, 0
        self._rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            # Lightning hands over the loss as it is differentiated: divided among the batches
            # whose gradients are summed.
            self._losses.append(loss.detach() * trainer.accumulate_grad_batches)
            if loss.device.type == "cpu" or len(self._losses) >= self.check_every:
                self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {name: v for name, v in logged.items() if not name.endswith(("_step", "_epoch"))}
        if self._count:
            mean = torch.tensor(self._sum / self._count, device=pl_module.device)
            row["train/loss"] = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        row |= self.collapse.measure(trainer.current_epoch + 1, trainer.max_epochs)
        self.row = {
            "epoch": trainer.current_epoch + 1,
            "seconds": round(time.perf_counter() - self._start, 6),
            "learning_rate": self._rate,
            **row,
        }
        if self.run.writes:
            self.run.history.append(self.row)
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)

    def _look(self, trainer: Trainer) -> None:
        if not self._losses:
            return
        losses = torch.stack(self._losses).double().cpu()
        self._losses.clear()
        self._sum, self._count = self._sum + float(losses.sum()), self._count + len(losses)
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            first = int(bad[0])
            step = trainer.global_step - len(losses) + first + 1
            raise TrainingError(
                f"the loss is {float(losses[first])} at step {step}, epoch "
                f"{trainer.current_epoch + 1}: lower the learning rate or look for data that are "
                f"not finite; {last_good(self.run)}"
            )


class Collapse(Callback):
    r"""Measures whether the embedding still spans its space.

    A module takes part by returning ``{"loss": loss, "embedding": z}`` from ``training_step``,
    with ``z`` of shape ``(n, d)``. Two figures enter the history, from the last ``rows`` rows of
    an epoch: ``collapse/effective_rank``, at most ``d``, and ``collapse/feature_std``, the mean
    over the dimensions of the standard deviation of the rows scaled to unit length, about
    $1/\sqrt d$ when they spread evenly and 0 when they have become one point. A run warns once
    when either says that at most one direction is left.

    Args:
        rows: How many rows are looked at; they stay on their device until then.
    """

    def __init__(self, rows: int = 512) -> None:
        self.rows = rows
        self._batches: deque[Tensor] = deque()
        self._held = 0
        self._warned = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        z = outputs.get("embedding") if isinstance(outputs, Mapping) else None
        if not isinstance(z, Tensor):
            return
        self._batches.append(z.detach()[-self.rows :])
        self._held += len(self._batches[-1])
        while self._held - len(self._batches[0]) >= self.rows:
            self._held -= len(self._batches.popleft())

    def measure(self, epoch: int, epochs: int | None) -> dict[str, float]:
        """The two figures, at 100 epochs of a run or so; nothing if no embedding was seen."""
        every = max(1, (epochs or 0) // 100)
        if not self._batches or (epoch % every and epoch not in (1, epochs)):
            return {}
        from cl_core.evaluation.spectrum import effective_rank, feature_std

        z = torch.cat(list(self._batches))[-self.rows :].float().cpu()
        self._batches.clear()
        self._held = 0
        if len(z) < 2 or not bool(z.isfinite().all()):
            return {}
        rank, spread = float(effective_rank(z)), float(feature_std(z))
        if not self._warned and (rank < 1.5 or spread < 0.05 / math.sqrt(z.shape[1])):
            self._warned = True
            warnings.warn(
                f"the embedding has collapsed at epoch {epoch}: effective rank {rank:.2f} of "
                f"{min(z.shape)}, feature std {spread:.1e}; what it learns from here is useless",
                stacklevel=2,
            )
        return {"collapse/effective_rank": rank, "collapse/feature_std": spread}
