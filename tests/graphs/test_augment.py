"""Random views against the official code's arrays, and their laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cl_graphs.methods.augment import drop_edges, drop_features, drop_nodes, grown_nodes, mask_nodes
from cl_graphs.methods.sparse import SparseMatrix

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ariel.npz", allow_pickle=False)


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ring(n):
    i = torch.arange(n)
    return torch.stack([torch.cat([i, (i + 1) % n]), torch.cat([(i + 1) % n, i])])


def entries(edge_index):
    return set(map(tuple, edge_index.T.tolist()))


@pytest.mark.parametrize("view", [1, 2])
@pytest.mark.parametrize("case", ["a", "b"])
def test_views_equal_the_official_code(case, view):
    rate = GOLDEN[f"{case}.drop_edge_rate"][view - 1]
    edges = drop_edges(golden(f"{case}.edge_index"), rate, u=golden(f"{case}.edge_u{view}"))
    assert torch.equal(edges, golden(f"{case}.edge_index_{view}"))
    rate = GOLDEN[f"{case}.drop_feature_rate"][view - 1]
    x = golden(f"{case}.x")
    masked = drop_features(x, rate, u=golden(f"{case}.feat_u{view}"))
    assert torch.equal(masked, golden(f"{case}.x_{view}"))
    sparse = drop_features(SparseMatrix.from_dense(x), rate, u=golden(f"{case}.feat_u{view}"))
    assert torch.equal(sparse.matrix.to_dense(), masked)


def test_directed_drops_break_symmetry_and_undirected_ones_keep_it():
    edge_index = ring(200)
    for seed in range(3):
        directed = entries(drop_edges(edge_index, 0.4, generator=seeded(seed)))
        assert directed != {(j, i) for i, j in directed}
        kept = drop_edges(edge_index, 0.4, undirected=True, generator=seeded(seed))
        both = entries(kept)
        assert both == {(j, i) for i, j in both}
        assert len(both) == pytest.approx(0.6 * 400, rel=0.15)


def test_drop_rates_are_met_and_the_extremes_keep_all_or_nothing():
    edge_index = ring(5000)
    kept = drop_edges(edge_index, 0.3, generator=seeded())
    assert kept.shape[1] == pytest.approx(0.7 * 10_000, rel=0.03)
    assert torch.equal(drop_edges(edge_index, 0.0, generator=seeded()), edge_index)
    assert drop_edges(edge_index, 1.0, generator=seeded()).shape == (2, 0)
    assert drop_edges(edge_index[:, :0], 0.5, undirected=True, generator=seeded()).shape == (2, 0)


def test_features_are_dropped_by_whole_columns_and_the_input_is_left_alone():
    x = torch.ones(4, 1000)
    masked = drop_features(x, 0.25, generator=seeded())
    assert (masked == masked[0]).all()
    assert masked[0].mean().item() == pytest.approx(0.75, abs=0.05)
    assert (x == 1).all()


def test_one_generator_gives_one_view_and_two_seeds_give_two():
    edge_index = ring(100)
    first, again, other = (drop_edges(edge_index, 0.5, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert entries(first) != entries(other)


@pytest.mark.parametrize("n", [1, 7, 40])
def test_a_tenth_of_the_nodes_goes(n):
    kept = drop_nodes(torch.zeros(n, 2), ring(n), 0.1, generator=seeded())
    assert len(kept) == n - n // 10
    assert kept.unique().equal(kept)


def test_a_grown_part_is_connected_and_as_large_as_asked():
    edge_index = ring(50)
    part = grown_nodes(torch.zeros(50, 1), edge_index, 0.2, generator=seeded()).tolist()
    assert len(part) == 11
    inside = sum(i in part and j in part for i, j in entries(edge_index))
    assert inside == 2 * (len(part) - 1)  # an arc of the ring: a path


def test_a_grown_part_stops_at_the_end_of_its_component():
    lonely = grown_nodes(torch.zeros(9, 1), torch.empty(2, 0).long(), 0.9, generator=seeded())
    assert len(lonely) == 1


def test_masked_nodes_get_draws_around_a_half():
    x = torch.full((2000, 50), 9.0)
    masked = mask_nodes(x, 0.1, generator=seeded())
    changed = (masked != 9).all(1)
    assert changed.sum() == 200
    assert masked[changed].mean().item() == pytest.approx(0.5, abs=0.02)
    assert masked[changed].std().item() == pytest.approx(0.5, abs=0.02)
    assert (x == 9).all()


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_refuses_a_rate_that_is_no_share(rate):
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\]"):
        drop_edges(ring(4), rate)
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\]"):
        drop_features(torch.ones(2, 2), rate)
