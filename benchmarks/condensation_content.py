r"""What matching all classes at once is for: content that all classes share.

    python benchmarks/condensation_content.py

scikit-learn's digits as vectors (1,000 to learn from, 797 to test on, by a NumPy permutation of
seed 0; less the training mean of each pixel, divided by the one spread of them all), to which every
image gets A times one fixed random direction and B times a random combination of four fixed ones,
whatever its class. A network 64-128-10 without norms; one vector a class is condensed on 20
networks of 10 steps each with real batches of 64. Five fresh networks are trained on each set for
300 epochs; four seeds. Writes ``benchmarks/results/condensation_content.md``; what is done is kept
in ``--work`` and not done again. About four minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from statistics import fmean
from time import process_time

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from cl_core.seeding import derive_seed
from cl_vision.condensation.assessment import Recipe, train_networks
from cl_vision.condensation.loop import Loop, condense_images
from cl_vision.condensation.selection import select

RESULTS = Path(__file__).parent / "results" / "condensation_content.md"
SEEDS = (100, 101, 102, 103)
CASES = ((0, 0), (10, 0), (10, 2), (60, 0))
SETS = ("random", "DC", "DCC, warm-up 5 of 20", "DCC, no warm-up", "class means")
DIRECTIONS, NETWORKS = 4, 5

Split = tuple[Tensor, Tensor, Tensor, Tensor]


def data(a: float, b: float, seed: int) -> Split:
    """Vectors and classes to learn from, and to test on."""
    digits = load_digits()
    x = torch.from_numpy(digits.data / 16).float()
    y = torch.from_numpy(digits.target).long()
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(x)))
    x, y = x[order], y[order]
    x = x - x[:1000].mean(0)
    x = x / x[:1000].std()
    generator = torch.Generator().manual_seed(derive_seed(seed, 1))
    shared = torch.randn(64, generator=generator)
    others = torch.randn(DIRECTIONS, 64, generator=generator)
    others = others / others.norm(dim=1, keepdim=True)
    x = x + a * shared / shared.norm()
    x = x + b * torch.randn(len(x), DIRECTIONS, generator=generator) @ others
    x = x.view(-1, 1, 8, 8)
    return x[:1000], y[:1000], x[1000:], y[1000:]


def network() -> nn.Module:
    """Build the network; its weights are drawn anew by who uses it."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def made(name: str, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Give one vector a class."""
    generator = torch.Generator().manual_seed(derive_seed(seed, 2))
    start = x[select("random", x.flatten(1), y, 1, generator)]
    if name == "random":
        return start
    if name == "class means":
        return torch.stack([x[y == label].mean(0) for label in range(10)])
    loop = Loop(
        outer_loop=20,
        contrast=name.startswith("DCC"),
        outer_warmup=0 if name.endswith("no warm-up") else 5,
        real_batch=64,
    )
    return condense_images(x, y, start, network, loop, generator)


def measure(name: str, case: tuple[float, float], seed: int) -> float:
    """Mean test accuracy of fresh networks trained on one set."""
    x, y, x_test, y_test = data(*case, seed)
    train = partial(train_networks, network, recipe=Recipe(epochs=300))
    sets = [(made(name, x, y, seed), torch.arange(10))] * NETWORKS
    networks = train(sets=sets, seeds=[derive_seed(seed, 3, k) for k in range(NETWORKS)])
    with torch.no_grad():
        return fmean(float((f(x_test).argmax(1) == y_test).float().mean()) for f in networks)


def page(found: dict[str, float], seconds: float) -> str:
    """Write the table, and what is asked of it."""

    def mean(name: str, case: tuple[float, float]) -> float:
        return 100 * fmean(found[f"{name} {case} {seed}"] for seed in SEEDS)

    lines = [
        "# Condensation and content that all classes share",
        "",
        "Test accuracy in per cent, mean over seeds "
        f"{', '.join(map(str, SEEDS))} of {NETWORKS} networks each.",
        "`A` is the length of one direction added to every digit, `B` that of each of four in",
        "random amounts: see the head of the program. No option is chosen on these figures.",
        "",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()}, 1 thread; "
        f"`python benchmarks/condensation_content.py`, {seconds:.0f} CPU s",
        "",
        f"| A, B | {' | '.join(SETS)} |",
        "|---|" + "---|" * len(SETS),
    ]
    measured = [case for case in CASES if f"{SETS[-1]} {case} {SEEDS[-1]}" in found]
    for case in measured:
        cells = " | ".join(f"{mean(name, case):.1f}" for name in SETS)
        lines.append(f"| {case[0]}, {case[1]} | {cells} |")
    if len(measured) < len(CASES):
        left = "; ".join(f"{a}, {b}" for a, b in CASES if (a, b) not in measured)
        lines += ["", f"Not measured yet: {left}."]
    hard, alone = (10, 2), "DCC, no warm-up"
    below = [
        found[f"DC {case} {seed}"] < found[f"random {case} {seed}"]
        for case in measured
        for seed in SEEDS
        if case[0]
    ]
    if hard not in measured:
        return "\n".join([*lines, ""])
    gains = [mean(alone, hard) - mean(name, hard) for name in ("DC", "random")]
    lines += [
        "",
        f"At A = 10, B = 2, DCC without warm-up: {gains[0]:+.1f} points beyond DC (goal: 25) and",
        f"{gains[1]:+.1f} beyond random digits (goal: 20). With A > 0, DC is below random",
        f"digits in {sum(below)} of {len(below)} runs.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/condensation"))
    parser.add_argument(
        "--case", type=int, choices=range(len(CASES)), help="only this one, no page"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "content.json"
    found: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {"seconds": 0.0}
    for case in CASES if options.case is None else [CASES[options.case]]:
        for name in SETS:
            for seed in SEEDS:
                key = f"{name} {case} {seed}"
                if key not in found:
                    begun = process_time()
                    found[key] = measure(name, case, seed)
                    found["seconds"] += process_time() - begun
                    kept.write_text(json.dumps(found))
            print(case, name, [round(found[f"{name} {case} {s}"], 3) for s in SEEDS], flush=True)
    options.out.write_text(page(found, found["seconds"]), "utf-8")
    print(options.out.read_text("utf-8"))


if __name__ == "__main__":
    main()
