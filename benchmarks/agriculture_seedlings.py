"""CLAWS and its three ablations on real seedlings, through the commands of `cl-agriculture`.

    python benchmarks/agriculture_seedlings.py --data SEEDLINGS/labels.csv --seeds 0 1 2

Four arms at the recipe ``seedlings`` (64 pixels, a residual network of 0.31 million parameters, 30
epochs), each grouped by the recipe ``seedlings-groups`` (12 full components on 16 principal
components of the representation, fitted to the training images, measured on the test images).
``--labels missing-30`` or ``wrong-10`` trains with that share of the weak labels removed or
exchanged; the groups are compared with the true ones all the same. Every finished training is kept
in ``--work``, so that a stopped benchmark goes on. About 250 CPU seconds an arm on one thread.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl_agriculture import (
    ClusterConfig,
    MaskConfig,
    PretrainConfig,
    cluster,
    mask,
    pretrain,
)
from cl_agriculture.config import MODES
from cl_core.config import TrainerConfig

RESULTS = Path(__file__).parent / "results" / "agriculture_seedlings.md"
ARMS = {
    "simclr": "SimCLR",
    "mask_only": "SimCLR with masks",
    "supervised": "supervised SimCLR",
    "claws": "CLAWS",
}
FIGURES = ("nmi", "ari", "ami", "purity", "silhouette", "knn_accuracy")


def spoilt(data: Path, work: Path, kind: str, seed: int) -> Path:
    """Write a manifest whose training labels are partly missing or wrong, beside the true ones."""
    rows = list(csv.DictReader(data.open(encoding="utf-8")))
    classes = sorted({row["label"] for row in rows})
    what, _, share = kind.partition("-")
    rng = np.random.default_rng(seed)
    train = [k for k, row in enumerate(rows) if row["split"] == "train"]
    for k in rng.permutation(train)[: round(float(share) / 100 * len(train))]:
        place = classes.index(rows[k]["label"])
        other = classes[(place + int(rng.integers(1, len(classes)))) % len(classes)]
        rows[k]["weak"] = "" if what == "missing" else other
    path = work / f"{kind}-{seed}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "split", "true"])
        for row in rows:
            weak = row.get("weak", row["label"])
            table.writerow([row["image"], weak, row["split"], row["label"]])
    return path


def shared_masks(options: Any) -> Path:
    """Make the masks once for all arms."""
    out: Path = options.work / "masks"
    if not (out / "metrics.json").is_file():
        shutil.rmtree(out, ignore_errors=True)
        mask(MaskConfig(data=str(options.data), out=out, cache=options.work / "cache"))
    return out


def measure(arm: str, seed: int, options: Any) -> dict[str, float]:
    """Train and group once, unless it has been done."""
    kind = options.labels
    name = f"{arm}-{seed}" if kind == "all" else f"{arm}-{kind}-{seed}"
    done = options.work / f"{name}.json"
    if done.is_file():
        kept: dict[str, float] = json.loads(done.read_text())
        return kept
    data = options.data if kind == "all" else spoilt(options.data, options.work, kind, seed)
    out = options.work / name
    start = time.process_time()
    trained = pretrain(
        PretrainConfig(
            recipe="seedlings",
            mode=arm,  # type: ignore[arg-type]
            data=str(data),
            root=options.data.parent,
            masks=str(shared_masks(options)) if MODES[arm][1] else None,
            out=out,
            epochs=options.epochs,
            seed=seed,
            cache=options.work / "cache",
            overwrite=True,
            trainer=TrainerConfig(accelerator="cpu", devices=1, tensorboard=False, progress=False),
        )
    )
    groups = ClusterConfig(
        recipe="seedlings-groups",
        run=out,
        labels="auto" if kind == "all" else "true",
        seed=seed,
        overwrite=True,
    )
    found = cluster(groups).metrics
    figures = {name: float(found[name]) for name in FIGURES if name in found}
    figures["knn_accuracy"] = float(trained.metrics["knn_accuracy"])
    figures["cpu_s"] = time.process_time() - start
    done.write_text(json.dumps(figures))
    return figures


def cell(values: Sequence[float]) -> str:
    """Every seed, then the mean."""
    each = ", ".join(f"{value:.3f}" for value in values)
    return f"{each}; **{statistics.fmean(values):.3f}**" if len(values) > 1 else each


def main() -> None:
    """Run what is asked and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="manifest with image, label, split"
    )
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--labels", default="all", help="all, missing-30, wrong-10, ...")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--work", type=Path, default=Path("runs/agriculture_seedlings"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    lines = [
        "# CLAWS on seedlings",
        "",
        f"{options.epochs} epochs, seeds {', '.join(map(str, options.seeds))}, weak labels: "
        f"{options.labels}; 12 groups, figures of the 598 test images. Every seed, then the mean.",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()}, one thread; "
        "`python benchmarks/agriculture_seedlings.py`",
        "",
        "| method | " + " | ".join(FIGURES) + " |",
        "|---|" + "---|" * len(FIGURES),
    ]
    for arm in options.arms:
        rows = [measure(arm, seed, options) for seed in options.seeds]
        cells = [cell([row[name] for row in rows if name in row]) for name in FIGURES]
        lines.append(f"| {ARMS[arm]} | {' | '.join(cells)} |")
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
