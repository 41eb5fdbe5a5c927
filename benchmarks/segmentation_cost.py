"""What segmentation costs: a step of each kind of norm, predictions of large volumes, distances.

    uv run python benchmarks/segmentation_cost.py SCRATCH [--parts step scores predict large]

adds its parts to ``SCRATCH/cost.json`` and writes ``results/segmentation_cost.md`` of all that is
there. One thread; ratios are medians over interleaved rounds in CPU seconds, each prediction is a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from cl_medical.segmentation.backbones import Plan, build_backbone
from cl_medical.segmentation.hyper import NetworkHyper, VolumeHyper
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.scores import score_mask

RESULTS = Path(__file__).parent / "results" / "segmentation_cost.md"
FILTERS = {"small": (16, 32, 64, 128), "default": (32, 64, 128, 256)}
VOLUMES = {"predict": ((256, 256, 128), "default"), "large": ((512, 512, 400), "small")}
LIMITS = {"predict": 2.0, "large": 3.0}

Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--parts", nargs="+", default=["step", "scores", "predict", "large"])
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    asked.scratch.mkdir(parents=True, exist_ok=True)
    record = asked.scratch / "cost.json"
    found: dict[str, list[Row]] = json.loads(record.read_text()) if record.is_file() else {}
    for part in asked.parts:
        if part == "step":
            found[part] = steps(asked.rounds)
        elif part == "scores":
            found[part] = scores(asked.rounds)
        else:
            found[part] = [prediction(asked.scratch, part)]
        record.write_text(json.dumps(found, indent=1))
        print(json.dumps(found[part]), flush=True)
    write_page(found)


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each call, all of them in every round."""
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if number:  # the first is a warm-up
                seen[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in seen.items()}


def network(size: str, domain_norm: bool) -> MultiDomainNetwork:
    torch.manual_seed(0)
    filters = FILTERS[size]
    plan = Plan(
        architecture="dynunet",
        spatial_dims=2,
        in_channels=1,
        filters=filters,
        strides=((1, 1), *((2, 2),) * 3),
        kernels=((3, 3),) * 4,
    )
    classes = dict.fromkeys("abc", 3)
    return MultiDomainNetwork(build_backbone(plan), classes, domain_norm=domain_norm).train()


def steps(rounds: int) -> list[Row]:
    """Forward and backward pass of 12 slices of 128 x 128, small network."""
    plain, own = network("small", False), network("small", True)
    x = torch.randn(12, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    mixed = torch.arange(3).repeat_interleave(4)

    def step(net: MultiDomainNetwork, ids: int | Tensor) -> Callable[[], None]:
        def run() -> None:
            logits = net(x, ids).logits
            torch.stack([one.square().mean() for one in logits.values()]).sum().backward()
            net.zero_grad(set_to_none=True)

        return run

    found = interleaved(
        {
            "plain batch norm": step(plain, 0),
            "domain norm, one domain": step(own, 0),
            "domain norm, three domains": step(own, mixed),
        },
        rounds,
    )
    base = found["plain batch norm"]
    wanted = {"domain norm, one domain": "1.05", "domain norm, three domains": "1.15"}
    return [
        {
            "what": name,
            "CPU s": f"{value:.3f}",
            "over plain": f"{value / base:.3f}",
            "at most": wanted.get(name, ""),
        }
        for name, value in found.items()
    ]


def scores(rounds: int) -> list[Row]:
    """HD95 and ASSD beside MONAI's own two calls, on two grids."""
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    rows: list[Row] = []
    for shape, mm in (((40, 50, 40), (1.0, 1.0, 1.0)), ((39, 305, 305), (2.0, 1.25, 1.25))):
        grid = np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) / 2
        radius = np.array(shape).reshape(3, 1, 1, 1) * 0.3
        truth = ((grid / radius) ** 2).sum(0) < 1
        moved = np.roll(truth, 2, axis=1)
        y, p = (torch.from_numpy(one[None, None].astype(np.uint8)) for one in (truth, moved))

        def theirs(p: Tensor = p, y: Tensor = y, mm: Any = mm) -> tuple[float, float]:
            hd = compute_hausdorff_distance(p, y, True, percentile=95, spacing=list(mm))
            mean = compute_average_surface_distance(p, y, True, symmetric=True, spacing=list(mm))
            return float(hd), float(mean)

        def ours(a: Any = moved, b: Any = truth, mm: Any = mm) -> tuple[float, float]:
            made = score_mask(a, b, mm)
            return made.hd95, made.assd

        np.testing.assert_allclose(ours(), theirs(), rtol=1e-5)
        found = interleaved({"MONAI": theirs, "here": ours}, rounds)
        rows.append(
            {
                "grid": " x ".join(map(str, shape)),
                "MONAI's two calls, CPU s": f"{found['MONAI']:.3f}",
                "all figures here, CPU s": f"{found['here']:.3f}",
                "ratio": f"{found['here'] / found['MONAI']:.2f}",
            }
        )
    return rows


