"""One training step of SimCLR and of MoCo v2 beside lightly's building blocks for the same method.

    python benchmarks/vision_steps.py

writes ``benchmarks/results/vision_steps.md``. Same backbone with the same weights, same heads, same
views, same optimiser; a step is forward, backward and the optimiser's. Both take turns in one
process; a round's ratio is of its own two steps, and the median of the ratios is told. What HCSC
adds to MoCo is measured by ``hcsc_step.py``.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cl_core.images import Sample
from cl_core.networks.backbones import build_backbone
from cl_vision.data import training_views
from cl_vision.hyper import MoCoHyper, OptimizerHyper, SimCLRHyper
from cl_vision.methods.moco import MoCo
from cl_vision.methods.optimisation import configure
from cl_vision.methods.simclr import SimCLR

RESULTS = Path(__file__).parent / "results" / "vision_steps.md"
OPTIMIZER = OptimizerHyper(learning_rate=0.03)
Step = Callable[[Sample], Tensor]


def silent(*_: object, **__: object) -> None:
    """Take what a module logs."""


def own(kind: str, encoder: nn.Module, queue: int, device: torch.device) -> tuple[Step, Any]:
    """Return our step, and its optimiser."""
    module: SimCLR | MoCo
    if kind == "SimCLR":
        module = SimCLR(encoder, SimCLRHyper(hidden=512, dim=128), optimizer=OPTIMIZER)
    else:
        module = MoCo(encoder, MoCoHyper(queue=queue, dim=128), optimizer=OPTIMIZER)
    module.to(device)
    module.log = silent  # type: ignore[method-assign,assignment]
    trained = [module.encoder, module.projector]
    optimizer = configure(trained, OPTIMIZER, epochs=1, steps_per_epoch=1)["optimizer"]
    return lambda batch: module.training_step(batch, 1)["loss"], optimizer


def lightlys(kind: str, encoder: nn.Module, queue: int, device: torch.device) -> tuple[Step, Any]:
    """Return the step as lightly's examples write it, and its optimiser."""
    from lightly.loss import NTXentLoss
    from lightly.models import utils
    from lightly.models.modules import MoCoProjectionHead, SimCLRProjectionHead

    width = int(encoder.out_features)  # type: ignore[arg-type]
    encoder = encoder.to(device)
    if kind == "SimCLR":
        head = SimCLRProjectionHead(width, 512, 128).to(device)
        loss = NTXentLoss(temperature=0.1)

        def step(batch: Sample) -> Tensor:
            a, b = (head(encoder(view).flatten(1)) for view in batch.views)
            found: Tensor = loss(a, b)
            return found

    else:
        head = MoCoProjectionHead(width, width, 128).to(device)
        key, key_head = copy.deepcopy(encoder), copy.deepcopy(head)
        utils.deactivate_requires_grad(key)
        utils.deactivate_requires_grad(key_head)
        loss = NTXentLoss(temperature=0.2, memory_bank_size=(queue, 128)).to(device)

        def step(batch: Sample) -> Tensor:
            utils.update_momentum(encoder, key, m=0.999)
            utils.update_momentum(head, key_head, m=0.999)
            query = head(encoder(batch.views[0]).flatten(1))
            images, shuffle = utils.batch_shuffle(batch.views[1])
            with torch.no_grad():
                keys = key_head(key(images).flatten(1))
            keys = utils.batch_unshuffle(keys, shuffle)
            found: Tensor = loss(query, keys)
            return found

    parameters = [*encoder.parameters(), *head.parameters()]
    return step, torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=1e-4)


def timed(step: Step, optimizer: Any, batch: Sample, device: torch.device) -> tuple[float, float]:
    """Take one step; wall and processor seconds."""
    wait = torch.cuda.synchronize if device.type == "cuda" else silent
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    optimizer.zero_grad()
    step(batch).backward()
    optimizer.step()
    wait()
    return time.perf_counter() - wall, time.process_time() - cpu


def views_of(size: int, count: int, device: torch.device) -> Sample:
    """Draw random images and make MoCo's two views of each."""
    from cl_core.transforms import IMAGENET

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    torch.manual_seed(0)
    made = training_views("moco", size, IMAGENET, channels=3)
    views = [torch.stack([view(image) for image in images]).to(device) for view in made]
    rows: Any = torch.arange(count, device=device)
    return Sample(tuple(views), rows, rows)


def compare(kind: str, options: argparse.Namespace, device: torch.device) -> str:
    """Time both in turn; a row of the table."""
    torch.manual_seed(0)
    encoder = build_backbone(options.backbone, image_size=options.image_size)
    batch = views_of(options.image_size, options.batch_size, device)
    steps = {
        "ours": own(kind, copy.deepcopy(encoder), options.queue, device),
        "lightly": lightlys(kind, copy.deepcopy(encoder), options.queue, device),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for repeat in range(options.rounds + 2):
        names = list(steps) if repeat % 2 else list(steps)[::-1]
        for name in names:
            took = timed(*steps[name], batch, device)
            if repeat >= 2:
                seen[name].append(took)
    cells = []
    for clock in (0, 1):
        ours, theirs = ([took[clock] for took in seen[name]] for name in steps)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        cells += [f"{1e3 * statistics.median(ours):.0f}", f"{1e3 * statistics.median(theirs):.0f}"]
        cells.append(f"{ratio:.3f}")
    return f"| {kind} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--queue", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    import lightly

    where = (
        f"{options.threads} thread(s) of {platform.machine()}"
        if device.type == "cpu"
        else torch.cuda.get_device_name()
    )
    lines = [
        "# A training step beside lightly's",
        "",
        f"`python benchmarks/vision_steps.py --backbone {options.backbone} --image_size "
        f"{options.image_size} --batch_size {options.batch_size} --queue {options.queue}` on "
        f"{where}, torch {torch.__version__}, lightly {lightly.__version__}, float32.",
        "",
        f"Same weights, heads, views and optimiser; {options.rounds} rounds in turn, median "
        "milliseconds, median of the rounds' ratios. Ours logs its loss terms as in a training.",
        "",
        "| step | ours, wall ms | lightly, wall ms | ratio | ours, CPU ms | lightly, CPU ms | "
        "ratio |",
        "|---|---|---|---|---|---|---|",
        *(compare(kind, options, device) for kind in ("SimCLR", "MoCo v2")),
    ]
    text = "\n".join(lines) + "\n"
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
