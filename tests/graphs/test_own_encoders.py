"""Encoders of a user's own: both conventions, and the attack against dense autograd."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cl_core.losses import nt_xent
from cl_graphs.hyper import ArielHyper, GraphArielHyper
from cl_graphs.methods.ariel import Ariel, View
from cl_graphs.methods.attack import AttackConfig, pgd_attack, pgd_steps
from cl_graphs.methods.contrast import FixedViewLoss
from cl_graphs.methods.encode import encode, output_width
from cl_graphs.methods.encoder import GCN, ProjectionHead, graph_head, normalized_adjacency
from cl_graphs.methods.graph_ariel import GraphAriel
from cl_graphs.methods.graph_attack import graph_contrast, graph_pgd_attack, graph_pgd_steps
from cl_graphs.methods.graph_batch import GraphBatch, encode_graphs, graph_width
from cl_graphs.methods.pairs import SimpleGraph
from cl_graphs.methods.projection import project_budget
from cl_graphs.methods.relaxed import BLOCK_PAIRS, Relaxed, draw_candidates
from cl_graphs.methods.sparse import WeightedMatrix

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    from torch_geometric import nn as pyg

N, D, H = 14, 5, 4
STRONG = AttackConfig(steps=4, budget=0.4, structure_step=200.0, feature_step=0.02)


class Two(nn.Module):
    """Two layers of PyG with a ReLU between, in PyG's convention."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


class WeightTaking(Two):
    def forward(self, x, edge_index, edge_weight=None):
        x = self.first(x, edge_index, edge_weight).relu()
        return self.second(x, edge_index, edge_weight)


class InMatrix(Two):
    """The same layers in the package's convention, reaching into the matrix for its edges."""

    def forward(self, x, A):
        edge_index = A.matrix.indices().flip(0)
        return self.second(self.first(x, edge_index).relu(), edge_index)


