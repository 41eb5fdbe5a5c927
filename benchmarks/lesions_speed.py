"""The lesion pipeline and a step of stage 1 beside what a user would write by hand.

    uv run python benchmarks/lesions_speed.py [--rounds 9] [--out PAGE]

Views: JPEGs of 600 x 450 pixels to a plain and an augmented view of 224, through a loader in the
main process, by the official set of SuperCon's code; by hand that is Pillow, torchvision's resize
and an albumentations pipeline. Step: SuperCon's loss on two views; by hand in its matrix form.
Both are taken in turn, one thread; the ratio of a round is the figure.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cl_core.images import ImageDataset, Sample, list_images
from cl_core.loader import make_loader
from cl_core.networks.backbones import build_backbone
from cl_core.transforms import IMAGENET
from cl_medical.lesions.augment import augmented_view, plain_view
from cl_medical.lesions.hyper import OptimizerHyper, Stage1Hyper
from cl_medical.lesions.supercon import Representation

Did = Callable[[], object]


def draw_jpegs(folder: Path, count: int) -> Path:
    """Smooth colours with some grain, as photographs compress."""
    rng = np.random.default_rng(0)
    for number in range(count):
        small = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(small).resize((600, 450), Image.Resampling.BICUBIC))
        grain = rng.normal(0, 6, image.shape)
        path = folder / f"{number % 2}" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


class ByHand(Dataset[tuple[Tensor, Tensor, int]]):
    """What the tutorials do: Pillow, torchvision for the plain view, albumentations for the other.

    Args:
        files: Images.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self.plain = transforms.Compose(
            [
                transforms.Resize((224, 224)),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET.mean, IMAGENET.std),
            ]
        )
        self.augmented = A.Compose(
            [
                A.RandomResizedCrop((224, 224), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
                A.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.3),
                A.ToGray(p=0.2),
                A.HorizontalFlip(p=0.5),
                A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(1.0, 2.0), p=0.2),
                A.Normalize(IMAGENET.mean, IMAGENET.std),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image = Image.open(self.files[index]).convert("RGB")
        return self.plain(image), self.augmented(image=np.asarray(image))["image"], index % 2


def pipelines(folder: Path, batch_size: int) -> tuple[Did, Did]:
    table = list_images(folder)
    views = [
        plain_view(224, IMAGENET),
        augmented_view(224, IMAGENET, augmentation="official"),
    ]
    ours = make_loader(
        ImageDataset(table).views(2, views),
        batch_size=batch_size,
        shuffle=True,
        workers=0,
        seed=0,
    )
    theirs = DataLoader(ByHand(table.files), batch_size=batch_size, shuffle=True)
    return lambda: list(ours), lambda: list(theirs)


def matrix_loss(z: Tensor, y: Tensor, temperature: float) -> Tensor:
    """SupCon as it is written by hand: the whole matrix of similarities."""
    z = F.normalize(z, dim=1)
    s = z @ z.T / temperature
    own = torch.eye(len(z), dtype=torch.bool)
    positive = (y[:, None] == y[None, :]) & ~own
    log_p = s - s.masked_fill(own, -torch.inf).logsumexp(dim=1, keepdim=True)
    return -((log_p * positive).sum(dim=1) / positive.sum(dim=1)).mean()


def steps(backbone: str, size: int, batch_size: int) -> tuple[Did, Did]:
    torch.manual_seed(0)
    module = Representation(
        build_backbone(backbone, image_size=size, stem="imagenet"),
        Stage1Hyper(),
        optimizer=OptimizerHyper(),
        classes=[str(k) for k in range(7)],
    ).train()
    module.log_dict = lambda *_, **__: None  # type: ignore[assignment]
    y = torch.randint(7, (batch_size,))
    pair = tuple(torch.randn(batch_size, 3, size, size) for _ in range(2))
    sample = Sample(pair, y, torch.arange(batch_size))
    encoder, head = copy.deepcopy(module.encoder), copy.deepcopy(module.head)
    both: Any = torch.nn.Sequential(encoder, head)
    sgd = {
        name: torch.optim.SGD(part.parameters(), lr=0.003, momentum=0.9, weight_decay=5e-5)
        for name, part in (("ours", module), ("by hand", both))
    }

    def ours() -> None:
        sgd["ours"].zero_grad()
        module.training_step(sample, 0)["loss"].backward()
        sgd["ours"].step()

    def by_hand() -> None:
        sgd["by hand"].zero_grad()
        matrix_loss(both(torch.cat(pair)), y.repeat(2), 0.07).backward()
        sgd["by hand"].step()

    return ours, by_hand


def compare(pair: tuple[Did, Did], rounds: int) -> tuple[float, float, float]:
    """Median processor seconds of each, and the median of the rounds' ratios."""
    seen: tuple[list[float], list[float]] = ([], [])
    for repeat in range(rounds + 1):
        took = [0.0, 0.0]
        for which in (0, 1) if repeat % 2 else (1, 0):
            begun = time.process_time()
            pair[which]()
            took[which] = time.process_time() - begun
        if repeat:  # the first round warms up
            for which in (0, 1):
                seen[which].append(took[which])
    ratio = statistics.median(a / b for a, b in zip(*seen, strict=True))
    return statistics.median(seen[0]), statistics.median(seen[1]), ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lesions_speed.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        jpegs = draw_jpegs(Path(folder), options.images)
        found = compare(pipelines(jpegs, 16), options.rounds)
        rows.append((f"{options.images} JPEGs of 600 x 450 to two views of 224", *found))
    for backbone, size, batch in (("resnet-8-16-32-64-128", 64, 128), ("resnet18", 64, 32)):
        found = compare(steps(backbone, size, batch), options.rounds)
        rows.append((f"stage-1 step, {backbone}, {size} px, batch {batch}", *found))
    load = os.getloadavg()[0]
    lines = [
        "# The lesion pipeline beside code written by hand",
        "",
        f"`python benchmarks/lesions_speed.py --rounds {options.rounds} "
        f"--images {options.images}`: torch {torch.__version__}, albumentations {A.__version__}, "
        f"one thread of a shared machine (load {load:.0f} on {os.cpu_count()} cores). "
        "Processor seconds, median of the rounds taken in turn; the ratio is the median of the "
        "rounds' ratios, below 1 where ours is faster.",
        "",
        "| what | ours, CPU s | by hand, CPU s | ratio |",
        "|---|---|---|---|",
        *(f"| {what} | {a:.3f} | {b:.3f} | {ratio:.3f} |" for what, a, b, ratio in rows),
    ]
    options.out.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
