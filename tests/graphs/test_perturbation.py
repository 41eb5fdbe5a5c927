from __future__ import annotations

import pytest
import torch

from cl_graphs.evaluation.perturbation import add_random_edges, dice, sign_noise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ring(n=40):
    nodes = torch.arange(n)
    pairs = torch.stack([nodes, (nodes + 1) % n])
    return torch.cat([pairs, pairs.flip(0)], 1)


def as_set(edge_index):
    return {(int(a), int(b)) for a, b in edge_index.T}


def is_simple_and_undirected(edge_index):
    edges = as_set(edge_index)
    return (
        len(edges) == edge_index.shape[1]
        and all((b, a) in edges for a, b in edges)
        and all(a != b for a, b in edges)
    )


@pytest.mark.parametrize("budget", [0.1, 0.5, 1.0])
def test_random_edges_keep_the_old_and_add_the_budget(budget):
    after = add_random_edges(ring(), 40, budget, generator())
    assert is_simple_and_undirected(after)
    assert as_set(ring()) <= as_set(after)
    assert after.shape[1] // 2 == 40 + round(40 * budget)


def test_random_edges_stop_where_the_graph_is_full():
    complete = torch.tensor([(a, b) for a in range(4) for b in range(4) if a != b]).T
    assert add_random_edges(complete, 4, 1.0, generator()).shape == complete.shape


def test_dice_deletes_inside_classes_and_connects_across():
    y = torch.arange(40) // 20
    after = dice(ring(), y, 0.5, generator())
    assert is_simple_and_undirected(after)
    gone, new = as_set(ring()) - as_set(after), as_set(after) - as_set(ring())
    assert len(gone) == len(new) == 2 * 10
    assert all(y[a] == y[b] for a, b in gone)
    assert all(y[a] != y[b] for a, b in new)


def test_dice_leaves_unlabelled_nodes_alone():
    y = torch.arange(40) // 20
    y[::2] = -1
    after = dice(ring(), y, 0.5, generator())
    assert all(y[a] >= 0 <= y[b] for a, b in as_set(after) ^ as_set(ring()))


def test_the_draws_follow_the_generator():
    once, again, other = (add_random_edges(ring(), 40, 1.0, generator(s)) for s in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_sign_noise_moves_every_value_by_the_radius_either_way():
    x = torch.rand(50, 30, generator=generator(), dtype=torch.float64)
    moved = sign_noise(x, 0.04, generator(1)) - x
    torch.testing.assert_close(moved.abs(), torch.full_like(x, 0.04))
    assert abs((moved > 0).double().mean() - 0.5) < 0.05
