r"""Structure gradients of an encoder whose layers are not known, by autograd over candidate pairs.

The closed form of `attack` needs to see the layers. Any other encoder is called on a graph whose
edges have weights $w_{ij} = a_{ij} + C_{ij} S_{ij}$: those of the clean graph, those where $S$ is
positive, and the candidates, whose weight is 0. Its gradient at a pair is autograd's.

What is exact: the gradient on the candidates equals that of the dense $N \times N$ computation,
up to rounding, if weights mean to the encoder what `weighing` says; whether the encoder at weights
0 and 1 is the encoder itself is tried once an attack, and it is refused where not. What is
restricted: pairs that are no candidates never flip. Memory is linear in the edges and the
candidates visited at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_core.checks import OptionError
from cl_graphs.methods.contrast import FixedViewLoss
from cl_graphs.methods.encode import checked, encode, takes_adjacency, takes_weights
from cl_graphs.methods.pairs import CandidateGradient, SimpleGraph
from cl_graphs.methods.sparse import WeightedMatrix
from cl_graphs.methods.weighing import PairWeights, weighing

__all__ = ["Relaxed", "draw_candidates", "encode_weighted"]

BLOCK_PAIRS = 2**17
"""Candidate pairs an encoder is given at once: 64 MiB of messages of 64 floats, both ways."""

DISAGREE = 1e-3
"""Largest difference to the encoder's own output, as a share of its largest value."""


def encode_weighted(
    encoder: nn.Module,
    x: Float[Tensor, "n d"],
    keys: Int64[Tensor, " p"],
    weight: Float[Tensor, " p"],
) -> Float[Tensor, "n h"]:
    """Embed the nodes of an undirected graph whose edges have weights, differentiably.

    Args:
        encoder: Of either convention of `encode`.
        x: Features.
        keys: ``i * n + j`` of each pair ``i < j`` that may have an edge, ascending.
        weight: Of each pair; 0 is no edge.
    """
    n = len(x)
    low, high = keys // n, keys % n
    both = torch.stack([torch.cat([low, high]), torch.cat([high, low])])
    weights = torch.cat([weight, weight])
    with weighing(encoder, PairWeights(keys, weight, n)):
        if takes_adjacency(encoder):
            z = encoder(x, weighted_adjacency(both, weights, n))
        elif takes_weights(encoder):
            z = encoder(x, both, edge_weight=weights)
        else:
            z = encoder(x, both)
    return checked(encoder, z, n)


