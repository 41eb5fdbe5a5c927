"""What masks add to a step of `pretrain`: two views of each image, forward, backward, update.

    python benchmarks/agriculture_step.py --data SEEDLINGS/labels.csv

Rounds with masks and without alternate, on the same images, with decoded images and masks at hand
as after the first epoch; of each the fastest round counts, in CPU seconds of one thread. Writes
``benchmarks/results/agriculture_step.md``.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cl_agriculture.attention.maker import MaskMaker
from cl_agriculture.claws import claws_loss
from cl_agriculture.data import Plants, open_plants, training_loader
from cl_agriculture.hyper import ViewHyper
from cl_agriculture.views.plant_views import TrainingView
from cl_core.networks.backbones import build_backbone
from cl_core.networks.heads import build_head

RESULTS = Path(__file__).parent / "results" / "agriculture_step.md"
SETTINGS = (("resnet-pool-16-32-64-128", 64, 128, 24), ("resnet18", 128, 32, 6))


def step_of(plants: Plants, backbone: str, size: int, batch: int) -> Callable[[], float]:
    """A function that takes one step and gives its CPU seconds."""
    torch.manual_seed(0)
    encoder = build_backbone(backbone, stem="imagenet", image_size=size)
    head = build_head("mlp", encoder.out_features, 64, batch_norm=True)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    view = TrainingView(size, ViewHyper(), "off" if plants.store is None else "hard")
    loader = training_loader(plants, view, batch_size=batch, workers=0, seed=0)
    batches = iter(loader)

    def step() -> float:
        nonlocal batches
        start = time.process_time()
        sample = next(batches, None)
        if sample is None:
            batches = iter(loader)
            return step()
        z1, z2 = head(encoder(torch.cat(list(sample.views)))).chunk(2)
        optimizer.zero_grad()
        claws_loss(z1, z2, torch.as_tensor(sample.label)).backward()
        optimizer.step()
        return time.process_time() - start

    return step


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# A step with masks beside one without",
        "",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()}, one thread of two shared "
        "cores, CPU seconds, the fastest round; `python benchmarks/agriculture_step.py`",
        "",
        "| network | pixels | batch | with masks | without | ratio (goal: 1.1) |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        plain = open_plants(str(options.data), cache=Path(folder))
        masked = plain.masked(MaskMaker(), Path(folder) / "masks")
        assert masked.store is not None
        for file in masked.table.files:
            masked.store.get(file)
        for backbone, size, batch, rounds in SETTINGS:
            steps = [step_of(plants, backbone, size, batch) for plants in (masked, plain)]
            seconds = [[step() for step in steps] for _ in range(rounds)]
            with_masks, without = map(min, zip(*seconds[1:], strict=True))
            lines.append(
                f"| {backbone} | {size} | {batch} | {with_masks:.3f} | {without:.3f} | "
                f"{with_masks / without:.3f} |"
            )
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
