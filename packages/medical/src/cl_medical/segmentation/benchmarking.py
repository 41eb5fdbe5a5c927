"""All modes with several seeds on one manifest: runs, their table, and paired tests."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from cl_core.report.figures import MISSING
from cl_core.runs import Run
from cl_medical.segmentation.cache import VolumeCache
from cl_medical.segmentation.config import BenchmarkConfig, EvaluateConfig, TrainConfig
from cl_medical.segmentation.evaluating import evaluate_run
from cl_medical.segmentation.evaluation import paired_tests
from cl_medical.segmentation.modes import train_within
from cl_medical.segmentation.preparation import deal_splits
from cl_medical.segmentation.reading import open_manifest
from cl_medical.segmentation.summaries import read_case_scores

__all__ = ["Found", "benchmark_tables", "train_and_score"]


@dataclass(frozen=True)
class Found:
    """One mode with one seed.

    Attributes:
        metrics: Of `evaluate` on the test cases, and ``domain_silhouette`` of `train`.
        dice: Of each (domain, case, structure).
    """

    metrics: Mapping[str, float | None]
    dice: dict[tuple[str, str, str], float]


def train_and_score(config: BenchmarkConfig, run: Run) -> dict[str, list[Found]]:
    """Train and score what has not been yet."""
    cache = VolumeCache(config.cache)
    manifest = open_manifest(config.data, config.domains)
    # Splits are dealt once, by the first seed, so that all seeds are scored on the same cases.
    manifest = deal_splits(manifest, val=config.val, test=config.test, seed=config.seed)
    found: dict[str, list[Found]] = {mode: [] for mode in config.mode_names}
    for seed in range(config.seed, config.seed + config.seeds):
        for mode in config.mode_names:
            place = run.output(f"{mode}-{seed}")
            own = train_config(config, mode=mode, seed=seed, out=place)
            if not (place / "metrics.json").is_file():
                again = (place / "config.yaml").is_file()
                train_within(replace(own, resume=again), manifest, cache)
                run.begun()
            scored = place / "evaluate"
            if not (scored / "metrics.json").is_file():
                evaluate_run(
                    EvaluateConfig(run=place, overwrite=(scored / "config.yaml").is_file())
                )
            silhouette = Run.open(place).metrics().get("domain_silhouette")
            scores = read_case_scores(scored / "cases.csv")
            found[mode].append(
                Found(
                    {**Run.open(scored).metrics(), "domain_silhouette": silhouette},
                    {
                        (one.domain, one.case, name): figures.dice
                        for one in scores
                        for name, figures in one.structures.items()
                    },
                )
            )
    return found


def train_config(config: BenchmarkConfig, **own: Any) -> TrainConfig:
    """The options of one of a benchmark's trainings."""
    names = {field.name for field in fields(TrainConfig)} & {f.name for f in fields(config)}
    kept = {name: getattr(config, name) for name in names if name not in ("resume", "overwrite")}
    return TrainConfig(**{**kept, "recipe": None, **own})


def benchmark_tables(
    found: Mapping[str, list[Found]], reference: str
) -> tuple[dict[str, float], list[dict[str, object]], list[dict[str, object]]]:
    """Flat figures, a row a mode, and a row a mode compared with the reference."""
    metrics: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    for mode, runs in found.items():
        names = [n for n in runs[0].metrics if n == "dice" or n.endswith("/dice")]
        names = [n for n in names if n.count("/") <= 1] + ["domain_silhouette"]
        row: dict[str, object] = {"mode": mode}
        for name in names:
            values = [v for one in runs if (v := one.metrics.get(name)) is not None]
            if not values:
                row[name] = MISSING
                continue
            mean = statistics.mean(values)
            metrics[f"{mode}/{name}"] = mean
            row[name] = f"{mean:.3f}"
            if len(values) > 1:
                spread = statistics.stdev(values)
                metrics[f"{mode}/{name}_std"] = spread
                row[name] = f"{mean:.3f} ± {spread:.3f}"
        rows.append(row)
    tests: list[dict[str, object]] = []
    for mode, runs in found.items():
        if mode == reference or reference not in found:
            continue
        own = _pooled(runs)
        for domain, test in paired_tests(own, _pooled(found[reference])).items():
            if domain == "all":
                metrics[f"{mode}/p"] = test.p
            tests.append(
                {
                    "mode": mode,
                    "domain": domain,
                    "pairs": test.n,
                    "difference": f"{test.difference:+.4f}",
                    "p": f"{test.p:.3g}",
                }
            )
    return metrics, rows, tests


def _pooled(runs: list[Found]) -> dict[tuple[str, str, str], float]:
    """Dice of every seed, a pair a case, structure and seed."""
    return {
        (domain, f"{case}#{number}", structure): value
        for number, one in enumerate(runs)
        for (domain, case, structure), value in one.dice.items()
    }
