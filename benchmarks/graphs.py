"""Time and memory of ARIEL's training step with the attack, against dense autograd.

    python benchmarks/graphs.py --root FOLDER_WITH_PYG_DATA_SETS

writes ``benchmarks/results/graphs.md``. Without ``--root``, or where a data set is missing, random
graphs of the same size stand in. Speed: all variants take turns in one process, medians. Memory:
each size in a fresh process, growth of its peak resident set over what was resident before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cl_graphs.graph import clean_edges
from cl_graphs.hyper import ArielHyper
from cl_graphs.methods.ariel import Ariel, View
from cl_graphs.methods.attack import AttackConfig, pgd_attack
from cl_graphs.methods.encoder import GCN, ProjectionHead
from cl_graphs.methods.threads import threads_for

RESULTS = Path(__file__).parent / "results" / "graphs.md"
CORA = {"nodes": 2708, "features": 1433, "edges": 10556, "density": 0.0127}
PHOTO = {"nodes": 7650, "features": 745, "edges": 238162, "density": 0.35}
PUBMED = {"nodes": 19717, "features": 500, "edges": 88648, "density": 0.1}


def load(name: str, root: Path | None) -> tuple[Tensor, Tensor, str]:
    """Read a data set, or make a random graph of its size."""
    shape = {"Cora": CORA, "Photo": PHOTO, "PubMed": PUBMED}[name]
    if root is not None and (root / name / "raw").is_dir():
        from torch_geometric import datasets

        made = datasets.Planetoid if name in ("Cora", "PubMed") else datasets.Amazon
        data = made(str(root), name)[0]
        edges, _ = clean_edges(*data.edge_index.numpy(), data.num_nodes)
        return data.x.float(), edges, name
    generator = torch.Generator().manual_seed(0)
    n, f = int(shape["nodes"]), int(shape["features"])
    x = (torch.rand(n, f, generator=generator) < shape["density"]).float()
    ends = torch.randint(n, (2, int(shape["edges"]) // 2), generator=generator).numpy()
    edges, _ = clean_edges(ends[0], ends[1], n)
    return x, edges, f"random, of {name}'s size"


def subgraph(x: Tensor, edges: Tensor, size: int) -> View:
    """Draw the induced subgraph of some random nodes."""
    nodes = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:size].sort().values
    place = torch.full((len(x),), -1)
    place[nodes] = torch.arange(len(nodes))
    moved = place[edges]
    return View(x[nodes].contiguous(), moved[:, (moved >= 0).all(0)])


def model(features: int, hidden: int, temperature: float, alpha: float) -> Ariel:
    """Build a model, the same at every call."""
    torch.manual_seed(0)
    hyper = ArielHyper(
        hidden=hidden,
        projection=hidden,
        activation="relu",
        drop_edge_1=0.2,
        drop_edge_2=0.4,
        drop_feature_1=0.3,
        drop_feature_2=0.4,
        temperature=temperature,
        epsilon=0.5,
        alpha=alpha,
        beta=0.01,
        learning_rate=5e-4,
    )
    return Ariel(GCN(features, hidden, activation="relu"), ProjectionHead(hidden, hidden), hyper)


# --- the same step by autograd through a dense N x N adjacency ---


def dense_grace(h1: Tensor, h2: Tensor, t: float) -> Tensor:
    """Contrast two views through dense similarity matrices, each direction on its own."""

    def one_way(a: Tensor, b: Tensor) -> Tensor:
        among, between = torch.exp(a @ a.T / t), torch.exp(a @ b.T / t)
        return -torch.log(between.diag() / (among.sum(1) + between.sum(1) - among.diag()))

    a, b = F.normalize(h1), F.normalize(h2)
    return (one_way(a, b) + one_way(b, a)).mean() / 2


def bisection(s: Tensor, budget: float, width: float) -> Tensor:
    """Project a dense matrix onto the budget, as published."""

    def excess(mu: Tensor) -> Tensor:
        return (s - mu).clamp(0, 1).sum() - budget

    if s.clamp(0, 1).sum() <= budget:
        return s.clamp(0, 1)
    left, right = s.min() - 1, s.max()
    middle = left
    while right - left >= width:
        middle = (left + right) / 2
        if excess(middle) == 0:
            break
        if torch.sign(excess(middle)) == torch.sign(excess(left)):
            left = middle
        else:
            right = middle
    return (s - middle).clamp(0, 1)


def normalized(a: Tensor, *, official: bool) -> Tensor:
    """Normalise a dense adjacency; the official code multiplies by diagonal matrices."""
    p = a.sum(1).pow(-0.5)
    return (a @ p.diag()).T @ p.diag() if official else p[:, None] * a * p


def encode(ariel: Ariel, x: Tensor, adjacency: Tensor) -> Tensor:
    """Encode and project over a dense adjacency."""
    for layer in ariel.encoder.layers:
        x = ariel.encoder.activation(adjacency @ (x @ layer.weight) + layer.bias)
    projected: Tensor = ariel.head(x)
    return projected


def dense_step(ariel: Ariel, clean: View, generator: torch.Generator, *, official: bool) -> Tensor:
    """One objective; ``official`` also repeats what the official code computes in vain."""
    x, edges, t, config = clean.x, clean.edge_index, ariel.hyper.temperature, ariel.attack
    n = len(x)
    view1, view2 = (
        View(v.x.matrix.to_dense() if hasattr(v.x, "matrix") else v.x, v.edge_index)
        for v in ariel.draw_views(clean, generator)
    )
    h1, h2 = ariel._project(view1)[1], ariel._project(view2)[1]
    loss = dense_grace(h1, h2, t)
    if official:
        h0 = ariel._project(clean)[1]
        dense_grace(h1, h0, t), dense_grace(h2, h0, t)
    eye = torch.eye(n)
    a = torch.zeros(n, n)
    a[edges[0], edges[1]] = 1
    sign = 1 - 2 * a - eye
    s, d = torch.zeros(n, n), torch.zeros_like(x)
    for k in range(1, config.steps + 1):
        s, d = s.requires_grad_(), d.requires_grad_()
        upper = s.triu(1)
        moved = normalized(a + (upper + upper.T) * sign + eye, official=official)
        fixed = ariel._project(view1)[1] if official else h1
        attack_loss = dense_grace(fixed.detach(), encode(ariel, x + d, moved), t)
        g_s, g_d = torch.autograd.grad(attack_loss, [s, d])
        s = bisection(
            s.detach() + config.structure_step / k**0.5 * g_s,
            config.budget * edges.shape[1] / 2,
            config.bisection_width,
        )
        d = (d.detach() + config.feature_step * g_d.sign()).clamp(
            -config.feature_radius, config.feature_radius
        )
    flips = (s > torch.rand(n, n, generator=generator)).float().triu(1)
    moved = normalized(a + (flips + flips.T) * sign + eye, official=official)
    return loss + ariel.hyper.epsilon * dense_grace(h1, encode(ariel, x + d, moved), t)


def own_step(ariel: Ariel, clean: View, generator: torch.Generator) -> Tensor:
    """Compute the objective the way the package does."""
    clean = clean.prepared()
    return ariel.objective(clean, *ariel.draw_views(clean, generator), generator)["loss"]


STEPS: dict[str, Callable[[Ariel, View, torch.Generator], Tensor]] = {
    "this package": own_step,
    "dense autograd, nothing computed in vain": lambda *a: dense_step(*a, official=False),
    "dense autograd, as the official code": lambda *a: dense_step(*a, official=True),
}


def timed(
    step: Callable[[], Tensor], optimizer: torch.optim.Optimizer, nodes: int | None = None
) -> tuple[float, float]:
    """Take one optimiser step, with as many threads as a training on ``nodes`` has."""
    with nullcontext() if nodes is None else threads_for(nodes):
        return _timed(step, optimizer)


def _timed(step: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    optimizer.zero_grad()
    step().backward()
    optimizer.step()
    return time.perf_counter() - wall, time.process_time() - cpu


def speed(root: Path | None, repeats: int) -> str:
    """Time the variants in turn."""
    x, edges, source = load("Cora", root)
    clean = subgraph(x, edges, 500)
    runs = {name: model(x.shape[1], 128, 0.4, 200.0) for name in STEPS}
    optimizers = {name: ariel.configure_optimizers() for name, ariel in runs.items()}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in STEPS}
    for i in range(repeats + 2):
        for name, step in STEPS.items():
            generator = torch.Generator().manual_seed(i)
            nodes = 500 if step is own_step else None  # a training with the package does this
            took = timed(
                lambda s=step, n=name, g=generator: s(runs[n], clean, g), optimizers[name], nodes
            )
            if i >= 2:
                seen[name].append(took)
    wall, cpu = (
        {name: statistics.median(t[k] for t in times) for name, times in seen.items()}
        for k in (0, 1)
    )
    base = next(iter(STEPS))
    rows = [
        f"| {name} | {wall[name] * 1e3:.0f} | {cpu[name] * 1e3:.0f} | "
        f"{wall[name] / wall[base]:.1f} | {cpu[name] / cpu[base]:.1f} |"
        for name in STEPS
    ]
    head = (
        f"## A training step with the attack, 500 nodes ({source}), H = 128, "
        f"{torch.get_num_threads()} threads\n\n"
        f"Median of {repeats} steps, variants in turn.\n\n"
        "| step | wall ms | CPU ms | wall, times ours | CPU, times ours |\n|---|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def status(field: str) -> float:
    """Read a size of this process in MB."""
    line = next(
        s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(field)
    )
    return int(line.split()[1]) / 1024


def one(name: str, size: int, variant: str, root: Path | None) -> dict[str, object]:
    """Measure one step in this process; small steps first so that every library is loaded."""
    x, edges, source = load(name, root)
    clean = subgraph(x, edges, size)
    # The gradient of a mean over nodes shrinks with their number; the step makes up for it.
    ariel = model(x.shape[1], 256, 0.3, 200.0 * size / 500)
    generator = torch.Generator().manual_seed(0)
    small = subgraph(x, edges, 100)
    own_step(ariel, small, generator).backward()
    ariel.zero_grad()
    del x, edges
    before, wall, cpu = status("VmRSS"), time.perf_counter(), time.process_time()
    if variant == "attack":
        h1 = ariel._project(clean)[1].detach()
        config = AttackConfig(steps=1, structure_step=200.0 * size / 500, feature_step=0.01)
        pgd_attack(
            ariel.encoder,
            ariel.head,
            clean.x,
            clean.edge_index,
            h1,
            config,
            temperature=0.3,
            generator=generator,
        )
    else:
        STEPS[variant](ariel, clean, generator).backward()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"source": source, "wall": wall, "cpu": cpu, "megabytes": status("VmHWM") - before}


def fresh(name: str, size: int, variant: str, args: argparse.Namespace) -> dict[str, object]:
    """Measure in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--threads", str(args.threads)]
    command += ["--one", name, str(size), variant]
    command += ["--root", str(args.root)] if args.root else []
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, object] = json.loads(out.splitlines()[-1])
    return result


