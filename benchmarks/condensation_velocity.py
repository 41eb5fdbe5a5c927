"""How fast a network's tangent kernel moves while it learns from sets of DC, DCC and real digits.

    python benchmarks/condensation_velocity.py --picture docs/pictures/kernel_velocity.png

One condensation each of the built-in digits (one image a class, ``cpu-smoke``, seed 0); two fresh
networks are trained on each set for 300 steps (SGD of rate 0.01 and momentum 0.9, the whole set a
step) and the kernel is taken on 20 test digits. Writes the picture and the table
``benchmarks/results/condensation_velocity.md``. About a minute and a half of one core.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from cl_core.config import TrainerConfig
from cl_core.report.figures import new_figure
from cl_vision import CondenseConfig, condense
from cl_vision.condensation.condensed_set import load_condensed
from cl_vision.condensation.dynamics import kernel_velocity
from cl_vision.condensation.pictures import figure_png
from cl_vision.condensation.setting import complete, network_builder, real_of

RESULTS = Path(__file__).parent / "results" / "condensation_velocity.md"
EPOCHS, EVERY, PROBE, NETWORKS = 300, 30, 20, 2


def sets(folder: Path) -> tuple[CondenseConfig, dict[str, Tensor]]:
    """Condense by DC and DCC; give the options and the sets, with the real digits they began as."""
    found = {}
    for method in ("dc", "dcc"):
        config = CondenseConfig(
            data="digits",
            out=folder / method,
            method=method,  # type: ignore[arg-type]
            preset="cpu-smoke",
            trainer=TrainerConfig(accelerator="cpu", tensorboard=False, progress=False),
        )
        condense(config)
        made = load_condensed(config.out)
        found[method.upper()] = made.images
    return config, {"random digits": made.start, **found}


def main() -> None:
    """Condense, train, plot, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config, images = sets(Path(folder))
    _, test, _ = real_of({"data": "digits"})
    build = network_builder(
        complete(config, test.size, digits=True), test.channels, len(test.classes), test.size
    )
    probe = test.take(torch.arange(PROBE))
    figure, (axes,) = new_figure()
    steps = [EVERY * k for k in range(1, EPOCHS // EVERY + 1)]
    lines = [
        "# Kernel velocity on condensed digits",
        "",
        "Distance of the tangent kernel to the one 30 steps before, a step, times 1,000: mean of",
        f"{NETWORKS} fresh networks; see the head of the program.",
        "",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()}, 1 thread; "
        "`python benchmarks/condensation_velocity.py`, seed 0",
        "",
        f"| set | {' | '.join(map(str, steps))} |",
        "|---|" + "---|" * len(steps),
    ]
    for name, x in images.items():
        runs = [
            kernel_velocity(
                build,
                x,
                torch.arange(len(x)),
                probe,
                epochs=EPOCHS,
                every=EVERY,
                generator=torch.Generator().manual_seed(seed),
            )
            for seed in range(NETWORKS)
        ]
        mean = [fmean(values) for values in zip(*runs, strict=True)]
        axes.plot(steps, mean, marker="o", label=name)
        lines.append(f"| {name} | {' | '.join(f'{1000 * v:.3f}' for v in mean)} |")
        print(lines[-1], flush=True)
    axes.set_yscale("log")
    axes.set_xlabel("training step")
    axes.set_ylabel("kernel velocity (distance a step)")
    axes.legend()
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_bytes(figure_png(figure))
    options.out.write_text("\n".join([*lines, ""]), "utf-8")


if __name__ == "__main__":
    main()
