"""Encoders, normalised adjacency and sparse products against the official code's arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cl_graphs.methods.encoder import (
    GCN,
    GIN,
    GraphConvolution,
    ProjectionHead,
    eval_mode,
    graph_head,
    normalized_adjacency,
)
from cl_graphs.methods.sparse import SparseMatrix

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ariel.npz", allow_pickle=False)
ACTIVATIONS = ("relu", "prelu", "rrelu")


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def golden_state(prefix):
    return {k.removeprefix(prefix): golden(k) for k in GOLDEN.files if k.startswith(prefix)}


def golden_encoder(case):
    name = ACTIVATIONS[int(GOLDEN[f"{case}.activation"])]
    width = GOLDEN[f"{case}.param.encoder.conv.1.bias"].shape[0]
    encoder = GCN(GOLDEN[f"{case}.x"].shape[1], width, activation=name).double()
    encoder.load_state_dict(golden_state(f"{case}.param.encoder."))
    return encoder


def adjacency_of(edge_index, n):
    return normalized_adjacency(edge_index, n, dtype=torch.float64)


@pytest.mark.parametrize("view", ["", "_1", "_2"])
@pytest.mark.parametrize("case", ["a", "b"])
def test_normalised_adjacency_of_asymmetric_views_uses_row_sums(case, view):
    n = len(GOLDEN[f"{case}.x"])
    adjacency = adjacency_of(golden(f"{case}.edge_index{view}"), n)
    expected = golden(f"{case}.adj_norm{view}")
    torch.testing.assert_close(adjacency.matrix.to_dense(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(adjacency.transpose.to_dense(), expected.T, rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", ["a", "b"])
def test_weighted_adjacency_with_an_empty_row_stays_finite(case):
    a = golden(f"{case}.dense_adj_in")
    index = a.nonzero().T
    adjacency = normalized_adjacency(index, len(a), a[index[0], index[1]], self_loops=False)
    expected = golden(f"{case}.dense_adj_norm")
    torch.testing.assert_close(adjacency.matrix.to_dense(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("view", "features"), [("", ""), ("_1", "_1"), ("_2", "_2")])
@pytest.mark.parametrize("case", ["a", "b"])
def test_embeddings_equal_the_official_code_for_dense_and_sparse_features(case, view, features):
    encoder, x = golden_encoder(case).eval(), golden(f"{case}.x{features}")
    adjacency = adjacency_of(golden(f"{case}.edge_index{view}"), len(x))
    for given in (x, SparseMatrix.from_dense(x)):
        torch.testing.assert_close(
            encoder(given, adjacency), golden(f"{case}.z{view}"), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("case", ["a", "b"])
def test_projections_equal_the_official_code(case):
    head = ProjectionHead(
        GOLDEN[f"{case}.param.fc2.bias"].shape[0], GOLDEN[f"{case}.param.fc1.bias"].shape[0]
    ).double()
    state = golden_state(f"{case}.param.")
    head.load_state_dict({k: v for k, v in state.items() if k.startswith("fc")})
    for i in (1, 2):
        h = head(golden(f"{case}.z_{i}"))
        torch.testing.assert_close(h, golden(f"{case}.h_{i}"), rtol=1e-9, atol=1e-12)


def test_gin_and_its_head_equal_the_official_code():
    encoder, head = GIN(4, 5).double().eval(), graph_head(15).double()
    encoder.load_state_dict(golden_state("g.param.encoder."))
    head.load_state_dict(golden_state("g.param.proj_head."))
    batch = golden("g.batch")
    for suffix, projected in (("", "g.proj"), ("_aug", "g.proj_aug")):
        index = golden(f"g.edge_index{suffix}")
        ones = torch.ones(index.shape[1], dtype=torch.float64)
        adjacency = SparseMatrix.from_entries(index, ones, (len(batch), len(batch)))
        z = encoder(golden(f"g.x{suffix}"), adjacency, batch, 3)
        if not suffix:
            torch.testing.assert_close(z, golden("g.pooled"), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(head(z), golden(projected), rtol=1e-9, atol=1e-12)


def test_sparse_product_has_the_gradient_of_the_dense_one():
    g = torch.Generator().manual_seed(0)
    dense = torch.randn(5, 7, generator=g, dtype=torch.float64)
    dense[torch.rand(5, 7, generator=g) < 0.6] = 0
    other = torch.randn(7, 3, generator=g, dtype=torch.float64, requires_grad=True)
    a = SparseMatrix.from_dense(dense)
    torch.testing.assert_close(a @ other, dense @ other)
    assert torch.autograd.gradcheck(lambda w: a @ w, other)


def test_repeated_entries_of_a_sparse_matrix_add_up():
    index = torch.tensor([[0, 1, 0], [1, 0, 1]])
    a = SparseMatrix.from_entries(index, torch.tensor([1.0, 2.0, 4.0]), (2, 3))
    expected = torch.tensor([[0.0, 5.0, 0.0], [2.0, 0.0, 0.0]])
    assert torch.equal(a.matrix.to_dense(), expected)
    assert torch.equal(a.transpose.to_dense(), expected.T)


def test_scaling_columns_scales_matrix_and_transpose():
    dense = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 4.0]])
    scaled = SparseMatrix.from_dense(dense).scale_columns(torch.tensor([2.0, 0.0, 1.0]))
    expected = torch.tensor([[2.0, 0.0, 2.0], [0.0, 0.0, 4.0]])
    assert torch.equal(scaled.matrix.to_dense(), expected)
    assert torch.equal(scaled.transpose.to_dense(), expected.T)


def test_initial_weights_are_uniform_with_the_output_width():
    torch.manual_seed(0)
    layer = GraphConvolution(200, 64)
    bound = 64**-0.5
    for values in (layer.weight, layer.bias):
        assert values.abs().max() <= bound
        assert values.abs().max() > 0.9 * bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_layers_share_one_activation_and_all_but_the_last_are_twice_as_wide():
    encoder = GCN(9, 4, activation="prelu", num_layers=3)
    assert [tuple(layer.weight.shape) for layer in encoder.layers] == [(9, 8), (8, 8), (8, 4)]
    assert sum(isinstance(m, nn.PReLU) for m in encoder.modules()) == 1
    assert encoder.activation.weight.item() == 0.25
    assert encoder.out_features == 4


def test_eval_mode_returns_each_module_to_its_own_mode():
    first, second = nn.RReLU(), nn.RReLU().eval()
    modes = []

    def fail():
        with eval_mode(first, second):
            modes.append(first.training)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert modes == [False]
    assert first.training
    assert not second.training


def test_refuses_an_unknown_activation_and_a_single_layer():
    with pytest.raises(ValueError, match="activation must be one of relu, prelu, rrelu"):
        GCN(3, 2, activation="tanh")
    with pytest.raises(ValueError, match="num_layers must be at least 2, got 1"):
        GCN(3, 2, num_layers=1)
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        GIN(3, 2, layers=0)
