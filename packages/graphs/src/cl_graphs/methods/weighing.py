r"""PyG layers on a graph whose edges have weights, whether they know of weights or not.

The attack moves a graph continuously, from an edge to none and back. A layer that takes
``edge_weight`` is given it. To any other layer an edge of weight $w$ is *$w$ copies* of an edge:

- sums: $\sum_j w_j m_j$;
- means: $\sum_j w_j m_j / \max(\sum_j w_j, 1)$, PyG's own guard for nodes without neighbours;
- attention that is normalised in ``edge_update`` (GAT): $w_j e^{a_j} / \sum_k w_k e^{a_k}$.

At weights 0 and 1 these are the layer itself. Where a layer does something else (a maximum, a
softmax inside its messages, degrees it counts itself), they are not, and the attack refuses the
encoder (see `relaxed`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

__all__ = ["PairWeights", "weighing"]


class PairWeights:
    """Weights of unordered pairs of nodes, found for any list of edges.

    Args:
        keys: ``i * n + j`` with ``i < j``, ascending.
        weights: One for each key, differentiable.
        num_nodes: ``n``.
    """

    def __init__(
        self, keys: Int64[Tensor, " k"], weights: Float[Tensor, " k"], num_nodes: int
    ) -> None:
        self.keys = keys
        self.weights = weights
        self.num_nodes = num_nodes

    def of(self, edge_index: Int64[Tensor, "2 e"]) -> Float[Tensor, " e"]:
        """Return the weight of each edge, 1 for what is no known pair, such as a self loop."""
        if len(self.keys) == 0:
            return self.weights.new_ones(edge_index.shape[1])
        low, high = edge_index.amin(0), edge_index.amax(0)
        wanted = low * self.num_nodes + high
        place = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        known = self.keys[place] == wanted
        return torch.where(known, self.weights[place], self.weights.new_ones(()))


@contextmanager
def weighing(encoder: nn.Module, weights: PairWeights) -> Iterator[None]:
    """Let every PyG layer inside ``encoder`` see the weights for a while.

    Args:
        encoder: Any module.
        weights: Of the pairs of the graph that it is called on.
    """
    pyg = sys.modules.get("torch_geometric.nn")  # not imported yet: then there is no such layer
    handles = [
        handle
        for layer in encoder.modules()
        if pyg is not None and isinstance(layer, pyg.MessagePassing)
        for handle in _Weighed(weights).watch(layer, means=pyg.MeanAggregation)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Weighed:
    """What one layer is told, over the hooks that PyG offers."""

    def __init__(self, weights: PairWeights) -> None:
        self.weights = weights
        self.done = False  # the layer weighs by itself, or its attention was weighed
        self.current = weights.weights  # of the edges that propagate now

    def watch(self, layer: Any, *, means: type) -> list[Any]:
        handles = [
            layer.register_forward_pre_hook(self.enter, with_kwargs=True),
            layer.register_edge_update_forward_hook(self.attend),
            layer.register_propagate_forward_pre_hook(self.propagate),
            layer.register_message_forward_hook(self.message),
        ]
        if isinstance(layer.aggr_module, means):
            handles.append(layer.register_aggregate_forward_hook(self.mean))
        return handles

    def enter(
        self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Hand the weights to a layer that takes them and was given none."""
        signature = inspect.signature(layer.forward)
        self.done = "edge_weight" in signature.parameters
        if not self.done:
            return None
        call = signature.bind_partial(*args, **kwargs)
        if call.arguments.get("edge_weight") is None:
            call.arguments["edge_weight"] = self.weights.of(call.arguments["edge_index"])
        return call.args, call.kwargs

    def attend(self, layer: Any, given: tuple[Any, ...], alpha: Tensor) -> Tensor | None:
        """Weigh attention and normalise it again, which is a softmax over copies of the edges."""
        edge_index, _, names = given
        if self.done or "index" not in names:
            return None
        self.done = True
        index, weight = names["index"], _beside(alpha, self.weights.of(edge_index), 0)
        weighed = alpha * weight
        size = int(index.max()) + 1 if len(index) else 0
        total = weighed.new_zeros(size, *alpha.shape[1:]).index_add(0, index, weighed)
        # A node all of whose edges weigh nothing keeps its zeros.
        return weighed / torch.where(total > 0, total, 1)[index]

    def propagate(self, layer: Any, given: tuple[Any, ...]) -> None:
        self.current = self.weights.of(given[0])

    def message(self, layer: Any, given: tuple[Any, ...], out: Tensor) -> Tensor | None:
        if self.done:
            return None
        return out * _beside(out, self.current, layer.node_dim)

    def mean(self, layer: Any, given: tuple[Any, ...], out: Tensor) -> Tensor:
        """Divide by the weights' sum where the layer has divided by the number of edges."""
        index, size = given[0]["index"], out.shape[layer.node_dim]
        count = self.current.new_zeros(size).index_add(0, index, torch.ones_like(self.current))
        total = self.current.new_zeros(size).index_add(0, index, self.current)
        return out * _beside(out, count.clamp_min(1) / total.clamp_min(1), layer.node_dim)


def _beside(out: Tensor, weight: Tensor, dim: int) -> Tensor:
    """Shape one weight an entry of ``dim`` for a product with ``out``."""
    shape = [1] * out.ndim
    shape[dim] = -1
    return weight.view(shape)
