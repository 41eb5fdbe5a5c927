"""When a training ends before its last epoch: no better figure for long, or no time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.callbacks import Checkpoint

from cl_core.commands.terminal import tell
from cl_core.errors import InputError

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer

__all__ = ["StopEarly", "StopInTime"]

# Figures of which less is better; of all others more is.
_LOSSES = ("loss", "error", "nll", "brier", "ece", "distance")


class StopEarly(Checkpoint):
    """Ends a training whose figure has not become better for ``patience`` epochs.

    Epochs that do not have the figure do not count. It is a ``Checkpoint`` only for Lightning to
    call it after the recorder; its state is saved, so that a resumed run ends where the
    uninterrupted one does.

    Args:
        figure: A column of the history.
        mode: Whether the best is its smallest or largest; ``auto`` goes by the name.
        patience: Epochs.
        latest: Gives the figures of the epoch that ended.
    """

    def __init__(
        self,
        figure: str,
        mode: Literal["auto", "min", "max"],
        patience: int,
        latest: Callable[[], Mapping[str, float]],
    ) -> None:
        self.figure = figure
        falls = figure.rpartition("/")[2].endswith(_LOSSES) if mode == "auto" else mode == "min"
        self.sign = -1.0 if falls else 1.0
        self.patience = patience
        self.latest = latest
        self.best: float | None = None
        self.waited = 0
        self.seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.waited = state_dict["best"], state_dict["waited"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.waited >= self.patience:  # the run that is resumed had ended already
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        row = self.latest()
        value = row.get(self.figure)
        self.seen += 1
        if value is None:
            if self.best is None and self.seen >= self.patience:
                known = ", ".join(name for name in row if name not in ("epoch", "seconds"))
                raise InputError(
                    f"--trainer.early_stopping {self.figure}: no epoch has such a figure; there "
                    f"are {known}"
                )
            return
        if self.best is None or self.sign * value > self.sign * self.best:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if trainer.strategy.broadcast(self.waited >= self.patience):
            trainer.should_stop = True
            if trainer.is_global_zero:
                tell(
                    f"stopped after epoch {trainer.current_epoch + 1}: {self.figure} has not been "
                    f"better than {self.best:.4g} for {self.waited} epochs"
                )


class StopInTime(Checkpoint):
    """Ends a training with the last epoch that there is time for; ``--resume`` goes on.

    Args:
        seconds: From the start of this process's training; the next epoch is taken to last as
            long as the longest so far.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.longest = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = self.before = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.monotonic()
        self.longest, self.before = max(self.longest, now - self.before), now
        epoch = trainer.current_epoch + 1
        late = epoch != trainer.max_epochs and now - self.start + self.longest > self.seconds
        if trainer.strategy.broadcast(late):  # clocks differ between ranks
            trainer.should_stop = True
            if trainer.is_global_zero:
                tell(f"stopped after epoch {epoch} of {trainer.max_epochs}: no time for another")