class Products(nn.Module):
    """Products with the adjacency and nothing of PyG."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(D, H), nn.Linear(H, H)

    def forward(self, x, adjacency):
        return adjacency @ self.second((adjacency @ self.first(x)).relu())


def mlp(a, b):
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b))


def with_loops(a):
    eye = torch.eye(len(a), dtype=a.dtype)
    return a * (1 - eye) + eye


# What each layer does over a dense matrix of weights, row hearing from column.


def dense_sage(layer, x, a):
    mean = a @ x / a.sum(1, keepdim=True).clamp_min(1)
    return layer.lin_l(mean) + layer.lin_r(x)


def dense_gin(layer, x, a):
    return layer.nn((1 + layer.eps) * x + a @ x)


def dense_sum(layer, x, a):
    return layer.lin_rel(a @ x) + layer.lin_root(x)


def dense_gcn(layer, x, a):
    a = with_loops(a)
    r = a.sum(1)
    return a / (r[:, None] * r).sqrt() @ layer.lin(x) + layer.bias


def dense_gat(layer, x, a):
    h = layer.lin(x).view(len(x), layer.heads, -1)
    sent, got = (h * layer.att_src).sum(2), (h * layer.att_dst).sum(2)
    weight = with_loops(a)[:, :, None]
    e = weight * F.leaky_relu(got[:, None] + sent[None, :], layer.negative_slope).exp()
    alpha = e / e.sum(1, keepdim=True)
    return torch.einsum("ijh,jhc->ihc", alpha, h).reshape(len(x), -1) + layer.bias


def dense_gatv2(layer, x, a):
    left, right = (lin(x).view(len(x), layer.heads, -1) for lin in (layer.lin_l, layer.lin_r))
    pair = F.leaky_relu(right[:, None] + left[None, :], layer.negative_slope)
    weight = with_loops(a)[:, :, None]
    e = weight * (pair * layer.att).sum(3).exp()
    alpha = e / e.sum(1, keepdim=True)
    return torch.einsum("ijh,jhc->ihc", alpha, left).reshape(len(x), -1) + layer.bias


LAYERS = {
    "sage": (lambda a, b: pyg.SAGEConv(a, b), dense_sage),
    "gin": (lambda a, b: pyg.GINConv(mlp(a, b), eps=0.2), dense_gin),
    "graph": (lambda a, b: pyg.GraphConv(a, b), dense_sum),
    "gcn": (lambda a, b: pyg.GCNConv(a, b), dense_gcn),
    "gat": (lambda a, b: pyg.GATConv(a, b // 2, heads=2), dense_gat),
    "gatv2": (lambda a, b: pyg.GATv2Conv(a, b // 2, heads=2), dense_gatv2),
}


def two(kind, name, seed=0):
    torch.manual_seed(seed)
    make = LAYERS[name][0]
    return kind(make(D, H), make(H, H)).double().eval()


def dense_encode(encoder, name, x, a):
    if isinstance(encoder, InMatrix):  # its edges hold the loops of the matrix
        a = with_loops(a)
    layer = LAYERS[name][1]
    return layer(encoder.second, layer(encoder.first, x, a).relu(), a)


def random_graph(seed=0, n=N, edges=24):
    g = torch.Generator().manual_seed(seed)
    a = torch.zeros(n, n, dtype=torch.bool)
    row, column = torch.randint(n, (2, edges), generator=g)
    a[row, column] = True
    a = (a | a.T).fill_diagonal_(False)
    a[0] = a[:, 0] = False  # an isolated node
    return torch.rand(n, D, generator=g, dtype=torch.float64), a.nonzero().T


def head_and_view(encoder, x, edge_index):
    torch.manual_seed(1)
    head = ProjectionHead(H, 6).double()
    with torch.no_grad():
        return head, head(encode(encoder, x * 0.9, edge_index))


def dense_attack(forward, head, x, edge_index, h1, config, temperature):
    """Autograd through a dense N x N matrix of weights; yields S, delta and the loss."""
    n = len(x)
    a = torch.zeros(n, n, dtype=x.dtype)
    a[edge_index[0], edge_index[1]] = 1
    sign = 1 - 2 * a - torch.eye(n, dtype=x.dtype)
    budget = config.budget * edge_index.shape[1] / 2
    s, d = torch.zeros(n, n, dtype=x.dtype), torch.zeros_like(x)
    for k in range(1, config.steps + 1):
        s, d = s.requires_grad_(), d.requires_grad_()
        upper = s.triu(1)
        loss = nt_xent(h1, head(forward(x + d, a + (upper + upper.T) * sign)), temperature)
        g_s, g_d = torch.autograd.grad(loss, [s, d])
        moved = (s + config.structure_step / k**0.5 * g_s).detach()
        s = project_budget(moved, budget, config.bisection_width)
        d = (d + config.feature_step * g_d.sign()).detach()
        d = d.clamp(-config.feature_radius, config.feature_radius)
        yield s, d, loss.item()


def as_matrix(step, n):
    s = torch.zeros(n * n, dtype=step.values.dtype)
    s[step.keys] = step.values
    return s.view(n, n)


KINDS = [(kind, name) for kind in (Two, InMatrix) for name in LAYERS]
KINDS += [(WeightTaking, name) for name in ("gcn", "graph")]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_the_attack_over_all_pairs_equals_dense_autograd(kind, name):
    x, edge_index = random_graph()
    encoder = two(kind, name)
    head, h1 = head_and_view(encoder, x, edge_index)
    ours = pgd_steps(
        encoder,
        head,
        x,
        edge_index,
        h1,
        STRONG,
        temperature=0.5,
        candidates=torch.triu_indices(N, N, 1),
    )
    oracle = dense_attack(
        lambda x, a: dense_encode(encoder, name, x, a), head, x, edge_index, h1, STRONG, 0.5
    )
    flips = 0
    for step, (s, delta, loss) in zip(ours, oracle, strict=True):
        assert step.loss == pytest.approx(loss, rel=1e-10)
        torch.testing.assert_close(as_matrix(step, N), s, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(step.delta, delta, rtol=1e-12, atol=1e-15)
        flips += len(step.keys)
    assert flips > 0


def test_products_with_the_adjacency_equal_dense_autograd():
    x, edge_index = random_graph()
    torch.manual_seed(0)
    encoder = Products().double()
    head, h1 = head_and_view(encoder, x, edge_index)

    def forward(x, a):
        a = with_loops(a)
        r = a.sum(1)
        return encoder(x, a / (r[:, None] * r).sqrt())

    ours = pgd_steps(encoder, head, x, edge_index, h1, STRONG, temperature=0.5)
    for step, (s, delta, loss) in zip(
        ours, dense_attack(forward, head, x, edge_index, h1, STRONG, 0.5), strict=True
    ):
        assert step.loss == pytest.approx(loss, rel=1e-10)
        torch.testing.assert_close(as_matrix(step, N), s, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(step.delta, delta, rtol=1e-12, atol=1e-15)


class HiddenGCN(GCN):
    """A GCN that computes as before, but does not say so."""

    def forward(self, x, adjacency):
        return super().forward(x, adjacency)


def test_a_gcn_attacked_by_autograd_is_attacked_as_by_the_closed_form():
    x, edge_index = random_graph(seed=3)
    torch.manual_seed(0)
    encoder = GCN(D, H, activation="prelu", num_layers=3).double()
    hidden = HiddenGCN(D, H, activation="prelu", num_layers=3).double()
    hidden.load_state_dict(encoder.state_dict())
    head, h1 = head_and_view(encoder, x, edge_index)
    one, other = (
        pgd_steps(e, head, x, edge_index, h1, STRONG, temperature=0.5) for e in (encoder, hidden)
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(as_matrix(a, N), as_matrix(b, N), rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(a.delta, b.delta)


def test_the_gradient_on_some_candidates_is_that_on_all_of_them():
    x, edge_index = random_graph()
    encoder = two(Two, "gat")
    head, h1 = head_and_view(encoder, x, edge_index)
    graph = SimpleGraph.of(edge_index, N)
    every = torch.triu_indices(N, N, 1)
    every = every[0] * N + every[1]
    some = draw_candidates(graph, 9, torch.Generator().manual_seed(0))
    assert len(some) == 9 + len(graph.keys)
    keys, values = some[::4].clone(), torch.full((len(some[::4]),), 0.3, dtype=torch.float64)
    gradients = []
    for candidates in (every, some):
        relaxed = Relaxed.nodes(encoder, head, graph, FixedViewLoss(h1, 0.5), x, candidates)
        _, _, found = relaxed.at(torch.zeros_like(x), keys, values, rate=2.0)
        gradients.append(found.values)
    torch.testing.assert_close(
        gradients[0][torch.searchsorted(every, some)], gradients[1], rtol=1e-9, atol=1e-14
    )


def test_candidates_in_parts_give_the_gradient_of_all_at_once(monkeypatch):
    x, edge_index = random_graph()
    encoder = two(Two, "sage")
    head, h1 = head_and_view(encoder, x, edge_index)
    options = {"temperature": 0.5, "candidates": torch.triu_indices(N, N, 1)}
    once = list(pgd_steps(encoder, head, x, edge_index, h1, STRONG, **options))
    monkeypatch.setattr("cl_graphs.methods.relaxed.BLOCK_PAIRS", 10)
    parts = list(pgd_steps(encoder, head, x, edge_index, h1, STRONG, **options))
    for a, b in zip(once, parts, strict=True):
        torch.testing.assert_close(as_matrix(a, N), as_matrix(b, N), rtol=1e-9, atol=1e-12)


def test_candidates_are_every_edge_and_distinct_uniform_other_pairs():
    _, edge_index = random_graph()
    graph = SimpleGraph.of(edge_index, N)
    absent = N * (N - 1) // 2 - len(graph.keys)
    counts = torch.zeros(N * N)
    for seed in range(600):
        keys = draw_candidates(graph, 8, torch.Generator().manual_seed(seed))
        assert torch.equal(keys, keys.unique())
        assert graph.contains(keys).sum() == len(graph.keys)
        counts[keys[~graph.contains(keys)]] += 1
    drawn = counts[counts > 0]
    expected = 600 * 8 / absent
    assert len(drawn) == absent
    # Pearson's statistic; its mean is about absent - 1, its deviation sqrt(2 absent).
    chi = ((drawn - expected) ** 2 / expected).sum().item()
    assert chi < absent + 4 * (2 * absent) ** 0.5
    every = draw_candidates(graph, absent, None)
    assert len(every) == N * (N - 1) // 2
    assert len(every) < BLOCK_PAIRS


@pytest.mark.parametrize("name", ["sage", "gat", "gin"])
def test_the_attack_raises_the_loss_of_an_own_encoder(name):
    x, edge_index = random_graph(seed=5, n=40, edges=90)
    encoder = two(Two, name)
    head, h1 = head_and_view(encoder, x, edge_index)
    view = pgd_attack(
        encoder,
        head,
        x,
        edge_index,
        h1,
        AttackConfig(structure_step=1000.0, feature_step=0.01, candidates=100),
        temperature=0.5,
        generator=torch.Generator().manual_seed(0),
    )
    attacked = nt_xent(h1, head(encode(encoder, view.x, view.edge_index)), 0.5).item()
    assert attacked > view.losses[0]
    assert view.flips.shape[1] > 0
    assert (view.x != x).any()


class Maximum(Two):
    def __init__(self):
        super().__init__(pyg.SAGEConv(D, H, aggr="max"), pyg.SAGEConv(H, H, aggr="max"))


class Attention(Two):
    def __init__(self):
        super().__init__(pyg.TransformerConv(D, H), pyg.TransformerConv(H, H))


class Scattered(nn.Module):
    """Sums over the edges by hand, so that no weight can reach them."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, H)

    def forward(self, x, edge_index):
        return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]]) @ (
            self.linear.weight.T
        )


