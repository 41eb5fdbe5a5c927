import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.utils import subgraph

from cl_graphs.graph import make_graph
from cl_graphs.methods.clusters import partition
from cl_graphs.methods.neighbors import sample_neighbors, sampled_nodes
from cl_graphs.methods.sampling import (
    DrawSampler,
    SubgraphDataset,
    induced_edges,
    loader_for,
    random_nodes,
)
from cl_graphs.readers.features import dense_rows

GOLDEN = Path(__file__).parents[1] / "golden" / "ariel.npz"


def random_graph(num_nodes=60, num_edges=150, num_features=5, seed=0, labelled=True):
    rng = np.random.default_rng(seed)
    source, target = rng.integers(0, num_nodes, (2, num_edges))
    return make_graph(
        "random",
        rng.random((num_nodes, num_features)),
        source,
        target,
        y=rng.integers(0, 3, num_nodes) if labelled else None,
    )


def pointers_of(edge_index, num_nodes):
    degrees = torch.bincount(edge_index[0], minlength=num_nodes)
    return torch.cat([torch.zeros(1, dtype=torch.int64), degrees.cumsum(0)])


def pairs(edge_index):
    return set(map(tuple, edge_index.T.tolist()))


def test_induced_edges_equal_the_published_ones():
    golden = np.load(GOLDEN)
    edge_index = torch.from_numpy(golden["sub.edge_index"])
    perm = torch.from_numpy(golden["sub.perm"])
    nodes = perm[: int(golden["sub.size"])].sort().values
    assert nodes.tolist() == golden["sub.nodes_sorted"].tolist()
    edge_index = edge_index[:, edge_index[0].argsort(stable=True)]  # the file lists u < v first
    kept = induced_edges(pointers_of(edge_index, len(perm)), edge_index[1], nodes)
    expected = torch.from_numpy(golden["sub.edge_index_relabelled"])
    assert kept.shape == expected.shape
    assert pairs(kept) == pairs(expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 30), st.integers(1, 80), st.integers(0, 2**31 - 1))
def test_induced_edges_equal_pyg_for_any_order_of_nodes(num_nodes, num_edges, seed):
    rng = np.random.default_rng(seed)
    source, target = rng.integers(0, num_nodes, (2, num_edges))
    if (source == target).all():
        return
    graph = make_graph("any", np.ones((num_nodes, 1)), source, target)
    nodes = torch.from_numpy(rng.permutation(num_nodes)[: rng.integers(1, num_nodes + 1)])
    kept = induced_edges(pointers_of(graph.edge_index, num_nodes), graph.edge_index[1], nodes)
    expected, _ = subgraph(nodes, graph.edge_index, num_nodes=num_nodes)
    position = {node: k for k, node in enumerate(nodes.tolist())}
    assert pairs(kept) == {(position[u], position[v]) for u, v in pairs(expected)}
    assert kept.shape == expected.shape


def test_an_item_is_the_same_nodes_features_labels_and_edges():
    graph = random_graph()
    item = SubgraphDataset(graph, subgraph_size=20, seed=3)[7]
    nodes = item.n_id
    assert len(nodes) == 20 == item.num_nodes
    assert torch.equal(item.x, graph.x[nodes])
    assert torch.equal(item.y, graph.y[nodes])
    inside = set(nodes.tolist())
    expected = {(u, v) for u, v in pairs(graph.edge_index) if u in inside and v in inside}
    assert {(int(nodes[u]), int(nodes[v])) for u, v in pairs(item.edge_index)} == expected
    assert expected, "the case must have edges to be one"


def test_an_unlabelled_graph_gives_items_without_labels():
    loader = loader_for(random_graph(labelled=False), subgraph_size=10, seed=0)
    assert next(iter(loader)).y is None


def test_the_whole_graph_is_the_batch_when_it_is_no_larger():
    graph = random_graph()
    item = SubgraphDataset(graph, subgraph_size=60, seed=0)[0]
    assert item.n_id.tolist() == list(range(60))
    assert torch.equal(item.edge_index, graph.edge_index)
    assert torch.equal(item.x, graph.x)


def test_draws_depend_on_seed_and_number_and_on_nothing_else():
    first = random_nodes(1000, 50, seed=1, draw=0)
    torch.manual_seed(5)
    assert torch.equal(first, random_nodes(1000, 50, seed=1, draw=0))
    assert not torch.equal(first, random_nodes(1000, 50, seed=1, draw=1))
    assert not torch.equal(first, random_nodes(1000, 50, seed=2, draw=0))
    # seed + draw or seed * draw as a hash would make these pairs equal
    assert not torch.equal(
        random_nodes(1000, 50, seed=1, draw=2), random_nodes(1000, 50, seed=2, draw=1)
    )


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    random_nodes(100, 10, seed=0, draw=0)
    assert torch.equal(torch.rand(3), expected)


