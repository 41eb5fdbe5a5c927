"""Time and memory of the losses against their peers; writes ``results/losses.md``.

Run ``python benchmarks/losses.py`` (minutes; the largest case alone takes one or two).
Float32, 128 features, two threads, forward and backward. Times are wall-clock: the contenders of a
size take turns in one process, so that other work on the machine meets all of them. Memory is the
rise of the resident set's high-water mark (Linux) in a fresh process per case, inputs
excluded and their gradients included.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "2"

import torch
import torch.nn.functional as F
from torch import Tensor

from cl_core.losses import nt_xent, sup_con

RESULTS = Path(__file__).parent / "results" / "losses.md"
WIDTH, CLASSES, REPEATS = 128, 10, 5
PAIRS, ROWS, MANY_PAIRS = (256, 1024, 2048, 6144), (2048, 8192), 65536
OURS, DENSE, LIGHTLY, PML = "ours", "dense", "lightly", "pytorch-metric-learning"


def dense_nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """The usual few lines around ``cross_entropy``."""
    z, n = F.normalize(torch.cat([z1, z2]), dim=1), len(z1)
    s = (z @ z.T / temperature).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(s, torch.arange(2 * n).roll(n))


def dense_sup_con(x: Tensor, labels: Tensor, temperature: float = 0.07) -> Tensor:
    """The masks of the reference implementation; every anchor has a positive here."""
    z, self = F.normalize(x, dim=1), torch.eye(len(x), dtype=torch.bool)
    s = (z @ z.T / temperature).masked_fill(self, float("-inf"))
    positive = (labels[:, None] == labels) & ~self
    log_p = (s - s.logsumexp(1, keepdim=True)).masked_fill(~positive, 0)
    return -(log_p.sum(1) / positive.sum(1)).mean()


def lightly_nt_xent(z1: Tensor, z2: Tensor) -> Tensor:
    """NT-Xent of lightly."""
    from lightly.loss import NTXentLoss  # imported by its own cases alone: it takes seconds

    return NTXentLoss(temperature=0.5)(z1, z2)


def pml_sup_con(x: Tensor, labels: Tensor) -> Tensor:
    """SupCon of pytorch-metric-learning."""
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(temperature=0.07)(x, labels)


def contenders(task: str, n: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the losses of one task, as functions of a ``(rows, WIDTH)`` tensor."""
    labels = torch.arange(n) % CLASSES
    return {
        "nt_xent": {
            OURS: lambda x: nt_xent(x[:n], x[n:], 0.5),
            DENSE: lambda x: dense_nt_xent(x[:n], x[n:], 0.5),
            LIGHTLY: lambda x: lightly_nt_xent(x[:n], x[n:]),
        },
        "cold nt_xent": {
            OURS: lambda x: nt_xent(x[:n], x[n:], 0.02),
            DENSE: lambda x: dense_nt_xent(x[:n], x[n:], 0.02),
        },
        "sup_con": {
            OURS: lambda x: sup_con(x[:, None], labels, 0.07),
            DENSE: lambda x: dense_sup_con(x, labels),
            PML: lambda x: pml_sup_con(x, labels),
        },
    }[task]


def rows(task: str, n: int) -> Tensor:
    """Return random embeddings for one case."""
    count = n if task == "sup_con" else 2 * n
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0))


