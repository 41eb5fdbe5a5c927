"""Land cover of Korea from few labels: GLCNet's pretraining against none and against its ablation.

    python benchmarks/land_cover.py --data KOREA --work FOLDER

KOREA holds ``images``, ``labels`` and ``splits`` (pairs of train, val and test; lists of labelled
windows ``few<n>_seed<s>.csv``). Every network is pretrained once on the train images without
labels. What depends on choices (what is loaded, the learning rate of loaded parts) is chosen on the
val images with the lists of 14 windows; then every list is used once, and the test images measured
once. Runs that are done are not repeated. Writes ``benchmarks/results/land_cover.md``.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from cl_core.config import TrainerConfig
from cl_core.runs import Run, write_atomic
from cl_remote_sensing import (
    EvaluateConfig,
    FinetuneConfig,
    PretrainConfig,
    evaluate,
    finetune,
    pretrain,
)
from cl_remote_sensing.hyper import NetworkHyper

RESULT = Path(__file__).parent / "results" / "land_cover.md"
LEGEND = "10: building\n30: road\n50: field\n70: forest\n100: background\n"
NETWORK = NetworkHyper(encoder="resnet18", width=64)
QUIET = TrainerConfig(progress=False, tensorboard=False, accelerator="cpu")
SEEDS = (0, 1, 2)
STEPS = 34  # of an epoch of pretraining: 1,088 tiles in batches of 32
COUNTS = {3: "1.1 %", 14: "5.1 %", 28: "10.3 %"}
METHODS = {
    "GLCNet": {},
    "global only": {"no_local": True},
}
# What is loaded, the learning rate of loaded parts, what stays frozen.
CHOICES = {
    "encoder, 1e-4": {"init_from": "encoder", "loaded_learning_rate": 1e-4},
    "encoder, 1e-3": {"init_from": "encoder", "loaded_learning_rate": 1e-3},
    "all, 1e-4": {"init_from": "all", "loaded_learning_rate": 1e-4},
    "all, 1e-3": {"init_from": "all", "loaded_learning_rate": 1e-3},
    "encoder, frozen": {"init_from": "encoder", "freeze": "encoder"},
}
SCRATCH = {"init_from": "nothing"}


def pretrained(method: str, epochs: int, arguments: argparse.Namespace) -> Path:
    out = arguments.work / f"pretrain-{method.replace(' ', '-')}-{epochs}"
    images = arguments.work / "train-images.txt"
    if not (out / "metrics.json").exists():
        config = PretrainConfig(
            data=str(images),
            out=out,
            tile=73,
            view=64,
            region_size=14,
            batch_size=32,
            epochs=epochs,
            overwrite=out.exists(),
            network=NETWORK,
            trainer=QUIET,
        )
        print(pretrain(replace(config, **METHODS[method])), flush=True)
    return out


def finetuned(
    run: Path, name: str, options: dict, count: int, seed: int, arguments: argparse.Namespace
) -> Path:
    out = arguments.work / f"finetune-{name.replace(' ', '-').replace(',', '')}-{count}-{seed}"
    if not (out / "metrics.json").exists():
        splits = arguments.data / "splits"
        batch_size = min(8, count)
        config = FinetuneConfig(
            data=str(splits / "train.txt"),
            legend=str(arguments.work / "legend.yaml"),
            windows=str(splits / f"few{count}_seed{seed}.csv"),
            val_data=str(splits / "val.txt"),
            out=out,
            run=run,
            tile=96,
            batch_size=batch_size,
            repeats=-(-15 * batch_size // count),  # about 15 steps between two validations
            epochs=10,
            seed=seed,
            overwrite=out.exists(),
            trainer=QUIET,
        )
        finetune(replace(config, **options))
    return out


def figures(run: Path) -> dict[str, float]:
    return {name: value or 0.0 for name, value in Run.open(run).metrics().items()}


def tested(run: Path, arguments: argparse.Namespace) -> dict[str, float]:
    if not (run / "evaluate" / "metrics.json").exists():
        data = str(arguments.data / "splits" / "test.txt")
        evaluate(EvaluateConfig(run=run, data=data, overwrite=(run / "evaluate").exists()))
    return figures(run / "evaluate")


def spread(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{statistics.mean(values):.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=24, help="of pretraining, 34 steps each")
    arguments = parser.parse_args()
    arguments.data = arguments.data.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    pairs = (arguments.data / "splits" / "train.txt").read_text().split("\n")
    images = [str(arguments.data / line.split()[0]) for line in pairs if line.strip()]
    (arguments.work / "train-images.txt").write_text("\n".join(images) + "\n")
    (arguments.work / "legend.yaml").write_text(LEGEND)

    runs = {method: pretrained(method, arguments.epochs, arguments) for method in METHODS}

    chosen: dict[str, str] = {}
    lines = ["| pretraining | loaded, learning rate | val kappa | val mIoU |", "|---|---|---|---|"]
    tried = {"from scratch": (runs["GLCNet"], {"-": SCRATCH})}
    tried["GLCNet"] = (runs["GLCNet"], CHOICES)
    # Its decoder is not trained.
    tried["global only"] = (
        runs["global only"],
        {name: options for name, options in CHOICES.items() if name.startswith("encoder")},
    )
    for method, (run, choices) in tried.items():
        best = -2.0
        for choice, options in choices.items():
            values = [
                figures(finetuned(run, f"{method} {choice}", options, 14, seed, arguments))
                for seed in SEEDS
            ]
            kappas = [value["val/kappa"] for value in values]
            mious = [value["val/miou"] for value in values]
            lines.append(f"| {method} | {choice} | {spread(kappas)} | {spread(mious)} |")
            print(lines[-1], flush=True)
            if statistics.mean(kappas) > best:
                best, chosen[method] = statistics.mean(kappas), choice
    table = ["| labels | pretraining | test kappa | test mIoU | test OA |", "|---|---|---|---|---|"]
    for count, share in COUNTS.items():
        for method in ("from scratch", *METHODS):
            run, choices = tried[method]
            name = chosen[method]
            values = [
                tested(
                    finetuned(run, f"{method} {name}", choices[name], count, seed, arguments),
                    arguments,
                )
                for seed in SEEDS
            ]
            cells = [
                spread([value[figure] for value in values]) for figure in ("kappa", "miou", "oa")
            ]
            table.append(f"| {count} ({share}) | {method} | {' | '.join(cells)} |")
            print(table[-1], flush=True)
    retrieval = ["| pretraining | tiles found again | regions found again |", "|---|---|---|"]
    for method, run in runs.items():
        found = figures(run)
        tile, region = found["retrieval/tile"], found["retrieval/region"]
        retrieval.append(f"| {method} | {tile:.0%} | {region:.0%} |")
    chosen_lines = [f"- {method}: {choice}" for method, choice in chosen.items()]
    write(arguments, retrieval, lines, chosen_lines, table)


def write(
    arguments: argparse.Namespace,
    retrieval: list[str],
    lines: list[str],
    chosen: list[str],
    table: list[str],
) -> None:
    text = "\n".join(
        [
            "# Land cover from few labels",
            "",
            "Sentinel-2 tiles of Korea, RGB, five classes; `python benchmarks/land_cover.py`.",
            f"ResNet-18 with a DeepLabV3+ of width 64, {STEPS * arguments.epochs} steps of 32",
            "pairs of 64-pixel views, one pretraining a method (seed 0);",
            "fine-tuning on crops of 96 pixels from windows of 128, 150 steps of at most 8, best",
            "of ten epochs on val. Means over the three shipped lists of labelled windows, least",
            "to greatest in parentheses.",
            "",
            "## Does pretraining learn?",
            "",
            "Share of tiles (of 64) and of regions (of 256) whose other view is found first.",
            "",
            *retrieval,
            "",
            "## Choices, on val alone",
            "",
            "14 labelled windows.",
            "",
            *lines,
            "",
            "Chosen:",
            "",
            *chosen,
            "",
            "## Test, once",
            "",
            *table,
            "",
        ]
    )
    with write_atomic(RESULT) as beside:
        beside.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
