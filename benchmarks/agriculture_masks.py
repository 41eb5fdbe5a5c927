"""How fast masks are made, on one thread: decoding, excess green, cleaning, 1-bit PNG.

    python benchmarks/agriculture_masks.py --data SEEDLINGS_FOLDER

Takes 60 of the images, resized to 512 x 512 pixels and stored as JPEG; writes
``benchmarks/results/agriculture_masks.md``.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cl_agriculture.attention.excess_green import clean_mask, excess_green, otsu_threshold
from cl_agriculture.attention.maker import MaskMaker, read_rgb
from cl_agriculture.attention.plant_mask import green_mask
from cl_agriculture.attention.store import MaskStore
from cl_agriculture.hyper import MaskHyper
from cl_core.images import list_images

RESULTS = Path(__file__).parent / "results" / "agriculture_masks.md"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    found = sorted(options.data.rglob("*.jpg"))
    found = [found[k] for k in np.linspace(0, len(found) - 1, options.images).astype(int)]
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(found):
            image = Image.open(path).convert("RGB").resize((512, 512), Image.Resampling.BILINEAR)
            image.save(f"{folder}/{number:03d}.jpg", quality=92)
        table = list_images(folder)
        hyper = MaskHyper()
        pixels = [read_rgb(file) for file in table.files]
        values = [excess_green(rgb) for rgb in pixels]
        masks = [e > 0.15 for e in values]
        parts = {
            "decode": lambda k: read_rgb(table.files[k]),
            "excess green": lambda k: excess_green(pixels[k]),
            "Otsu's threshold": lambda k: otsu_threshold(values[k]),
            "cleaning": lambda k: clean_mask(masks[k]),
            "mask of a decoded image, all of these": lambda k: green_mask(pixels[k], hyper),
        }
        rows = []
        for name, step in parts.items():
            start = time.process_time()
            for k in range(len(pixels)):
                step(k)
            rows.append((name, (time.process_time() - start) / len(pixels)))
        start = time.process_time()
        MaskStore.of(Path(folder) / "store", table, MaskMaker(hyper), threads=1)
        rows.append(("from file to 1-bit PNG", (time.process_time() - start) / len(pixels)))
    lines = [
        "# Masks",
        "",
        f"{len(pixels)} seedlings at 512 x 512 pixels, one thread, {platform.machine()}; CPU time.",
        "`python benchmarks/agriculture_masks.py --data SEEDLINGS_FOLDER`",
        "",
        "| step | ms an image | images/s |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {1000 * t:.1f} | {1 / t:.0f} |" for name, t in rows]
    lines += ["", f"Goal: 60 images/s. Measured from file to PNG: {1 / rows[-1][1]:.0f}."]
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
