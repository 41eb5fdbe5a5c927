"""Windows a second beside torchgeo's RasterDataset, and the memory that a large raster takes.

    python benchmarks/raster_reader.py [--side 6144] [--window 256] [--rounds 5]
        [--memory-side 20000] [--out benchmarks/results/raster_reader.md]

Makes a tiled four-band GeoTIFF of 16 bits, with the statistics of land: smooth, with edges and
grain. Both readers take the same windows in turns, in one process and thread, each giving float32
tensors; ours gives the mask of valid pixels with them. Who begins changes from round to round. The
ratio of a round is the figure; windows a second are what this machine happened to give. The block
cache of GDAL is the one that our package sets, 128 MB, for both; the raster is larger.

The memory is the peak resident size of a fresh process that takes the statistics of all pixels and
then reads 500 windows at random.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine

from cl_remote_sensing.rasters.raster import open_scene
from cl_remote_sensing.rasters.windows import Window, grid

BLOCK, BANDS = 512, 4

MEASURE = """
import sys
import numpy as np
from cl_remote_sensing.rasters.raster import open_scene
from cl_remote_sensing.rasters.statistics import band_statistics
from cl_remote_sensing.rasters.windows import Window

def megabytes():  # the peak so far; what getrusage gives begins with the parent's
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

print(megabytes())
scene = open_scene(sys.argv[1])
band_statistics([scene])
print(megabytes())
rng = np.random.default_rng(0)
for _ in range(500):
    row, col = rng.integers(0, scene.height - 512, 2).tolist()
    scene.read(Window(row, col, 512, 512))
print(megabytes())
"""


def make_raster(path: Path, side: int, *, every: int = 1) -> None:
    """Land-like pixels, block by block; of a sparse raster only every so many-th block."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(500, 3000, (BANDS, side // 64 + 2, side // 64 + 2)).astype(np.float32)
    grain = rng.integers(0, 64, (BANDS, BLOCK, BLOCK), dtype=np.uint16)
    options = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "pixel"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint16",
        count=BANDS,
        height=side,
        width=side,
        crs="EPSG:32652",
        transform=Affine(10, 0, 500_000, 0, -10, 4_000_000),
        compress="deflate",
        predictor=2,
        zlevel=1,
        sparse_ok=True,
        bigtiff="if_safer",
        **options,
    ) as file:
        for number, window in enumerate(grid(side, side, size=BLOCK, stride=BLOCK)):
            if number % every:
                continue
            row, col, height, width = window
            rows, cols = (np.arange(row, row + height) / 64, np.arange(col, col + width) / 64)
            fields = coarse[:, rows.astype(int)][:, :, cols.astype(int)].astype(np.uint16)
            pixels = fields + grain[:, :height, :width]
            file.write(pixels, window=rasterio.windows.Window(col, row, width, height))


Reader = tuple[Sequence[Any], Callable[[Any], object]]


def torchgeo_reader(path: Path, window: int) -> Reader:
    """The queries of the grid sampler, and what reads one."""
    from torchgeo.datasets import RasterDataset
    from torchgeo.samplers import GridGeoSampler

    dataset = RasterDataset(paths=[str(path)])
    return list(GridGeoSampler(dataset, size=window)), lambda query: dataset[query]["image"]


def our_reader(path: Path, window: int) -> Reader:
    """The windows of the grid, and what reads one."""
    scene = open_scene(path)

    def read(where: Window) -> object:
        pixels = scene.read(where)
        return torch.from_numpy(pixels.values).float(), torch.from_numpy(pixels.valid)

    return grid(scene.height, scene.width, size=window, stride=window), read


def seconds(read: Callable[[Any], object], windows: Sequence[Any]) -> float:
    """Wall time of reading the windows in their order."""
    start = time.perf_counter()
    for window in windows:
        read(window)
    return time.perf_counter() - start


def compare(path: Path, window: int, rounds: int, shuffled: bool) -> list[tuple[float, float]]:
    """Windows a second, torchgeo's and ours, round by round."""
    rates = []
    readers = [torchgeo_reader(path, window), our_reader(path, window)]
    if len(readers[0][0]) != len(readers[1][0]):
        raise SystemExit("the two grids differ; choose --side as a multiple of --window")
    order = np.arange(len(readers[0][0]))
    if shuffled:
        order = np.random.default_rng(0).permutation(order)
    plans = [([windows[k] for k in order.tolist()], read) for windows, read in readers]
    for windows, read in plans:
        seconds(read, windows[: len(windows) // 4])  # the file is in memory, all is imported
    for number in range(rounds):
        times = [0.0, 0.0]
        for who in (0, 1) if number % 2 == 0 else (1, 0):
            windows, read = plans[who]
            times[who] = seconds(read, windows)
        rates.append((len(order) / times[0], len(order) / times[1]))
    return rates


def peak_memory(path: Path) -> list[float]:
    """Megabytes of a fresh process: after imports, after statistics, after random windows."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True
    )
    return [float(line) for line in run.stdout.split()]


def row_of(name: str, rates: list[tuple[float, float]]) -> str:
    """A row of the table."""
    ratios = sorted(ours / theirs for theirs, ours in rates)
    theirs, ours = (statistics.median(column) for column in zip(*rates, strict=True))
    return (
        f"| {name} | {theirs:.0f} | {ours:.0f} | **{statistics.median(ratios):.1f}** "
        f"({ratios[0]:.1f} to {ratios[-1]:.1f}) |"
    )


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--side", type=int, default=6144)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-side", type=int, nargs="*", default=[5000, 20000])
    parser.add_argument("--scratch", type=Path, help="folder for the rasters")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        path = Path(scratch) / "land.tif"
        make_raster(path, options.side)
        megabytes = path.stat().st_size / 1e6
        grid_rates = compare(path, options.window, options.rounds, shuffled=False)
        random_rates = compare(path, options.window, options.rounds, shuffled=True)
        memory = []
        for side in options.memory_side:
            large = Path(scratch) / "large.tif"
            make_raster(large, side, every=8)
            memory.append((side, peak_memory(large)))
            large.unlink()
    lines = [
        "# Raster reader",
        "",
        f"`python benchmarks/raster_reader.py --side {options.side} --window {options.window} "
        f"--rounds {options.rounds}`: one GeoTIFF",
        f"of {options.side} x {options.side} pixels, {BANDS} bands of 16 bits, blocks of {BLOCK}, "
        f"deflate ({megabytes:.0f} MB); one process and",
        "thread, the file in memory, a block cache of 128 MB. Windows a second, medians, taken in",
        "turns; who begins changes from round to round.",
        "",
        f"| windows of {options.window} | torchgeo `RasterDataset` | `Scene.read` | ratio of a "
        "round |",
        "|---|---|---|---|",
        row_of("row by row (torchgeo's `GridGeoSampler`)", grid_rates),
        row_of("the same in random order", random_rates),
    ]
    if memory:
        lines += [
            "",
            "Peak resident memory of a process, MB: after the imports (torch is not among them),",
            "after the statistics of all pixels, after 500 random windows of 512.",
            "",
            "| raster, 4 bands of 16 bits | imports | statistics | random windows |",
            "|---|---|---|---|",
            *(
                f"| {side} x {side} | {' | '.join(f'{peak:.0f}' for peak in peaks)} |"
                for side, peaks in memory
            ),
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