def test_every_node_is_drawn_equally_often_isolated_ones_too():
    # Node 0 has no edge. 400 draws of 5 of 20: each node expects 100, standard deviation 8.7.
    graph = make_graph("path", np.ones((20, 1)), np.arange(1, 19), np.arange(2, 20))
    dataset = SubgraphDataset(graph, subgraph_size=5, seed=0)
    counts = torch.zeros(20)
    for draw in range(400):
        nodes = dataset[draw].n_id
        assert len(nodes.unique()) == 5
        counts[nodes] += 1
    assert counts.min() > 100 - 5 * 8.7
    assert counts.max() < 100 + 5 * 8.7


def epochs_of(loader, epochs):
    seen = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)  # what Lightning does
        seen.append([batch.n_id.tolist() for batch in loader])
    return seen


def test_a_resumed_run_meets_the_same_subgraphs():
    graph = random_graph()
    options = {"subgraph_size": 15, "steps_per_epoch": 3, "seed": 4}
    through = epochs_of(loader_for(graph, **options), range(4))
    resumed = epochs_of(loader_for(graph, **options), range(2, 4))
    assert resumed == through[2:]
    flat = [tuple(nodes) for epoch in through for nodes in epoch]
    assert len(set(flat)) == 12, "a new subset every step"


def test_workers_change_nothing():
    graph = random_graph()
    options = {"subgraph_size": 15, "steps_per_epoch": 4, "seed": 4}
    alone = epochs_of(loader_for(graph, **options), range(2))
    assert epochs_of(loader_for(graph, **options, workers=2), range(2)) == alone


def test_two_ranks_share_the_draws_of_one_process():
    graph = random_graph()
    one = loader_for(graph, subgraph_size=15, steps_per_epoch=6, seed=0)
    ranks = [
        loader_for(graph, subgraph_size=15, steps_per_epoch=3, seed=0, rank=r, world_size=2)
        for r in (0, 1)
    ]
    for epoch in (0, 1):
        (joint,) = epochs_of(one, [epoch])
        (even,), (odd,) = (epochs_of(loader, [epoch]) for loader in ranks)
        assert even == joint[0::2]
        assert odd == joint[1::2]


def test_a_sampler_made_before_the_process_group_asks_it_for_the_rank():
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dataset = SubgraphDataset(random_graph(), subgraph_size=10, seed=0)
    sampler = DrawSampler(dataset, steps_per_epoch=2)
    assert list(sampler) == [0, 1]
    torch.distributed.init_process_group("fake", rank=2, world_size=3, store=FakeStore())
    try:
        assert list(sampler) == [0 * 3 + 2, 1 * 3 + 2]
    finally:
        torch.distributed.destroy_process_group()


def test_a_batch_is_pyg_data_from_pygs_loader():
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader

    loader = loader_for(random_graph(), subgraph_size=15, steps_per_epoch=2, seed=0)
    assert isinstance(loader, DataLoader)
    assert len(loader) == 2
    batch = next(iter(loader))
    assert isinstance(batch, Data)
    assert batch.x.shape == (15, 5)
    assert batch.x.dtype == torch.float32
    assert batch.is_undirected()