@pytest.mark.parametrize("kind", [Maximum, Attention, Scattered])
def test_an_encoder_whose_edges_cannot_be_weighed_is_refused_but_for_its_features(kind):
    x, edge_index = random_graph()
    torch.manual_seed(0)
    encoder = kind().double().eval()
    head, h1 = head_and_view(encoder, x - 0.5, edge_index)
    with pytest.raises(ValueError, match=r"alpha=0"):
        list(pgd_steps(encoder, head, x - 0.5, edge_index, h1, STRONG, temperature=0.5))
    features = AttackConfig(steps=1, structure_step=0.0, feature_step=0.01)
    (step,) = pgd_steps(encoder, head, x - 0.5, edge_index, h1, features, temperature=0.5)
    assert step.delta.abs().max() == pytest.approx(0.01)
    assert len(step.keys) == 0


def test_an_encoder_whose_head_forgets_the_edges_has_no_gradient_to_follow():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(D, H)

        def forward(self, x, edge_index):
            return self.linear(x)

    x, edge_index = random_graph()
    encoder = Blind().double()
    head, h1 = head_and_view(encoder, x, edge_index)
    with pytest.raises(ValueError, match="weights have no effect on Blind"):
        list(pgd_steps(encoder, head, x, edge_index, h1, STRONG, temperature=0.5))


