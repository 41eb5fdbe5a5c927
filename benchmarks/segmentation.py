"""Modes of training, a domain added, a longer run: tables on real MR volumes of several domains.

    uv run python benchmarks/segmentation.py modes DATA OUT --seed 0 --modes individual transfer
    uv run python benchmarks/segmentation.py extend DATA OUT --seed 0
    uv run python benchmarks/segmentation.py long DATA OUT --seed 0 --modes contrast
    uv run python benchmarks/segmentation.py write DATA OUT

DATA is a manifest with the domains below, each case in a split. ``modes`` and ``extend`` train 300
steps a network, ``long`` 1,500; ``extend`` starts from the mode ``contrast``. The network is that
of the recipe ``small``, samples are slices of 64 x 64 voxels, 12 a step, validated every 150
steps. Started again, a job keeps what is finished. ``write`` makes ``results/segmentation.md`` of
what is there. One thread.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cl_core.config import TrainerConfig
from cl_core.report.figures import MISSING
from cl_medical.segmentation.config import MODES, EvaluateConfig, ExtendConfig, TrainConfig
from cl_medical.segmentation.hyper import LossHyper, NetworkHyper, VolumeHyper
from cl_medical.segmentation.pipeline import evaluate, extend, train

RESULTS = Path(__file__).parent / "results" / "segmentation.md"
ABOUT = (
    "`benchmarks/segmentation.py` on four sets of real MR volumes: 24, 5 and 8 training cases and\n"
    "28, 3 and 7 test cases; 8 and 6 of the one that is added. Filters 16 32 64 128, 12 slices of\n"
    "64 x 64 a step, the better of two validations. Cells: the seeds in order. CPU seconds are\n"
    "those of the training with its validations, one thread of a shared two-core machine."
)
DOMAINS = ("hippocampus", "lumbar_t2", "lumbar_dixon")
ADDED = "cardiac_cine"
QUIET = TrainerConfig(accelerator="cpu", devices=1, progress=False, tensorboard=False)
SAMPLES: dict[str, Any] = {"batch_size": 12, "steps": 150, "epochs": 2}
NETWORK: dict[str, Any] = {
    "network": NetworkHyper(filters=(16, 32, 64, 128)),
    "volumes": VolumeHyper(patch=(64, 64)),
    **SAMPLES,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("modes", "extend", "long", "write"))
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", nargs="+", default=["contrast", "domain_norm", "shared"])
    parser.add_argument("--class_weights", default="none", choices=("none", "inverse"))
    parser.add_argument("--steps", type=int, default=1500)
    asked = parser.parse_args()
    seed, place = asked.seed, asked.out / f"seed-{asked.seed}"
    common = {"data": asked.data, "seed": seed, "cache": asked.out / "volumes", "trainer": QUIET}
    three = {**common, **NETWORK, "domains": ",".join(DOMAINS)}
    if asked.job == "modes":
        for mode in asked.modes:
            make(train, TrainConfig, place / mode, **three, mode=mode)
            score(place / mode)
    elif asked.job == "extend":
        make(train, TrainConfig, place / "contrast", **three, mode="contrast")
        extend_by_one(place, common)
    elif asked.job == "long":
        three["epochs"] = asked.steps // SAMPLES["steps"]
        loss = LossHyper(class_weights=asked.class_weights)
        for mode in asked.modes:
            run = place / f"long-{mode}-{asked.class_weights}"
            make(train, TrainConfig, run, **three, mode=mode, loss=loss)
            score(run)
    else:
        write_page(asked.out)


def extend_by_one(place: Path, common: dict[str, Any]) -> None:
    """Teach the run of the mode `contrast` a fourth domain in two ways; train it alone as well."""
    old = place / "contrast"
    own = {**common, **SAMPLES, "domains": ADDED}
    make(extend, ExtendConfig, place / "norm-and-head", **own, run=old)
    make(extend, ExtendConfig, place / "everything", **own, run=old, unfreeze="all")
    alone = {**common, **NETWORK, "domains": ADDED}
    make(train, TrainConfig, place / "alone", **alone, mode="shared")
    for name in ("norm-and-head", "everything"):
        score(place / name, "new", data=common["data"], domains=ADDED)
        score(place / name, "old", data=common["data"], domains=",".join(DOMAINS), masks=True)
    score(place / "alone", "new")
    score(old, "old", masks=True)


def make(verb: Callable[[Any], Any], options: type[Any], out: Path, **own: Any) -> None:
    """Run a training, or go on with it; its CPU seconds go to a file beside the run."""
    if (out / "metrics.json").is_file():
        return
    config = options(out=out, resume=(out / "config.yaml").is_file(), **own)
    spent = out.with_name(f"{out.name}.cpu")
    before = float(spent.read_text()) if config.resume and spent.is_file() else 0.0
    began = time.process_time()
    try:
        verb(config)
    finally:
        spent.parent.mkdir(parents=True, exist_ok=True)
        spent.write_text(f"{before + time.process_time() - began:.1f}\n")
    print(f"{out.name}: {spent.read_text().strip()} CPU s", flush=True)


def score(run: Path, name: str = "evaluate", **own: Any) -> None:
    """Score the test cases of a run, unless that was done."""
    out = run / name
    if (out / "metrics.json").is_file():
        return
    again = (out / "config.yaml").is_file()
    found = evaluate(EvaluateConfig(run=run, out=out, overwrite=again, device="cpu", **own))
    dice = {n: v for n, v in found.metrics.items() if n == "dice" or n.endswith("/dice")}
    told = ", ".join(f"{n} {v:.3f}" for n, v in dice.items() if n.count("/") < 2)
    print(f"{run.name}/{name}: {told}", flush=True)


def figures(run: Path, name: str = "evaluate") -> dict[str, float]:
    """Test figures of a run, its silhouette and CPU seconds; empty if it is not finished."""
    scores = run / name / "metrics.json"
    if not scores.is_file():
        return {}
    found: dict[str, float] = dict(json.loads(scores.read_text())["metrics"])
    own = json.loads((run / "metrics.json").read_text())["metrics"]
    kept = {k: own[k] for k in ("domain_silhouette", "trained_share") if own.get(k) is not None}
    spent = run.with_name(f"{run.name}.cpu")
    return {**found, **kept, "cpu": float(spent.read_text()) if spent.is_file() else math.nan}


def row(title: str, runs: list[dict[str, float]], columns: dict[str, str]) -> dict[str, object]:
    """One line of a table: each figure of each seed, in their order."""
    cells: dict[str, object] = {"": title}
    for name, shown in columns.items():
        form = "{:.0f}" if name == "cpu" else "{:.4f}" if name == "trained_share" else "{:.3f}"
        values = [form.format(one[name]) if name in one else MISSING for one in runs]
        cells[shown] = " / ".join(values)
    return cells


def write_page(out: Path) -> None:
    """Write the tables of what is finished, and say what is not."""
    seeds = sorted(int(one.name.removeprefix("seed-")) for one in out.glob("seed-*"))
    places = [out / f"seed-{seed}" for seed in seeds]
    dice = {f"{name}/dice": name for name in DOMAINS}
    columns = {**dice, "domain_silhouette": "silhouette", "cpu": "CPU s"}
    groups: list[tuple[str, dict[str, str], list[tuple[str, list[dict[str, float]]]]]] = [
        (
            "Dice of the test cases, 300 steps a network",
            columns,
            [(mode, [figures(place / mode) for place in places]) for mode in MODES],
        ),
        (
            f"{ADDED} added to the mode `contrast`, 300 steps",
            {f"{ADDED}/dice": ADDED, "trained_share": "share trained", "cpu": "CPU s"},
            [
                (name, [figures(place / name, "new") for place in places])
                for name in ("norm-and-head", "everything", "alone")
            ],
        ),
        (
            "The old domains before and after",
            dice,
            [
                (name, [figures(place / name, "old") for place in places])
                for name in ("contrast", "norm-and-head", "everything")
            ],
        ),
        (
            "1,500 steps a network",
            columns,
            [
                (run.removeprefix("long-"), [figures(place / run) for place in places])
                for run in sorted({one.name for p in places for one in p.glob("long-*[a-z]")})
                if any((place / run).is_dir() for place in places)
            ],
        ),
    ]
    told = ", ".join(map(str, seeds))
    lines = ["# Segmentation of several domains in one network", "", f"{ABOUT} Seeds {told}.", ""]
    missing: list[str] = []
    for title, shown, rows in groups:
        done = [(name, runs) for name, runs in rows if any(runs)]
        missing += [f"{title}: {name}" for name, runs in rows if not any(runs)]
        if not rows:
            missing.append(title)
        if done:
            table = [row(name, runs, shown) for name, runs in done]
            lines += [f"## {title}", "", *markdown(table), ""]
    if missing:
        lines += ["## Not run", "", *(f"- {one}" for one in missing), ""]
    RESULTS.write_text("\n".join(lines), "utf-8")


def markdown(rows: list[dict[str, object]]) -> list[str]:
    keys = list(rows[0])
    head = [f"| {' | '.join(keys)} |", f"|{'---|' * len(keys)}"]
    return head + [f"| {' | '.join(str(one[key]) for key in keys)} |" for one in rows]


if __name__ == "__main__":
    main()
