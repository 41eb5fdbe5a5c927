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
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cl_core.config import TrainerConfig
from cl_medical.segmentation.config import EvaluateConfig, ExtendConfig, TrainConfig
from cl_medical.segmentation.hyper import LossHyper, NetworkHyper, VolumeHyper
from cl_medical.segmentation.pipeline import evaluate, extend, train

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


if __name__ == "__main__":
    main()
