r"""Adversarial view of a node-level graph: projected gradient ascent on edges and features.

The attacker raises the contrastive loss between a fixed view 1 and the perturbed graph
(Feng et al. 2022, Sec. 3.2; the code's current version). With $C = 11^\top - 2A - I$, structure
$S \in [0, 1]$ on pairs $i < j$ and features $\delta$,

$$\tilde A = A + (S + S^\top) \circ C + I,\quad \hat A = D^{-1/2} \tilde A D^{-1/2},\quad
S \leftarrow P_B(S + \tfrac{\alpha}{\sqrt k} g_S),\quad
\delta \leftarrow \mathrm{clip}(\delta + \beta\, \mathrm{sign}\, g_\delta, \pm r).$$

The official code differentiates through the dense $N \times N$ matrix $\hat A$. Here $g_S$ has a
closed form: with $U_l$ what layer $l$ sends, $O_l = \hat A U_l$ what arrives, $dU_l$ and $G_l$
their gradients, $r$ the row sums of $\tilde A$ and $p = r^{-1/2}$,

$$q = -\frac{1}{2r} \sum_l \mathrm{rowsum}(G_l \circ O_l + U_l \circ dU_l),$$
$$g_{ij} = C_{ij} \bigl(p_i p_j [\langle G_i, U_j\rangle + \langle G_j, U_i\rangle]
+ q_i + q_j\bigr),$$

layers side by side. It has low rank, so pairs are visited in blocks of rows and only the support
of $S$, about the budget, is ever kept.

What is exact: everything, up to rounding, for any block size; $D$ is differentiated through. What
is restricted: with ``candidates`` only those pairs may flip. All pairs as candidates give
the unrestricted attack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_core.losses import nt_xent
from cl_graphs.augment import uniform
from cl_graphs.encoder import GCN, eval_mode, normalized_adjacency
from cl_graphs.projection import BudgetProjection

__all__ = [
    "AdversarialView",
    "AttackConfig",
    "Perturbation",
    "pgd_attack",
    "pgd_steps",
    "structure_gradient",
]

BLOCK_ENTRIES = 2**22
"""Entries of one block of pairs: 16 MiB in float32."""


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    r"""How strong the attack is.

    Args:
        steps: Gradient steps.
        budget: Edges that may flip, as a share of the graph's undirected edges.
        structure_step: Step size $\alpha$ on the structure; 0 leaves the edges alone.
        feature_step: Step size $\beta$ on the features; 0 leaves them alone.
        feature_radius: Largest change of one feature value.
        bisection_width: Where the search for the projection's shift stops.
    """

    steps: int = 5
    budget: float = 0.2
    structure_step: float = 50.0
    feature_step: float = 0.001
    feature_radius: float = 0.04
    bisection_width: float = 1e-3

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        for name in ("budget", "structure_step", "feature_step", "feature_radius"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.bisection_width <= 0:
            raise ValueError(f"bisection_width must be positive, got {self.bisection_width}")


@dataclass(frozen=True, eq=False)
class Perturbation:
    """State of the attack after a step.

    Attributes:
        keys: ``i * n + j`` with ``i < j``, ascending: where $S$ is not 0.
        values: $S$ there, in (0, 1].
        delta: Change of the features.
        loss: Contrastive loss at the point the step started from.
    """

    keys: Int64[Tensor, " s"]
    values: Float[Tensor, " s"]
    delta: Float[Tensor, "n d"]
    loss: float


@dataclass(frozen=True, eq=False)
class AdversarialView:
    """The attacked graph.

    Attributes:
        x: Perturbed features ``(n, d)``, not binary any more.
        edge_index: Perturbed edges ``(2, e)``, both directions.
        flips: Pairs ``(2, f)``, row < column, whose edge was added or removed.
        losses: Contrastive loss before each step.
    """

    x: Float[Tensor, "n d"]
    edge_index: Int64[Tensor, "2 e"]
    flips: Int64[Tensor, "2 f"]
    losses: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Graph:
    """A simple undirected graph as the attack needs it: edges as ascending keys i * n + j."""

    num_nodes: int
    keys: Tensor  # pairs i < j

    @classmethod
    def of(cls, edge_index: Tensor, num_nodes: int) -> _Graph:
        row, column = edge_index
        forward = (row * num_nodes + column)[row < column].sort().values
        backward = (column * num_nodes + row)[column < row].sort().values
        if 2 * len(forward) != edge_index.shape[1] or not torch.equal(forward, backward):
            raise ValueError(
                "the attack needs an undirected graph without self loops: "
                "edge_index must hold both directions of every edge"
            )
        if len(forward) > 1 and bool((forward[1:] == forward[:-1]).any()):
            raise ValueError("the attack needs a simple graph: edge_index repeats an edge")
        return cls(num_nodes, forward)

    def pairs(self, keys: Tensor) -> Tensor:
        return torch.stack([keys // self.num_nodes, keys % self.num_nodes])

    def contains(self, keys: Tensor) -> Tensor:
        if len(self.keys) == 0:
            return torch.zeros_like(keys, dtype=torch.bool)
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return self.keys[place] == keys

    def weighted(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Entries of A + (S + S') o C; an attenuated edge appears twice, as 1 and as -S."""
        signed = torch.where(self.contains(keys), -values, values)
        pairs = self.pairs(torch.cat([self.keys, keys]))
        weight = torch.cat([values.new_ones(len(self.keys)), signed])
        return torch.cat([pairs, pairs.flip(0)], dim=1), torch.cat([weight, weight])

    def flipped(self, keys: Tensor) -> Tensor:
        removed = torch.isin(self.keys, keys, assume_unique=True)
        added = keys[~self.contains(keys)]
        pairs = self.pairs(torch.cat([self.keys[~removed], added]))
        return torch.cat([pairs, pairs.flip(0)], dim=1)


