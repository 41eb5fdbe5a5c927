"""Random views of one graph: dropped edges and masked feature columns (Zhu et al. 2020, Sec. 3.2).

Every draw comes from the generator handed in. Draws are made where the generator lives and moved,
so one seed gives one view on every device.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["drop_edges", "drop_features", "uniform"]


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
    x: Float[Tensor, "n d"],
    rate: float,
    *,
    generator: torch.Generator | None = None,
    u: Float[Tensor, " d"] | None = None,
) -> Float[Tensor, "n d"]:
    """Zero each feature column, for all nodes, with probability ``rate``.

    Args:
        x: Features; left as they are.
        rate: Share of columns zeroed, in [0, 1].
        generator: Source of the draws; default torch's global one.
        u: The draws themselves, one per column; a column is zeroed where ``u < rate``.

    Raises:
        ValueError: If ``rate`` is outside [0, 1].
    """
    _check_rate(rate)
    if u is None:
        u = uniform(x.shape[1], generator, x.device)
    return x * (u >= rate).to(x.dtype)


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie in [0, 1], got {rate}")
