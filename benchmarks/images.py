"""Images a second through two SimCLR views, beside lightly's on torchvision's ImageFolder.

    python benchmarks/images.py [--images 192] [--rounds 5] [--out benchmarks/results/images.md]

Makes photograph-like JPEGs of 256 to 512 pixels a side, then reads them in turns: an epoch here,
an epoch there, each through two workers, so that whatever else the machine does slows both down.
The ratio of a round is the figure; seconds are only what this machine happened to need.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg

from cl_core.images import DecodeCache, ImageDataset, list_images, read_image
from cl_core.loader import make_loader
from cl_core.transforms import IMAGENET
from cl_vision.methods.views import simclr

BATCH, WORKERS, SIZE = 32, 2, 224


def make_photographs(folder: Path, count: int) -> None:
    """Smooth shapes, edges and grain; JPEG quality 90, about 60 kB each."""
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = rng.integers(256, 513, 2).tolist()
        image = np.zeros((height, width, 3))
        for cells in (4, 16, 64):
            noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            kind = Image.Resampling.NEAREST if cells == 16 else Image.Resampling.BICUBIC
            image += np.asarray(Image.fromarray(noise).resize((width, height), kind)) / 3
        image += rng.normal(0, 4, image.shape)
        path = folder / f"class{number % 4}" / f"{number:04}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def seconds(run: Callable[[], object]) -> float:
    """Wall time."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def milliseconds(run: Callable[[], object], repeats: int = 40) -> float:
    """Median of this thread's own time: others' work does not count."""
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return 1000 * statistics.median(times)


def pipelines(folder: Path, rounds: int) -> list[tuple[float, float]]:
    """Seconds of an epoch, lightly's and ours, round by round."""
    theirs = DataLoader(
        ImageFolder(str(folder), transform=SimCLRTransform(input_size=SIZE)),
        batch_size=BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    recipe = simclr(SIZE, statistics=IMAGENET)
    ours = make_loader(
        ImageDataset(list_images(folder)).views(2, recipe),
        batch_size=BATCH,
        shuffle=True,
        workers=WORKERS,
        seed=0,
    )

    def epoch(loader: DataLoader) -> Callable[[], None]:
        def run() -> None:
            for _ in loader:
                pass

        return run

    for loader in (theirs, ours):
        epoch(loader)()  # starts the workers
    return [(seconds(epoch(theirs)), seconds(epoch(ours))) for _ in range(rounds)]


def decoding(folder: Path) -> dict[str, float]:
    """Milliseconds an image, in one thread, for ways to decode."""
    path = next(folder.rglob("*.jpg"))
    large = folder.parent / "large.jpg"
    Image.open(path).resize((3000, 2000)).save(large, quality=90)
    data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    small = folder.parent / "small"
    small.mkdir()
    for number in range(50):
        Image.open(path).resize((32, 32)).save(small / f"{number}.png")
    table = list_images(small)
    cache = DecodeCache.of(folder.parent / "small.cache", table)
    return {
        "`read_image` (Pillow)": milliseconds(lambda: read_image(path)),
        "`torchvision.io.decode_jpeg`, file in memory": milliseconds(
            lambda: decode_jpeg(data, mode=ImageReadMode.RGB)
        ),
        "3000 x 2000, `read_image`": milliseconds(lambda: read_image(large), 7),
        "3000 x 2000, `read_image(jpeg_min_side=256)`": milliseconds(
            lambda: read_image(large, jpeg_min_side=256), 7
        ),
        "32 x 32 PNG, `read_image`": milliseconds(lambda: read_image(table.files[0])),
        "32 x 32 PNG, `DecodeCache.get`": milliseconds(lambda: cache.get(table.files[0])),
    }


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photographs"
        folder.mkdir()
        make_photographs(folder, options.images)
        epochs = pipelines(folder, options.rounds)
        parts = decoding(folder)
    ratios = sorted(theirs / ours for theirs, ours in epochs)
    rates = [options.images / statistics.median(column) for column in zip(*epochs, strict=True)]
    lines = [
        "# Images",
        "",
        f"`python benchmarks/images.py --images {options.images} --rounds {options.rounds}`: JPEGs",
        f"of 256 to 512 pixels, two SimCLR views of {SIZE}, {WORKERS} workers, batch {BATCH}.",
        "",
        "| pipeline | images/s (median) |",
        "|---|---|",
        f"| lightly `SimCLRTransform`, torchvision `ImageFolder` | {rates[0]:.0f} |",
        f"| `cl_vision` `simclr`, `ImageDataset`, `make_loader` | {rates[1]:.0f} |",
        "",
        f"Ratio of a round, ours to lightly's: median **{statistics.median(ratios):.2f}**, from "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rounds taken in turns.",
        "",
        "| decoding, one thread | ms an image (median) |",
        "|---|---|",
        *(f"| {name} | {ms:.2f} |" for name, ms in parts.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
