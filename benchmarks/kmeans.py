"""k-means beside faiss-cpu and scikit-learn: seconds and inertia for the same number of iterations.

    uv run --group benchmarks python benchmarks/kmeans.py --out benchmarks/results/kmeans.md

Contestants take turns, repetition by repetition, so that other work on the machine hits all of
them; the table gives the shortest of each (MiniBatchKMeans, the slowest, has one turn). Every
clustering is measured the same way: the final centroids, and each row's distance to the nearest of
them in float64. Times include that last assignment.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--rows", type=int, default=50_000)
parser.add_argument("--features", type=int, default=128)
parser.add_argument("--clusters", type=int, default=3_000)
parser.add_argument("--iterations", type=int, default=20)
parser.add_argument("--repetitions", type=int, default=3)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--out", type=Path, help="also write the table to this file")
args = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = str(args.threads)  # before the libraries load

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import sklearn  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from sklearn.cluster import MiniBatchKMeans  # noqa: E402
from torch import Tensor  # noqa: E402

from cl_core.kmeans import assign, kmeans  # noqa: E402

Contestant = Callable[[Tensor, int], Tensor]


def isotropic(n: int, d: int) -> Tensor:
    """Directions without structure: k-means converges early and hardly gains."""
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(0)), dim=1)


def clustered(n: int, d: int) -> Tensor:
    """A coarse-to-fine mixture on the sphere, as features of an encoder are."""
    g = torch.Generator().manual_seed(0)
    classes = torch.randn(100, d, generator=g)
    kinds = classes[torch.randint(100, (2000,), generator=g)]
    kinds = kinds + 0.6 * torch.randn(2000, d, generator=g)
    rows = kinds[torch.randint(2000, (n,), generator=g)]
    return F.normalize(rows + 0.5 * torch.randn(n, d, generator=g), dim=1)


def ours(init: str) -> Contestant:
    """Run cl_core's k-means."""

    def run(x: Tensor, seed: int) -> Tensor:
        return kmeans(x, args.clusters, iterations=args.iterations, init=init, seed=seed).centroids

    return run


def faiss_kmeans(x: Tensor, seed: int) -> Tensor:
    """Run faiss's k-means, which starts from random rows, and assign."""
    rows = x.numpy()
    trained = faiss.Kmeans(
        rows.shape[1],
        args.clusters,
        niter=args.iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    trained.train(rows)
    trained.index.search(rows, 1)
    return torch.from_numpy(trained.centroids)


def minibatch(x: Tensor, seed: int) -> Tensor:
    """Run scikit-learn's MiniBatchKMeans for as many passes from random rows."""
    trained = MiniBatchKMeans(
        args.clusters,
        init="random",
        batch_size=4096,
        n_init=1,
        max_iter=args.iterations,
        max_no_improvement=None,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(trained.fit(x.numpy()).cluster_centers_)


CONTESTANTS: dict[str, Contestant] = {
    "cl_core, random rows": ours("random"),
    "faiss, random rows": faiss_kmeans,
    "cl_core, k-means++": ours("k-means++"),
    "scikit-learn MiniBatchKMeans": minibatch,
}


def inertia(x: Tensor, centroids: Tensor) -> float:
    """Return the mean squared distance to the nearest centroid, in float64."""
    nearest = centroids.double()[assign(x, centroids)]
    return float((x.double() - nearest).square().sum(1).mean())


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    lines = [
        "# k-means beside faiss and scikit-learn",
        "",
        f"n={args.rows}, d={args.features}, k={args.clusters}, {args.iterations} iterations, "
        f"{args.threads} threads, shortest of {args.repetitions} interleaved repetitions. "
        f"Inertia is the mean per row over the repetitions (seeds 0 to {args.repetitions - 1}).",
        "",
        f"torch {torch.__version__}, faiss {faiss.__version__}, "
        f"scikit-learn {sklearn.__version__}, {platform.machine()}, "
        f"load {os.getloadavg()[0]:.1f} at the start. Command: "
        f"`python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}`",
    ]
    for data in (clustered, isotropic):
        x = data(args.rows, args.features)
        wall: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        cpu: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        found: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        for seed in range(args.repetitions):
            for name, run in CONTESTANTS.items():
                if run is minibatch and seed > 0:
                    continue
                start, start_cpu = time.perf_counter(), time.process_time()
                centroids = run(x, seed)
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - start_cpu)
                found[name].append(inertia(x, centroids))
        best, least = min(wall["faiss, random rows"]), min(cpu["faiss, random rows"])
        base = np.mean(found["faiss, random rows"])
        lines += [
            "",
            f"## {data.__name__.capitalize()} rows",
            "",
            "| | seconds | to faiss | CPU seconds | to faiss | inertia | to faiss |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in CONTESTANTS:
            value = np.mean(found[name])
            lines.append(
                f"| {name} | {min(wall[name]):.1f} | {min(wall[name]) / best:.2f} "
                f"| {min(cpu[name]):.1f} | {min(cpu[name]) / least:.2f} "
                f"| {value:.4f} | {value / base - 1:+.1%} |"
            )
    table = "\n".join(lines) + "\n"
    sys.stdout.write(table)
    if args.out:
        args.out.write_text(table)


if __name__ == "__main__":
    main()
