"""What a step of HCSC costs beyond one of MoCo v2: same backbone, batch and views.

    uv run python benchmarks/hcsc_step.py --repetitions 5

The state is ImageNet's: queue 16,384, prototypes 3,000, 2,000, 1,000, 128 dimensions. A step is
the encoders, the same for all and measured alone, and what comes after them: objective, its
gradient, queue. The latter alternate; the shortest of each counts. Also: the clustering alone.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_core.networks.backbones import build_backbone
from cl_vision.hcsc.estimate import Encoded, estimate
from cl_vision.hcsc.module import HCSC
from cl_vision.hyper import HCSCHyper, MoCoHyper, OptimizerHyper
from cl_vision.methods.moco import MoCo

IMAGES, QUEUE = 50_000, 16_384


class Batch(NamedTuple):
    views: list[Tensor]
    label: Tensor
    row: Tensor


class Images(list[Batch]):
    """A loader that is only asked how many images there are."""

    dataset = range(IMAGES)


def silent(*_: object, **__: object) -> None:
    """Take what a module logs."""


def seconds(run: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    """Time one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=20, help="of k-means")
    parser.add_argument("--restarts", type=int, default=1, help="of k-means")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hcsc_step.md"))
    options = parser.parse_args()
    device = torch.device(options.device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    torch.manual_seed(0)
    if device.type == "cpu":
        torch.set_num_threads(1)
    size = options.image_size
    optimizer = OptimizerHyper(learning_rate=0.03)

    def build(kind: str) -> MoCo:
        encoder = build_backbone(options.backbone, in_channels=3, image_size=size)
        if kind == "MoCo v2":
            return MoCo(encoder, MoCoHyper(queue=QUEUE), optimizer=optimizer)
        return HCSC(
            encoder,
            HCSCHyper(
                queue=QUEUE,
                clusters=(3000, 2000, 1000),
                instance_selection=kind != "PCL",
                prototype_selection=kind != "PCL",
            ),
            optimizer=optimizer,
            cluster_loader=Images(),
        )

    features = F.normalize(torch.randn(IMAGES, 128, device=device), dim=1)
    rows = torch.arange(IMAGES, device=device)
    encoded = Encoded(rows=rows, features=features, labels=rows % 1000, mine=rows >= 0)
    start = clock()
    found = estimate(
        features,
        (3000, 2000, 1000),
        temperature=0.2,
        iterations=options.iterations,
        restarts=options.restarts,
    )
    clustering = clock() - start
    modules: dict[str, MoCo] = {name: build(name) for name in ("MoCo v2", "PCL", "HCSC")}
    for module in modules.values():
        module.to(device)
        module.log = silent  # type: ignore[method-assign]
        if isinstance(module, HCSC):
            module.prototypes.adopt(encoded, found)
            module.clustered, module._steps = True, 0
            module._refresh(torch.arange(QUEUE, device=device))
    n = options.batch_size
    images = torch.randn(n, 3, size, size, device=device)
    row = torch.randint(IMAGES, (n,), device=device)
    batch = Batch([images, images], row % 1000, row)
    q, k = (F.normalize(torch.randn(n, 128, device=device), dim=1) for _ in range(2))

    def encode(module: MoCo = modules["MoCo v2"]) -> None:
        _, query = module.query(images)
        module.key.update(nn.Sequential(module.encoder, module.projector))
        query.backward(module.keys(images))  # type: ignore[no-untyped-call]

    def finish(module: MoCo) -> None:
        query = q.clone().requires_grad_()
        module.objective(query, k, batch)["loss"].backward()  # type: ignore[no-untyped-call]
        module.enqueue(k, row)

    repetitions = options.repetitions
    encoders = min(seconds(encode, device, clock) for _ in range(min(repetitions, 3)))
    times: dict[str, list[float]] = {name: [] for name in modules}
    for _ in range(repetitions):
        for name, module in modules.items():
            times[name].append(seconds(partial(finish, module), device, clock))
    rest = {name: min(of_method) for name, of_method in times.items()}
    base = encoders + rest["MoCo v2"]
    lines = [
        "# A step of HCSC beside MoCo v2",
        "",
        f"{options.backbone}, {size} x {size} pixels, batch {n}: the encoders take",
        f"{encoders:.3f} s (two forward passes, a backward one, the average). Shortest of",
        f"{repetitions} alternating repetitions;",
        f"{'CPU time of one thread' if device.type == 'cpu' else torch.cuda.get_device_name()},",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()};",
        f"`python benchmarks/hcsc_step.py --backbone {options.backbone} --image_size {size}`.",
        "",
        "| method | after the encoders, s | step, s | over MoCo v2 |",
        "|---|---|---|---|",
    ]
    for name, took in rest.items():
        step = encoders + took
        lines.append(f"| {name} | {took:.3f} | {step:.3f} | {100 * (step / base - 1):+.1f} % |")
    lines += [
        "",
        f"Clustering {IMAGES:,} features of 128 dimensions into 3,000, 2,000 and 1,000 clusters:",
        f"{clustering:.1f} s for {options.iterations} iterations and {options.restarts} start(s).",
    ]
    text = "\n".join(lines) + "\n"
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
