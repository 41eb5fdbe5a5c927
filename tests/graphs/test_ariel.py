"""Losses, regulariser, curriculum and training step of node-level ARIEL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cl_graphs.ariel import (
    Ariel,
    View,
    curriculum,
    grace_loss,
    information_regularizer,
)
from cl_graphs.encoder import GCN, ProjectionHead
from cl_graphs.hyper import ArielHyper

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
