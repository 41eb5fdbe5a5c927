"""The program ``cl-medical``: its verbs, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import cl_medical.config as both
import cl_medical.segmentation.config as segmentation
from cl_core.commands.cli import CommandTable, run_program
from cl_medical.lesions.config import (
    BenchmarkConfig,
    DemoConfig,
    EvaluateConfig,
    PredictConfig,
    PrepareConfig,
    TrainConfig,
)

__all__ = ["COMMANDS", "LISTS", "main"]

COMMANDS: CommandTable = {
    "lesions": {
        "prepare": (PrepareConfig, "cl_medical.lesions.pipeline:prepare"),
        "train": (TrainConfig, "cl_medical.lesions.pipeline:train"),
        "evaluate": (EvaluateConfig, "cl_medical.lesions.pipeline:evaluate"),
        "predict": (PredictConfig, "cl_medical.lesions.pipeline:predict"),
        "benchmark": (BenchmarkConfig, "cl_medical.lesions.pipeline:benchmark"),
        "demo": (DemoConfig, "cl_medical.lesions.pipeline:demo"),
    },
    "segment": {
        "check": (segmentation.CheckConfig, "cl_medical.segmentation.pipeline:check"),
        "train": (segmentation.TrainConfig, "cl_medical.segmentation.pipeline:train"),
        "evaluate": (segmentation.EvaluateConfig, "cl_medical.segmentation.pipeline:evaluate"),
        "predict": (segmentation.PredictConfig, "cl_medical.segmentation.pipeline:predict"),
        "embed": (segmentation.EmbedConfig, "cl_medical.segmentation.pipeline:embed"),
        "extend": (segmentation.ExtendConfig, "cl_medical.segmentation.pipeline:extend"),
        "benchmark": (segmentation.BenchmarkConfig, "cl_medical.segmentation.pipeline:benchmark"),
        "demo": (segmentation.DemoConfig, "cl_medical.segmentation.pipeline:demo"),
    },
    "demo": (both.DemoConfig, "cl_medical.pipeline:demo"),
}

LISTS = {"backbones": "cl_core.networks.trunks:backbone_rows"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cl-medical``; returns its exit code."""
    return run_program("cl-medical", COMMANDS, argv, lists=LISTS)


if __name__ == "__main__":
    raise SystemExit(main())
