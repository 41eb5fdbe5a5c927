"""The program ``cl-agriculture``: its verbs, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from cl_agriculture.config import (
    ClusterConfig,
    DemoConfig,
    EmbedConfig,
    ExploreConfig,
    MaskConfig,
    PrepareConfig,
    PretrainConfig,
    ScoreConfig,
)
from cl_core.commands.cli import run_program

__all__ = ["COMMANDS", "LISTS", "main"]

COMMANDS = {
    "prepare": (PrepareConfig, "cl_agriculture.pipeline:prepare"),
    "mask": (MaskConfig, "cl_agriculture.pipeline:mask"),
    "pretrain": (PretrainConfig, "cl_agriculture.pipeline:pretrain"),
    "embed": (EmbedConfig, "cl_agriculture.pipeline:embed"),
    "cluster": (ClusterConfig, "cl_agriculture.grouping:cluster"),
    "explore": (ExploreConfig, "cl_agriculture.grouping:explore"),
    "score": (ScoreConfig, "cl_agriculture.grouping:score"),
    "demo": (DemoConfig, "cl_agriculture.pipeline:demo"),
}

LISTS = {"backbones": "cl_core.networks.trunks:backbone_rows"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cl-agriculture``; returns its exit code."""
    return run_program("cl-agriculture", COMMANDS, argv, lists=LISTS)


if __name__ == "__main__":
    raise SystemExit(main())
