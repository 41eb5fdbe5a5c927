"""Graph-level ARIEL: loss, attack on the union of a batch, augmentation, training step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from cl_graphs.evaluation.embedding import embed_graphs
from cl_graphs.hyper import GraphArielHyper
from cl_graphs.methods.attack import AttackConfig
from cl_graphs.methods.encoder import GIN, graph_head
from cl_graphs.methods.graph_ariel import GraphAriel, augmented
from cl_graphs.methods.graph_attack import graph_contrast, graph_pgd_attack, graph_pgd_steps
from cl_graphs.methods.graph_batch import GraphBatch
from cl_graphs.methods.sparse import SparseMatrix

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ariel.npz", allow_pickle=False)


def golden(name):
    return torch.from_numpy(GOLDEN[f"g.{name}"])


def golden_model():
    encoder, head = GIN(4, 5).double(), graph_head(15).double()
    for module, prefix in ((encoder, "g.param.encoder."), (head, "g.param.proj_head.")):
        module.load_state_dict(
            {
                k.removeprefix(prefix): torch.from_numpy(GOLDEN[k])
                for k in GOLDEN.files
                if k.startswith(prefix)
            }
        )
    return encoder, head


def golden_config():
    alpha, beta, steps, ratio, radius, width = GOLDEN["g.pgd_hp"].tolist()
    return AttackConfig(
        steps=int(steps),
        budget=ratio,
        structure_step=alpha,
        feature_step=beta,
        feature_radius=radius,
        bisection_width=width,
    )


def rings(*sizes, seed=0):
    """Rings of random features; the first node of each has a chord."""
    g = torch.Generator().manual_seed(seed)
    made = []
    for n in sizes:
        i = torch.arange(n)
        pairs = torch.stack([i, (i + 1) % n])
        edge_index = torch.cat([pairs, pairs.flip(0)], 1)
        made.append(Data(x=torch.rand(n, 3, generator=g), edge_index=edge_index))
    return Batch.from_data_list(made)


def test_contrast_equals_the_official_code_in_value_and_gradient():
    a, b = golden("proj").clone().requires_grad_(), golden("proj_aug").clone().requires_grad_()
    loss = graph_contrast(a, b, 0.2)
    assert loss.item() == pytest.approx(float(GOLDEN["g.loss"]), rel=1e-9)
    loss.backward()
    torch.testing.assert_close(a.grad, golden("loss_grad_a"), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(b.grad, golden("loss_grad_b"), rtol=1e-9, atol=1e-14)


def test_steps_of_the_attack_equal_the_official_code():
    encoder, head = golden_model()
    encoder.eval()
    n = len(golden("batch"))
    trajectory = graph_pgd_steps(
        encoder,
        head,
        golden("x"),
        golden("edge_index"),
        golden("batch"),
        golden("proj_aug"),
        golden_config(),
        temperature=0.2,
    )
    for k, step in enumerate(trajectory):
        s = torch.zeros(n * n, dtype=torch.float64)
        s[step.keys] = step.values
        expected = golden("pgd.S_after_proj")[k].T  # the official triangle is the lower one
        torch.testing.assert_close(s.view(n, n), expected, rtol=1e-9, atol=1e-12)
        assert step.loss == pytest.approx(GOLDEN["g.pgd.attack_loss"][k], rel=1e-9)
    assert k == 4


def test_adversarial_view_equals_the_official_code_and_leaves_the_model_alone():
    encoder, head = golden_model()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    view = graph_pgd_attack(
        encoder,
        head,
        golden("x"),
        golden("edge_index"),
        golden("batch"),
        golden("proj_aug"),
        golden_config(),
        temperature=0.2,
        bernoulli_u=golden("bernoulli_u").T,
    )
    n = len(view.x)
    ones = torch.ones(view.edge_index.shape[1], dtype=torch.float64)
    attacked = SparseMatrix.from_entries(view.edge_index, ones, (n, n)).matrix.to_dense()
    torch.testing.assert_close(attacked, golden("pgd.A_hat"), rtol=0, atol=0)
    torch.testing.assert_close(view.x, golden("pgd.x_hat"), rtol=1e-12, atol=1e-15)
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_attack_flips_only_pairs_inside_a_graph_and_keeps_self_loops():
    torch.manual_seed(0)
    graphs = GraphBatch.of(rings(5, 1, 8, 6))
    encoder, head = GIN(3, 4), graph_head(12)
    y = head(encoder(graphs.x, graphs.adjacency, graphs.batch, 4)).detach()
    config = AttackConfig(budget=0.6, structure_step=500.0, feature_step=0.01)
    view = graph_pgd_attack(
        encoder,
        head,
        graphs.x,
        graphs.edge_index,
        graphs.batch,
        y,
        config,
        temperature=0.2,
        generator=torch.Generator().manual_seed(0),
    )
    row, column = view.flips
    assert len(row) > 0
    assert torch.equal(graphs.batch[row], graphs.batch[column])
    loops = view.edge_index[0] == view.edge_index[1]
    assert int(loops.sum()) == len(graphs.x)
    assert (view.x - graphs.x).abs().max() <= config.feature_radius + 1e-6


@pytest.mark.parametrize("kind", ["drop_nodes", "drop_edges", "subgraph", "mask", "random4"])
def test_augmented_graphs_keep_their_order_and_never_mix(kind):
    clean = GraphBatch.of(rings(10, 1, 20, 15))
    other = augmented(clean, kind, generator=torch.Generator().manual_seed(0))
    assert other.num_graphs == 4
    assert torch.equal(other.batch.unique(), torch.arange(4))
    assert torch.equal(other.batch, other.batch.sort().values)
    row, column = other.edge_index
    assert torch.equal(other.batch[row], other.batch[column])
    sizes = torch.bincount(other.batch).tolist()
    expected = {
        "drop_nodes": [9, 1, 18, 14],
        "subgraph": [3, 1, 5, 4],
        "drop_edges": [10, 1, 20, 15],
        "mask": [10, 1, 20, 15],
    }
    if kind in expected:
        assert sizes == expected[kind]


def test_dropping_edges_or_masking_changes_something():
    clean = GraphBatch.of(rings(30, 30))
    thinned = augmented(clean, "drop_edges", generator=torch.Generator().manual_seed(0))
    assert thinned.edge_index.shape[1] < clean.edge_index.shape[1]
    masked = augmented(clean, "mask", generator=torch.Generator().manual_seed(0))
    assert (masked.x != clean.x).any(1).sum() == 6


def test_node_features_default_to_one_and_loops_are_made_once():
    data = Data(edge_index=torch.tensor([[0, 1, 1], [1, 0, 1]]), num_nodes=2)
    graphs = GraphBatch.of(Batch.from_data_list([data, data]))
    assert torch.equal(graphs.x, torch.ones(4, 1))
    dense = graphs.adjacency.matrix.to_dense()
    assert torch.equal(dense[:2, :2], torch.ones(2, 2))
    assert torch.equal(dense[:2, 2:], torch.zeros(2, 2))


def test_training_lowers_the_loss_and_graphcl_runs_no_attack(monkeypatch):
    data = rings(6, 7, 8, 9, 10, 11)
    for epsilon, terms in ((1.5, {"contrast", "adversarial"}), (0.0, {"contrast"})):
        torch.manual_seed(0)
        hyper = GraphArielHyper(hidden=8, epsilon=epsilon, augmentation="mask")
        model = GraphAriel(GIN(3, 8), graph_head(24), hyper)
        logged = []
        monkeypatch.setattr(model, "log", lambda name, *_, kept=logged, **__: kept.append(name))
        optimizer, losses = model.configure_optimizers(), []
        for _ in range(15):
            out = model.training_step(data, 0)
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
            losses.append(out["loss"].item())
        assert sum(losses[-5:]) < sum(losses[:5])
        assert set(logged) == {f"train/{t}" for t in terms | {"loss"}}
        assert out["embedding"].shape == (6, 24)
        assert not out["embedding"].requires_grad


def test_embeddings_of_graphs_do_not_depend_on_their_batch():
    torch.manual_seed(0)
    encoder = GIN(3, 4)
    together = embed_graphs(encoder, rings(5, 9))
    alone = embed_graphs(encoder, Batch.from_data_list(rings(5, 9).to_data_list()[1:]))
    torch.testing.assert_close(together[1:], alone, rtol=1e-5, atol=1e-6)
    assert encoder.training


def test_refuses_one_graph_and_an_unknown_augmentation():
    with pytest.raises(ValueError, match="at least 2 graphs, got 1"):
        graph_contrast(torch.ones(1, 3), torch.ones(1, 3), 0.2)
    with pytest.raises(ValueError, match="augmentation must be random4 or one of"):
        augmented(GraphBatch.of(rings(4, 4)), "rotate")
