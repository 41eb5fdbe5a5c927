"""Time and memory of weighted kNN: 10,000 queries on a bank of 50,000 rows of 128, k = 200.

    python benchmarks/knn.py [--bank 50000] [--queries 10000] [--out benchmarks/results/knn.md]

Each way runs in a process of its own. Memory is how far the peak (VmHWM) rises above what is
resident once libraries are loaded and data made, so it does not count either.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cl_core.evaluation import knn_predict

WIDTH, CLASSES, K, TEMPERATURE = 128, 100, 200, 0.07
LIMIT = 2000  # MB


def ours(queries: Tensor, bank: Tensor, labels: Tensor) -> Tensor:
    """As the suite does it."""
    predicted: Tensor = knn_predict(queries, bank, labels, k=K, temperature=TEMPERATURE)
    return predicted


def dense(queries: Tensor, bank: Tensor, labels: Tensor) -> Tensor:
    """All similarities at once."""
    s = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    return vote(*s.topk(K, dim=1), labels)


def scikit_learn(queries: Tensor, bank: Tensor, labels: Tensor) -> Tensor:
    """Brute force in scikit-learn, at its default working memory."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(bank.numpy())
    distance, index = search.kneighbors(queries.numpy())
    return vote(1 - torch.from_numpy(distance), torch.from_numpy(index), labels)


def vote(similarity: Tensor, index: Tensor, labels: Tensor) -> Tensor:
    """The class with the largest weight."""
    weight = torch.softmax(similarity / TEMPERATURE, dim=1)
    votes = weight.new_zeros(len(weight), CLASSES).scatter_add_(1, labels[index], weight)
    return votes.argmax(dim=1)


WAYS: dict[str, tuple[str, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "ours": ("`knn_predict`", ours),
    "dense": ("one matrix product and `topk`", dense),
    "scikit": ("scikit-learn `NearestNeighbors`, brute force", scikit_learn),
}


def memory(name: str) -> float:
    """A line of /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}: this benchmark needs Linux")


def measure(way: str, bank_rows: int, query_rows: int) -> None:
    """Run one way and print its figures."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (bank_rows,), generator=generator)
    truth = torch.randint(CLASSES, (query_rows,), generator=generator)
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    bank = centres[labels] + 3 * torch.randn(bank_rows, WIDTH, generator=generator)
    queries = centres[truth] + 3 * torch.randn(query_rows, WIDTH, generator=generator)
    run = WAYS[way][1]
    run(queries[:300], bank[:300], labels[:300])  # first calls load libraries
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
    before = memory("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    predicted = run(queries, bank, labels)
    figures = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "extra": memory("VmHWM") - before,
        "accuracy": float((predicted == truth).double().mean()),
    }
    print(json.dumps(figures))


def main() -> None:
    """Run all ways, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "knn.md")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        measure(args.way, args.bank, args.queries)
        return
    sizes = ["--bank", str(args.bank), "--queries", str(args.queries)]
    lines = []
    for way, (title, _) in WAYS.items():
        command = [sys.executable, __file__, "--way", way, *sizes]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        f = json.loads(done.stdout)
        lines.append(
            f"| {title} | {f['extra']:,.0f} | {f['cpu']:.1f} | {f['wall']:.1f} | "
            f"{f['accuracy']:.4f} |"
        )
        if way == "ours":
            within = "within" if f["extra"] < LIMIT else "BEYOND"
            verdict = f"Ours is {within} the limit of {LIMIT:,} MB of extra memory."
    text = f"""# Weighted nearest neighbours

`python benchmarks/knn.py --bank {args.bank} --queries {args.queries}`: {args.queries:,} queries,
{args.bank:,} bank rows of {WIDTH} numbers, k = {K}, {CLASSES} classes, float32,
{torch.get_num_threads()} thread(s). Wall time is that of a machine shared with other work.

| | extra memory, MB | CPU s | wall s | accuracy |
|---|---|---|---|---|
{chr(10).join(lines)}

{verdict}
"""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
