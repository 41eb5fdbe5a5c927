"""Trees of k-means: the official code's, level upon level, and the same on two ranks."""

from __future__ import annotations

import sys
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from two_ranks import run_two_ranks

from cl_core.distributed import rank
from cl_core.kmeans import kmeans
from cl_vision.hcsc.hierarchy import build_hierarchy, hierarchical_kmeans

GOLDEN = Path(__file__).parents[1] / "golden" / "hcsc.npz"
SHARD = 170  # of 400: the ranks hold different numbers of rows


def blobs(n: int, d: int, k: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(k, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return centres[torch.randint(k, (n,), generator=generator)] + noise


@pytest.mark.parametrize("case", ["single", "multi", "nosel"])
def test_the_tree_equals_the_official_code(case):
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        values = {
            name.partition("__")[2]: torch.from_numpy(np.array(arrays[name]))
            for name in arrays.files
            if name.startswith(case)
        }
    levels = range(len(values["K"]))
    tree = build_hierarchy(values["feat"], [values[f"raw_centroids_{i}"] for i in levels])
    for i in levels:
        assert torch.equal(tree.assignments[i], values[f"im2cluster_{i}"])
        torch.testing.assert_close(
            tree.prototypes[i], values[f"centroids_{i}"], rtol=1e-5, atol=1e-5
        )
        if i + 1 < len(levels):
            assert torch.equal(tree.parents[i], values[f"cluster2cluster_{i}"])
            affinity = tree.prototypes[i] @ tree.prototypes[i + 1].T
            torch.testing.assert_close(affinity, values[f"logits_{i}"], rtol=1e-5, atol=1e-5)
    assert len(tree.parents) == len(levels) - 1


def test_each_level_clusters_the_prototypes_below():
    x = F.normalize(blobs(500, 8, 20), dim=1)
    tree = hierarchical_kmeans(x, (40, 20, 5), iterations=5, restarts=2, seed=3)
    built = build_hierarchy(x, tree.centroids)
    for name in ("prototypes", "assignments", "parents"):
        for one, other in zip(getattr(tree, name), getattr(built, name), strict=True):
            assert torch.equal(one, other), name
    above = kmeans(F.normalize(tree.centroids[0], dim=1), 20, iterations=5, restarts=2, seed=4)
    assert torch.equal(tree.centroids[1], above.centroids)
    for fine, coarse, parent in zip(
        tree.assignments[:-1], tree.assignments[1:], tree.parents, strict=True
    ):
        assert torch.equal(coarse, parent[fine])
    assert [len(c) for c in tree.centroids] == [40, 20, 5]


def test_levels_that_rise_or_lack_are_refused(monkeypatch):
    # Past the shape checker, if the test run has one: the functions themselves must refuse.
    for function in (build_hierarchy, hierarchical_kmeans):
        monkeypatch.setitem(globals(), function.__name__, unwrap(function))
    x = blobs(10, 2, 2)
    with pytest.raises(ValueError, match=r"fine to coarse, such as \(30, 10\), got \(2, 4\)"):
        hierarchical_kmeans(x, (2, 4))
    with pytest.raises(ValueError, match="at least one level"):
        build_hierarchy(x, [])


def run_rank(folder: Path) -> None:
    dist.init_process_group("gloo")
    mine = slice(0, SHARD) if rank() == 0 else slice(SHARD, None)
    rows = blobs(400, 3, 15)[mine]
    tree = hierarchical_kmeans(rows, (20, 5), iterations=3, restarts=2, gather=True)
    found = {"centroids": tree.centroids[1], "assignment": tree.assignments[1]}
    torch.save(found, folder / f"{rank()}.pt")
    dist.destroy_process_group()


def test_two_ranks_with_shards_grow_the_tree_of_all_rows(tmp_path):
    ranks = run_two_ranks(__file__, tmp_path)
    tree = hierarchical_kmeans(blobs(400, 3, 15), (20, 5), iterations=3, restarts=2)
    for one in ranks:
        torch.testing.assert_close(one["centroids"], tree.centroids[1], rtol=0, atol=1e-9)
    joint = torch.cat([one["assignment"] for one in ranks])
    assert torch.equal(joint, tree.assignments[1])


if __name__ == "__main__":  # one of the ranks that torchrun starts
    run_rank(Path(sys.argv[1]))