def seconds(loss: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return the wall-clock time of one forward and backward pass."""
    x = x.clone().requires_grad_()
    start = time.perf_counter()
    loss(x).backward()
    return time.perf_counter() - start


def times(task: str, n: int) -> dict[str, tuple[float, float]]:
    """Return median and fastest seconds of each contender, measured in turns."""
    losses, x = contenders(task, n), rows(task, n)
    taken: dict[str, list[float]] = {name: [] for name in losses}
    for loss in losses.values():
        seconds(loss, x)  # warm
    for _ in range(REPEATS if n > 1024 else 5 * REPEATS):
        for name, loss in losses.items():
            taken[name].append(seconds(loss, x))
    return {name: (statistics.median(t), min(t)) for name, t in taken.items()}


def status(field: str) -> int:
    """Return a field of this process's memory status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def measure_alone(task: str, name: str, n: int) -> None:
    """Print the extra bytes and the seconds of one case; run in a process of its own."""
    small = 64
    seconds(contenders(task, small)[name], rows(task, small))  # libraries and threads are up
    loss, x = contenders(task, n)[name], rows(task, n)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = status("VmRSS")
    taken = seconds(loss, x)
    print(status("VmHWM") - before - x.numel() * x.element_size(), taken)


def alone(task: str, name: str, n: int) -> tuple[float, float]:
    """Return megabytes and seconds of one case in a fresh process."""
    command = [sys.executable, __file__, "--alone", task, name, str(n)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(out[0]) / 1e6, float(out[1])


def error(task: str, n: int) -> tuple[float, float]:
    """Return the relative errors of value and gradient against the dense formula in float64."""
    losses, x = contenders(task, n), rows(task, n)
    a, b = x.clone().requires_grad_(), x.double().requires_grad_()
    value, exact = losses[OURS](a), losses[DENSE](b)
    (g,), (h,) = torch.autograd.grad(value, a), torch.autograd.grad(exact, b)
    return abs(value.item() - exact.item()) / exact.item(), float((g - h).norm() / h.norm())


def report() -> str:
    """Measure everything and return the page."""
    lines = [
        "# Losses: time and memory",
        "",
        "Written by `python benchmarks/losses.py`: forward + backward, float32, "
        f"{WIDTH} features, {torch.get_num_threads()} threads, {platform.machine()} with "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}, "
        f"lightly {version('lightly')}, pytorch-metric-learning "
        f"{version('pytorch-metric-learning')}.",
        f"Load of the machine at the start: {os.getloadavg()[0]:.1f} runnable processes on "
        f"{os.cpu_count()} cores; above 0 the times suffer, the ratios less so.",
        "",
        "| loss | size | contender | median ms | fastest ms | extra peak MB "
        "| its time / ours (median, fastest) | its memory / ours |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for task, n in [("nt_xent", n) for n in PAIRS] + [("sup_con", n) for n in ROWS]:
        measured = times(task, n)
        memory = {name: alone(task, name, n)[0] for name in measured}
        unit = "rows" if task == "sup_con" else "pairs"
        for name, (median, fastest) in measured.items():
            ratios = [m / o for m, o in zip(measured[name], measured[OURS], strict=True)]
            lines.append(
                f"| {task} | {n:,} {unit} | {name} | {1e3 * median:.1f} | {1e3 * fastest:.1f} "
                f"| {memory[name]:.1f} | {ratios[0]:.2f}, {ratios[1]:.2f} "
                f"| {memory[name] / memory[OURS]:.1f} |"
            )
            print(lines[-1], flush=True)
    lines += ["", "Ours alone, once, at sizes or temperatures of their own:", ""]
    for task, n in (("nt_xent", PAIRS[-1]), ("cold nt_xent", PAIRS[-1]), ("nt_xent", MANY_PAIRS)):
        megabytes, taken = alone(task, OURS, n)
        lines.append(f"- {task}, {n:,} pairs: {megabytes:.0f} MB extra, {taken:.1f} s")
        print(lines[-1], flush=True)
    lines += [
        "",
        f"The similarity matrix of {MANY_PAIRS:,} pairs would take "
        f"{(2 * MANY_PAIRS) ** 2 * 4 / 1e9:.0f} GB. Temperatures: nt_xent 0.5, cold nt_xent 0.02 "
        f"(running maxima), sup_con 0.07 with {CLASSES} classes.",
        "",
        "| loss | size | relative error of value | of gradient (norm), against dense float64 |",
        "| --- | --- | --- | --- |",
    ]
    for task, n in (("nt_xent", 2048), ("cold nt_xent", 2048), ("sup_con", 4096)):
        lines.append("| {} | {:,} | {:.1e} | {:.1e} |".format(task, n, *error(task, n)))
    lines += ["", f"Load at the end: {os.getloadavg()[0]:.1f}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Write the page, or measure one case for it."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--alone", nargs=3, metavar=("LOSS", "CONTENDER", "SIZE"))
    case = parser.parse_args().alone
    torch.set_num_threads(2)
    if case:
        measure_alone(case[0], case[1], int(case[2]))
    else:
        RESULTS.write_text(report())


if __name__ == "__main__":
    main()
