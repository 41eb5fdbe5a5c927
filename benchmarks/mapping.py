"""Time and memory of mapping a scene: what the network takes, and what all else takes.

    python benchmarks/mapping.py [--sizes 5000,10000,20000] [--networks cheap,resnet18]

writes ``benchmarks/results/mapping.md``. Scenes are smooth fields with grain, 4 bands of 16 bits,
tiled and deflated. ``cheap`` is one pointwise convolution, under which everything else shows;
``resnet18`` the DeepLabV3+ with 5 classes, mapped at ``--network-size`` pixels a side with windows
that overlap by ``--network-overlap`` (none: the network's share is smallest then). Each row is a
fresh process; its peak is that of the resident set, libraries included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine

from cl_remote_sensing.mapping.job import MapJob
from cl_remote_sensing.mapping.prediction import predictor
from cl_remote_sensing.mapping.scene_map import map_scene
from cl_remote_sensing.mapping.values import MapValues
from cl_remote_sensing.networks.network import build_network
from cl_remote_sensing.rasters.normalization import Normalization
from cl_remote_sensing.rasters.raster import open_scene

RESULTS = Path(__file__).parent / "results" / "mapping.md"
BANDS, CLASSES = 4, 5


def make_scene(path: Path, size: int) -> None:
    """Write a scene block row by block row."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(200, 3000, (BANDS, size // 100 + 2, size // 100 + 2))
    cols = np.arange(size) / 100
    left, right = cols.astype(int), cols % 1
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=size,
        height=size,
        count=BANDS,
        dtype="uint16",
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress="deflate",
        zlevel=1,
        bigtiff="IF_SAFER",
        crs="EPSG:32633",
        transform=Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as file:
        for top in range(0, size, 512):
            height = min(512, size - top)
            rows = np.arange(top, top + height) / 100
            upper, lower = rows.astype(int), (rows % 1)[:, None]
            for band, field in enumerate(coarse, start=1):
                across = field[:, left] * (1 - right) + field[:, left + 1] * right
                values = across[upper] * (1 - lower) + across[upper + 1] * lower
                values += rng.integers(0, 16, values.shape)
                window = ((top, top + height), (0, size))
                file.write(values.astype(np.uint16), band, window=window)


def network(name: str) -> torch.nn.Module:
    """The same weights at every call."""
    torch.manual_seed(0)
    if name == "cheap":
        return torch.nn.Conv2d(BANDS, CLASSES, 1)
    return build_network(encoder=name, bands=BANDS, outputs=CLASSES)


def measure(path: Path, name: str, threads: int, device: str, overlap: float) -> dict[str, float]:
    """Map a scene in this process."""
    torch.set_num_threads(threads)
    flat = (1600.0,) * BANDS
    normalization = Normalization(
        mode="percentile", low=(200.0,) * BANDS, high=(3000.0,) * BANDS, mean=flat, std=flat
    )
    begin = time.process_time()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        job = MapJob(
            predict=predictor(network(name).to(device)),
            normalization=normalization,
            values=MapValues.of([f"class {k}" for k in range(CLASSES)]),
            device=device,
            overlap=overlap,
        )
        result = map_scene(job, open_scene(path), Path(folder) / "map.tif")
    return {
        **result.seconds,
        "cpu": time.process_time() - begin,
        "windows": result.windows,
        "peak": peak_memory(),
    }


def peak_memory() -> float:
    """Largest resident set of this process so far in MB; `getrusage` would tell its parent's."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def table(rows: list[tuple[str, int, dict[str, float]]]) -> list[str]:
    """Markdown."""
    lines = [
        "| network | pixels a side | windows | wall s | network s | waiting for pixels s "
        "| blending s | writing s | all but the network | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, size, figures in rows:
        other = 1 - figures["model"] / figures["total"]
        lines.append(
            f"| {name} | {size:,} | {figures['windows']:,} | {figures['total']:.1f} "
            f"| {figures['model']:.1f} | {figures['reading']:.1f} | {figures['blending']:.1f} "
            f"| {figures['writing']:.1f} | {other:.1%} | {figures['peak']:,.0f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="5000,10000,20000")
    parser.add_argument("--networks", default="cheap,resnet18")
    parser.add_argument("--network-size", type=int, default=10000)
    parser.add_argument("--network-overlap", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where scenes are made; kept there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=2, metavar=("SCENE", "NETWORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        scene, name = options.one
        overlap = 0.5 if name == "cheap" else options.network_overlap
        print(json.dumps(measure(Path(scene), name, options.threads, options.device, overlap)))
        return
    sizes = [int(size) for size in options.sizes.split(",")]
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        for size in sizes:
            scene = folder / f"scene{size}.tif"
            if not scene.exists():
                make_scene(scene, size)
        for name in options.networks.split(","):
            for size in sizes:
                if name != "cheap" and size != options.network_size:
                    continue
                command = [sys.executable, __file__, "--one", str(folder / f"scene{size}.tif")]
                command += [name, "--threads", str(options.threads), "--device", options.device]
                command += ["--network-overlap", str(options.network_overlap)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows.append((name, size, json.loads(done.stdout.splitlines()[-1])))
                print(rows[-1], flush=True)
    text = [
        "# Mapping a scene",
        "",
        f"`python benchmarks/mapping.py --sizes {options.sizes} --networks {options.networks} "
        f"--threads {options.threads} --device {options.device} "
        f"--network-overlap {options.network_overlap}`: {BANDS} bands of 16 bits, {CLASSES} "
        "classes, windows of 256 pixels. Those of `cheap` overlap by half, those of the other by "
        f"{options.network_overlap:.0%}; torch {torch.__version__}.",
        "",
        *table(rows),
        "",
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(text))


if __name__ == "__main__":
    main()
