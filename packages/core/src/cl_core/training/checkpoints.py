"""Checkpoints that appear complete or not at all, and load without running code."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from cl_core.errors import InputError, TrainingError
from cl_core.runs import Run, write_atomic

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer

__all__ = ["TRAINING_LOSS", "AtomicCheckpointIO", "KeepCheckpoints", "last_good", "restore_weights"]

# Recorded in config.yaml already, and apt to hold objects that a safe load refuses.
_HYPERPARAMETERS = (
    "hyper_parameters",
    "hparams_name",
    "hparams_type",
    "datamodule_hparams_name",
    "datamodule_hyper_parameters",
    "datamodule_hparams_type",
)


#: The figure that is logged for every training.
TRAINING_LOSS = "train/loss"


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside, flushes, renames; loads with ``weights_only=True``.

    Attributes:
        finished: How many epochs the checkpoint that was loaded had behind it; 0 before.
    """

    def __init__(self) -> None:
        self.finished = 0
        self._checked = False

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        state = {key: value for key, value in checkpoint.items() if key not in _HYPERPARAMETERS}
        # In memory first: torch tells of a full disk only as an "unexpected pos".
        buffer = io.BytesIO()
        torch.save(state, buffer)
        if not self._checked:
            _check_loads(buffer)
            self._checked = True
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with write_atomic(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        try:
            checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for one cause: not its own file
            raise InputError(f"{path} is damaged: start the run anew with --overwrite") from error
        if not isinstance(checkpoint, Mapping) or "state_dict" not in checkpoint:
            raise InputError(f"{path} is not a checkpoint: start the run anew with --overwrite")
        self.finished = _finished(checkpoint)
        return dict(checkpoint)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def restore_weights(module: torch.nn.Module, path: Path) -> None:
    """Give a module the weights of a checkpoint, such as the best of a training.

    Raises:
        InputError: If the file is damaged or of another module.
    """
    state = AtomicCheckpointIO().load_checkpoint(path)["state_dict"]
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} is the checkpoint of another module") from error


def _finished(checkpoint: Mapping[str, Any]) -> int:
    try:
        return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (KeyError, TypeError, ValueError):  # weights alone, or damaged: Lightning will tell
        return 0


def _check_loads(buffer: io.BytesIO) -> None:
    """Find out at the first epoch, not after the kill, that a run cannot be resumed."""
    buffer.seek(0)
    try:
        torch.load(buffer, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            "the module's state cannot be loaded safely: keep only tensors, numbers, strings, "
            f"lists and dictionaries in buffers and on_save_checkpoint ({error})"
        ) from error


class KeepCheckpoints(Checkpoint):
    """Keeps ``last.ckpt`` and the best of the checkpoints, ``best.ckpt``.

    Weights that are not finite are never saved, so the last checkpoint is a good one. The best by
    a figure other than the training loss is what a model is chosen by, and saved whenever it
    comes; by the loss, which falls with nearly every epoch, it is the best of those saved anyway.

    Args:
        run: Where to.
        every: Epochs between two checkpoints; 0 for after the first, the last, and whenever
            ``pause`` seconds have passed.
        latest: Gives the figures of the epoch that ended.
        monitor: The figure that tells the best.
        mode: Whether the best is its ``"min"`` or ``"max"``.
        accumulated: Batches to a step, with which alone a run is resumed.
        pause: See ``every``.
    """

    def __init__(
        self,
        run: Run,
        *,
        every: int,
        latest: Callable[[], Mapping[str, float]],
        monitor: str,
        mode: str,
        accumulated: int = 1,
        pause: float = 10.0,
    ) -> None:
        self.run = run
        self.accumulated = accumulated
        self.every = every
        self.latest = latest
        self.monitor = monitor
        self.mode = mode
        self.pause = pause
        self.best: float | None = None
        self.saved: int | None = None
        self._time = -float("inf")

    @property
    def best_path(self) -> Path:
        return self.run.checkpoint.with_name("best.ckpt")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "accumulated": self.accumulated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        before = state_dict.get("accumulated", 1)
        if before != self.accumulated:
            raise InputError(
                f"--resume: trainer.accumulate_grad_batches is {self.accumulated} but was {before}"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs or trainer.should_stop
        if self.every:
            due = last or epoch % self.every == 0
        else:
            due = last or time.monotonic() - self._time >= self.pause
        value = self.latest().get(self.monitor)
        better = value is not None and (
            self.best is None or (value < self.best if self.mode == "min" else value > self.best)
        )
        chosen = better and self.monitor != TRAINING_LOSS
        # Clocks differ between ranks, and saving is a joint act.
        if not trainer.strategy.broadcast(due or chosen):
            return
        if not _all_finite(pl_module):
            raise TrainingError(
                f"the weights are not finite after epoch {epoch}, step {trainer.global_step}: "
                f"lower the learning rate; {last_good(self.run)}"
            )
        if better:
            self.best = value
        trainer.save_checkpoint(self.run.checkpoint)
        if better and trainer.is_global_zero:
            _link(self.run.checkpoint, self.best_path)
        self.run.begun()
        self.saved = epoch
        self._time = time.monotonic()


def last_good(run: Run) -> str:
    """Tell where the last good checkpoint lies."""
    if run.checkpoint.exists():
        return f"the last good checkpoint is {run.checkpoint}"
    return "there is no checkpoint yet"


def _all_finite(module: torch.nn.Module) -> bool:
    sums = [p.detach().sum() for p in module.parameters() if p.is_floating_point()]
    # A sum is finite if its terms are, but for an overflow; only then look at every term.
    if not sums or all(bool(torch.isfinite(s)) for s in sums):
        return True
    return all(bool(torch.isfinite(p).all()) for p in module.parameters())


def _link(source: Path, target: Path) -> None:
    """Give ``source``, which is never written in place, a second name."""
    with write_atomic(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
