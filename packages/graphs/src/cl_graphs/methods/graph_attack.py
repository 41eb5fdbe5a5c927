r"""Adversarial view of a batch of whole graphs: the attack of `attack` on their disjoint union.

Feng et al. (TKDD 2024) attack all graphs of a batch at once, with one budget, and only pairs inside
a graph may flip. The adjacency is not normalised, so with $X_l$ what enters layer $l$ and $G_l$ the
loss gradient at $A X_l$,

$$g_{ij} = (1 - 2 A_{ij}) \sum_l \langle G_{li}, X_{lj}\rangle + \langle G_{lj}, X_{li}\rangle.$$

Nothing is restricted beyond the method's own restriction to pairs inside a graph; time and memory
follow their number, the sum of $n_g (n_g - 1) / 2$. An encoder that is no `GIN` is differentiated
by autograd over candidates among these pairs: see `relaxed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_graphs.methods.attack import (
    CANDIDATES,
    AdversarialView,
    AttackConfig,
    Perturbation,
    discretized,
)
from cl_graphs.methods.encoder import GIN, eval_mode
from cl_graphs.methods.graph_batch import GraphBatch, encode_graphs, encode_weighted_graphs
from cl_graphs.methods.pairs import PairGradient, SimpleGraph, structure_step
from cl_graphs.methods.projection import BudgetProjection
from cl_graphs.methods.relaxed import Relaxed
from cl_graphs.methods.sparse import SparseMatrix

__all__ = ["graph_contrast", "graph_pgd_attack", "graph_pgd_steps"]


def graph_contrast(
    y: Float[Tensor, "g d"], y_other: Float[Tensor, "g d"], temperature: float
) -> Float[Tensor, ""]:
    r"""Contrast graphs with another view of theirs (GraphCL; You et al. 2020, as released).

    $$L = -\frac1g \sum_i \log \frac{e_{ii}}{\sum_{j \ne i} e_{ij}},\quad
      e_{ij} = e^{\cos(y_i, y'_j) / \tau}.$$

    The positive is not in the denominator, so values can be negative; rows and columns differ.

    Args:
        y: Projections of one view.
        y_other: Projections of the other; row ``i`` is the same graph.
        temperature: $\tau > 0$.

    Raises:
        ValueError: If there is one graph only: it has no negative.
    """
    if len(y) < 2:
        raise ValueError(f"graph_contrast needs at least 2 graphs, got {len(y)}")
    s = nn.functional.normalize(y) @ nn.functional.normalize(y_other).T / temperature
    others = s.masked_fill(torch.eye(len(y), dtype=torch.bool, device=y.device), float("-inf"))
    return (others.logsumexp(1) - s.diagonal()).mean()


class ClosedForm:
    """The contrastive loss of attacked graphs embedded by a `GIN`, with its gradients.

    Args:
        encoder: Attacked encoder.
        head: Its projection head.
        graph: Clean edges without loops.
        graphs: The clean graphs.
        y_view: Projections of the fixed view.
        temperature: Of the loss.
    """

    def __init__(
        self,
        encoder: GIN,
        head: nn.Module,
        graph: SimpleGraph,
        graphs: GraphBatch,
        y_view: Float[Tensor, "g k"],
        temperature: float,
    ) -> None:
        self.encoder, self.head, self.graph, self.graphs = encoder, head, graph, graphs
        self.y_view, self.temperature = y_view, temperature
        self.loops = graphs.edge_index[:, graphs.edge_index[0] == graphs.edge_index[1]]

    def at(
        self,
        delta: Float[Tensor, "n d"] | None,
        keys: Int64[Tensor, " s"],
        values: Float[Tensor, " s"],
        *,
        rate: float,
    ) -> tuple[float, Tensor, PairGradient]:
        """Differentiate; arguments and results as in `closed_form.ClosedForm.at`."""
        index, weight = self.graph.weighted(keys, values)
        index = torch.cat([index, self.loops], 1)
        weight = torch.cat([weight, weight.new_ones(self.loops.shape[1])])
        n = self.graph.num_nodes
        adjacency = SparseMatrix.from_entries(index, weight, (n, n), symmetric=True)
        with torch.enable_grad():
            x = self.graphs.x.detach()
            moved = (x.clone() if delta is None else x + delta).requires_grad_()
            z, sent, arrived = self.encoder.trace(
                moved, adjacency, self.graphs.batch, len(self.y_view)
            )
            loss = graph_contrast(self.y_view, self.head(z), self.temperature)
            grad_x, *grads = torch.autograd.grad(loss, [moved, *arrived])
        left, right = torch.cat(grads, 1) * rate, torch.cat(sent, 1).detach()
        return loss.item(), grad_x, PairGradient(left, right)


def graph_pgd_steps(
    encoder: nn.Module,
    head: nn.Module,
    x: Float[Tensor, "n d"],
    edge_index: Int64[Tensor, "2 e"],
    batch: Int64[Tensor, " n"],
    y_view: Float[Tensor, "g k"],
    config: AttackConfig,
    *,
    temperature: float,
    generator: torch.Generator | None = None,
) -> Iterator[Perturbation]:
    """Yield the perturbation after each step; arguments as in `graph_pgd_attack`."""
    x, y_view, n = x.detach(), y_view.detach(), len(x)
    graphs = GraphBatch(x, edge_index, batch, len(y_view))
    graph = SimpleGraph.of(edge_index[:, edge_index[0] != edge_index[1]], n)
    last = torch.bincount(batch).cumsum(0).tolist()
    blocks = [(a, b, b) for a, b in pairwise([0, *last])]
    budget = config.budget * edge_index.shape[1] / 2
    moves_edges = config.structure_step > 0 and budget > 0
    allowed: Tensor | None = None
    attacked: ClosedForm | Relaxed
    if type(encoder) is GIN:
        attacked = ClosedForm(encoder, head, graph, graphs, y_view, temperature)
    else:
        number = CANDIDATES if config.candidates is None else config.candidates
        allowed = _inside(graph, blocks, number, generator) if moves_edges else None
        attacked = Relaxed(
            name=type(encoder).__name__,
            own=lambda x: encode_graphs(encoder, graphs._replace(x=x)),
            weighted=lambda x, k, w: encode_weighted_graphs(encoder, graphs, x, k, w),
            loss=lambda z: graph_contrast(y_view, head(z), temperature),
            graph=graph,
            x=x,
            candidates=allowed,
        )
    keys, values, delta = graph.keys[:0], x.new_empty(0), torch.zeros_like(x)
    for step in range(1, config.steps + 1):
        loss, grad_x, gradient = attacked.at(
            delta, keys, values, rate=config.structure_step / step**0.5
        )
        if config.feature_step > 0:
            delta = delta + config.feature_step * grad_x.sign()
            delta.clamp_(-config.feature_radius, config.feature_radius)
        if moves_edges and gradient is not None:
            projection = BudgetProjection(
                budget, config.bisection_width, limit=config.support_limit
            )
            keys, values = structure_step(
                graph, gradient, keys, values, projection, allowed=allowed, blocks=blocks
            )
        yield Perturbation(keys, values, delta, loss)


def _inside(
    graph: SimpleGraph,
    blocks: Sequence[tuple[int, int, int]],
    number: int,
    generator: torch.Generator | None,
) -> Int64[Tensor, " c"]:
    """Choose pairs inside graphs: every edge, and ``number`` random ones without an edge."""
    n, device = graph.num_nodes, graph.keys.device
    pairs = [torch.triu_indices(b - a, b - a, 1, device=device) + a for a, b, _ in blocks]
    row, column = torch.cat(pairs, 1)
    keys = row * n + column
    absent = keys[~graph.contains(keys)]
    if len(absent) > number:
        source = device if generator is None else generator.device
        order = torch.randperm(len(absent), generator=generator, device=source)
        absent = absent[order[:number].to(device)]
    return torch.cat([graph.keys, absent]).sort().values


def graph_pgd_attack(
    encoder: nn.Module,
    head: nn.Module,
    x: Float[Tensor, "n d"],
    edge_index: Int64[Tensor, "2 e"],
    batch: Int64[Tensor, " n"],
    y_view: Float[Tensor, "g k"],
    config: AttackConfig,
    *,
    temperature: float,
    generator: torch.Generator | None = None,
    bernoulli_u: Float[Tensor, "n n"] | None = None,
) -> AdversarialView:
    """Attack the graphs of a batch; parameters and batch statistics are not touched.

    Args:
        encoder: Attacked encoder, of either convention of `graph_batch`; it runs in eval mode and
            returns to its own.
        head: Its projection head.
        x: Clean node features of all graphs.
        edge_index: Clean edges of their disjoint union, both directions; self loops are kept and
            count half an edge each in the budget.
        batch: The graph each node belongs to, ascending.
        y_view: Projections of the view that the loss contrasts with; constant.
        config: Strength; one budget for the whole batch.
        temperature: Of the loss.
        generator: Source of the candidates, for an encoder that is no `GIN`, and of the draws that
            turn S into flips.
        bernoulli_u: These draws for every pair, read at row < column.

    Raises:
        ValueError: If an edge has one direction only or is repeated.
    """
    with eval_mode(encoder, head):
        steps = list(
            graph_pgd_steps(
                encoder,
                head,
                x,
                edge_index,
                batch,
                y_view,
                config,
                temperature=temperature,
                generator=generator,
            )
        )
    loops = edge_index[:, edge_index[0] == edge_index[1]]
    graph = SimpleGraph.of(edge_index[:, edge_index[0] != edge_index[1]], len(x))
    return discretized(x, graph, steps, loops=loops, generator=generator, bernoulli_u=bernoulli_u)
