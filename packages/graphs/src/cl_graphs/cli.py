"""The program ``cl-graphs``: its verbs, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from cl_core.commands.cli import run_program
from cl_graphs.config import (
    DemoConfig,
    EmbedConfig,
    EvaluateConfig,
    PretrainConfig,
    RobustnessConfig,
)

__all__ = ["COMMANDS", "LISTS", "main"]

COMMANDS = {
    "pretrain": (PretrainConfig, "cl_graphs.pipeline:pretrain"),
    "evaluate": (EvaluateConfig, "cl_graphs.pipeline:evaluate"),
    "embed": (EmbedConfig, "cl_graphs.pipeline:embed"),
    "robustness": (RobustnessConfig, "cl_graphs.pipeline:robustness"),
    "demo": (DemoConfig, "cl_graphs.pipeline:demo"),
}

LISTS = {"data": "cl_graphs.data:data_rows"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cl-graphs``; returns its exit code."""
    return run_program("cl-graphs", COMMANDS, argv, lists=LISTS)


if __name__ == "__main__":
    raise SystemExit(main())
