"""Random views of a graph, for GRACE (Zhu et al. 2020, Sec. 3.2) and for GraphCL (You et al. 2020).

Every draw comes from the generator handed in. Draws are made where the generator lives and moved,
so one seed gives one view on every device.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cl_graphs.methods.sparse import SparseMatrix

__all__ = ["drop_edges", "drop_features", "drop_nodes", "grown_nodes", "mask_nodes", "uniform"]

Matrix = TypeVar("Matrix", bound=Tensor | SparseMatrix)


def uniform(
    size: int, generator: torch.Generator | None, device: torch.device
) -> Float[Tensor, " size"]:
    """Draw ``size`` numbers from U(0, 1) and move them to ``device``."""
    source = device if generator is None else generator.device
    return torch.rand(size, generator=generator, device=source).to(device)


def drop_edges(
    edge_index: Int64[Tensor, "2 e"],
    rate: float,
    *,
    undirected: bool = False,
    generator: torch.Generator | None = None,
    u: Float[Tensor, " e"] | None = None,
) -> Int64[Tensor, "2 kept"]:
    """Keep each edge with probability ``1 - rate``.

    Args:
        edge_index: Both directions of each edge.
        rate: Share dropped, in [0, 1].
        undirected: Both directions of an edge share one draw. By default each directed entry is
            drawn alone, as published, so a view is usually asymmetric.
        generator: Source of the draws; default torch's global one.
        u: The draws themselves, one per entry (with ``undirected`` those at row < column count);
            an entry is kept where ``u >= rate``.

    Raises:
        ValueError: If ``rate`` is outside [0, 1].
    """
    _check_rate(rate)
    if u is None:
        u = uniform(edge_index.shape[1], generator, edge_index.device)
    if undirected:
        low, high = edge_index.amin(0), edge_index.amax(0)
        _, pair = torch.unique(torch.stack([low, high]), dim=1, return_inverse=True)
        forward = edge_index[0] <= edge_index[1]
        shared = u.new_empty(int(pair.max()) + 1 if len(pair) else 0)
        shared[pair] = u  # an entry without its reverse keeps its own draw
        shared[pair[forward]] = u[forward]
        u = shared[pair]
    return edge_index[:, u >= rate]


def drop_features(
    x: Matrix,
    rate: float,
    *,
    generator: torch.Generator | None = None,
    u: Float[Tensor, " d"] | None = None,
) -> Matrix:
    """Zero each feature column, for all nodes, with probability ``rate``.

    Args:
        x: Features ``(n, d)``, dense or a `SparseMatrix`; left as they are.
        rate: Share of columns zeroed, in [0, 1].
        generator: Source of the draws; default torch's global one.
        u: The draws themselves, one per column; a column is zeroed where ``u < rate``.

    Raises:
        ValueError: If ``rate`` is outside [0, 1].
    """
    _check_rate(rate)
    if u is None:
        u = uniform(x.shape[1], generator, x.device)
    keep = (u >= rate).to(x.dtype)
    masked = x.scale_columns(keep) if isinstance(x, SparseMatrix) else x * keep
    return cast("Matrix", masked)


def drop_nodes(
    x: Float[Tensor, "n d"],
    edge_index: Int64[Tensor, "2 e"],
    share: float,
    *,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, " kept"]:
    """Choose the nodes of a graph that stay when ``int(share * n)`` random ones go; ascending."""
    _check_rate(share)
    order = _permutation(len(x), generator, x.device)
    return order[int(share * len(x)) :].sort().values


def grown_nodes(
    x: Float[Tensor, "n d"],
    edge_index: Int64[Tensor, "2 e"],
    share: float,
    *,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, " kept"]:
    """Choose a connected part of a graph: start anywhere, add random neighbours of the part.

    It stops at ``int(share * n) + 1`` nodes or when no neighbour is left. (The official code meant
    this, but only ever looks at the neighbours of the first node.)
    """
    _check_rate(share)
    n = len(x)
    rank = _permutation(n, generator, x.device).tolist()  # the neighbour of lowest rank joins
    start = rank.index(0)
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for i, j in edge_index.T.tolist():
        neighbours[i].append(j)
    part, border = {start}, {j for j in neighbours[start] if j != start}
    while border and len(part) <= int(share * n):
        node = min(border, key=rank.__getitem__)
        part.add(node)
        border = (border | set(neighbours[node])) - part
    return torch.tensor(sorted(part), device=x.device)


def mask_nodes(
    x: Float[Tensor, "n d"], share: float, *, generator: torch.Generator | None = None
) -> Float[Tensor, "n d"]:
    """Replace the features of ``int(share * n)`` random nodes by draws from N(0.5, 0.5)."""
    _check_rate(share)
    source = x.device if generator is None else generator.device
    chosen = _permutation(len(x), generator, x.device)[: int(share * len(x))]
    noise = torch.randn(len(chosen), x.shape[1], generator=generator, device=source)
    masked = x.clone()
    masked[chosen] = noise.mul_(0.5).add_(0.5).to(x)
    return masked


def _permutation(size: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    source = device if generator is None else generator.device
    return torch.randperm(size, generator=generator, device=source).to(device)


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie in [0, 1], got {rate}")
