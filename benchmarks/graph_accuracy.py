"""Accuracy of ARIEL and GRACE on real graphs, through the command line with the shipped recipes.

    uv run python benchmarks/graph_accuracy.py --root DATA --work runs/accuracy

Every run trains once with each seed, the recipe's own first, and is evaluated by the protocol of
the literature (20 random splits, 10 % of the labels). No option is chosen on these figures.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from statistics import fmean, stdev

import torch

from cl_graphs.cli import main as cl_graphs

SELECTIONS = ("argmax", "subset")
RECIPE_SEED = {"Cora": 4, "CiteSeer": 2, "Photo": 3, "Computers": 3, "CS": 1, "Physics": 1}


def metrics_of(run: Path) -> dict[str, float]:
    """Read the figures of a run."""
    record = json.loads((run / "metrics.json").read_text())
    return {**record["metrics"], "seconds": record["seconds"]}


def measure(name: str, method: str, seed: int, root: str, work: Path) -> dict[str, float]:
    """Train and evaluate once, unless it has been done."""
    run = work / f"{name}-{method}-{seed}".lower()
    if not (run / "model.safetensors").exists():
        words = ["--data", name, "--root", root, "--recipe", name.lower(), "--method", method]
        words += ["--seed", str(seed), "--out", str(run), "--trainer.tensorboard", "false"]
        if cl_graphs(["pretrain", *words]) != 0:
            raise SystemExit(f"pretrain {name} failed")
    figures = {"train_seconds": metrics_of(run)["seconds"]}
    for selection in SELECTIONS:
        out = run / f"evaluate-{selection}"
        words = ["--run", str(run), "--selection", selection, "--out", str(out)]
        if not (out / "metrics.json").exists() and cl_graphs(["evaluate", *words]) != 0:
            raise SystemExit(f"evaluate {name} failed")
        figures |= {f"{selection}/{key}": value for key, value in metrics_of(out).items()}
    return figures


def percent(value: float) -> str:
    """Spell a share."""
    return f"{100 * value:.1f}"


def main() -> None:
    """Run what is asked and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of PyG data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--data", nargs="+", default=["Cora", "CiteSeer"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/graph_accuracy.md"))
    options = parser.parse_args()
    lines = [
        "# Accuracy on real graphs",
        "",
        "Mean over 20 random splits ± standard deviation over them for each training seed, the",
        "recipe's own first; then mean ± standard deviation over the seeds. Frozen embeddings,",
        "logistic regression on 10 % of the labels, accuracy in per cent on the rest.",
        "",
        "The penalty is chosen by five-fold search on the 10 %: `argmax` by the accuracy that is",
        "reported (default), `subset` as GRACE's released script does.",
        "",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()}; "
        "`python benchmarks/graph_accuracy.py`",
        "",
        "| data | penalty by | model | seed: accuracy | over seeds |",
        "|---|---|---|---|---|",
    ]
    for name in options.data:
        own = RECIPE_SEED[name]
        seeds = [own, *(s for s in range(100) if s != own)][: options.seeds]
        measured = {
            method: {s: measure(name, method, s, options.root, options.work) for s in seeds}
            for method in ("ariel", "grace")
        }
        for selection in SELECTIONS:
            key = f"{selection}/accuracy"
            for method, rows in measured.items():
                each = ", ".join(
                    f"{s}: {percent(row[key])} ± {percent(row[key + '_std'])}"
                    for s, row in rows.items()
                )
                over = [row[key] for row in rows.values()]
                spread = f" ± {percent(stdev(over))}" if len(over) > 1 else ""
                lines.append(
                    f"| {name} | {selection} | {method.upper()} | {each} | "
                    f"**{percent(fmean(over))}{spread}** |"
                )
            raw, raw_std = (
                measured["ariel"][own][f"{selection}/raw_features/accuracy{s}"]
                for s in ("", "_std")
            )
            lines.append(
                f"| {name} | {selection} | raw features | {percent(raw)} ± {percent(raw_std)} | |"
            )
        options.out.write_text("\n".join(lines) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
