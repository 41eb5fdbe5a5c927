"""Options that commands of all packages share (standard library only: `--help` imports this)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_core.checks import OptionError, require_at_least, require_positive
from cl_core.commands.options import Options

__all__ = ["DemoOptions", "TrainerConfig"]

_DEVICES = re.compile(r"auto|-1|\d+(,\d+)*,?")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(Options):
    """How a training runs: where, how precisely, how often it saves and reports.

    Nothing here defines the result of a run beyond rounding, so a run may be resumed with other
    values. The names and values of the first five are Lightning's.

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
        tensorboard: Write TensorBoard curves into ``OUT/tensorboard``.
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
    progress: bool = True
    deterministic: bool = False

    def __post_init__(self) -> None:
        require_at_least(
            1, **{"trainer.num_nodes": self.num_nodes, "trainer.log_every": self.log_every}
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
