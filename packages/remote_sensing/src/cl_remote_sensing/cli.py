"""The program ``cl-remote-sensing``: its verbs, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from cl_core.commands.cli import run_program
from cl_remote_sensing.config import (
    DemoConfig,
    EvaluateConfig,
    FinetuneConfig,
    PredictConfig,
    PretrainConfig,
)

__all__ = ["COMMANDS", "LISTS", "main"]

COMMANDS = {
    "pretrain": (PretrainConfig, "cl_remote_sensing.pipeline:pretrain"),
    "finetune": (FinetuneConfig, "cl_remote_sensing.pipeline:finetune"),
    "evaluate": (EvaluateConfig, "cl_remote_sensing.pipeline:evaluate"),
    "predict": (PredictConfig, "cl_remote_sensing.pipeline:predict"),
    "demo": (DemoConfig, "cl_remote_sensing.pipeline:demo"),
}

LISTS = {"backbones": "cl_remote_sensing.networks.smp_layout:encoder_rows"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cl-remote-sensing``; returns its exit code."""
    return run_program("cl-remote-sensing", COMMANDS, argv, lists=LISTS)


if __name__ == "__main__":
    raise SystemExit(main())
