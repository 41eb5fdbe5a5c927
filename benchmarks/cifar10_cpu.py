"""SimCLR, DirectCLR, MoCo v2 and HCSC on a part of CIFAR-10, small enough for a processor.

    python benchmarks/cifar10_cpu.py --data CIFAR10_FOLDER --seeds 0 1 2

``CIFAR10_FOLDER`` has ``train`` and ``test`` with a folder of JPEG or PNG files a class. The first
500 training and 200 test files of each class are taken: 5,000 images and 2,000. Every method trains
``resnet-16-32-64-256`` (four stages of one block, a stem of stride 2) for 20 epochs at batch 256
through ``cl-vision``'s own commands; writes ``benchmarks/results/cifar10_cpu.md``. About 90 seconds
of one core a training. The settings were fixed before and are not tuned on these figures.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from cl_core.config import TrainerConfig
from cl_core.runs import Run
from cl_vision import EvaluateConfig, PretrainConfig, evaluate, pretrain
from cl_vision.hyper import DirectCLRHyper, HCSCHyper, MoCoHyper, SimCLRHyper

RESULTS = Path(__file__).parent / "results" / "cifar10_cpu.md"
QUEUE: dict[str, Any] = {"dim": 128, "queue": 1536, "momentum": 0.99, "projector_norm": True}
METHODS: dict[str, dict[str, Any]] = {
    "SimCLR, no projector": {
        "method": "simclr",
        "simclr": SimCLRHyper(projector="none", negatives="cross"),
    },
    "SimCLR, two-layer projector": {
        "method": "simclr",
        "simclr": SimCLRHyper(hidden=256, dim=128, negatives="cross"),
    },
    "DirectCLR, d0 = 64": {"method": "directclr", "directclr": DirectCLRHyper(d0=64)},
    "MoCo v2": {"method": "moco", "moco": MoCoHyper(**QUEUE), "learning_rate": 0.06},
    "HCSC": {"method": "hcsc", "hcsc": HCSCHyper(**QUEUE, warmup_epochs=5), "learning_rate": 0.06},
}
FIGURES = {
    "linear_accuracy": "linear probe %",
    "knn_accuracy": "kNN %",
    "ami": "AMI",
    "effective_rank": "effective rank",
}


def write_manifest(data: Path, target: Path, counts: Mapping[str, int]) -> None:
    """List the first files of each class, so many of each split."""
    lines = []
    for split, count in counts.items():
        for folder in sorted(p for p in (data / split).iterdir() if p.is_dir()):
            files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".png"))
            lines += [(file.resolve(), folder.name, split) for file in files[:count]]
    with target.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "split"), *lines])


def train_and_measure(
    name: str, manifest: Path, work: Path, seed: int, epochs: int
) -> dict[str, float]:
    """Train once and measure the representation."""
    out = work / f"{'-'.join(name.lower().replace(',', '').split())}-{seed}"
    options: dict[str, Any] = {
        "augmentation": "moco",  # the same views for all
        "learning_rate": 0.1,
        **METHODS[name],
    }
    if "hcsc" in options and epochs <= 5:
        options["hcsc"] = HCSCHyper(**QUEUE, warmup_epochs=1)
    start = time.process_time()
    pretrain(
        PretrainConfig(
            data=str(manifest),
            out=out,
            image_size=32,
            backbone="resnet-16-32-64-256",
            stem="imagenet",
            epochs=epochs,
            batch_size=256,
            seed=seed,
            cache=work / "cache",
            overwrite=True,
            trainer=TrainerConfig(accelerator="cpu", devices=1, tensorboard=False, progress=False),
            **options,
        )
    )
    spent = time.process_time() - start
    scores = evaluate(EvaluateConfig(run=out, few_labels="none", overwrite=True)).metrics
    last = Run.open(out).history.rows()[-1]
    kept = {figure: float(scores[figure]) for figure in FIGURES} | {"seconds": spent}
    return kept | {k: float(v) for k, v in last.items() if k.startswith("selection/")}


def cell(values: Sequence[float], figure: str) -> str:
    """Mean, and every seed."""
    scale, digits = (100, 1) if figure.endswith("accuracy") else (1, 3 if figure == "ami" else 1)
    shown = ", ".join(f"{scale * value:.{digits}f}" for value in values)
    return f"**{scale * statistics.fmean(values):.{digits}f}** ({shown})"


def main() -> None:
    """Train, measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--train", type=int, default=500, help="files of each class")
    parser.add_argument("--test", type=int, default=200, help="files of each class")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=None, help="keeps the runs here")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    import_module("cl_vision.methods.training")  # seconds that are no part of the first training
    import_module("cl_core.training.fit")
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        manifest = work / "cifar10.csv"
        write_manifest(options.data, manifest, {"train": options.train, "test": options.test})
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
        for seed in options.seeds:
            for name in METHODS:
                seen[name].append(train_and_measure(name, manifest, work, seed, options.epochs))
                print(name, seed, seen[name][-1], flush=True)
    rows = []
    for name, runs in seen.items():
        cells = [cell([run[figure] for run in runs], figure) for figure in FIGURES]
        spent = statistics.fmean(run["seconds"] for run in runs)
        rows.append(f"| {name} | {' | '.join(cells)} | {spent:.0f} |")
    chosen = [run["selection/level_1/precision"] for run in seen["HCSC"]]
    base = [run["selection/base_rate"] for run in seen["HCSC"]]
    lines = [
        "# CIFAR-10 on a processor",
        "",
        f"{10 * options.train:,} training and {10 * options.test:,} test images, "
        f"`resnet-16-32-64-256` with a stem of stride 2, {options.epochs} epochs at batch 256, "
        f"MoCo v2's views for all, seeds {', '.join(map(str, options.seeds))}. Logistic regression "
        "on the frozen representation, weighted kNN (k = 20), k-means with 10 clusters on the test "
        "images, effective rank of the test images. Mean over the seeds in bold, then each.",
        "",
        f"| method | {' | '.join(FIGURES.values())} | CPU s a training |",
        f"|---|{'---|' * (len(FIGURES) + 1)}",
        *rows,
        "",
        "Keys that HCSC's selection dropped at the finest level are of the query's class in "
        f"{100 * statistics.fmean(chosen):.0f} % of the cases, keys at large in "
        f"{100 * statistics.fmean(base):.0f} %.",
        "",
        f"These trainings are short: {options.epochs} epochs of {10 * options.train // 256} steps. "
        "The papers' order of the methods needs far longer ones; the figures say what a processor "
        "sees in minutes, no more.",
        "",
        f"`python benchmarks/cifar10_cpu.py --data CIFAR10 --epochs {options.epochs} --seeds "
        f"{' '.join(map(str, options.seeds))}`, torch {torch.__version__}, {platform.machine()}, "
        f"{options.threads} thread(s).",
    ]
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