def test_messages_follow_the_rows_and_columns_of_the_adjacency():
    # Node 0 hears from 1 and from nobody else: a view with one directed edge.
    x, edge_index = torch.eye(3), torch.tensor([[0], [1]])
    sage = pyg.SAGEConv(3, 2, root_weight=False, bias=False)
    z = encode(sage, x, edge_index)
    torch.testing.assert_close(z[0], sage.lin_l.weight[:, 1])
    assert z[1:].abs().sum() == 0
    adjacency = normalized_adjacency(edge_index, 3).matrix.to_dense()
    assert (adjacency[0, 1] > 0) & (adjacency[1, 0] == 0)


def test_the_weighted_matrix_multiplies_and_has_the_gradients_of_a_dense_one():
    g = torch.Generator().manual_seed(0)
    dense = torch.randn(5, 5, generator=g, dtype=torch.float64)
    dense = ((dense + dense.T) * (dense + dense.T > 0)).fill_diagonal_(1)
    index = dense.nonzero().T
    values = dense[index[0], index[1]].requires_grad_()
    other = torch.randn(5, 3, generator=g, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(WeightedMatrix.symmetric(index, values, 5) @ other, dense @ other)
    # The matrix stands for a symmetric one, so its backward pass uses it as its own transpose.
    out = torch.randn(5, 3, generator=g, dtype=torch.float64)
    (WeightedMatrix.symmetric(index, values, 5) @ other * out).sum().backward()
    torch.testing.assert_close(other.grad, dense.T @ out)
    torch.testing.assert_close(values.grad, (out @ other.detach().T)[index[0], index[1]])


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
@pytest.mark.parametrize("kind", [Two, InMatrix])
def test_own_encoders_train_by_grace_and_ariel(kind, epsilon, monkeypatch):
    x, edge_index = random_graph(seed=2, n=40, edges=90)
    x = (x > 0.7).float()
    torch.manual_seed(0)
    encoder = kind(pyg.SAGEConv(D, 8), pyg.SAGEConv(8, H))
    hyper = ArielHyper(epsilon=epsilon, alpha=100.0, beta=0.01, learning_rate=0.01)
    model = Ariel(encoder, ProjectionHead(H, H), hyper)
    monkeypatch.setattr(model, "log", lambda *_, **__: None)
    optimizer, losses = model.configure_optimizers(), []
    clean = View(x, edge_index)
    for step in range(12):
        generator = torch.Generator().manual_seed(step)
        terms = model.objective(clean, *model.draw_views(clean, generator), generator)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert sum(losses[-4:]) < sum(losses[:4])
    assert ("adversarial" in terms) == (epsilon > 0)
    assert encoder.first.lin_l.weight.grad is not None


def test_attacking_leaves_no_hook_behind_and_restores_every_mode():
    x, edge_index = random_graph()
    encoder = two(Two, "gat").train()
    encoder.second.eval()
    head, h1 = head_and_view(encoder, x, edge_index)
    assert encoder.training
    assert not encoder.second.training
    pgd_attack(encoder, head, x, edge_index, h1, STRONG, temperature=0.5)
    assert encoder.training
    assert not encoder.second.training
    before = encode(encoder, x, edge_index)
    assert torch.equal(before, encode(encoder, x, edge_index))
    for layer in (encoder.first, encoder.second):
        hooks = [v for k, v in vars(layer).items() if k.endswith("_hooks") and v]
        assert not hooks


def test_the_width_of_an_encoder_is_found_lazy_ones_too():
    assert output_width(GCN(D, 7), D) == 7
    assert output_width(two(Two, "gat"), D) == H
    assert output_width(Two(pyg.SAGEConv(-1, 3), pyg.SAGEConv(-1, 6)), D) == 6
    with pytest.raises(ValueError, match="GCN cannot embed a graph with 9 features"):
        output_width(GCN(D, 7), 9)


def test_an_encoder_that_returns_something_else_is_refused():
    class Pooling(nn.Module):
        def forward(self, x, edge_index):
            return x.mean(0)

    with pytest.raises(ValueError, match=r"one row of numbers a node, \(14, width\), got a tensor"):
        encode(Pooling(), *random_graph())


# Whole graphs


class Pooled(nn.Module):
    """Two PyG layers and a sum over the nodes of each graph."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x, edge_index, batch):
        x = self.second(F.elu(self.first(x, edge_index)), edge_index)
        return pyg.global_add_pool(x, batch)


def three_graphs(seed=0):
    """A union of graphs of 6, 5 and 3 nodes, with the self loops the package adds."""
    g = torch.Generator().manual_seed(seed)
    batch = torch.tensor([0] * 6 + [1] * 5 + [2] * 3)
    a = torch.rand(N, N, generator=g) < 0.4
    a = ((a | a.T) & (batch[:, None] == batch)).fill_diagonal_(True)
    x = torch.rand(N, D, generator=g, dtype=torch.float64)
    return GraphBatch(x, a.nonzero().T, batch, 3)


@pytest.mark.parametrize("name", ["sage", "gin", "gat", "gcn"])
def test_the_attack_on_whole_graphs_equals_dense_autograd(name):
    graphs = three_graphs()
    torch.manual_seed(3)
    make, layer = LAYERS[name]
    encoder = Pooled(make(D, H), make(H, H)).double().eval()
    head = ProjectionHead(H, 6).double()  # ELU: no gradient is 0
    with torch.no_grad():
        y = head(encode_graphs(encoder, graphs._replace(x=graphs.x * 0.8)))
    ours = graph_pgd_steps(
        encoder, head, graphs.x, graphs.edge_index, graphs.batch, y, STRONG, temperature=0.2
    )
    pool = F.one_hot(graphs.batch).T.double()
    inside = (graphs.batch[:, None] == graphs.batch).double().triu(1)
    a = torch.zeros(N, N, dtype=torch.float64)
    a[graphs.edge_index[0], graphs.edge_index[1]] = 1
    a.fill_diagonal_(0)
    s, d = torch.zeros_like(a), torch.zeros_like(graphs.x)
    budget = STRONG.budget * graphs.edge_index.shape[1] / 2
    for k, step in enumerate(ours, 1):
        s, d = s.requires_grad_(), d.requires_grad_()
        upper = s * inside
        moved = a + (upper + upper.T) * (1 - 2 * a)
        z = F.elu(layer(encoder.first, graphs.x + d, moved))
        loss = graph_contrast(y, head(pool @ layer(encoder.second, z, moved)), 0.2)
        g_s, g_d = torch.autograd.grad(loss, [s, d])
        assert step.loss == pytest.approx(loss.item(), rel=1e-10)
        s = (s + STRONG.structure_step / k**0.5 * g_s).detach()
        s = project_budget(s, budget, STRONG.bisection_width)
        d = (d + STRONG.feature_step * g_d.sign()).detach()
        d = d.clamp(-STRONG.feature_radius, STRONG.feature_radius)
        torch.testing.assert_close(as_matrix(step, N), s, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(step.delta, d, rtol=1e-12, atol=1e-15)
    assert len(step.keys) > 0


def test_an_own_encoder_of_whole_graphs_trains_and_flips_only_inside_graphs(monkeypatch):
    graphs = three_graphs()
    graphs = graphs._replace(x=graphs.x.float())
    torch.manual_seed(0)
    encoder, head = Pooled(pyg.SAGEConv(D, H), pyg.SAGEConv(H, H)), graph_head(H)
    model = GraphAriel(encoder, head, GraphArielHyper(alpha=500.0, attack_candidates=12))
    view = graph_pgd_attack(
        encoder,
        head,
        graphs.x,
        graphs.edge_index,
        graphs.batch,
        head(encode_graphs(encoder, graphs)).detach() * 0.9 + 0.1,
        model.attack,
        temperature=0.2,
        generator=torch.Generator().manual_seed(0),
    )
    row, column = view.flips
    assert torch.equal(graphs.batch[row], graphs.batch[column])
    terms = model.objective(graphs, graphs, torch.Generator().manual_seed(0))
    terms["loss"].backward()
    assert encoder.first.lin_l.weight.grad.isfinite().all()
    assert graph_width(encoder, D) == H
    with pytest.raises(ValueError, match="one row of numbers a graph"):
        graph_width(Nodes(), D)


class Nodes(nn.Module):
    def forward(self, x, edge_index, batch):
        return x
