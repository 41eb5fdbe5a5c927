"""Condensed sets beside real images of the same number, through ``cl-vision``'s own commands.

    python benchmarks/condensation_accuracy.py digits --ipc 1 --work FOLDER
    python benchmarks/condensation_accuracy.py cifar10 --ipc 1 --work FOLDER --data CIFAR10_FOLDER

``digits`` are scikit-learn's 1,797 (8 x 8 pixels, grey repeated to 3 channels; 1,000 to learn from,
797 to test on, by a NumPy permutation of seed 0), condensed by a network of width 32 and depth 2 on
20 networks with real batches of 64. ``cifar10`` is a folder ``train`` and ``test`` with a folder of
images a class; its settings are small enough for a processor and were fixed before any accuracy was
seen. Writes ``benchmarks/results/condensation_<data>_ipc<N>.md``. What is done lies in ``--work``
and is not done again: a stopped program goes on.
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

from cl_core.config import TrainerConfig
from cl_core.runs import Run
from cl_vision import AssessConfig, CondenseConfig, assess, condense

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {
        "width": 32,
        "depth": 2,
        "real_batch": 64,
        "outer_loop": 20,
        "outer_warmup": 5,
        "network_epochs": 5,  # the published number for one image a class
        "strategy": "color_crop_cutout_scale_rotate",
    },
    "cifar10": {"width": 32, "depth": 3, "real_batch": 64, "outer_loop": 10, "network_epochs": 5},
}
METHODS = {"digits": ("dc", "dcc", "dsa", "dsac"), "cifar10": ("dc", "dcc", "dsac")}
FULL = {"networks": 3, "sets": 3, "epochs": 300, "augmented_epochs": 1000}
SHORT = {"networks": 2, "sets": 3, "epochs": 300, "augmented_epochs": 300}
BUDGET: dict[tuple[str, int], dict[str, Any]] = {("digits", 1): FULL}  # SHORT for the others
LINES = {
    "digits": "Goals: of DC and DCC random + 12 points; of DSAC: random + 10, both augmented.",
    "cifar10": "The settings were fixed before any of these accuracies was seen.",
}


def write_digits(folder: Path) -> Path:
    """Write the digits as colour pictures, 1,000 to learn from and 797 to test on."""
    if (folder / "done").exists():
        return folder / "images"
    digits = load_digits()
    pixels = np.round(digits.images / 16 * 255).astype(np.uint8)
    order = np.random.RandomState(0).permutation(len(pixels))
    for place, row in enumerate(order.tolist()):
        split = "train" if place < 1000 else "test"
        target = folder / "images" / split / str(digits.target[row]) / f"{row:04d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(pixels[row][..., None], 3, axis=2)).save(target)
    (folder / "done").touch()
    return folder / "images"


def condensed(
    options: argparse.Namespace, data: Path, method: str, seed: int
) -> tuple[Path, float]:
    """Condense, unless that is done, and tell the CPU seconds."""
    out = options.work / f"{options.data_set}-{method}-ipc{options.ipc}-{seed}"
    cost = out.with_suffix(".json")
    if not cost.exists():
        begun = process_time()
        condense(
            CondenseConfig(
                data=str(data),
                out=out,
                method=method,  # type: ignore[arg-type]
                ipc=options.ipc,
                seed=seed,
                resume=out.exists(),
                trainer=TrainerConfig(accelerator="cpu", tensorboard=False, progress=False),
                **SETTINGS[options.data_set],
            )
        )
        cost.write_text(json.dumps(process_time() - begun))
        print(method, seed, f"{json.loads(cost.read_text()):.0f} CPU s", flush=True)
    return out, json.loads(cost.read_text())


def page(options: argparse.Namespace, metrics: dict[str, float], seconds: dict[str, float]) -> str:
    """Write the table of all sets, without and with augmentation."""
    first = METHODS[options.data_set][0]
    named = {"condensed": first, "condensed/png": f"{first}, its 8-bit pictures"}
    sets = [name[: -len("/accuracy")] for name in metrics if name.endswith("/accuracy")]
    sets = [name for name in sets if not name.endswith("/augmented")]
    budget = BUDGET.get((options.data_set, options.ipc), SHORT)
    settings = ", ".join(f"{name} {value}" for name, value in SETTINGS[options.data_set].items())
    command = f"python benchmarks/condensation_accuracy.py {options.data_set} --ipc {options.ipc}"
    lines = [
        f"# Condensed {options.data_set}, {options.ipc} a class",
        "",
        f"`{command}`: seeds {', '.join(map(str, SEEDS))}; {settings}.",
        f"Test accuracy in per cent, mean ± spread over {len(SEEDS)} sets (herding, nearest: 1)",
        f"x {budget['networks']} fresh networks after {budget['epochs']} epochs, and with siamese",
        f"augmentation after {budget['augmented_epochs']}; `full` is all images for as many steps,",
        "`nearest` those nearest to the class mean. No option is chosen on these figures.",
        "",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()}, 1 thread, machine shared.",
        "",
        "| set | plain | augmented | CPU s a set |",
        "|---|---|---|---|",
    ]
    for name in sets:
        cells = [
            f"{100 * metrics[f'{name}/{kind}accuracy']:.1f} ± "
            f"{100 * metrics[f'{name}/{kind}accuracy_std']:.1f}"
            for kind in ("", "augmented/")
        ]
        method = named.get(name, name)
        cost = f"{seconds[method]:.0f}" if method in seconds else ""
        lines.append(f"| {method} | {cells[0]} | {cells[1]} | {cost} |")
    lines += ["", "Beyond random images, in points:", ""]
    for method in METHODS[options.data_set]:
        name = "condensed" if method == first else method
        gains = [
            f"{100 * (metrics[f'{name}/{k}accuracy'] - metrics[f'random/{k}accuracy']):+.1f} {told}"
            for k, told in (("", "plain"), ("augmented/", "augmented"))
        ]
        lines.append(f"- {method}: {', '.join(gains)}")
    clipped = f"{100 * metrics['clipped_share']:.1f} % of all pixel values lie outside [0, 1]."
    return "\n".join([*lines, "", clipped, LINES[options.data_set], ""])


def main() -> None:
    """Condense, assess, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_set", choices=("digits", "cifar10"))
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--condense_only", action="store_true", help="assess another time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    data = options.data or write_digits(options.work)
    runs, seconds = [], {}
    for method in METHODS[options.data_set]:
        made = [condensed(options, data, method, seed) for seed in SEEDS]
        runs += [path for path, _ in made]
        seconds[method] = float(np.mean([cost for _, cost in made]))
    if options.condense_only:
        return
    out = options.work / f"assess-{options.data_set}-ipc{options.ipc}"
    if not (out / "metrics.json").exists():
        begun = process_time()
        config = AssessConfig(
            run=tuple(runs),
            out=out,
            overwrite=out.exists(),
            **BUDGET.get((options.data_set, options.ipc), SHORT),
        )
        assess(config)
        print(f"assessed in {process_time() - begun:.0f} CPU s", flush=True)
    target = options.results / f"condensation_{options.data_set}_ipc{options.ipc}.md"
    target.write_text(page(options, dict(Run.open(out).metrics()), seconds), "utf-8")
    print(target.read_text("utf-8"))


if __name__ == "__main__":
    main()
