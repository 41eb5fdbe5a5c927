"""The same work by this code and by another revision's, in turns; tells what became slower.

    git archive REVISION | tar x -C FOLDER
    python benchmarks/revisions.py --before FOLDER [--only nt_xent ...] [--out PAGE]

Two processes, one for each tree, import its packages and its ``benchmarks`` and do each piece of
work when they are told to: a round is one turn of each, who begins changes from round to round. The
figure is the median over rounds of the ratio of their processor time, one thread each; others' load
reaches both. Memory is the rise of the resident set's high-water mark in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

Work = Callable[[], object]
HERE = Path(__file__).resolve()


def module(*names: str) -> Any:
    """The first module that there is, of a new name and older ones."""
    for name in names[:-1]:
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    return import_module(names[-1])


def loss_of(kind: str, n: int) -> Work:
    """A forward and a backward pass: 128 features, float32."""
    import torch

    losses = import_module("cl_core.losses")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, n, 128, generator=generator).requires_grad_()
    labels, queue = torch.arange(n) % 10, torch.randn(16_384, 128, generator=generator)
    compute: Callable[[], Any] = {
        "nt_xent": lambda: losses.nt_xent(x[0], x[1], 0.5),
        "nt_xent, cold": lambda: losses.nt_xent(x[0], x[1], 0.02),
        "info_nce": lambda: losses.info_nce(x[0], x[1], 0.1),
        "info_nce, symmetric": lambda: losses.info_nce(x[0], x[1], 0.1, symmetric=True),
        "info_nce, queue": lambda: losses.info_nce(x[0], x[1], 0.2, negatives=queue),
        "sup_con": lambda: losses.sup_con(x.transpose(0, 1), labels, 0.07),
    }[kind]

    def step() -> None:
        x.grad = None
        compute().backward()

    return step


def kmeans_of(n: int, k: int) -> Work:
    """Ten passes over blobs of 64 features."""
    import torch

    kmeans = import_module("cl_core.kmeans").kmeans
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(k, 64, generator=generator)
    x = centres[torch.arange(n) % k] + 0.3 * torch.randn(n, 64, generator=generator)
    return lambda: kmeans(x, k, iterations=10, seed=0)


def knn() -> Work:
    """2,000 queries against 20,000 rows of 128 features, k = 200."""
    import torch

    score = import_module("cl_core.evaluation").knn_accuracy
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 128, generator=generator) for n in (20_000, 2_000))
    of_bank, of_queries = torch.arange(20_000) % 10, torch.arange(2_000) % 10
    return lambda: score(bank, of_bank, queries, of_queries, k=200)


def attack_step() -> Work:
    """A training step of ARIEL with the attack: 500 nodes, a random graph of Cora's size."""
    import torch

    graphs = import_module("graphs")
    x, edges, _ = graphs.load("Cora", None)
    clean, ariel = graphs.subgraph(x, edges, 500), graphs.model(x.shape[1], 128, 0.4, 500.0)
    optimizer = torch.optim.Adam(ariel.parameters(), lr=5e-4)
    return lambda: graphs.timed(
        lambda: graphs.own_step(ariel, clean, torch.Generator().manual_seed(0)), optimizer
    )


def image_step(kind: str) -> Work:
    """A training step on 64 images of 32 pixels, ResNet-18."""
    import torch

    steps = import_module("vision_steps")
    backbones = module("cl_core.networks.backbones", "cl_core.backbones")
    encoder = backbones.build_backbone("resnet18", image_size=32)
    cpu = torch.device("cpu")
    batch = steps.views_of(32, 64, cpu)
    step, optimizer = steps.own(kind, encoder, 4096, cpu)
    return lambda: steps.timed(step, optimizer, batch, cpu)


