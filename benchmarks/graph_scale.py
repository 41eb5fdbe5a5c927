"""CPU seconds and peak memory of the commands on large random graphs.

    python benchmarks/graph_scale.py --folder SCRATCH

makes two graphs of classes with leanings under ``SCRATCH`` (1 GB), runs every command in a process
of its own, and writes ``benchmarks/results/graph_scale.md``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cl_core.config import TrainerConfig
from cl_graphs import EmbedConfig, EvaluateConfig, PretrainConfig, embed, evaluate, pretrain

RESULTS = Path(__file__).parent / "results" / "graph_scale.md"
QUIET = TrainerConfig(progress=False, tensorboard=False)
CLASSES, FEATURES = 40, 128
GRAPHS = {"170k": (170_000, 14), "million": (1_000_000, 10)}
"""Nodes and edges a node."""

JOBS = (
    ("170k", "pretrain", "20 steps of 500 nodes"),
    ("170k", "evaluate", "defaults: 20 splits, embedding and raw features"),
    ("million", "pretrain", "5 steps of 500 nodes, embedding and report"),
    ("million", "embed", "256 dimensions, npy"),
)


def make(folder: Path, name: str) -> Path:
    """Write a graph whose edges lean to equal classes, seed 0, unless it is there."""
    path = folder / f"{name}.npz"
    if path.exists():
        return path
    n, degree = GRAPHS[name]
    rng = np.random.default_rng(0)
    y, source = rng.integers(CLASSES, size=n), rng.integers(n, size=n * degree // 2)
    order = np.argsort(y, kind="stable")
    starts = np.searchsorted(y[order], np.arange(CLASSES + 1))
    first, size = starts[y[source]], (starts[1:] - starts[:-1])[y[source]]
    alike = order[first + (rng.random(len(source)) * size).astype(int)]
    target = np.where(rng.random(len(source)) < 0.6, alike, rng.integers(n, size=len(source)))
    centres = rng.normal(size=(CLASSES, FEATURES)).astype(np.float32) * 0.3
    x = centres[y] + rng.standard_normal((n, FEATURES), dtype=np.float32)
    np.savez(path, x=x, edge_index=np.stack([source, target]), y=y)
    return path


def one(folder: Path, name: str, verb: str) -> dict[str, float]:
    """Run a command in this process and measure it."""
    data, run = make(folder, name), folder / f"run-{name}"
    start = time.process_time()
    if verb == "pretrain":
        epochs = 20 if name == "170k" else 5
        config = {"epochs": epochs, "trainer": QUIET, "overwrite": run.exists()}
        pretrain(PretrainConfig(data=data, out=run, **config))
    elif verb == "evaluate":
        evaluate(EvaluateConfig(run=run, overwrite=_done(run, verb)))
    else:
        embed(EmbedConfig(run=run, format="npy", overwrite=_done(run, verb)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"cpu": time.process_time() - start, "peak": peak}


def _done(run: Path, verb: str) -> bool:
    return (run / verb).exists()


def main() -> None:
    """Run every job in a fresh process, or with --one a single one here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="scratch space of 3 GB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("GRAPH", "VERB"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.one:
        print(json.dumps(one(args.folder, *args.one)))
        return
    for name in GRAPHS:
        make(args.folder, name)
    with RESULTS.open("w") as page:
        page.write(
            "# Graphs: large ones\n\n"
            f"`python benchmarks/graph_scale.py --folder SCRATCH --threads {args.threads}`, "
            f"torch {torch.__version__}. Random graphs of {CLASSES} classes with {FEATURES} "
            "features, 14 and 10 edges a node, seed 0; each row a process, imports included.\n\n"
            "| nodes | command | what | CPU s | peak GB |\n|---|---|---|---|---|\n"
        )
        for name, verb, what in JOBS:
            command = [sys.executable, "-W", "ignore", __file__, "--folder", str(args.folder)]
            command += ["--threads", str(args.threads), "--one", name, verb]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            r = json.loads(out.splitlines()[-1])
            row = f"| {GRAPHS[name][0]:,} | {verb} | {what} | {r['cpu']:.0f} | {r['peak']:.1f} |\n"
            print(row, end="", flush=True)
            page.write(row)


if __name__ == "__main__":
    main()
