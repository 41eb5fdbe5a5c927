"""Options that commands of all packages share (standard library only: `--help` imports this)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_core.checks import OptionError, require_at_least, require_positive
from cl_core.commands.options import Options

__all__ = ["DemoOptions", "TrainerConfig"]

_TIME = re.compile(r"\d+:\d\d:\d\d:\d\d")
_DEVICES = re.compile(r"auto|-1|\d+(,\d+)*,?")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(Options):
    """How a training runs: where, how precisely, how often it saves and reports.

    Nothing here but ``accumulate_grad_batches`` and ``early_stopping`` defines the result of a run
    beyond rounding, so a run may be resumed with other values of the others. The names and values
    of the first five are Lightning's.

    Args:
        accelerator: ``auto`` (an accelerator if there is one), ``cpu``, ``gpu``, ``mps``, ``tpu``.
        devices: How many devices of one machine, ``auto`` for all of them, or their numbers as
            in ``0,1``. On a CPU: how many processes.
        num_nodes: Number of machines.
        strategy: How the devices share the work: ``auto``, ``ddp``, ``fsdp``, ...
        precision: One of ``64-true``, ``32-true``, ``16-true``, ``bf16-true``, ``16-mixed``,
            ``bf16-mixed``.
        gradient_clip: Largest Euclidean norm of the gradient; by default it is not clipped.
        checkpoint_every: Epochs between checkpoints. 0 saves when an epoch ends and at least ten
            seconds have passed since the last one, so that short epochs are not slowed.
        log_every: Training steps between two points of a curve in TensorBoard.
        tensorboard: Write TensorBoard curves into ``OUT/tensorboard``, where it is installed.
        loggers: More of them, as ``[wandb,mlflow]``: Weights & Biases, offline, into ``OUT/wandb``;
            MLflow into ``OUT/mlruns``.
        accumulate_grad_batches: Batches whose gradients are summed for a step of the optimiser. Of
            a contrastive loss each batch still has its own negatives alone.
        max_time: Days, hours, minutes and seconds, ``00:12:00:00``, in which to be done: the
            training ends with the last epoch there is time for, and ``--resume`` goes on.
        early_stopping: A figure of the history, such as ``train/loss``: the training ends when it
            has not become better for ``patience`` epochs.
        early_stopping_mode: Whether the best is its smallest or largest; by default the smallest of
            a loss or error, else the largest.
        patience: Epochs of ``early_stopping``.
        compile: Compile the networks (``torch.compile``): the first steps are slow, later ones
            faster.
        progress: Show a progress bar, or plain lines where standard error is not a terminal.
        deterministic: Refuse operations that give other bits on every run (GPUs; slower).
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"] = (
        "32-true"
    )
    gradient_clip: float | None = None
    checkpoint_every: int = 0
    log_every: int = 50
    tensorboard: bool = True
    loggers: tuple[Literal["wandb", "mlflow"], ...] = ()
    accumulate_grad_batches: int = 1
    max_time: str | None = None
    early_stopping: str | None = None
    early_stopping_mode: Literal["auto", "min", "max"] = "auto"
    patience: int = 10
    compile: bool = False
    progress: bool = True
    deterministic: bool = False

    @property
    def seconds(self) -> float | None:
        """What ``max_time`` allows."""
        if self.max_time is None:
            return None
        days, hours, minutes, seconds = map(int, self.max_time.split(":"))
        return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds

    def __post_init__(self) -> None:
        counts = ("num_nodes", "log_every", "accumulate_grad_batches", "patience")
        require_at_least(1, **{f"trainer.{name}": getattr(self, name) for name in counts})
        if self.max_time is not None and not _TIME.fullmatch(self.max_time):
            raise OptionError(
                "trainer.max_time must be days:hours:minutes:seconds as in 00:12:00:00, got "
                f"{self.max_time!r}"
            )
        require_positive(**{"trainer.gradient_clip": self.gradient_clip})
        if isinstance(self.devices, int):
            require_at_least(1, **{"trainer.devices": self.devices})
        elif not _DEVICES.fullmatch(self.devices):
            raise OptionError(
                "trainer.devices must be a number, auto, or the devices' numbers as in 0,1, got "
                f"{self.devices!r}"
            )
        if any(word in self.strategy for word in ("spawn", "fork", "notebook")):
            raise OptionError(
                f"trainer.strategy {self.strategy!r} copies a running process, which cannot share "
                "a run directory: use ddp"
            )
        if self.checkpoint_every < 0:
            raise OptionError(
                "trainer.checkpoint_every must be 0 (automatic) or more epochs, "
                f"got {self.checkpoint_every}"
            )


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """What every demo takes; a package's own adds how long it may train, or how much it draws.

    Args:
        out: Where to write all that the demo makes, the report last.
        seed: Seed of everything.
        overwrite: Replace an earlier demo in `out`.
        trainer: Devices, precision, checkpoints.
    """

    out: Path
    seed: int = 0
    overwrite: bool = True
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        require_at_least(0, seed=self.seed)
