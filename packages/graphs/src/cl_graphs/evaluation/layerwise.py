r"""Embedding a graph too large for a full pass: layer by layer, some rows at a time.

Exact: every node hears from all of its neighbours in every layer, so the result is that of the full
pass up to rounding. A layer needs the whole of what the one before sends and nothing else, so
memory is one matrix of what is sent, one of what is sent next, and a block of rows. Where the first
layer widens its input, rows are gathered before they are multiplied, $(\hat A X) W = \hat A (X W)$,
so that the wider matrix never exists.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cl_core.matmul import matmul
from cl_graphs.methods.encoder import GCN

__all__ = ["ROWS", "embed_by_layer"]

ROWS = 2**14
"""Rows of a block."""


def embed_by_layer(
    encoder: GCN, x: Tensor, edge_index: Int64[Tensor, "2 e"], *, rows: int = ROWS
) -> Float[Tensor, "n h"]:
    """Embed every node of a graph; the caller has put the encoder into eval mode.

    Args:
        encoder: On the CPU.
        x: Features ``(n, d)`` of any number type, strided or sparse.
        edge_index: Every edge: row ``edge_index[0]`` hears from ``edge_index[1]``.
        rows: Rows of a block.
    """
    n, layers = x.shape[0], encoder.layers
    gather = _Gather(edge_index, n, layers[0].weight.dtype)
    first = layers[0].weight
    before = (
        x.layout == torch.strided and x.dtype == first.dtype and first.shape[0] < first.shape[1]
    )
    sent = x if before else _sent(x, first, rows)
    for number, layer in enumerate(layers):
        following = layers[number + 1].weight if number + 1 < len(layers) else None
        width = layer.weight.shape[1] if following is None else following.shape[1]
        sent_next = torch.empty(n, width, dtype=first.dtype)
        for block in _blocks(n, rows):
            arrived = gather(sent, block)
            if before and number == 0:
                arrived = matmul(arrived, first)
            h = encoder.activation(arrived.add_(layer.bias))
            sent_next[block] = h if following is None else matmul(h, following)
        sent = sent_next
    return sent


class _Gather:
    """Rows of the normalised adjacency, self loops included, times a dense matrix."""

    def __init__(self, edge_index: Tensor, num_nodes: int, dtype: torch.dtype) -> None:
        row, self.column = edge_index
        if bool((row[1:] < row[:-1]).any()):
            order = row.argsort(stable=True)
            row, self.column = row[order], self.column[order]
        degrees = torch.bincount(row, minlength=num_nodes)
        self.pointers = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
        self.p = (degrees + 1).to(dtype).rsqrt()

    def __call__(self, sent: Tensor, block: slice) -> Tensor:
        pointers = self.pointers[block.start : block.stop + 1]
        column = self.column[int(pointers[0]) : int(pointers[-1])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # CSR is called beta, once a process
            part = torch.sparse_csr_tensor(
                pointers - pointers[0],
                column,
                self.p[column],
                size=(block.stop - block.start, len(sent)),
                check_invariants=False,
            )
            arrived: Tensor = part @ sent
        p = self.p[block, None]
        return arrived.addcmul_(p, sent[block]).mul_(p)


def _sent(x: Tensor, weight: Tensor, rows: int) -> Tensor:
    """What the first layer sends, a block of rows at a time."""
    if x.layout != torch.strided:
        product: Tensor = torch.sparse.mm(x.to(weight), weight)
        return product
    sent = torch.empty(len(x), weight.shape[1], dtype=weight.dtype)
    for block in _blocks(len(x), rows):
        sent[block] = matmul(x[block].to(weight), weight)
    return sent


def _blocks(n: int, rows: int) -> Iterator[slice]:
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))
