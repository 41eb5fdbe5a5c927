"""A matching step, its memory, and an assessment, beside the straightforward loops.

    python benchmarks/condensation_speed.py

*Step*: ConvNet-3 of width 128 at 32 x 32 x 3, 10 classes, 256 real images each; real gradients and
the derivative by 1 or 10 synthetic images a class. The straightforward loop has the layers of
PyTorch, one graph a class, whole batches, as the released code. Both have the same weights; CPU
seconds of one thread, rounds in turn. *Memory*: growth of the peak of a fresh process over what it
held before the first step. *Assessment*: five networks together beside one after another. Writes
``benchmarks/results/condensation_speed.md``. About five minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl_vision.condensation.assessment import Recipe, train_networks
from cl_vision.condensation.chunks import default_chunk, match_classes
from cl_vision.condensation.convnet import ConvNet, fresh
from cl_vision.condensation.gradient_distance import gradient_distance

RESULTS = Path(__file__).parent / "results" / "condensation_speed.md"
BATCH, WIDTH, SIZE = 256, 128, (32, 32)

Gradient = Callable[[nn.Module, list[Tensor], list[Tensor], bool], Tensor]


def plain(network: ConvNet) -> nn.Sequential:
    """The same network of PyTorch's own layers, parameters shared."""
    layers = [nn.AvgPool2d(2) if i % 4 == 3 else layer for i, layer in enumerate(network.features)]
    return nn.Sequential(*layers, nn.Flatten(), network.classifier)


def straightforward(
    network: nn.Module, real: list[Tensor], synthetic: list[Tensor], contrast: bool
) -> Tensor:
    """The gradient of the loss by the images: every class its graph, all kept to the end."""
    parameters = list(network.parameters())
    targets, owns = [], []
    leaves = [s.clone().requires_grad_() for s in synthetic]
    for label, (x, s) in enumerate(zip(real, leaves, strict=True)):
        loss = F.cross_entropy(network(x), torch.full((len(x),), label))
        targets.append([g.detach() for g in torch.autograd.grad(loss, parameters)])
        loss = F.cross_entropy(network(s), torch.full((len(s),), label))
        owns.append(torch.autograd.grad(loss, parameters, create_graph=True))
    if contrast:
        target = [torch.stack(parts).mean(0) for parts in zip(*targets, strict=True)]
        own = [torch.stack(parts).mean(0) for parts in zip(*owns, strict=True)]
        loss = gradient_distance(own, target)
    else:
        pairs = zip(owns, targets, strict=True)
        loss = torch.stack([gradient_distance(own, target) for own, target in pairs]).sum()
    return torch.cat(torch.autograd.grad(loss, leaves))


def ours(network: nn.Module, real: list[Tensor], synthetic: list[Tensor], contrast: bool) -> Tensor:
    """The same by the package, as `condense` calls it."""
    chunk = default_chunk(network, real[0][:1])
    return match_classes(
        network, real, synthetic, contrast=contrast, real_chunk=chunk, syn_chunk=chunk
    ).gradient


def case(ipc: int, classes: int = 10) -> tuple[ConvNet, list[Tensor], list[Tensor]]:
    """A fresh network, real and synthetic images."""
    generator = torch.Generator().manual_seed(0)
    network = fresh(partial(ConvNet, 3, classes, SIZE, width=WIDTH), generator)
    assert isinstance(network, ConvNet)
    real, synthetic = (
        list(torch.randn(classes, n, 3, *SIZE, generator=generator)) for n in (BATCH, ipc)
    )
    return network, real, synthetic


def step_rows(rounds: int, ipc: int) -> list[str]:
    """Time the steps in turn."""
    rows = []
    network, real, synthetic = case(ipc)
    for name, contrast in (("DC", False), ("DCC", True)):
        times: list[tuple[float, float]] = []
        for _ in range(rounds):
            begun = process_time()
            a = straightforward(plain(network), real, synthetic, contrast)
            between = process_time()
            b = ours(network, real, synthetic, contrast)
            times.append((between - begun, process_time() - between))
        error = float((a - b).norm() / a.norm())
        slow, fast = (median(column) for column in zip(*times, strict=True))
        ratio = median(s / f for s, f in times)
        rows.append(f"| {name}, {ipc} | {slow:.2f} | {fast:.2f} | {ratio:.2f} | {error:.0e} |")
    return rows


