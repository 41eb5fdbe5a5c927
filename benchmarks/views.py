"""What making views costs, on an idle machine and beside a program that keeps a core busy.

    python benchmarks/views.py [--rounds 5] [--out benchmarks/results/views.md]

Two SimCLR views of 640 images of CIFAR's size at 64 pixels, through the loader in the main process,
and a whole short training through ``cl-vision pretrain`` (770 images, ResNet-18, 64 pixels, batch
128, 2 epochs; start-up, embedding and report included). Each is taken in turns, a round without
and a round beside a loop that is pinned to one core; the ratio of a round is the figure, and
seconds are only what this machine happened to need. ``--lightly_python`` names the interpreter of
an environment with lightly-train, which then trains on the same images in the same rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cl_core.images import ImageDataset, list_images
from cl_core.loader import make_loader
from cl_core.transforms import IMAGENET
from cl_vision.methods.views import simclr

Took = tuple[float, float]

LIGHTLY = """
import lightly_train
if __name__ == "__main__":
    lightly_train.train(
        out={out!r}, data={data!r}, model="torchvision/resnet18", method="simclr", epochs=2,
        batch_size=128, num_workers=1, overwrite=True, accelerator="cpu",
        transform_args={{"image_size": (64, 64)}},
    )
"""


def make_images(folder: Path, count: int) -> Path:
    """Smooth noise of 32 x 32 pixels, in ten folders."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number % 10}" / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((32, 32), Image.Resampling.BICUBIC).save(path)
    return folder


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep the last core busy."""
    core = max(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    time.sleep(0.5)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def in_process(run: Callable[[], object]) -> Took:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def in_child(command: list[str], environment: dict[str, str]) -> Took:
    """Wall and processor seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | environment)
    took = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return took, cpu


def in_turns(run: Callable[[], Took], rounds: int) -> dict[str, list[Took]]:
    """The same without and beside a busy core, in turns."""
    seen: dict[str, list[Took]] = {"idle": [], "busy": []}
    for _ in range(rounds):
        seen["idle"].append(run())
        with busy_core():
            seen["busy"].append(run())
    return seen


def row(name: str, seen: dict[str, list[Took]]) -> str:
    """A line of the table: medians, and the median of the rounds' ratios of processor time."""
    cells = [
        f"{statistics.median(took[clock] for took in seen[state]):.2f}"
        for state in ("idle", "busy")
        for clock in (0, 1)
    ]
    pairs = zip(seen["busy"], seen["idle"], strict=True)
    ratio = statistics.median(busy[1] / idle[1] for busy, idle in pairs)
    return f"| {name} | {' | '.join(cells)} | **{ratio:.2f}** |"


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no_training", action="store_true")
    parser.add_argument("--lightly_python", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        small = list_images(make_images(Path(scratch) / "small", 640))
        dataset = ImageDataset(small).views(2, simclr(64, strength=0.5, statistics=IMAGENET))
        loader = make_loader(dataset, batch_size=128, shuffle=True, workers=0, seed=0)

        def views() -> Took:
            return in_process(lambda: [None for _ in loader])

        views()
        lines.append(row("two views of 640 images", in_turns(views, options.rounds)))
        threads = {"OMP_NUM_THREADS": str(options.threads)}
        if not options.no_training:
            data = make_images(Path(scratch) / "images", 770)
            program = str(Path(sys.executable).parent / "cl-vision")
            command = [program, "pretrain", "--data", str(data), "--image_size", "64"]
            command += ["--backbone", "resnet18", "--batch_size", "128", "--epochs", "2"]
            command += ["--out", f"{scratch}/run", "--overwrite"]
            seen = in_turns(lambda: in_child(command, threads), options.rounds)
            lines.append(row("`cl-vision pretrain`", seen))
            if options.lightly_python:
                script = Path(scratch) / "theirs.py"
                script.write_text(LIGHTLY.format(out=f"{scratch}/theirs", data=str(data)))
                theirs = [str(options.lightly_python), str(script)]
                pairs = []
                for _ in range(options.rounds):
                    pairs.append((in_child(command, threads), in_child(theirs, threads)))
                walls = statistics.median(ours[0] / other[0] for ours, other in pairs)
                cpus = statistics.median(ours[1] / other[1] for ours, other in pairs)
                lines.append("")
                lines.append(
                    f"Beside lightly-train in {len(pairs)} rounds taken in turns, nothing else "
                    f"running: wall {walls:.2f} of its, processor {cpus:.2f} of its (medians)."
                )
    head = [
        "# Views",
        "",
        f"`python benchmarks/views.py --rounds {options.rounds} --threads {options.threads}`, "
        f"torch {torch.__version__}, {os.cpu_count()} cores.",
        "",
        "| | idle, wall s | idle, CPU s | busy, wall s | busy, CPU s | CPU, busy to idle |",
        "|---|---|---|---|---|---|",
    ]
    text = "\n".join([*head, *lines]) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