def prediction(scratch: Path, part: str) -> Row:
    """Segment one volume by the program in a process of its own; its peak is the kernel's."""
    shape, size = VOLUMES[part]
    image = scratch / f"{part}.nii.gz"
    if not image.is_file():
        rng = np.random.default_rng(0)
        slices = rng.integers(0, 1000, (*shape[:2], 8)).astype(np.int16)
        voxels = np.tile(slices, (1, 1, shape[2] // 8))
        nib.save(nib.Nifti1Image(voxels, np.diag([0.5, 0.5, 3.0, 1.0])), image)
    run = scratch / f"run-{size}"
    if not (run / "model.json").is_file():
        train_briefly(scratch, run, size)
    out = scratch / f"masks-{part}"
    words = ["segment", "predict", "--run", run, "--data", image, "--out", out]
    words += ["--domain", "block", "--device", "cpu", "--overwrite"]
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cl_medical.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "line = [x for x in Path('/proc/self/status').read_text().splitlines() if 'VmHWM' in x]\n"
        "print('MEASURED', code, line[0].split()[1], time.process_time())\n"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )
    wall = time.perf_counter() - began
    told = next(line for line in done.stdout.splitlines() if line.startswith("MEASURED"))
    _, status, kib, cpu = told.split()
    if status != "0":
        raise SystemExit(done.stdout + done.stderr)
    return {
        "volume": " x ".join(map(str, shape)),
        "network": " ".join(map(str, FILTERS[size])),
        "peak GB": f"{int(kib) * 1024 / 1e9:.2f}",
        "limit GB": f"{LIMITS[part]:.0f}",
        "CPU s": f"{float(cpu):.0f}",
        "wall s, shared machine": f"{wall:.0f}",
    }


def train_briefly(scratch: Path, run: Path, size: str) -> None:
    """A model is needed, not a good one: one step on blocks."""
    from cl_core.config import TrainerConfig
    from cl_medical.segmentation.config import TrainConfig
    from cl_medical.segmentation.pipeline import train

    cases = []
    for number in range(2):
        label = np.zeros((64, 64, 4), np.uint8)
        label[20:40, 20:40] = 1
        image = label.astype(np.float32) + 0.1
        for name, values in (("image", image), ("label", label)):
            affine = np.diag([0.5, 0.5, 3.0, 1.0])
            nib.save(nib.Nifti1Image(values, affine), scratch / f"{number}-{name}.nii.gz")
        paths = {name: f"{number}-{name}.nii.gz" for name in ("image", "label")}
        cases.append({"id": str(number), "split": "train", **paths})
    record = {"domains": {"block": {"labels": {0: "bg", 1: "block"}, "cases": cases}}}
    manifest = scratch / "blocks.json"
    manifest.write_text(json.dumps(record))
    quiet = TrainerConfig(accelerator="cpu", devices=1, progress=False, tensorboard=False)
    train(
        TrainConfig(
            data=str(manifest),
            out=run,
            mode="shared",
            network=NetworkHyper(filters=FILTERS[size]),
            volumes=VolumeHyper(patch=(64, 64)),
            batch_size=2,
            steps=1,
            epochs=1,
            overwrite=run.exists(),
            trainer=quiet,
        )
    )


def write_page(found: dict[str, list[Row]]) -> None:
    lines = ["# What segmentation costs", "", "One thread of a shared two-core machine.", ""]
    lines.insert(3, "`uv run python benchmarks/segmentation_cost.py SCRATCH` makes this page.")
    groups = {
        "step": ("A step: 12 slices of 128 x 128, filters 16 32 64 128", ["step"]),
        "scores": ("HD95 and ASSD of one structure", ["scores"]),
        "predict": ("`segment predict` in two dimensions, slice by slice", ["predict", "large"]),
    }
    for title, parts in groups.values():
        rows = [row for part in parts for row in found.get(part, [])]
        if rows:
            lines += [f"## {title}", "", *markdown(rows), ""]
    missing = [part for part in ("step", "scores", "predict", "large") if part not in found]
    if missing:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    RESULTS.write_text("\n".join(lines), "utf-8")


def markdown(rows: list[Row]) -> list[str]:
    keys = list(rows[0])
    head = [f"| {' | '.join(keys)} |", f"|{'---|' * len(keys)}"]
    return head + [f"| {' | '.join(str(row[key]) for key in keys)} |" for row in rows]


if __name__ == "__main__":
    main()