def peak_growth(work: Callable[[], object]) -> float:
    """MB by which the peak of the process grows over what it holds now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")

    def status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name)) / 1024

    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def memory(name: str, contrast: bool, ipc: int, classes: int) -> float:
    """Measure one step in a process of its own."""
    words = [sys.executable, __file__, "--memory", name, str(int(contrast)), str(ipc), str(classes)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def memory_rows() -> list[str]:
    """Peaks at 10 images a class; ours also by the number of classes."""
    rows = []
    for method, contrast in (("DC", False), ("DCC", True)):
        for classes in (5, 10, 20):
            cells = [f"{memory(name, contrast, 10, classes):.0f}" for name in ("loop", "ours")]
            rows.append(f"| {method} | {classes} | {cells[0]} | {cells[1]} |")
    return rows


def assessment_rows(rounds: int) -> list[str]:
    """Five networks together and one after another, without and with augmentation."""
    rows = []
    for width, channels, size, depth in ((32, 3, (8, 8), 2), (32, 3, (16, 16), 3)):
        build = partial(ConvNet, channels, 10, size, width=width, depth=depth)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(10, channels, *size, generator=generator)
        sets = [(images, torch.arange(10))] * 5
        test = torch.randn(2000, channels, *size, generator=generator)
        for strategy in ("", "color_crop_cutout_scale_rotate"):
            recipe = Recipe(epochs=100, strategy=strategy)
            times, same = [], True
            for _ in range(rounds):
                begun = process_time()
                alone = train_networks(build, sets, recipe, seeds=range(5), together=False)
                between = process_time()
                joint = train_networks(build, sets, recipe, seeds=range(5))
                times.append((between - begun) / (process_time() - between))
                with torch.no_grad():
                    pairs = zip(alone, joint, strict=True)
                    same &= all(torch.equal(a(test).argmax(1), b(test).argmax(1)) for a, b in pairs)
            told = "augmented" if strategy else "plain"
            agree = "identical" if same else "differ"
            rows.append(f"| {size[0]} x {size[1]}, {told} | {median(times):.2f} | {agree} |")
    return rows


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/condensation"))
    parser.add_argument("--only", nargs="*", help="measure only these parts")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        name, contrast, ipc, classes = options.memory
        network, real, synthetic = case(int(ipc), int(classes))
        step, used = (ours, network) if name == "ours" else (straightforward, plain(network))
        few = [[x[:2] for x in images[:2]] for images in (real, synthetic)]
        step(used, *few, bool(int(contrast)))
        print(peak_growth(lambda: step(used, real, synthetic, bool(int(contrast)))))
        return
    parts: dict[str, Callable[[], list[str]]] = {
        "step 1": lambda: step_rows(options.rounds, 1),
        "step 10": lambda: step_rows(options.rounds, 10),
        "memory": memory_rows,
        "assessment": lambda: assessment_rows(options.rounds),
    }
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "speed.json"
    rows: dict[str, list[str]] = json.loads(kept.read_text()) if kept.exists() else {}
    for part in options.only or parts:
        if part not in rows:
            rows[part] = parts[part]()
            kept.write_text(json.dumps(rows))
        print("\n".join(rows[part]), flush=True)
    rows = {part: rows.get(part, ["| not measured yet | | | | |"]) for part in parts}
    lines = [
        "# A matching step and an assessment",
        "",
        f"`python benchmarks/condensation_speed.py`: torch {torch.__version__.split('+')[0]},",
        f"{platform.machine()}, 1 thread of a shared machine, float32; CPU seconds, medians of",
        f"{options.rounds} rounds in turn.",
        "",
        "The relative difference is that of the gradient by the images. In float64 both agree to",
        "rounding; in float32 some units lie on the other side of the ReLU's kink, where a",
        "gradient is either there or not.",
        "",
        "ConvNet-3 of width 128, 32 x 32 x 3, 10 classes, 256 real images a class:",
        "",
        "| method, images a class | straightforward | ours | ratio | relative difference |",
        "|---|---|---|---|---|",
        *rows["step 1"],
        *rows["step 10"],
        "",
        "Growth of the peak of memory in a step, MB, at 10 images a class (in its own process,",
        "after a step of two images a class, which loads PyTorch's kernels):",
        "",
        "| method | classes | straightforward | ours |",
        "|---|---|---|---|",
        *rows["memory"],
        "",
        "Five networks trained together beside one after another, 10 images, width 32, 100 epochs:",
        "",
        "| images | times faster | predictions of all five on 2,000 images of noise |",
        "|---|---|---|",
        *rows["assessment"],
        "",
    ]
    options.out.write_text("\n".join(lines), "utf-8")


if __name__ == "__main__":
    main()