def weighted_adjacency(
    edge_index: Int64[Tensor, "2 e"], weight: Float[Tensor, " e"], num_nodes: int
) -> WeightedMatrix:
    """Normalise a symmetric graph as `normalized_adjacency` does, differentiably in its weights."""
    loops = torch.arange(num_nodes, device=edge_index.device).expand(2, -1)
    index = torch.cat([edge_index, loops], 1)
    values = torch.cat([weight, weight.new_ones(num_nodes)])
    order = (index[0] * num_nodes + index[1]).argsort()
    index, values = index[:, order], values[order]
    p = values.new_zeros(num_nodes).index_add(0, index[0], values).rsqrt()
    return WeightedMatrix.symmetric(index, p[index[0]] * values * p[index[1]], num_nodes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Relaxed:
    """The contrastive loss of an attacked graph, with gradients in features and structure.

    Args:
        name: What messages call the encoder.
        own: The encoder's output for features and the clean graph.
        weighted: Its output for features, keys of pairs and their weights.
        loss: The loss of an output.
        graph: Clean edges.
        x: Clean features.
        candidates: Keys of the pairs that may flip, ascending; None if the structure stays.
    """

    name: str
    own: Callable[[Tensor], Tensor]
    weighted: Callable[[Tensor, Tensor, Tensor], Tensor]
    loss: Callable[[Tensor], Tensor]
    graph: SimpleGraph
    x: Float[Tensor, "n d"]
    candidates: Int64[Tensor, " c"] | None

    @classmethod
    def nodes(
        cls,
        encoder: nn.Module,
        head: nn.Module,
        graph: SimpleGraph,
        contrast: FixedViewLoss,
        x: Float[Tensor, "n d"],
        candidates: Int64[Tensor, " c"] | None,
    ) -> Relaxed:
        """Attack an encoder of nodes, of either convention of `encode`."""
        ends = graph.pairs(graph.keys)
        return cls(
            name=type(encoder).__name__,
            own=lambda x: encode(encoder, x, torch.cat([ends, ends.flip(0)], 1)),
            weighted=lambda x, keys, weight: encode_weighted(encoder, x, keys, weight),
            loss=lambda z: contrast(head(z)),
            graph=graph,
            x=x,
            candidates=candidates,
        )

    def at(
        self,
        delta: Float[Tensor, "n d"] | None,
        keys: Int64[Tensor, " s"],
        values: Float[Tensor, " s"],
        *,
        rate: float,
    ) -> tuple[float, Tensor, CandidateGradient | None]:
        """Differentiate where the features have moved by ``delta`` and S is ``values`` at ``keys``.

        Args:
            delta: Change of the features, if there is any.
            keys: Pairs where S is not 0.
            values: S there.
            rate: Factor of the gradient in the structure.

        Returns:
            The loss, its gradient in the features, and ``rate`` times that at the candidates, if
            there are any, up to the sign C.

        Raises:
            ValueError: If the structure has no effect, or weights of 0 and 1 are not what absence
                and presence are to the encoder.
        """
        x = self.x if delta is None else self.x + delta
        base = torch.cat([self.graph.keys, keys[~self.graph.contains(keys)]]).sort().values
        if self.candidates is None:
            loss, grad_x, _ = self._part(x, base, keys, values, structure=False)
            return loss, grad_x, None
        others = self.candidates[~contained(base, self.candidates)]
        if len(keys) == 0:  # as at the start of every attack
            self._try(torch.cat([base, others[:BLOCK_PAIRS]]).sort().values)
        # Candidates of weight 0 do not change the loss, so they may come in parts; what is there
        # anyway, edges and the support of S, is differentiated with the first part.
        gradient = x.new_zeros(len(self.candidates))
        results: list[tuple[float, Tensor, Tensor]] = []
        for part in torch.split(others, BLOCK_PAIRS):
            pairs = torch.cat([base, part]).sort().values
            found = contained(part if results else pairs, self.candidates)
            results.append(self._part(x, pairs, keys, values, structure=True))
            place = torch.searchsorted(pairs, self.candidates[found])
            gradient[found] = rate * results[-1][2][place]
        loss, grad_x, _ = results[0]
        return loss, grad_x, CandidateGradient(gradient)

    def _part(
        self, x: Tensor, pairs: Tensor, keys: Tensor, values: Tensor, *, structure: bool
    ) -> tuple[float, Tensor, Tensor]:
        weight = self.graph.contains(pairs).to(x.dtype)
        place = torch.searchsorted(pairs, keys)
        weight[place] = torch.where(weight[place] > 0, 1 - values, values)
        with torch.enable_grad():
            x, weight = x.detach().requires_grad_(), weight.requires_grad_(structure)
            loss = self.loss(self.weighted(x, pairs, weight))
            inputs = [x, weight] if structure else [x]
            grads = torch.autograd.grad(loss, inputs, allow_unused=True)
        if structure and grads[1] is None:
            raise OptionError(
                f"the edges' weights have no effect on {self.name}: give its "
                "forward an argument edge_weight, or attack features only (alpha=0)"
            )
        grad_x = torch.zeros_like(x) if grads[0] is None else grads[0]
        return loss.item(), grad_x, grads[-1]

    @torch.no_grad()
    def _try(self, pairs: Tensor) -> None:
        """Compare the encoder on weighted pairs with the encoder on the clean graph."""
        own = self.own(self.x)
        relaxed = self.weighted(self.x, pairs, self.graph.contains(pairs).to(self.x.dtype))
        if float((own - relaxed).abs().max()) > DISAGREE * float(own.abs().max()):
            raise OptionError(
                f"an edge of weight 0 is not no edge to {self.name}, so its "
                "structure cannot be attacked: use layers that sum, average or attend, or give "
                "its forward an argument edge_weight, or attack features only (alpha=0)"
            )


def draw_candidates(
    graph: SimpleGraph, number: int, generator: torch.Generator | None
) -> Int64[Tensor, " c"]:
    """Choose the pairs of one graph that may flip: every edge, and random pairs without one.

    Args:
        graph: Clean edges.
        number: Pairs without an edge; all of them if there are no more.
        generator: Source of the draws.

    Returns:
        Their keys, ascending.
    """
    n, device = graph.num_nodes, graph.keys.device
    absent = n * (n - 1) // 2 - len(graph.keys)
    if absent <= number:
        pairs = torch.triu_indices(n, n, 1, device=device)
        return pairs[0] * n + pairs[1]
    source, drawn = device if generator is None else generator.device, graph.keys[:0]
    while len(drawn) < number:
        size = (2, 4 * (number - len(drawn)) + 64)
        row, column = torch.randint(n, size, generator=generator, device=source).to(device)
        keys = (row * n + column)[row < column]
        drawn = _first_distinct(torch.cat([drawn, keys[~graph.contains(keys)]]))
    return torch.cat([graph.keys, drawn[:number]]).sort().values


def _first_distinct(keys: Tensor) -> Tensor:
    """Drop repeats, keeping the order in which keys came first."""
    _, place = torch.unique(keys, return_inverse=True)
    first = torch.full((int(place.max()) + 1,), len(keys), device=keys.device)
    first.scatter_reduce_(0, place, torch.arange(len(keys), device=keys.device), "amin")
    return keys[first.sort().values]


def contained(sorted_keys: Tensor, keys: Tensor) -> Tensor:
    """Which of ``keys`` stand among ``sorted_keys``."""
    if len(sorted_keys) == 0:
        return torch.zeros_like(keys, dtype=torch.bool)
    place = torch.searchsorted(sorted_keys, keys.contiguous()).clamp_(max=len(sorted_keys) - 1)
    return sorted_keys[place] == keys