@dataclass(frozen=True, eq=False)
class _PairGradient:
    """g_S up to the sign C: entry (i, j) is left_i . right_j, symmetric in i and j."""

    left: Tensor
    right: Tensor

    def rows(self, start: int, stop: int) -> Tensor:
        """Entries of rows start..stop at columns start..n; 0 on and below the diagonal."""
        block = self.left[start:stop] @ self.right[start:].T
        block[:, : stop - start].triu_(1)
        return block

    def at(self, pairs: Tensor) -> Tensor:
        chunk = max(1, BLOCK_ENTRIES // self.left.shape[1])
        parts = [
            (self.left[rows] * self.right[columns]).sum(1)
            for rows, columns in zip(*(torch.split(ends, chunk) for ends in pairs), strict=True)
        ]
        return torch.cat(parts)


def structure_gradient(
    sent: list[Tensor], arrived: list[Tensor], grads: list[Tensor], degree: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    r"""Factor the loss gradient with respect to $S$, apart from the sign $C$.

    Args:
        sent: $U_l$ of each layer.
        arrived: $O_l$ of each layer.
        grads: $G_l$ of each layer, then $dU_l$ of each layer.
        degree: $r > 0$, row sums of $\tilde A$.

    Returns:
        ``left`` and ``right``: the gradient at pair $i < j$ is $C_{ij}$ ``left[i] @ right[j]``.
    """
    g, u = torch.cat(grads[: len(sent)], 1), torch.cat(sent, 1)
    o, du = torch.cat(arrived, 1), torch.cat(grads[len(sent) :], 1)
    p = degree.rsqrt()[:, None]
    q = (g * o).add_(u * du).sum(1, keepdim=True) / (-2 * degree[:, None])
    g, u, one = g * p, u * p, torch.ones_like(q)
    return torch.cat([g, u, q, one], 1), torch.cat([u, g, one, q], 1)


def pgd_steps(
    encoder: GCN,
    head: nn.Module,
    x: Float[Tensor, "n d"],
    edge_index: Int64[Tensor, "2 e"],
    h_view1: Float[Tensor, "n k"],
    config: AttackConfig,
    *,
    temperature: float,
    candidates: Int64[Tensor, "2 c"] | None = None,
    block_rows: int | None = None,
) -> Iterator[Perturbation]:
    """Yield the perturbation after each step; arguments as in `pgd_attack`."""
    x, h_view1 = x.detach(), h_view1.detach()
    graph = _Graph.of(edge_index, len(x))
    allowed = None if candidates is None else _pair_keys(candidates, graph.num_nodes)
    budget = config.budget * len(graph.keys)
    moves_edges = config.structure_step > 0 and budget > 0
    keys, values, delta = graph.keys[:0], x.new_empty(0), torch.zeros_like(x)
    for step in range(1, config.steps + 1):
        index, weight = graph.weighted(keys, values)
        adjacency = normalized_adjacency(index, graph.num_nodes, weight, symmetric=True)
        with torch.enable_grad():
            moved = (x + delta).requires_grad_()
            z, sent, arrived = encoder.trace(moved, adjacency)
            loss = nt_xent(h_view1, head(z), temperature)
            wanted = [moved] * (config.feature_step > 0) + (arrived + sent) * moves_edges
            grads = list(torch.autograd.grad(loss, wanted)) if wanted else []
        with torch.no_grad():
            if config.feature_step > 0:
                delta = delta + config.feature_step * grads.pop(0).sign_()
                delta.clamp_(-config.feature_radius, config.feature_radius)
            if moves_edges:
                degree = x.new_ones(graph.num_nodes).index_add_(0, index[0], weight)
                left, right = structure_gradient(sent, arrived, grads, degree)
                gradient = _PairGradient(left * (config.structure_step / step**0.5), right)
                projection = BudgetProjection(budget, config.bisection_width)
                if allowed is None:
                    _sweep_blocks(graph, gradient, keys, values, projection, block_rows)
                else:
                    _sweep_pairs(graph, gradient, keys, values, projection, allowed)
                keys, values = projection.finish()
        yield Perturbation(keys, values, delta, loss.item())


def pgd_attack(
    encoder: GCN,
    head: nn.Module,
    x: Float[Tensor, "n d"],
    edge_index: Int64[Tensor, "2 e"],
    h_view1: Float[Tensor, "n k"],
    config: AttackConfig,
    *,
    temperature: float,
    generator: torch.Generator | None = None,
    bernoulli_u: Float[Tensor, "n n"] | None = None,
    candidates: Int64[Tensor, "2 c"] | None = None,
    block_rows: int | None = None,
) -> AdversarialView:
    """Attack a graph; parameters are not touched, modules run in eval mode and return to theirs.

    Args:
        encoder: Attacked encoder.
        head: Its projection head.
        x: Clean features, dense.
        edge_index: Clean edges: undirected, both directions, no loops, no repeats.
        h_view1: Projections of the view that the loss contrasts with; constant.
        config: Strength. With ``structure_step`` or ``feature_step`` 0 that half costs nothing.
        temperature: Of the loss.
        generator: Source of the draws that turn S into flips, one per pair with S > 0.
        bernoulli_u: These draws for every pair, read at row < column.
        candidates: Pairs (row < column) that may flip; default all, which is exact. Time and
            memory then follow the number of candidates.
        block_rows: Rows of pairs visited at once; any number gives the same view. Default about
            4 million pairs a block.

    Raises:
        ValueError: If the graph is not simple and undirected, or a candidate has row >= column.
    """
    with eval_mode(encoder, head):
        steps = list(
            pgd_steps(
                encoder,
                head,
                x,
                edge_index,
                h_view1,
                config,
                temperature=temperature,
                candidates=candidates,
                block_rows=block_rows,
            )
        )
    end = steps[-1]
    graph = _Graph.of(edge_index, len(x))
    if bernoulli_u is None:
        u = uniform(len(end.keys), generator, x.device).to(x.dtype)
    else:
        u = bernoulli_u[tuple(graph.pairs(end.keys))]
    flips = end.keys[end.values > u]
    return AdversarialView(
        x=x.detach() + end.delta,
        edge_index=graph.flipped(flips),
        flips=graph.pairs(flips),
        losses=tuple(step.loss for step in steps),
    )


def _sweep_blocks(
    graph: _Graph,
    gradient: _PairGradient,
    keys: Tensor,
    values: Tensor,
    projection: BudgetProjection,
    block_rows: int | None,
) -> None:
    """Hand S + alpha g to the projection, a block of rows of the upper triangle at a time."""
    n = graph.num_nodes
    start = 0
    while start < n - 1:
        rows = block_rows or max(1, BLOCK_ENTRIES // (n - start))
        stop = min(start + rows, n)
        block = gradient.rows(start, stop).view(-1)
        span = n - start

        def place(pairs: Tensor, start: int = start, span: int = span) -> Tensor:
            return (pairs // n - start) * span + pairs % n - start

        def key_of(places: Tensor, start: int = start, span: int = span) -> Tensor:
            return (places // span + start) * n + places % span + start

        bounds = torch.tensor([start * n, stop * n], device=keys.device)
        first, last = torch.searchsorted(graph.keys, bounds).tolist()
        edges = place(graph.keys[first:last])
        block[edges] = -block[edges]  # C = -1 where the edge exists
        first, last = torch.searchsorted(keys, bounds).tolist()
        block[place(keys[first:last])] += values[first:last]
        projection.add(block, key_of)
        start = stop


def _sweep_pairs(
    graph: _Graph,
    gradient: _PairGradient,
    keys: Tensor,
    values: Tensor,
    projection: BudgetProjection,
    allowed: Tensor,
) -> None:
    """Hand S + alpha g at the allowed pairs to the projection; S is 0 elsewhere."""
    g = gradient.at(graph.pairs(allowed))
    g = torch.where(graph.contains(allowed), -g, g)
    g[torch.searchsorted(allowed, keys)] += values
    projection.add(g, lambda places: allowed[places])


def _pair_keys(pairs: Tensor, num_nodes: int) -> Tensor:
    row, column = pairs
    if bool((row >= column).any()):
        raise ValueError("candidates must be pairs with row < column")
    keys: Tensor = torch.unique(row * num_nodes + column)
    return keys
