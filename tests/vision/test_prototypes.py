"""Prototypes, alone and on two real ranks.

The file is also the script that the ranks run: ``torchrun tests/vision/test_prototypes.py FOLDER``.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor
from two_ranks import run_two_ranks

from cl_core.distributed import rank
from cl_core.errors import InputError
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_vision.hcsc.cluster_tree import ClusterTree, nearest_rows, write_cluster_tree
from cl_vision.hcsc.equations import concentrations, log_sums, member_distances
from cl_vision.hcsc.estimate import Encoded, encode_shard, estimate
from cl_vision.hcsc.prototypes import (
    Prototypes,
    agreement,
    require_clusters,
    suggest_clusters,
)

RANKS, IMAGES, LEVELS = 2, 121, (8, 4, 2)  # an odd number: one image is served twice


class Batch(NamedTuple):
    views: list[Tensor]
    label: Tensor
    row: Tensor


def vectors() -> Tensor:
    """Unit vectors around twelve centres, so that clusterings agree whatever the order."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(12, 6, generator=g)[torch.arange(IMAGES) % 12]
    return F.normalize(centres + 0.1 * torch.randn(IMAGES, 6, generator=g), dim=1)


def loader(shard: bool = False):
    x = vectors()
    samples = [Batch([x[row]], row % 12, row) for row in range(IMAGES)]
    return make_loader(samples, batch_size=16, shuffle=False, workers=0, seed=0, shard=shard)


def estimated(shard: bool = False) -> tuple[Encoded, Prototypes]:
    encoded = encode_shard(loader(shard), lambda batch: batch.views[0])
    found = estimate(encoded.features[encoded.mine], LEVELS, temperature=0.2, seed=5)
    prototypes = Prototypes(IMAGES, LEVELS, 6)
    prototypes.adopt(encoded, found)
    return encoded, prototypes


def run_rank(folder: Path) -> None:
    dist.init_process_group("gloo")
    encoded, prototypes = estimated(shard=True)
    seen = {
        "mine": int(encoded.mine.sum()),
        "rows": encoded.rows,
        "state": prototypes.state_dict(),
        "labels": prototypes.labels,
        "sizes": prototypes.sizes(),
        "nearest": nearest_rows(prototypes.levels[0].vectors, encoded, 3),
        "unsharded": int(encode_shard(loader(), lambda b: b.views[0]).mine.sum()),
    }
    torch.save(seen, folder / f"{rank()}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    return run_two_ranks(__file__, folder)


# --- ranks


def test_each_image_belongs_to_one_rank(ranks):
    assert [of_rank["mine"] for of_rank in ranks] == [61, 60]
    assert ranks[0]["rows"].tolist() == list(range(0, IMAGES, 2))
    assert ranks[1]["rows"].tolist() == [0, *range(1, IMAGES, 2)]  # padded with the first image
    assert [of_rank["unsharded"] for of_rank in ranks] == [IMAGES, 0]


def test_every_rank_holds_the_same_prototypes_and_places(ranks):
    for name, value in ranks[0]["state"].items():
        assert torch.equal(value, ranks[1]["state"][name]), name
    assert torch.equal(ranks[0]["labels"], torch.arange(IMAGES) % 12)
    assert int(ranks[0]["sizes"][0].sum()) == IMAGES


def test_two_ranks_place_images_as_one_process_with_the_shards_in_order(ranks):
    x = vectors()
    shards = torch.cat([torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2)])
    found = estimate(x[shards], LEVELS, temperature=0.2, seed=5)
    assignment = torch.empty(IMAGES, dtype=torch.int64)
    assignment[shards] = found.hierarchy.assignments[0]
    state = ranks[0]["state"]
    assert torch.equal(state["assignment"], assignment)
    for depth in range(len(LEVELS)):
        expected = found.hierarchy.prototypes[depth]
        torch.testing.assert_close(state[f"levels.{depth}.vectors"], expected)
        torch.testing.assert_close(state[f"levels.{depth}.phi"], found.phi[depth])


def test_the_nearest_images_are_those_of_all_ranks(ranks):
    similar = ranks[0]["state"]["levels.0.vectors"] @ vectors().T
    for of_rank in ranks:
        assert torch.equal(of_rank["nearest"], similar.topk(3, dim=1).indices)