def views() -> Work:
    """Two SimCLR views of 128 images of 32 pixels at 64 pixels, through the loader."""
    import numpy as np
    from PIL import Image

    images = import_module("cl_core.images")
    simclr = module("cl_vision.methods.views", "cl_core.transforms").simclr
    statistics_ = import_module("cl_core.transforms").IMAGENET
    folder = Path(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    for number in range(128):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    dataset = images.ImageDataset(images.list_images(folder))
    loader = import_module("cl_core.loader").make_loader(
        dataset.views(2, simclr(64, strength=0.5, statistics=statistics_)),
        batch_size=128,
        shuffle=True,
        workers=0,
        seed=0,
    )
    return lambda: list(loader)


def raster(window: int) -> Work:
    """All windows of a tiled GeoTIFF of four 16-bit bands and 2,048 pixels a side."""
    reader = import_module("raster_reader")
    path = Path(tempfile.mkdtemp()) / "land.tif"
    reader.make_raster(path, 2048)
    windows, read = reader.our_reader(path, window)
    return lambda: [read(one) for one in windows]


CASES: dict[str, tuple[int, Callable[[], Work]]] = {  # how often in a turn, and what
    "nt_xent, 256 pairs": (10, lambda: loss_of("nt_xent", 256)),
    "nt_xent, 1,024 pairs": (1, lambda: loss_of("nt_xent", 1024)),
    "nt_xent, 4,096 pairs": (1, lambda: loss_of("nt_xent", 4096)),
    "nt_xent, cold, 1,024 pairs": (1, lambda: loss_of("nt_xent, cold", 1024)),
    "info_nce, 256": (20, lambda: loss_of("info_nce", 256)),
    "info_nce, symmetric, 256": (20, lambda: loss_of("info_nce, symmetric", 256)),
    "info_nce, 256, 16,384 keys": (2, lambda: loss_of("info_nce, queue", 256)),
    "sup_con, 256 x 2 rows": (10, lambda: loss_of("sup_con", 256)),
    "sup_con, 2,048 x 2 rows": (1, lambda: loss_of("sup_con", 2048)),
    "k-means, 20,000 rows, k = 300": (1, lambda: kmeans_of(20_000, 300)),
    "k-means, 50,000 rows, k = 3,000": (1, lambda: kmeans_of(50_000, 3000)),
    "nearest neighbours, 2,000 of 20,000": (1, knn),
    "ARIEL's step, 500 nodes": (1, attack_step),
    "SimCLR's step, 64 images": (1, lambda: image_step("SimCLR")),
    "MoCo's step, 64 images": (1, lambda: image_step("MoCo v2")),
    "views of 128 images": (1, views),
    "raster windows of 256 pixels": (1, lambda: raster(256)),
}
MEMORY = ("nt_xent, 4,096 pairs", "sup_con, 2,048 x 2 rows", "k-means, 50,000 rows, k = 3,000")


def obey() -> None:
    """Do one turn of the named work for each line read; print its processor seconds."""
    import torch

    torch.set_num_threads(1)
    made: dict[str, Work] = {}
    for line in sys.stdin:
        name = json.loads(line)
        often, make = CASES[name]
        if name not in made:
            made.clear()
            made[name] = make()
            for _ in range(3):
                made[name]()
        start = time.process_time()
        for _ in range(often):
            made[name]()
        print(json.dumps((time.process_time() - start) / often), flush=True)


def weigh(name: str) -> None:
    """Print the megabytes by which one piece of work raises the peak of this process."""
    import torch

    torch.set_num_threads(1)

    def kilobytes(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    loss_of("nt_xent", 64)()  # libraries are up
    loss_of("sup_con", 64)()
    work = CASES[name][1]()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = kilobytes("VmRSS")
    work()
    print((kilobytes("VmHWM") - before) / 1024)


def started(tree: Path, *words: str) -> subprocess.Popen[str]:
    """A process that works with the packages of a tree."""
    paths = [*sorted(str(path) for path in tree.glob("packages/*/src")), str(tree / "benchmarks")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-P", str(HERE), *words],  # -P: benchmarks of the tree, not those here
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )


def turn(process: subprocess.Popen[str], name: str) -> float:
    """Seconds of one turn."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(name) + "\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline()))


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--before", type=Path, help="a tree of the code to compare with")
    parser.add_argument("--called", default="the revision before", help="its name on the page")
    parser.add_argument("--only", nargs="*", default=list(CASES), help="beginnings of names")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--obey", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--weigh", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.obey:
        return obey()
    if options.weigh:
        return weigh(options.weigh)
    trees = (options.before.resolve(), HERE.parents[1])
    names = [name for name in CASES if name.startswith(tuple(options.only))]
    lines = []
    processes = [started(tree, "--obey") for tree in trees]
    for name in names:
        took: list[list[float]] = [[], []]
        for number in range(options.rounds):
            for who in (0, 1) if number % 2 else (1, 0):
                took[who].append(turn(processes[who], name))
        ratios = sorted(now / then for then, now in zip(*took, strict=True))
        then, now = (1000 * statistics.median(times) for times in took)
        best = min(took[1]) / min(took[0])
        middle = statistics.median(ratios)
        lines.append(f"| {name} | {then:.1f} | {now:.1f} | **{middle:.2f}** | {best:.2f} |")
        print(lines[-1], flush=True)
    for process in processes:
        process.communicate()
    weighed = [name for name in names if name in MEMORY]
    if weighed:
        lines += ["", "| work | extra MB, then | now |", "|---|---|---|"]
    for name in weighed:
        cells = [started(tree, "--weigh", name).communicate()[0].strip() for tree in trees]
        lines.append(f"| {name} | {' | '.join(f'{float(cell):.0f}' for cell in cells)} |")
        print(lines[-1], flush=True)
    import torch

    head = [
        "# This code beside an earlier revision",
        "",
        f"`python benchmarks/revisions.py --before FOLDER`, FOLDER being {options.called}; "
        f"{options.rounds} rounds in turn, one thread, torch {torch.__version__}, "
        f"{os.cpu_count()} cores shared with others' work (load {os.getloadavg()[0]:.1f} at the "
        "end).",
        "",
        "| work | CPU ms, then | now | now to then, median of rounds | shortest to shortest |",
        "|---|---|---|---|---|",
    ]
    if options.out:
        options.out.write_text("\n".join([*head, *lines]) + "\n")
    return None


if __name__ == "__main__":
    main()
