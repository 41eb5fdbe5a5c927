"""Continual learning of digits from memories of random, herded and condensed images.

    python benchmarks/condensation_continual.py --work FOLDER [--only classes-1 ...]

Through ``cl-vision continual``: the ten digits in five steps of two, and three domains in turn (the
digits as they are, turned by a quarter, and as negatives), with 1 and 10 images a class and step in
memory; three orders. Each is learned from the memory alone and going on with distillation. Memories
are condensed by DSAC on 20 networks of width 32; networks train for 300 epochs (30 with
distillation, on a step's images and the memory) with siamese augmentation. Writes
``benchmarks/results/condensation_continual.md``; what is done lies in ``--work`` and is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from cl_core.runs import Run
from cl_vision import ContinualConfig, continual

RESULTS = Path(__file__).parent / "results" / "condensation_continual.md"
STRATEGY = "color_crop_cutout_scale_rotate"
DOMAINS = ("plain", "turned", "negative")
CASES = [
    f"{what}-{protocol}-{ipc}"
    for what in ("classes", "domains")
    for protocol in ("memory", "distillation")
    for ipc in (1, 10)
]


def write_domains(folder: Path) -> tuple[str, ...]:
    """Write the digits, a folder a domain, every fifth of a class to test on."""
    digits = load_digits()
    pixels = np.round(digits.images / 16 * 255).astype(np.uint8)
    shown = {"plain": pixels, "turned": np.rot90(pixels, axes=(1, 2)), "negative": 255 - pixels}
    if not (folder / "done").exists():
        seen = dict.fromkeys(range(10), 0)
        for row, label in enumerate(digits.target.tolist()):
            seen[label] += 1
            split = "train" if seen[label] % 5 else "test"
            for domain, images in shown.items():
                target = folder / domain / split / str(label) / f"{row:04d}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[row]).save(target)
        (folder / "done").touch()
    return tuple(str(folder / domain) for domain in DOMAINS)


def learned(case: str, work: Path) -> tuple[dict[str, Any], float]:
    """Learn one case, unless that is done; give its figures and CPU seconds."""
    what, protocol, ipc = case.split("-")
    out = work / f"continual-{case}"
    cost = out.with_suffix(".json")
    if not cost.exists():
        begun = process_time()
        continual(
            ContinualConfig(
                data=write_domains(work / "domains") if what == "domains" else "digits",
                out=out,
                steps=5,
                protocol=protocol,  # type: ignore[arg-type]
                method="dsac",
                ipc=int(ipc),
                orders=3,
                epochs=300 if protocol == "memory" else 30,
                strategy=STRATEGY,
                overwrite=out.exists(),
            )
        )
        cost.write_text(json.dumps(process_time() - begun))
        print(case, f"{json.loads(cost.read_text()):.0f} CPU s", flush=True)
    return Run.open(out).metrics(), json.loads(cost.read_text())


def page(found: dict[str, tuple[dict[str, Any], float]]) -> str:
    """Write the table."""
    lines = [
        "# Continual learning from a small memory",
        "",
        "Digits in five steps of two classes, and three domains in turn (as they are, turned by a",
        "quarter, negative). Accuracy of everything seen so far, in per cent: mean over steps",
        "(average incremental accuracy), after the last step, and forgetting; mean ± spread over",
        "3 orders. Condensed by DSAC; see the head of the program. Nothing is chosen on these.",
        "",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()}, 1 thread, machine shared; "
        "`python benchmarks/condensation_continual.py --work FOLDER`",
        "",
        "| steps | protocol | images a class | memory | average | last | forgetting |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, (metrics, _) in found.items():
        what, protocol, ipc = case.split("-")
        last = max(int(name.split("_")[1].split("/")[0]) for name in metrics if "/step_" in name)
        for memory in ("random", "herding", "condensed"):
            cells = []
            for name in ("average_incremental_accuracy", "forgetting"):
                mean, spread = (metrics[f"{memory}/{name}{end}"] for end in ("", "_std"))
                cells.append(f"{100 * mean:.1f} ± {100 * spread:.1f}")
            end = f"{100 * metrics[f'{memory}/step_{last}/accuracy']:.1f}"
            lines.append(
                f"| {what} | {protocol} | {ipc} | {memory} | {cells[0]} | {end} | {cells[1]} |"
            )
    seconds = ", ".join(f"{case} {cost:.0f}" for case, (_, cost) in found.items())
    return "\n".join([*lines, "", f"CPU seconds, all memories and orders: {seconds}.", ""])


def main() -> None:
    """Learn what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=CASES, help="without the page")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    found = {case: learned(case, options.work) for case in options.only or CASES}
    if not options.only:
        options.out.write_text(page(found), "utf-8")
        print(options.out.read_text("utf-8"))


if __name__ == "__main__":
    main()