# --- estimate


def test_an_estimate_depends_on_features_and_seed_alone():
    first, again = estimated()[1], estimated()[1]
    torch.rand(7)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    other = estimate(vectors(), LEVELS, temperature=0.2, seed=6)
    assert not torch.equal(other.hierarchy.centroids[0], estimate_of(5).hierarchy.centroids[0])


def estimate_of(seed: int):
    return estimate(vectors(), LEVELS, temperature=0.2, seed=seed)


def test_features_are_stored_by_row_whatever_the_order():
    x = vectors()
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(1))
    batches = [Batch([x[rows]], rows % 12, rows) for rows in order.split(50)]
    encoded = encode_shard(batches, lambda batch: batch.views[0])
    assert torch.equal(encoded.rows, torch.arange(IMAGES))
    assert torch.equal(encoded.features, x)
    assert torch.equal(encoded.labels, torch.arange(IMAGES) % 12)


def test_images_are_looked_up_through_their_parents():
    _, prototypes = estimated()
    rows = torch.tensor([3, 120, 3])
    found = prototypes.clusters_of(rows)
    for place, row in enumerate(rows.tolist()):
        cluster = int(prototypes.assignment[row])
        for depth, level in enumerate(prototypes):
            assert int(found[depth][place]) == cluster
            cluster = int(level.parents[cluster])
    sizes = prototypes.sizes()
    of_all = prototypes.clusters_of(torch.arange(IMAGES))
    for depth, k in enumerate(LEVELS):
        assert sizes[depth].tolist() == [int((of_all[depth] == c).sum()) for c in range(k)]


def test_concentrations_count_images_below_and_prototypes_above():
    encoded, prototypes = estimated()
    tree = estimate_of(5).hierarchy
    for depth, (level, x, assigned) in enumerate(
        zip(
            prototypes,
            [encoded.features, *tree.prototypes],
            [tree.assignments[0], *tree.parents],
            strict=False,
        )
    ):
        raw = []
        for c in range(len(level)):
            members = x[assigned == c].double()
            if len(members) > 1:
                far = (members - tree.centroids[depth][c].double()).norm(dim=1)
                raw.append(float(far.mean() / torch.tensor(len(members) + 10.0).log()))
            else:
                raw.append(float("nan"))
        filled = torch.tensor(raw, dtype=torch.float64).nan_to_num(max(r for r in raw if r == r))
        low, high = filled.quantile(torch.tensor([0.1, 0.9], dtype=torch.float64))
        clipped = filled.clamp(low, high)
        expected = 0.2 * clipped / clipped.mean()
        torch.testing.assert_close(level.phi.double(), expected, rtol=1e-5, atol=1e-6)


def test_sums_for_the_selection_of_prototypes_are_those_one_level_up():
    _, prototypes = estimated()
    fine, coarse, top = prototypes
    expected = (fine.vectors @ coarse.vectors.T / coarse.phi).logsumexp(1)
    torch.testing.assert_close(fine.sums, expected)
    assert not top.sums.any()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(2, 9), st.integers(1, 7), st.integers(0, 999))
def test_log_sums_in_tiles_equal_the_dense_ones(m, k, block, seed):
    g = torch.Generator().manual_seed(seed)
    x, c = torch.randn(m, 3, generator=g), torch.randn(k, 3, generator=g)
    phi = torch.rand(k, generator=g) * 0.3
    dense = (x.double() @ (c / phi.clamp(min=1e-3)[:, None]).double().T).logsumexp(1)
    torch.testing.assert_close(
        log_sums(x, c, phi, block_size=block).double(), dense, rtol=1e-5, atol=1e-4
    )


def test_equal_rows_have_the_mean_concentration_and_no_division_by_zero():
    x = torch.ones(6, 2)
    sums = member_distances(x, x[:2], torch.tensor([0, 0, 0, 1, 1, 1]))
    assert concentrations(*sums, 0.2).tolist() == pytest.approx([0.2, 0.2])
    assert log_sums(x, x[:2], torch.zeros(2)).isfinite().all()


