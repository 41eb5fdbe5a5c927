"""Embedding layer by layer is the full pass."""

from __future__ import annotations

import warnings

import pytest
import torch

from cl_graphs.evaluation import embedding
from cl_graphs.evaluation.layerwise import embed_by_layer
from cl_graphs.graph import clean_edges
from cl_graphs.methods.encoder import GCN, normalized_adjacency


def random_case(features, seed=0, n=50):
    g = torch.Generator().manual_seed(seed)
    edges, _ = clean_edges(*torch.randint(n - 1, (2, 120), generator=g).numpy(), n)
    return torch.rand(n, features, generator=g), edges  # the last node is isolated


@pytest.mark.parametrize("rows", [1, 7, 50])
@pytest.mark.parametrize(("features", "layers"), [(5, 2), (40, 2), (5, 3)])
def test_the_embedding_is_that_of_a_full_pass(features, layers, rows):
    # 5 features are gathered before they are multiplied, 40 after.
    x, edges = random_case(features)
    encoder = GCN(features, 8, activation="prelu", num_layers=layers).eval()
    order = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(0))
    directed = edges[:, ::2]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "CSR is in beta", once a process
        for given in (x, x.double(), x.to_sparse_csr()):
            for ends in (edges, edges[:, order], directed):
                full = encoder(x, normalized_adjacency(ends, 50))
                parts = embed_by_layer(encoder, given, ends, rows=rows)
                torch.testing.assert_close(parts, full, rtol=1e-5, atol=1e-6)


def test_large_graphs_are_embedded_layer_by_layer(monkeypatch):
    x, edges = random_case(5)
    encoder = GCN(5, 8)
    full = embedding.embed(encoder, x, edges)
    monkeypatch.setattr(embedding, "ROWS", 20)
    called = []
    monkeypatch.setattr(
        embedding, "embed_by_layer", lambda *a: called.append(1) or embed_by_layer(*a, rows=9)
    )
    torch.testing.assert_close(embedding.embed(encoder, x, edges), full, rtol=1e-5, atol=1e-6)
    assert called
    assert encoder.training
