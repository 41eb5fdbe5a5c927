"""MoCo v2, PCL and HCSC on scikit-learn's digits, three seeds each, on the processor.

    uv run python benchmarks/digits_hcsc.py

Everything is trained on the 1,437 training digits by the modules of `cl_vision`; the selection is
compared with the labels, which no training sees. Clustering scores are those of all 1,797 digits,
probe and neighbours learn from the training digits and are tested on the 360 others. Trunk
features, of unit length.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from cl_core.config import TrainerConfig
from cl_core.evaluation import extract_features, kmeans_scores, knn_accuracy, logistic_accuracy
from cl_core.loader import make_loader
from cl_core.networks.backbones import build_backbone
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import fit
from cl_core.transforms import Normalize
from cl_vision.digits import DIGITS, DigitViews, load_digits
from cl_vision.hcsc.module import HCSC
from cl_vision.hyper import HCSCHyper, MoCoHyper, OptimizerHyper
from cl_vision.methods.moco import MoCo

EPOCHS, BATCH = 40, 64
SPLITS = ("train", "test", "all")
MOCO: dict[str, Any] = {"dim": 64, "queue": 512, "momentum": 0.99, "projector_norm": True}
CLUSTERED = {**MOCO, "clusters": (60, 30, 12), "warmup_epochs": 10}
METHODS = {
    "MoCo v2": MoCoHyper(**MOCO),
    "PCL": HCSCHyper(**CLUSTERED, instance_selection=False, prototype_selection=False),
    "HCSC": HCSCHyper(**CLUSTERED),
    "HCSC, as released": HCSCHyper(**CLUSTERED, compat="official"),
}
OPTIMIZER = OptimizerHyper(learning_rate=0.06, weight_decay=1e-4, schedule="epoch")


def train(hyper: MoCoHyper, seed: int, folder: str) -> tuple[Any, list[dict[str, float]], float]:
    """Train once; the encoder, the history and the seconds of processor time."""
    digits = load_digits("train")
    seed_everything(seed)
    encoder = build_backbone("resnet-16-32-128", in_channels=1, image_size=8)
    views = digits.views(2, DigitViews())
    loader = make_loader(
        views, batch_size=BATCH, shuffle=True, workers=0, seed=seed, drop_last=True
    )
    module: MoCo
    if isinstance(hyper, HCSCHyper):
        plain = digits.views(1, Normalize(DIGITS))
        images = make_loader(plain, batch_size=512, shuffle=False, workers=0, seed=seed, shard=True)
        module = HCSC(encoder, hyper, optimizer=OPTIMIZER, cluster_loader=images, seed=seed)
    else:
        module = MoCo(encoder, hyper, optimizer=OPTIMIZER, seed=seed)
    trainer = TrainerConfig(accelerator="cpu", devices=1, progress=False, tensorboard=False)
    start = time.process_time()
    with Run.create(folder, {"seed": seed}) as run:
        result = fit(module, loader, run=run, epochs=EPOCHS, seed=seed, trainer=trainer)
    return encoder, result.history, time.process_time() - start


def measure(name: str, seed: int, work: Path) -> dict[str, float]:
    """Train once and measure, unless it has been done."""
    done = work / f"{name.lower().replace(' ', '-')}-{seed}.json"
    if done.exists():
        figures: dict[str, float] = json.loads(done.read_text())
        return figures
    with tempfile.TemporaryDirectory() as folder:
        encoder, history, seconds = train(METHODS[name], seed, f"{folder}/run")
    features, labels = {}, {}
    for split in SPLITS:
        images = load_digits(split).views(1, Normalize(DIGITS))  # type: ignore[arg-type]
        loader = make_loader(images, batch_size=512, shuffle=False, workers=0, seed=0)
        features[split], labels[split] = extract_features(encoder, loader)
    figures = {**history[-1], "cpu_seconds": seconds}
    for split in SPLITS:
        for k in (10, 50):
            scores = kmeans_scores(features[split], labels[split], k, seed=0)
            figures[f"{split}/ami_{k}"] = scores["ami"]
    pair = [*(features["train"], labels["train"]), *(features["test"], labels["test"])]
    figures["linear"] = logistic_accuracy(*pair)
    x = {split: torch.nn.functional.normalize(z, dim=1) for split, z in features.items()}
    figures["knn"] = knn_accuracy(x["test"], labels["test"], x["train"], labels["train"], k=20)
    done.write_text(json.dumps(figures))
    return figures


def each(rows: list[dict[str, float]], figure: str, scale: float = 1, digits: int = 2) -> str:
    """Spell a figure of every seed, and its mean."""
    values = [scale * row[figure] for row in rows]
    return " ".join(f"{v:.{digits}f}" for v in values) + f", **{fmean(values):.{digits}f}**"


def page(measured: Mapping[str, list[dict[str, float]]], seeds: list[int]) -> str:
    """Write the tables."""
    listed = ", ".join(map(str, seeds))
    lines = [
        "# HCSC, PCL and MoCo v2 on digits",
        "",
        f"Seeds {listed}, then the mean. {EPOCHS} epochs of batch {BATCH}, 10 of them warm-up,",
        "queue 512, momentum 0.99, 60, 30 and 12 clusters, SGD at 0.06 falling with the epochs,",
        "residual network of widths 16, 32, 128, batch norm in the projector. k-means, probe and",
        "20 neighbours on trunk features of unit length.",
        "",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()}, one thread; "
        "`python benchmarks/digits_hcsc.py`",
        "",
        "| method | AMI, 10 clusters | AMI, 50 clusters | linear probe % | kNN % |",
        "|---|---|---|---|---|",
    ]
    for name, rows in measured.items():
        cells = [each(rows, "all/ami_10"), each(rows, "all/ami_50")]
        cells += [each(rows, figure, 100, 1) for figure in ("linear", "knn")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Clusters are of all 1,797 digits. Of the 1,437 trained on, and of the 360 others, alone:",
        "",
        "| method | trained on: 10 | 50 | others: 10 | 50 | CPU seconds of a training |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in measured.items():
        cells = [each(rows, f"{split}/ami_{k}") for split in ("train", "test") for k in (10, 50)]
        cells.append(f"{fmean(row['cpu_seconds'] for row in rows):.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Selection: share of the dropped keys that have the query's label, in the last epoch, and",
        "of all keys.",
        "",
        "| method | level 1 | level 2 | level 3 | all keys |",
        "|---|---|---|---|---|",
    ]
    for name, rows in measured.items():
        if "selection/base_rate" in rows[0]:
            names = [f"selection/level_{level}/precision" for level in (1, 2, 3)]
            cells = [each(rows, figure) for figure in (*names, "selection/base_rate")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    if {"MoCo v2", "HCSC"} <= set(measured):
        mean = {name: fmean(r["all/ami_10"] for r in rows) for name, rows in measured.items()}
        chosen = measured["HCSC"]
        ratios = [
            row[f"selection/level_{level}/precision"] / row["selection/base_rate"]
            for row in chosen
            for level in (1, 2, 3)
        ]
        gain = mean["HCSC"] - mean["MoCo v2"]
        lines += [
            "",
            "| goal for HCSC | measured |",
            "|---|---|",
            f"| mean AMI(10) at least 0.03 above MoCo v2's | {gain:+.3f} |",
            f"| mean AMI(10) at least 0.86 | {mean['HCSC']:.3f} |",
            f"| selection at least 4 times as precise as chance | {min(ratios):.1f} times in the "
            "worst level and seed |",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--work", type=Path, default=Path("runs/digits_hcsc"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/digits_hcsc.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    measured = {
        name: [measure(name, seed, options.work) for seed in options.seeds]
        for name in options.methods
    }
    text = page(measured, options.seeds)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