def test_state_is_in_the_checkpoint_and_comes_back(tmp_path):
    _, prototypes = estimated()
    torch.save(prototypes.state_dict(), tmp_path / "state.pt")
    other = Prototypes(IMAGES, LEVELS, 6)
    assert (other.assignment == -1).all()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    rows = torch.arange(IMAGES)
    for mine, theirs in zip(prototypes.clusters_of(rows), other.clusters_of(rows), strict=True):
        assert torch.equal(mine, theirs)


# --- diagnostics


def test_figures_tell_sizes_concentrations_and_the_change_since_the_last_epoch():
    _, prototypes = estimated()
    figures = prototypes.figures()
    for number, (level, sizes) in enumerate(
        zip(prototypes, prototypes.sizes(), strict=True), start=1
    ):
        assert figures[f"level_{number}/smallest"] == min(sizes.tolist())
        assert figures[f"level_{number}/largest"] == max(sizes.tolist())
        assert figures[f"level_{number}/empty"] == 0
        assert figures[f"level_{number}/phi_max"] == pytest.approx(float(level.phi.max()))
    assert "ami_to_previous" not in figures
    assert "ami_to_previous" not in prototypes.figures(torch.full((IMAGES,), -1))
    renamed = (prototypes.assignment + 3) % LEVELS[0]
    assert prototypes.figures(renamed)["ami_to_previous"] == pytest.approx(1.0)
    blind = torch.arange(IMAGES) % 2
    expected = adjusted_mutual_info_score(blind.numpy(), prototypes.assignment.numpy())
    assert agreement(blind, prototypes.assignment) == pytest.approx(expected)


def test_images_without_a_cluster_are_left_out_of_the_comparison():
    a = torch.tensor([0, 0, 1, 1, -1, -1])
    assert agreement(a, torch.tensor([5, 5, 3, 3, 5, 3])) == pytest.approx(1.0)


# --- numbers of clusters


@pytest.mark.parametrize(
    ("clusters", "images", "message"),
    [
        ((20, 10), 199, "20 clusters need 200 images or more, and there are 199: try 7,3,2"),
        ((10, 20), 999, "clusters 10,20: the levels must go from fine to coarse"),
        ((10, 1), 999, "clusters 10,1: the levels must go from fine to coarse, to 2 or more"),
        ((), 999, "the levels must go from fine to coarse"),
        ((2,), 1, "2 clusters need 20 images or more, and there are 1: it takes more images"),
    ],
)
def test_clusters_that_do_not_fit_are_refused_in_one_line(clusters, images, message):
    with pytest.raises(InputError, match=message):
        require_clusters(clusters, images)


@given(st.integers(20, 2_000_000))
def test_suggested_clusters_fit_the_images(images):
    levels, told = suggest_clusters(images)
    require_clusters(levels, images)
    assert f"{images:,} images" in told


def test_suggested_clusters_are_the_published_ones_for_imagenet():
    assert suggest_clusters(1_281_167)[0] == (3000, 2000, 1000)
    assert suggest_clusters(50_000)[0] == (2000, 1000, 400)


# --- tables


def test_the_tree_is_written_as_two_tables(tmp_path):
    tree = ClusterTree(
        clusters=(torch.tensor([0, 2, 1, -1]), torch.tensor([1, 0, 1, -1])),
        sizes=(torch.tensor([1, 1, 1]), torch.tensor([1, 2])),
        phi=(torch.tensor([0.25, 0.2, 0.15]), torch.tensor([0.2, 0.2])),
        parents=(torch.tensor([1, 1, 0]),),
        nearest=(torch.tensor([[0, 2], [2, 0], [1, 0]]), torch.tensor([[1, 0], [0, 2]])),
    )
    names = ["a,b.png", "c.png", "d.png", "e.png"]
    with Run.create(tmp_path / "run", {}) as run:
        images, prototypes = write_cluster_tree(run, tree, names)
        with pytest.raises(ValueError, match="a name per image, got 3 for 4"):
            write_cluster_tree(run, tree, names[:3])
    with images.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"image": "a,b.png", "level_1": "0", "level_2": "1"}
    assert rows[3] == {"image": "e.png", "level_1": "-1", "level_2": "-1"}
    with prototypes.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["parent"] for row in rows] == ["1", "1", "0", "", ""]
    assert rows[2] == {
        "level": "1",
        "cluster": "2",
        "images": "1",
        "concentration": "0.15",
        "parent": "0",
        "nearest": "c.png;a,b.png",
    }


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