def memory(args: argparse.Namespace) -> Iterator[str]:
    """Measure time and memory by size; yields the table a line at a time."""
    yield "## Time and extra peak memory by size, H = 256\n\n"
    yield "Each row a fresh process. A training step has five attack steps.\n\n"
    yield "| nodes | what | wall s | CPU s | extra peak MB |\n|---|---|---|---|---|\n"
    ours, dense = "this package", "dense autograd, nothing computed in vain"
    jobs = [("Photo", size, v) for size in (500, 1000, 3000) for v in (ours, dense)]
    jobs += [("Photo", PHOTO["nodes"], ours), ("PubMed", PUBMED["nodes"], "attack")]
    for name, size, variant in jobs:
        r = fresh(name, int(size), variant, args)
        what = "one attack step alone" if variant == "attack" else f"training step, {variant}"
        yield (
            f"| {size:,} ({r['source']}) | {what} | {r['wall']:.1f} | {r['cpu']:.1f} | "
            f"{r['megabytes']:,.0f} |\n"
        )


def report(args: argparse.Namespace) -> Iterator[str]:
    """Yield the page as it is measured."""
    yield "# Graphs: ARIEL's step and attack\n\n"
    yield (
        f"`python benchmarks/graphs.py --threads {args.threads}"
        f"{' --root DATA' if args.root else ''}` on CPU, torch {torch.__version__}, float32.\n\n"
    )
    for threads in sorted({1, args.threads}):
        torch.set_num_threads(threads)
        yield speed(args.root, args.repeats) + "\n"
    yield from memory(args)


def main() -> None:
    """Run everything, or with --one a single measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of PyG data sets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--one", nargs=3, metavar=("NAME", "NODES", "VARIANT"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        name, size, variant = args.one
        print(json.dumps(one(name, int(size), variant, args.root)))
        return
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w") as page:
        for text in report(args):
            print(text, end="", flush=True)
            print(text, end="", file=page, flush=True)


if __name__ == "__main__":
    main()
