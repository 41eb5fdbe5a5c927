"""What a user sees while a model trains: a bar on a terminal or in a notebook, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback, Checkpoint

from cl_core.commands.terminal import in_notebook, tell

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer
    from rich.progress import Progress, TaskID

__all__ = ["ShowBar", "ShowLines", "ShowNotebook", "show_progress"]


class ShowLines(Checkpoint):
    """One line after the first epoch, the last, and whenever ``pause`` seconds have passed.

    It is a ``Checkpoint`` only for Lightning to call it after the recorder.
    """

    def __init__(self, latest: Callable[[], Mapping[str, float]], pause: float = 15.0) -> None:
        self.latest = latest
        self.pause = pause
        self._told = -float("inf")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin, self._first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now, epoch = time.monotonic(), trainer.current_epoch + 1
        if epoch != trainer.max_epochs and now - self._told < self.pause:
            return
        self._told = now
        each = (now - self._begin) / (epoch - self._first)
        left = each * ((trainer.max_epochs or epoch) - epoch)
        loss = self.latest().get("train/loss")
        tell(
            f"epoch {epoch}/{trainer.max_epochs}"
            + (f"  loss {loss:.4g}" if loss is not None else "")
            + f"  {each:.3g} s an epoch"
            + (f"  {_span(left)} left" if left >= 1 else "")
        )


class ShowBar(Callback):
    """A bar over all steps of the run, drawn at most ten times a second."""

    def __init__(self, latest: Callable[[], Mapping[str, float]]) -> None:
        self.latest = latest
        self._bar: Progress | None = None
        self._drawn = -float("inf")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        steps = trainer.num_training_batches * (trainer.max_epochs or 0)
        total = None if steps in (0, float("inf")) else float(steps)
        self._task: TaskID = self._bar.add_task(_text(trainer, self.latest()), total=total)
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None and time.monotonic() - self._drawn >= 0.1:
            self._draw(trainer, batch_idx + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, 0)
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _draw(self, trainer: Trainer, batches: int) -> None:
        if self._bar is None:
            return
        self._drawn = time.monotonic()
        done = trainer.current_epoch * trainer.num_training_batches + batches
        self._bar.update(
            self._task, completed=done, description=_text(trainer, self.latest()), refresh=True
        )

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ShowNotebook(Callback):
    """A bar in the output of a notebook's cell, drawn at most twice a second."""

    def __init__(self, latest: Callable[[], Mapping[str, float]]) -> None:
        self.latest = latest
        self._handle: Any = None
        self._drawn = -float("inf")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from IPython import display

        show: Any = display.display
        self._handle = show(self._bar(trainer, 0), display_id=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._drawn >= 0.5:
            self._draw(trainer, batch_idx + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, 0)

    def _draw(self, trainer: Trainer, batches: int) -> None:
        self._drawn = time.monotonic()
        if self._handle is not None:
            self._handle.update(self._bar(trainer, batches))

    def _bar(self, trainer: Trainer, batches: int) -> Any:
        from IPython import display

        steps = trainer.num_training_batches * (trainer.max_epochs or 0)
        done = trainer.current_epoch * trainer.num_training_batches + batches
        known = f' value="{done}" max="{steps}"' if 0 < steps < float("inf") else ""
        page: Any = display.HTML
        return page(f"<progress{known}></progress> {escape(_text(trainer, self.latest()))}")


def show_progress(latest: Callable[[], Mapping[str, float]]) -> Callback:
    """What suits the place: a bar in a notebook or on a terminal, else lines for a log.

    Args:
        latest: Gives the figures of the epoch that ended.
    """
    if in_notebook():
        return ShowNotebook(latest)
    return (ShowBar if sys.stderr.isatty() else ShowLines)(latest)


def _text(trainer: Trainer, latest: Mapping[str, float]) -> str:
    """The epoch and the loss of the one before."""
    loss = latest.get("train/loss")
    epoch = min(trainer.current_epoch + 1, trainer.max_epochs or 1)
    text = f"epoch {epoch}/{trainer.max_epochs}"
    return text if loss is None else f"{text}  loss {loss:.4g}"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
