"""The largest memory of ``cl-medical lesions predict`` over many images.

    uv run python benchmarks/lesions_memory.py [--counts 1000 10000]

Draws JPEGs of 64 x 64 pixels, trains a small network for an epoch, and classifies each number of
images in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from cl_core.commands.outcome import text_table
from cl_medical.lesions import TrainConfig, train
from cl_medical.lesions.drawn import draw_lesions


def draw(folder: Path, count: int) -> Path:
    """Write JPEGs of blocks of colour."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 64)).save(folder / f"{number:06}.jpg")
    return folder


def peak(run: Path, images: Path, out: Path) -> float:
    """Classify a folder; MiB of the process at its largest."""
    argv = ["lesions", "predict", "--run", str(run), "--data", str(images), "--out", str(out)]
    program = "import sys; from cl_medical.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *argv, "--batch_size", "64"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"predict ended with {process.returncode}")
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = train(
            TrainConfig(
                recipe="supercon-small",
                data=str(draw_lesions(folder / "drawn", seed=0)),
                out=folder / "run",
                method="cross_entropy",
                epochs=1,
                trainer={"tensorboard": False, "progress": False},
            )
        )
        rows = []
        for count in options.counts:
            images = draw(folder / f"{count}", count)
            found = peak(trained.out, images, folder / f"out-{count}")
            rows.append({"images": f"{count:,}", "largest memory, MiB": f"{found:.0f}"})
    print("\n".join(text_table(rows)))


if __name__ == "__main__":
    main()
