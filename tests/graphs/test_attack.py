"""The PGD attack against the official code's arrays and a dense autograd attack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_core.losses import nt_xent
from cl_graphs.methods.attack import AttackConfig, pgd_attack, pgd_steps
from cl_graphs.methods.encoder import GCN, ProjectionHead, normalized_adjacency

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


@pytest.mark.parametrize("case", ["a", "b"])
def test_first_unprojected_step_equals_the_official_code(case):
    encoder, head, x, edge_index = golden_model(case)
    config = replace(golden_config(case, 1), budget=1e9)  # nothing is cut but [0, 1]
    tau = float(GOLDEN[f"{case}.tau"])
    h1 = golden(f"{case}.h_1")
    step = next(pgd_steps(encoder, head, x, edge_index, h1, config, temperature=tau))
    expected = golden(f"{case}.pgd1.S_before_proj")[0].clamp(0, 1)
    torch.testing.assert_close(dense(step, len(x)), expected, rtol=1e-9, atol=1e-13)


def random_graph(n, edges, seed, features=5):
    g = torch.Generator().manual_seed(seed)
    x = (torch.rand(n, features, generator=g) < 0.4).double()
    a = torch.zeros(n, n, dtype=torch.bool)
    row, column = torch.randint(n, (2, edges), generator=g)
    a[row, column] = True
    a = (a | a.T).fill_diagonal_(False)
    return x, a.nonzero().T


def random_model(features=5, activation="prelu", num_layers=2):
    torch.manual_seed(3)
    encoder = GCN(features, 4, activation=activation, num_layers=num_layers).double()
    return encoder, ProjectionHead(4, 6).double()


def view1_of(encoder, head, x, edge_index):
    with torch.no_grad():
        a = normalized_adjacency(edge_index[:, ::3], len(x), dtype=x.dtype)
        return head(encoder(x * (torch.arange(x.shape[1]) % 3 > 0), a))


STRONG = AttackConfig(steps=4, budget=0.3, structure_step=300.0, feature_step=0.02)


@pytest.mark.parametrize(("activation", "num_layers"), [("relu", 2), ("prelu", 3), ("rrelu", 2)])
def test_closed_form_equals_autograd_through_the_dense_adjacency(activation, num_layers):
    x, edge_index = random_graph(17, 30, seed=1)
    encoder, head = random_model(activation=activation, num_layers=num_layers)
    encoder.eval()
    h1 = view1_of(encoder, head, x, edge_index)
    ours = pgd_steps(encoder, head, x, edge_index, h1, STRONG, temperature=0.5)
    oracle = autograd_attack(encoder, head, x, edge_index, h1, STRONG, 0.5)
    moved = 0
    for step, (_, s, delta, loss) in zip(ours, oracle, strict=True):
        torch.testing.assert_close(dense(step, 17), s, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(step.delta, delta, rtol=1e-12, atol=1e-15)
        assert step.loss == pytest.approx(loss, rel=1e-10)
        moved += int((s > 0).sum())
    assert moved > 0


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 30), st.integers(0, 60), st.integers(1, 31), st.integers(0, 1000))
def test_blocks_of_any_size_and_all_pairs_as_candidates_give_one_attack(n, edges, rows, seed):
    x, edge_index = random_graph(n, edges, seed)
    encoder, head = random_model()
    h1 = view1_of(encoder, head, x, edge_index)
    kinds = [{}, {"block_rows": rows}, {"candidates": torch.triu_indices(n, n, 1)}]
    ends = [
        list(pgd_steps(encoder, head, x, edge_index, h1, STRONG, temperature=0.5, **kind))
        for kind in kinds
    ]
    for other in ends[1:]:
        for a, b in zip(ends[0], other, strict=True):
            torch.testing.assert_close(dense(a, n), dense(b, n), rtol=1e-8, atol=1e-10)


def test_restricted_attack_flips_candidates_only():
    x, edge_index = random_graph(20, 40, seed=2)
    encoder, head = random_model()
    h1 = view1_of(encoder, head, x, edge_index)
    candidates = torch.tensor([[0, 1, 0, 5, 0], [3, 4, 9, 12, 3]])  # one of them twice
    view = pgd_attack(
        encoder,
        head,
        x,
        edge_index,
        h1,
        replace(STRONG, structure_step=1e5),
        temperature=0.5,
        candidates=candidates,
        bernoulli_u=torch.zeros(20, 20).double(),
    )
    flips = set(map(tuple, view.flips.T.tolist()))
    assert flips
    assert flips <= set(map(tuple, candidates.T.tolist()))


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 25), st.integers(1, 60), st.integers(0, 1000))
def test_structure_stays_within_its_budget_and_features_within_their_radius(n, edges, seed):
    x, edge_index = random_graph(n, edges, seed)
    encoder, head = random_model()
    h1 = view1_of(encoder, head, x, edge_index)
    budget = STRONG.budget * edge_index.shape[1] / 2
    for step in pgd_steps(encoder, head, x, edge_index, h1, STRONG, temperature=0.5):
        assert ((step.values > 0) & (step.values <= 1)).all()
        # The bisection stops within 1e-3 of the shift, which every entry feels.
        assert step.values.sum() <= budget + 1e-3 * max(1, len(step.values))
        assert (step.keys // n < step.keys % n).all()
        assert step.delta.abs().max() <= STRONG.feature_radius


def test_attack_does_not_depend_on_the_order_of_the_nodes():
    x, edge_index = random_graph(18, 40, seed=5)
    encoder, head = random_model()
    h1 = view1_of(encoder, head, x, edge_index)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(0))
    place = order.argsort()
    *_, end = pgd_steps(encoder, head, x, edge_index, h1, STRONG, temperature=0.5)
    *_, moved = pgd_steps(
        encoder, head, x[order], place[edge_index], h1[order], STRONG, temperature=0.5
    )
    s, t = dense(end, 18), dense(moved, 18)
    torch.testing.assert_close((s + s.T)[order][:, order], t + t.T, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(end.delta[order], moved.delta)


@pytest.mark.parametrize(
    "config",
    [
        AttackConfig(structure_step=1000.0, feature_step=0.0),
        AttackConfig(structure_step=0.0, feature_step=0.01),
        AttackConfig(structure_step=1000.0, feature_step=0.01),
    ],
)
def test_attack_raises_the_loss_and_touches_only_what_it_may(config):
    x, edge_index = random_graph(40, 90, seed=7)
    encoder, head = random_model()
    h1 = view1_of(encoder, head, x, edge_index)
    view = pgd_attack(
        encoder,
        head,
        x,
        edge_index,
        h1,
        config,
        temperature=0.5,
        generator=torch.Generator().manual_seed(0),
    )
    adjacency = normalized_adjacency(view.edge_index, len(x), dtype=x.dtype)
    attacked = nt_xent(h1, head(encoder(view.x, adjacency)), 0.5).item()
    assert attacked > view.losses[0]
    assert len(view.losses) == config.steps
    assert torch.equal(view.x, x) == (config.feature_step == 0)
    assert (view.flips.shape[1] == 0) == (config.structure_step == 0)


def test_flips_add_absent_edges_and_remove_present_ones():
    x, edge_index = random_graph(30, 80, seed=4)
    encoder, head = random_model()
    h1 = view1_of(encoder, head, x, edge_index)
    zeros = torch.zeros(30, 30).double()
    view = pgd_attack(encoder, head, x, edge_index, h1, STRONG, temperature=0.5, bernoulli_u=zeros)
    before, after = (set(map(tuple, e.T.tolist())) for e in (edge_index, view.edge_index))
    flips = set(map(tuple, view.flips.T.tolist()))
    assert before ^ after == flips | {(j, i) for i, j in flips}
    assert flips & before
    assert flips - before


def test_isolated_nodes_and_a_graph_without_edges_are_attacked_without_nan():
    encoder, head = random_model()
    x, edge_index = random_graph(12, 6, seed=1)
    assert len(edge_index.unique()) < 12
    for edges in (edge_index, edge_index[:, :0]):
        h1 = view1_of(encoder, head, x, edges)
        view = pgd_attack(encoder, head, x, edges, h1, STRONG, temperature=0.5)
        assert view.x.isfinite().all()
        assert all(np.isfinite(view.losses))
    assert view.edge_index.shape == (2, 0)  # no edges, no budget


def test_attack_leaves_the_model_as_it_was():
    x, edge_index = random_graph(15, 30, seed=3)
    encoder, head = random_model(activation="rrelu")
    h1 = view1_of(encoder.eval(), head, x, edge_index)
    encoder.train()
    first = pgd_attack(encoder, head, x, edge_index, h1, STRONG, temperature=0.5)
    second = pgd_attack(encoder, head, x, edge_index, h1, STRONG, temperature=0.5)
    assert first.losses == second.losses  # no noise of RReLU: eval mode inside
    assert encoder.training
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([[0], [1]], "undirected"),
        ([[0, 1], [1, 2]], "undirected"),
        ([[0, 1, 2], [1, 0, 2]], "self loops"),
        ([[0, 1, 0, 1], [1, 0, 1, 0]], "repeats an edge"),
    ],
)
def test_refuses_graphs_that_are_not_simple_and_undirected(edges, message):
    encoder, head = random_model()
    x, h1 = torch.ones(3, 5).double(), torch.ones(3, 4).double()
    with pytest.raises(ValueError, match=message):
        pgd_attack(encoder, head, x, torch.tensor(edges), h1, STRONG, temperature=0.5)


def test_refuses_candidates_below_the_diagonal():
    encoder, head = random_model()
    x, h1 = torch.ones(3, 5).double(), torch.ones(3, 4).double()
    edges, low = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[2], [1]])
    with pytest.raises(ValueError, match="row < column"):
        pgd_attack(encoder, head, x, edges, h1, STRONG, temperature=0.5, candidates=low)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("support_limit", 0),
        ("budget", -0.1),
        ("feature_step", -1.0),
        ("bisection_width", 0.0),
    ],
)
def test_refuses_an_impossible_strength(name, value):
    with pytest.raises(ValueError, match=name):
        AttackConfig(**{name: value})
