"""The lesion methods side by side on real dermoscopic images, for ``results/lesions.md``.

    uv run python benchmarks/lesions.py train DATA OUT --seeds 0 [--methods supercon ...]
    uv run python benchmarks/lesions.py table OUT       # of all trainings that OUT holds
    uv run python benchmarks/lesions.py frozen DATA OUT # what stage 1 adds to a random encoder

DATA is a table with splits, such as the HAM10000 part described in docs/lesions.md. Trains with the
recipe ``supercon-small``, one thread; started again, it keeps the trainings that are finished.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cl_core.commands.outcome import text_table
from cl_core.report.figures import MISSING
from cl_medical.lesions import BenchmarkConfig, Stage2Hyper, TrainConfig, train
from cl_medical.lesions.benchmark import compare, jobs
from cl_medical.lesions.config import BENCHMARKED

FIGURES = (
    "macro_f1",
    "balanced_accuracy",
    "auroc",
    "mel/auroc",
    "mel/average_precision",
    "mel/at_threshold/f1",
    "ece",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("train", "frozen"):
        one = verbs.add_parser(verb)
        one.add_argument("data")
        one.add_argument("out", type=Path)
        one.add_argument("--epochs", type=int, default=90 if verb == "train" else 30)
        one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
        one.add_argument("--methods", nargs="+", default=list(BENCHMARKED))
    table = verbs.add_parser("table")
    table.add_argument("out", type=Path)
    table.add_argument("--resamples", type=int, default=1000)
    asked = parser.parse_args()
    if asked.verb == "table":
        show(finished(asked.out), asked.resamples)
    elif asked.verb == "train":
        for options in jobs(options_of(asked)).values():
            ready(options)
    else:
        frozen(asked)


def options_of(asked: argparse.Namespace, *, epochs: int | None = None) -> BenchmarkConfig:
    return BenchmarkConfig(
        recipe="supercon-small",
        data=asked.data,
        out=asked.out,
        epochs=epochs or asked.epochs,
        seeds=tuple(asked.seeds),
        methods=tuple(asked.methods),
        cache=asked.out / "pixels",
        pixels=False,  # whether splits share equal ones is seen by `prepare`, once
        trainer={"accelerator": "cpu", "devices": 1, "tensorboard": False},
    )


def ready(options: TrainConfig) -> Path:
    """Train what is not trained yet, and tell what it took."""
    if not (options.out / "metrics.json").is_file():
        begun = time.process_time()
        train(replace(options, resume=(options.out / "config.yaml").is_file()))
        print(f"{options.out}: {time.process_time() - begun:.0f} CPU s", flush=True)
    return options.out


def finished(out: Path) -> dict[tuple[str, int], Path]:
    order = {name: place for place, name in enumerate(BENCHMARKED)}
    runs = [path.parent for path in out.glob("*/seed-*/metrics.json")]
    keys = {(run.parent.name, int(run.name.removeprefix("seed-"))): run for run in runs}
    return dict(sorted(keys.items(), key=lambda item: (order.get(item[0][0], 99), item[0])))


def show(runs: dict[tuple[str, int], Path], resamples: int) -> None:
    """Print the test images' figures, and what stage 1 and the validation images say."""
    scores = compare(runs, resamples=resamples)[0]
    methods = list(dict.fromkeys(name for name, _ in runs))
    rows = [
        {"method": name, "seeds": sum(own == name for own, _ in runs)}
        | {figure: cell(scores, f"{name}/{figure}") for figure in FIGURES}
        for name in methods
    ]
    print("\n".join(text_table(rows)))
    watched = [
        {"method": name, "seed": seed} | val_figures(run) | stage1_figures(run)
        for (name, seed), run in runs.items()
    ]
    print("\n".join(text_table(watched)))


def cell(metrics: dict[str, float], name: str) -> str:
    if name not in metrics:
        return MISSING
    text = f"{metrics[name]:.3f} ± {metrics[f'{name}_std']:.3f}"
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return text if low is None else f"{text} ({low:.3f} to {high:.3f})"


def val_figures(run: Path) -> dict[str, str]:
    found = json.loads((run / "metrics.json").read_text("utf-8"))["metrics"]
    return {name: f"{found[name]:.3f}" for name in ("val/macro_f1", "val/auroc", "temperature")}


def stage1_figures(run: Path) -> dict[str, str]:
    path = run / "stage1" / "history.csv"
    if not path.is_file():
        return {"stage-1 loss": MISSING, "kNN macro F1 on val": MISSING}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows]
    neighbours = [float(row["val/knn_macro_f1"]) for row in rows if row["val/knn_macro_f1"]]
    return {
        "stage-1 loss": f"{losses[0]:.3f} to {losses[-1]:.3f}",
        "kNN macro F1 on val": f"{max(neighbours):.3f}",
    }


def frozen(asked: argparse.Namespace) -> None:
    """Train stage 1, and stage 2 on it and on an encoder whose weights are as they were drawn.

    The random encoder has passed one epoch at a learning rate of nothing, so that its batch norms
    know the images. The other settings of stage 2 are told on the validation images alone.
    """
    runs: dict[tuple[str, int], Path] = {}
    for seed in asked.seeds:
        trained = jobs(options_of(asked, epochs=asked.epochs + 5))["supercon", seed]
        random = replace(
            trained,
            out=asked.out / "untrained" / f"seed-{seed}",
            epochs=6,
            schedule="constant",
            learning_rate=1e-30,
        )
        for options in (trained, random):
            name = options.out.parent.name
            runs[name, seed] = ready(options)
            balanced = again(options, f"{name}_balanced", seed, loss="balanced")
            runs[f"{name}_balanced", seed] = ready(balanced)
        for epochs, rate in ((5, 1.0), (20, 0.1), (20, 1.0)):
            tried = again(
                trained, f"tried-{epochs}-{rate:g}", seed, epochs=epochs, learning_rate=rate
            )
            found = val_figures(ready(tried))
            print(f"stage 2 of {epochs} epochs at {rate:g}, seed {seed}: {found}")
    show(runs, 1000)


def again(options: TrainConfig, name: str, seed: int, **stage2: object) -> TrainConfig:
    """The options of another stage 2 on the same stage 1."""
    hyper: Stage2Hyper = replace(options.stage2, **stage2)
    out = options.out.parent.parent / name / f"seed-{seed}"
    epochs = options.first_epochs + hyper.epochs
    return replace(options, out=out, representation=options.out, stage2=hyper, epochs=epochs)


if __name__ == "__main__":
    main()
