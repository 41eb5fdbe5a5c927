"""The PGD attack against the official code's arrays and a dense autograd attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cl_core.losses import nt_xent
from cl_graphs.attack import AttackConfig, pgd_attack, pgd_steps
from cl_graphs.encoder import GCN, ProjectionHead, normalized_adjacency
from cl_graphs.projection import project_budget

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ariel.npz", allow_pickle=False)
ACTIVATIONS = ("relu", "prelu", "rrelu")


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def golden_model(case):
    x, activation = golden(f"{case}.x"), ACTIVATIONS[int(GOLDEN[f"{case}.activation"])]
    width = GOLDEN[f"{case}.param.encoder.conv.1.bias"].shape[0]
    projection = GOLDEN[f"{case}.param.fc1.bias"].shape[0]
    encoder = GCN(x.shape[1], width, activation=activation).double()
    head = ProjectionHead(width, projection).double()
    state = {k.split(".param.")[1]: golden(k) for k in GOLDEN.files if f"{case}.param." in k}
    encoder.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    )
    head.load_state_dict({k: v for k, v in state.items() if k.startswith("fc")})
    return encoder, head, x, golden(f"{case}.edge_index")


def golden_config(case, steps):
    alpha, beta, _, ratio, radius, width = GOLDEN[f"{case}.pgd_hp"].tolist()
    return AttackConfig(
        steps=steps,
        budget=ratio,
        structure_step=alpha,
        feature_step=beta,
        feature_radius=radius,
        bisection_width=width,
    )


def dense(step, n):
    s = torch.zeros(n * n, dtype=step.values.dtype)
    s[step.keys] = step.values
    return s.view(n, n)


def dense_adjacency(edge_index, n, dtype=torch.float64):
    a = torch.zeros(n, n, dtype=dtype)
    a[edge_index[0], edge_index[1]] = 1
    return a


def normalized_dense(a):
    r = a.sum(1)
    return a / (r[:, None] * r).sqrt()


def encode_dense(encoder, x, adjacency):
    for layer in encoder.layers:
        x = encoder.activation(adjacency @ (x @ layer.weight) + layer.bias)
    return x


def official_bisection(s, budget, width):
    """The published search, matrix in, matrix out."""

    def excess(mu):
        return (s - mu).clamp(0, 1).sum() - budget

    if s.clamp(0, 1).sum() <= budget:
        return s.clamp(0, 1)
    left, right = s.min() - 1, s.max()
    middle = left
    while right - left >= width:
        middle = (left + right) / 2
        if excess(middle) == 0:
            break
        if excess(middle) * excess(left) < 0:
            right = middle
        else:
            left = middle
    return (s - middle).clamp(0, 1)


def autograd_attack(encoder, head, x, edge_index, h1, config, temperature):
    """What the official code does: autograd through a dense N x N adjacency. Yields S, d, loss."""
    n = len(x)
    a = dense_adjacency(edge_index, n, x.dtype)
    sign = 1 - 2 * a - torch.eye(n, dtype=x.dtype)
    budget = config.budget * edge_index.shape[1] / 2
    s, d = torch.zeros(n, n, dtype=x.dtype), torch.zeros_like(x)
    for k in range(1, config.steps + 1):
        s, d = s.requires_grad_(), d.requires_grad_()
        upper = s.triu(1)
        moved = a + (upper + upper.T) * sign + torch.eye(n, dtype=x.dtype)
        h = head(encode_dense(encoder, x + d, normalized_dense(moved)))
        loss = nt_xent(h1, h, temperature)
        g_s, g_d = torch.autograd.grad(loss, [s, d])
        before = (s + config.structure_step / k**0.5 * g_s).detach()
        s = official_bisection(before, budget, config.bisection_width)
        d = (d + config.feature_step * g_d.sign()).detach()
        d = d.clamp(-config.feature_radius, config.feature_radius)
        yield before, s, d, loss.item()


@pytest.mark.parametrize("block_rows", [None, 1, 7])
@pytest.mark.parametrize("candidates", ["all", None])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("case", ["a", "b"])
def test_steps_of_the_attack_equal_the_official_code(case, steps, candidates, block_rows):
    encoder, head, x, edge_index = golden_model(case)
    n = len(x)
    pairs = torch.triu_indices(n, n, 1) if candidates else None
    trajectory = pgd_steps(
        encoder,
        head,
        x,
        edge_index,
        golden(f"{case}.h_1"),
        golden_config(case, steps),
        temperature=float(GOLDEN[f"{case}.tau"]),
        candidates=pairs,
        block_rows=block_rows,
    )
    for k, step in enumerate(trajectory):
        expected = golden(f"{case}.pgd{steps}.S_after_proj")[k]
        torch.testing.assert_close(dense(step, n), expected, rtol=1e-9, atol=1e-12)
        loss = GOLDEN[f"{case}.pgd{steps}.attack_loss"][k]
        assert step.loss == pytest.approx(loss, rel=1e-9)
    assert k == steps - 1


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("case", ["a", "b"])
def test_adversarial_view_equals_the_official_code(case, steps):
    encoder, head, x, edge_index = golden_model(case)
    view = pgd_attack(
        encoder,
        head,
        x,
        edge_index,
        golden(f"{case}.h_1"),
        golden_config(case, steps),
        temperature=float(GOLDEN[f"{case}.tau"]),
        bernoulli_u=golden(f"{case}.bernoulli_u"),
    )
    adjacency = normalized_adjacency(view.edge_index, len(x), dtype=torch.float64)
    expected = golden(f"{case}.pgd{steps}.adj_norm")
    torch.testing.assert_close(adjacency.matrix.to_dense(), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(view.x, golden(f"{case}.pgd{steps}.x_hat"), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("i", range(6))
def test_projection_onto_the_budget_equals_the_official_bisection(i):
    s, (budget, width) = golden(f"bis{i}.in"), GOLDEN[f"bis{i}.hp"].tolist()
    result = project_budget(s, budget, width)
    torch.testing.assert_close(result, golden(f"bis{i}.out"), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        project_budget(s, budget, 1e-13), golden(f"bis{i}.exact"), rtol=0, atol=1e-12
    )
