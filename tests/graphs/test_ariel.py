"""Losses, regulariser, curriculum and training step of node-level ARIEL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from cl_graphs.evaluation.embedding import embed
from cl_graphs.hyper import ArielHyper
from cl_graphs.methods.ariel import (
    Ariel,
    View,
    curriculum,
    grace_loss,
    information_regularizer,
)
from cl_graphs.methods.encoder import GCN, ProjectionHead, normalized_adjacency
from cl_graphs.methods.sparse import SparseMatrix

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ariel.npz", allow_pickle=False)
ACTIVATIONS = ("relu", "prelu", "rrelu")


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def golden_model(case):
    activation = ACTIVATIONS[int(GOLDEN[f"{case}.activation"])]
    width = GOLDEN[f"{case}.param.encoder.conv.1.bias"].shape[0]
    projection = GOLDEN[f"{case}.param.fc1.bias"].shape[0]
    encoder = GCN(golden(f"{case}.x").shape[1], width, activation=activation).double()
    head = ProjectionHead(width, projection).double()
    state = {k.split(".param.")[1]: golden(k) for k in GOLDEN.files if f"{case}.param." in k}
    encoder.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    )
    head.load_state_dict({k: v for k, v in state.items() if k.startswith("fc")})
    return encoder, head


def projected(case, z1, z2):
    """Projections of given embeddings, differentiable in them."""
    head = golden_model(case)[1]
    return head(z1), head(z2)


def golden_embeddings(case):
    return [golden(f"{case}.z_{i}").clone().requires_grad_() for i in (1, 2)]


@pytest.mark.parametrize("case", ["a", "b"])
def test_contrast_equals_the_official_code_in_value_and_gradient(case):
    z1, z2 = golden_embeddings(case)
    loss = grace_loss(*projected(case, z1, z2), float(GOLDEN[f"{case}.tau"]))
    assert loss.item() == pytest.approx(float(GOLDEN[f"{case}.loss"]), rel=1e-9)
    loss.backward()
    torch.testing.assert_close(z1.grad, golden(f"{case}.loss_grad_z1"), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(z2.grad, golden(f"{case}.loss_grad_z2"), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("detach", "name"), [(True, "info_reg"), (False, "info_reg_nodetach")])
@pytest.mark.parametrize("case", ["a", "b"])
def test_information_regulariser_equals_the_official_code(case, detach, name):
    head = golden_model(case)[1]
    z1, z2 = golden_embeddings(case)
    loss = information_regularizer(
        head(z1),
        head(z2),
        head(golden(f"{case}.z")),
        float(GOLDEN[f"{case}.tau"]),
        detach=detach,
    )
    assert loss.item() == pytest.approx(float(GOLDEN[f"{case}.{name}"]), rel=1e-9)
    loss.backward()
    torch.testing.assert_close(z1.grad, golden(f"{case}.{name}_grad_z1"), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(z2.grad, golden(f"{case}.{name}_grad_z2"), rtol=1e-9, atol=1e-14)


def test_curriculum_equals_the_official_schedule():
    epsilon, gamma, every = GOLDEN["curriculum.hp"].tolist()
    schedule = [curriculum(epsilon, step, gamma, int(every)) for step in range(1, 101)]
    assert schedule == pytest.approx(GOLDEN["curriculum.eps"].tolist(), rel=1e-12)


@pytest.mark.parametrize("case", ["a", "b"])
def test_training_objective_equals_the_official_code_in_value_and_gradients(case):
    encoder, head = golden_model(case)
    alpha, beta, steps, ratio, radius, _ = GOLDEN[f"{case}.pgd_hp"].tolist()
    epsilon, information_weight = GOLDEN[f"{case}.step_hp"].tolist()
    hyper = ArielHyper(
        temperature=float(GOLDEN[f"{case}.tau"]),
        epsilon=epsilon,
        information_weight=information_weight,
        alpha=alpha,
        beta=beta,
        attack_steps=int(steps),
        attack_budget=ratio,
        feature_radius=radius,
    )
    clean, view1, view2 = (
        View(golden(f"{case}.x{i}"), golden(f"{case}.edge_index{i}")) for i in ("", "_1", "_2")
    )
    terms = Ariel(encoder, head, hyper).objective(
        clean, view1, view2, bernoulli_u=golden(f"{case}.bernoulli_u")
    )
    assert terms["adversarial"].item() == pytest.approx(
        float(GOLDEN[f"{case}.step_loss_adv"]), rel=1e-9
    )
    assert terms["loss"].item() == pytest.approx(float(GOLDEN[f"{case}.step_total"]), rel=1e-9)
    terms["loss"].backward()
    gradients = {f"encoder.{k}": p.grad for k, p in encoder.named_parameters()}
    gradients |= {k: p.grad for k, p in head.named_parameters()}
    assert gradients
    for name, gradient in gradients.items():
        expected = golden(f"{case}.step_grad.{name}")
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-14)


def blocks_graph(seed=0, n=60, features=40):
    """Two groups of nodes with features and edges of their own."""
    g = torch.Generator().manual_seed(seed)
    group = torch.arange(n) % 2
    rate = torch.where(group[:, None] == torch.arange(features) % 2, 0.12, 0.01)
    x = (torch.rand(n, features, generator=g) < rate).float()
    likely = torch.where(group[:, None] == group, 0.15, 0.02)
    a = (torch.rand(n, n, generator=g) < likely).triu(1)
    return Data(x=x, edge_index=(a | a.T).nonzero().T)


def small_ariel(data, **changes):
    torch.manual_seed(0)
    hyper = ArielHyper(hidden=8, projection=8, alpha=100.0, beta=0.01, **changes)
    encoder = GCN(data.x.shape[1], 8, activation=hyper.activation)
    return Ariel(encoder, ProjectionHead(8, 8), hyper, seed=5)


def run(model, data, steps, monkeypatch):
    """Train by hand; returns the losses and the names that were logged."""
    logged = set()
    monkeypatch.setattr(model, "log", lambda name, *_, **__: logged.add(name))
    optimizer, losses = model.configure_optimizers(), []
    for step in range(steps):
        monkeypatch.setattr(type(model), "global_step", property(lambda _, step=step: step))
        out = model.training_step(data, 0)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        losses.append(out["loss"].item())
    return losses, logged


@pytest.mark.parametrize("activation", ["relu", "prelu", "rrelu"])
def test_training_lowers_the_loss(activation, monkeypatch):
    data = blocks_graph()
    model = small_ariel(data, activation=activation, learning_rate=0.01, information_weight=0.5)
    losses, logged = run(model, data, 25, monkeypatch)
    assert sum(losses[-5:]) < sum(losses[:5])
    assert logged == {"train/loss", "train/contrast", "train/adversarial", "train/information"}


def test_grace_runs_neither_the_attack_nor_the_clean_view(monkeypatch):
    data = blocks_graph()
    model = small_ariel(data, epsilon=0.0)
    seen = []
    monkeypatch.setattr(model.encoder, "trace", spy(model.encoder.trace, seen))
    _, logged = run(model, data, 1, monkeypatch)
    assert logged == {"train/loss", "train/contrast"}
    assert len(seen) == 2  # views 1 and 2


def spy(function, seen):
    def called(*args):
        seen.append(args)
        return function(*args)

    return called


def test_a_step_depends_on_seed_and_number_only(monkeypatch):
    data = blocks_graph()
    first, _ = run(small_ariel(data), data, 3, monkeypatch)
    torch.rand(10)  # moves the global generator
    again, _ = run(small_ariel(data), data, 3, monkeypatch)
    assert first == again
    other = small_ariel(data)
    other.seed = 6
    assert run(other, data, 3, monkeypatch)[0] != first


def test_sparse_features_give_the_step_of_dense_ones():
    data = blocks_graph()
    assert data.x.count_nonzero() < 0.1 * data.x.numel()
    model = small_ariel(data, drop_feature_2=0.3).double()
    clean = View(data.x.double(), data.edge_index)
    views = model.draw_views(clean, torch.Generator().manual_seed(0))
    assert all(isinstance(v.x, SparseMatrix) for v in views)
    dense = [View(v.x.matrix.to_dense(), v.edge_index) for v in views]
    u = torch.rand(60, 60, generator=torch.Generator().manual_seed(1)).double()
    results = []
    for v1, v2 in (views, dense):
        model.zero_grad()
        loss = model.objective(clean, v1, v2, bernoulli_u=u)["loss"]
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_embedding_takes_dense_byte_and_sparse_features_in_blocks(rows):
    data = blocks_graph()
    model = small_ariel(data, activation="rrelu")
    adjacency = normalized_adjacency(data.edge_index, 60)
    with torch.no_grad():
        expected = model.encoder.eval()(data.x, adjacency)
    model.encoder.train()
    for x in (data.x, data.x.to(torch.uint8), data.x.bool(), data.x.to_sparse()):
        z = embed(model.encoder, x, data.edge_index, rows=rows)
        torch.testing.assert_close(z, expected, rtol=1e-5, atol=1e-6)
    assert model.encoder.training
    assert not z.requires_grad


def test_regulariser_is_zero_when_a_view_is_the_clean_graph():
    h0, h2 = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0)).unbind()
    # 2 w(1,2) - w(1,0) - w(2,0) with 1 = 0 is w(0,2) - e^(1/t) <= 0.
    assert information_regularizer(h0, h2, h0, 0.5).item() == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", 0.0, "temperature must be positive"),
        ("epsilon", -1.0, "epsilon must be at least 0"),
        ("drop_edge_1", 1.0, r"drop_edge_1 must lie in \[0, 1\)"),
        ("hidden", 0, "hidden must be positive"),
    ],
)
def test_refuses_hyper_parameters_out_of_range(name, value, message):
    with pytest.raises(ValueError, match=message):
        ArielHyper(**{name: value})


def test_refuses_sparse_features_where_the_attack_changes_all_of_them():
    data = blocks_graph()
    view = View(SparseMatrix.from_dense(data.x), data.edge_index)
    with pytest.raises(ValueError, match="give the clean graph a dense x"):
        small_ariel(data).objective(view, view, view)
