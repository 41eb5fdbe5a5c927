"""The lesion methods side by side on real dermoscopic images: a table in ``results/lesions.md``.

    uv run python benchmarks/lesions.py DATA OUT [--epochs 90] [--seeds 0 1 2] [--methods ...]

DATA is a table with splits, such as the HAM10000 part described in docs/lesions.md. Trains with the
recipe ``supercon-small``; started again, it keeps the trainings that are finished. One thread.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cl_core.commands.outcome import text_table
from cl_core.report.figures import MISSING
from cl_medical.lesions import BenchmarkConfig, benchmark
from cl_medical.lesions.config import BENCHMARKED

FIGURES = ("macro_f1", "balanced_accuracy", "auroc", "mel/auroc", "mel/average_precision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(BENCHMARKED))
    asked = parser.parse_args()
    config = BenchmarkConfig(
        recipe="supercon-small",
        data=asked.data,
        out=asked.out,
        epochs=asked.epochs,
        seeds=tuple(asked.seeds),
        methods=tuple(asked.methods),
        cache=asked.out.with_name(f"{asked.out.name}-pixels"),
        trainer={"accelerator": "cpu", "devices": 1, "tensorboard": False},
        resume=(asked.out / "config.yaml").is_file(),
    )
    metrics = benchmark(config).metrics
    rows = [
        {"method": method} | {figure: cell(metrics, f"{method}/{figure}") for figure in FIGURES}
        for method in asked.methods
    ]
    print("\n".join(text_table(rows)))


def cell(metrics: dict[str, float], name: str) -> str:
    if name not in metrics:
        return MISSING
    text = f"{metrics[name]:.3f} ± {metrics[f'{name}_std']:.3f}"
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return text if low is None else f"{text} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