def test_sparse_features_give_the_same_rows_as_dense_ones():
    x = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 3.0], [0.5, 0.0, 0.0]])
    nodes = torch.tensor([2, 1, 3, 0, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "CSR is in beta", once a process
        sparse = x.to_sparse_csr()
    assert torch.equal(dense_rows(sparse, nodes), x[nodes])
    assert torch.equal(dense_rows(x, nodes), x[nodes])


@pytest.mark.parametrize("sampler", ["cluster", "neighbor"])
def test_a_pass_sees_every_node_and_an_epoch_is_one_pass(sampler):
    graph = random_graph()
    loader = loader_for(graph, subgraph_size=17, seed=0, sampler=sampler)
    for epoch in epochs_of(loader, range(3)):
        assert {n for nodes in epoch for n in nodes} == set(range(60))
        assert all(len(nodes) >= 2 for nodes in epoch)
    if sampler == "cluster":
        assert sum(map(len, epoch)) == 60, "parts do not overlap"


@pytest.mark.parametrize("sampler", ["cluster", "neighbor"])
def test_other_samplers_resume_exactly_and_workers_change_nothing(sampler):
    graph = random_graph()
    options = {"subgraph_size": 15, "seed": 4, "sampler": sampler}
    through = epochs_of(loader_for(graph, **options), range(4))
    assert epochs_of(loader_for(graph, **options), range(2, 4)) == through[2:]
    assert epochs_of(loader_for(graph, **options, workers=2), range(2)) == through[:2]
    assert any(through[0] != other for other in through[1:]), "a new order every pass"
    assert epochs_of(loader_for(graph, **options | {"seed": 5}), range(1)) != through[:1]


@pytest.mark.parametrize("sampler", ["cluster", "neighbor"])
def test_two_ranks_share_a_pass(sampler):
    graph = random_graph()
    options = {"subgraph_size": 15, "seed": 0, "sampler": sampler}
    (joint,) = epochs_of(loader_for(graph, **options), [0])
    ranks = [loader_for(graph, **options, rank=r, world_size=2) for r in (0, 1)]
    assert [len(loader) for loader in ranks] == [2, 2]
    (even,), (odd,) = (epochs_of(loader, [0]) for loader in ranks)
    assert [nodes for pair in zip(even, odd, strict=True) for nodes in pair][: len(joint)] == joint


def test_every_subset_of_neighbours_is_equally_likely():
    # Node 0 has 5 neighbours: 10 subsets of 2; node 1 has 3: 3 subsets; node 2 has 1.
    columns = torch.tensor([1, 2, 3, 4, 5, 0, 2, 3, 0])
    pointers = torch.tensor([0, 5, 8, 9, 9, 9, 9])
    generator = torch.Generator().manual_seed(0)
    seen = {0: Counter(), 1: Counter(), 2: Counter()}
    for _ in range(3000):
        found, owner = sample_neighbors(pointers, columns, torch.tensor([1, 0, 3, 2]), 2, generator)
        for place, node in enumerate((1, 0, 3, 2)):
            subset = tuple(sorted(found[owner == place].tolist()))
            if node == 3:
                assert subset == ()
            else:
                seen[node][subset] += 1
    assert [len(seen[node]) for node in (0, 1, 2)] == [10, 3, 1]
    for node, kinds in ((0, 10), (1, 3)):
        expected = 3000 / kinds
        chi = sum((count - expected) ** 2 / expected for count in seen[node].values())
        assert chi < kinds - 1 + 4 * (2 * (kinds - 1)) ** 0.5  # four deviations


def test_neighbours_are_reached_hop_by_hop():
    # A path 0 - 1 - 2 - 3 - 4: two hops of one neighbour each from node 0 reach 1 and then 2.
    graph = make_graph("path", np.ones((5, 1)), np.arange(4), np.arange(1, 5))
    pointers = pointers_of(graph.edge_index, 5)
    generator = torch.Generator().manual_seed(0)
    seeds = torch.tensor([0])
    reached = sampled_nodes(pointers, graph.edge_index[1], seeds, (5, 5), generator)
    assert reached.tolist() == [0, 1, 2]
    assert sampled_nodes(pointers, graph.edge_index[1], seeds, (5,), generator).tolist() == [0, 1]


def test_parts_cut_few_edges_and_are_about_equal():
    rng = np.random.default_rng(0)
    y = np.arange(200) // 50
    near = rng.random((200, 200)) < np.where(y[:, None] == y, 0.2, 0.005)
    graph = make_graph("blocks", np.ones((200, 1)), *np.nonzero(np.triu(near, 1)))
    part = partition(pointers_of(graph.edge_index, 200), graph.edge_index[1], 4)
    source, target = part[graph.edge_index]
    assert (source == target).double().mean() > 0.85  # a random cut keeps a quarter
    sizes = torch.bincount(part)
    assert sizes.min() >= 40
    assert sizes.max() <= 60
    assert torch.equal(part, partition(pointers_of(graph.edge_index, 200), graph.edge_index[1], 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subgraph_size": 1}, "subgraph_size must be at least 2, got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        loader_for(random_graph(), **{"subgraph_size": 10, "seed": 0, **options})


def test_lightning_leaves_the_sampler_in_place():
    # Its rule for replacing a sampler in a distributed run is this isinstance check.
    from torch.utils.data.distributed import DistributedSampler

    dataset = SubgraphDataset(random_graph(), subgraph_size=10, seed=0)
    sampler = DrawSampler(dataset, steps_per_epoch=2, rank=1, world_size=4)
    assert isinstance(sampler, DistributedSampler)
    sampler.set_epoch(3)
    assert list(sampler) == [6 * 4 + 1, 7 * 4 + 1]
