"""The program ``cl-vision``: its verbs, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from cl_core.commands.cli import run_program
from cl_vision.condensation.config import AssessConfig, CondenseConfig, ContinualConfig
from cl_vision.config import (
    DemoConfig,
    EmbedConfig,
    EvaluateConfig,
    PretrainConfig,
    SpectrumConfig,
    TheoryConfig,
)

__all__ = ["COMMANDS", "LISTS", "main"]

COMMANDS = {
    "pretrain": (PretrainConfig, "cl_vision.pipeline:pretrain"),
    "evaluate": (EvaluateConfig, "cl_vision.pipeline:evaluate"),
    "embed": (EmbedConfig, "cl_vision.pipeline:embed"),
    "spectrum": (SpectrumConfig, "cl_vision.pipeline:spectrum"),
    "theory": (TheoryConfig, "cl_vision.pipeline:theory"),
    "condense": (CondenseConfig, "cl_vision.condensation.pipeline:condense"),
    "assess": (AssessConfig, "cl_vision.condensation.pipeline:assess"),
    "continual": (ContinualConfig, "cl_vision.condensation.pipeline:continual"),
    "demo": (DemoConfig, "cl_vision.pipeline:demo"),
}

LISTS = {"data": "cl_vision.data:data_rows", "backbones": "cl_core.networks.trunks:backbone_rows"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cl-vision``; returns its exit code."""
    return run_program("cl-vision", COMMANDS, argv, lists=LISTS)


if __name__ == "__main__":
    raise SystemExit(main())
