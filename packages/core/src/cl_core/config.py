"""Options that every training command shares (standard library only: `--help` imports this)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["TrainerConfig", "flat_options"]

_PRECISIONS = ("64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
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
    precision: str = "32-true"
    gradient_clip: float | None = None
    checkpoint_every: int = 0
    log_every: int = 50
    tensorboard: bool = True
    progress: bool = True
    deterministic: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.devices, int) and self.devices < 1:
            raise ValueError(f"trainer.devices must be at least 1, got {self.devices}")
        if self.num_nodes < 1:
            raise ValueError(f"trainer.num_nodes must be at least 1, got {self.num_nodes}")
        if "spawn" in self.strategy or "fork" in self.strategy or "notebook" in self.strategy:
            raise ValueError(
                f"trainer.strategy {self.strategy!r} copies a running process, which cannot share "
                "a run directory: use ddp"
            )
        if self.precision not in _PRECISIONS:
            known = ", ".join(_PRECISIONS)
            raise ValueError(f"trainer.precision must be one of {known}, got {self.precision!r}")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(f"trainer.gradient_clip must be positive, got {self.gradient_clip}")
        if self.checkpoint_every < 0:
            raise ValueError(
                "trainer.checkpoint_every must be 0 (automatic) or more epochs, "
                f"got {self.checkpoint_every}"
            )
        if self.log_every < 1:
            raise ValueError(f"trainer.log_every must be at least 1, got {self.log_every}")


def flat_options(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested options their dotted names, as the command line spells them."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= flat_options(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
