r"""Adversarial view of a node-level graph: projected gradient ascent on edges and features.

The attacker raises the contrastive loss between a fixed view 1 and the perturbed graph
(Feng et al. 2022, Sec. 3.2; the code's current version). With $C = 11^\top - 2A - I$, structure
$S \in [0, 1]$ on pairs $i < j$ and features $\delta$,

$$\tilde A = A + (S + S^\top) \circ C + I,\quad \hat A = D^{-1/2} \tilde A D^{-1/2},\quad
S \leftarrow P_B(S + \tfrac{\alpha}{\sqrt k} g_S),\quad
\delta \leftarrow \mathrm{clip}(\delta + \beta\, \mathrm{sign}\, g_\delta, \pm r).$$

The official code differentiates through the dense $N \times N$ matrix $\hat A$. Here pairs are
visited in blocks of rows, by the closed form of `closed_form`, and only the support of $S$, about
the budget, is ever kept.

What is exact: everything, up to rounding, for any block size; $D$ is differentiated through. What
is restricted: with ``candidates`` only those pairs may flip (all pairs as candidates give the
unrestricted attack), and where a step is too small for the budget to bind, so that $S$ is
positive on half of all pairs, only the ``support_limit`` largest entries stay.

Any other encoder than `GCN` is differentiated by autograd over candidate pairs: see `relaxed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_graphs.hyper import ArielHyper, GraphArielHyper
from cl_graphs.methods.augment import uniform
from cl_graphs.methods.closed_form import ClosedForm, layers_known, structure_gradient
from cl_graphs.methods.contrast import FixedViewLoss
from cl_graphs.methods.encoder import GCN, eval_mode
from cl_graphs.methods.pairs import SimpleGraph, pair_keys, row_blocks, structure_step
from cl_graphs.methods.projection import BudgetProjection
from cl_graphs.methods.relaxed import Relaxed, draw_candidates
from cl_graphs.methods.threads import threads_for

__all__ = [
    "AdversarialView",
    "AttackConfig",
    "Perturbation",
    "discretized",
    "pgd_attack",
    "pgd_steps",
    "structure_gradient",
]

CANDIDATES = 2**14
"""Random pairs that may gain an edge, where the encoder's layers are not known."""


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
        support_limit: Most pairs with S > 0 after a step. A budget that binds leaves about as many
            as its edges. A step too small for the budget to bind leaves every pair whose gradient
            is positive; of those the largest are taken. Graphs of up to 2,896 nodes have no more
            pairs than the default.
        candidates: Random pairs without an edge that may flip, besides every edge, unless the
            caller names the pairs. None is every pair for a `GCN`, and 16,384 for another encoder.
    """

    steps: int = 5
    budget: float = 0.2
    structure_step: float = 50.0
    feature_step: float = 0.001
    feature_radius: float = 0.04
    bisection_width: float = 1e-3
    support_limit: int = 2**22
    candidates: int | None = None

    @classmethod
    def of(cls, hyper: ArielHyper | GraphArielHyper) -> AttackConfig:
        """Take the attack out of a method's hyper-parameters."""
        return cls(
            steps=hyper.attack_steps,
            budget=hyper.attack_budget,
            structure_step=hyper.alpha,
            feature_step=hyper.beta,
            feature_radius=hyper.feature_radius,
            candidates=hyper.attack_candidates,
        )

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        for name in ("budget", "structure_step", "feature_step", "feature_radius"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.candidates is not None and self.candidates < 0:
            raise ValueError(f"candidates must be at least 0, got {self.candidates}")
        if self.support_limit < 1:
            raise ValueError(f"support_limit must be at least 1, got {self.support_limit}")
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


def pgd_steps(
    encoder: nn.Module,
    head: nn.Module,
    x: Float[Tensor, "n d"],
    edge_index: Int64[Tensor, "2 e"],
    h_view1: Float[Tensor, "n k"],
    config: AttackConfig,
    *,
    temperature: float,
    generator: torch.Generator | None = None,
    candidates: Int64[Tensor, "2 c"] | None = None,
    block_rows: int | None = None,
    sent: Float[Tensor, "n m"] | None = None,
    anchors: Int64[Tensor, " a"] | None = None,
) -> Iterator[Perturbation]:
    """Yield the perturbation after each step; arguments as in `pgd_attack`."""
    x = x.detach()
    contrast = FixedViewLoss(h_view1, temperature, anchors)
    graph = SimpleGraph.of(edge_index, len(x))
    budget = config.budget * len(graph.keys)
    moves_edges = config.structure_step > 0 and budget > 0
    allowed = None if candidates is None else pair_keys(candidates, graph.num_nodes)
    moves_features, known = config.feature_step > 0, layers_known(encoder)
    if moves_edges and allowed is None and (config.candidates is not None or not known):
        number = CANDIDATES if config.candidates is None else config.candidates
        allowed = draw_candidates(graph, number, generator)
    attacked = (
        ClosedForm(
            cast("GCN", encoder),
            head,
            graph,
            contrast,
            x,
            features=moves_features,
            structure=moves_edges,
            sent=sent,
        )
        if known
        else Relaxed.nodes(encoder, head, graph, contrast, x, allowed if moves_edges else None)
    )
    keys, values, delta = graph.keys[:0], x.new_empty(0), torch.zeros_like(x)
    for step in range(1, config.steps + 1):
        rate = config.structure_step / step**0.5
        change = delta if moves_features and step > 1 else None
        loss, grad_x, gradient = attacked.at(change, keys, values, rate=rate)
        if moves_features and grad_x is not None:
            delta = torch.add(delta, grad_x.sign_(), alpha=config.feature_step)
            delta.clamp_(-config.feature_radius, config.feature_radius)
        if gradient is not None:
            projection = BudgetProjection(
                budget, config.bisection_width, limit=config.support_limit
            )
            keys, values = structure_step(
                graph,
                gradient,
                keys,
                values,
                projection,
                allowed=allowed,
                blocks=row_blocks(graph.num_nodes, block_rows),
            )
        yield Perturbation(keys, values, delta, loss)


def pgd_attack(
    encoder: nn.Module,
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
    sent: Float[Tensor, "n m"] | None = None,
    anchors: Int64[Tensor, " a"] | None = None,
) -> AdversarialView:
    """Attack a graph; parameters are not touched, modules run in eval mode and return to theirs.

    Args:
        encoder: Attacked encoder, of either convention of `encode`.
        head: Its projection head.
        x: Clean features, dense.
        edge_index: Clean edges: undirected, both directions, no loops, no repeats.
        h_view1: Projections of the view that the loss contrasts with; constant.
        config: Strength. With ``structure_step`` or ``feature_step`` 0 that half costs nothing.
        temperature: Of the loss.
        generator: Source of the candidates, where some are drawn, and of the draws that turn S into
            flips, one per pair with S > 0.
        bernoulli_u: These draws for every pair, read at row < column.
        candidates: Pairs (row < column) that may flip; default those of ``config.candidates``. Time
            and memory then follow their number.
        block_rows: Rows of pairs visited at once; any number gives the same view. Default about
            a million pairs a block.
        sent: $X W_1$ of a `GCN`, if it is known already.
        anchors: Nodes whose contrast with each other is raised; default all, which is exact. Its
            cost is quadratic in their number.

    Raises:
        ValueError: If the graph is not simple and undirected, a candidate has row >= column, or the
            encoder is one whose structure cannot be attacked.
    """
    with eval_mode(encoder, head), threads_for(len(x)):
        steps = list(
            pgd_steps(
                encoder,
                head,
                x,
                edge_index,
                h_view1,
                config,
                temperature=temperature,
                generator=generator,
                candidates=candidates,
                block_rows=block_rows,
                sent=sent,
                anchors=anchors,
            )
        )
    return discretized(
        x, SimpleGraph.of(edge_index, len(x)), steps, generator=generator, bernoulli_u=bernoulli_u
    )


def discretized(
    x: Float[Tensor, "n d"],
    graph: SimpleGraph,
    steps: Sequence[Perturbation],
    *,
    loops: Int64[Tensor, "2 l"] | None = None,
    generator: torch.Generator | None = None,
    bernoulli_u: Float[Tensor, "n n"] | None = None,
) -> AdversarialView:
    """Flip each pair with probability S: pair ``(i, j)`` flips where S > U(0, 1).

    Args:
        x: Clean features.
        graph: Clean edges.
        steps: The attack; its last step is used.
        loops: Self loops, appended as they are.
        generator: Source of the draws, one per pair with S > 0.
        bernoulli_u: These draws for every pair, read at row < column.
    """
    end = steps[-1]
    if bernoulli_u is None:
        u = uniform(len(end.keys), generator, x.device).to(x.dtype)
    else:
        u = bernoulli_u[tuple(graph.pairs(end.keys))]
    flips = end.keys[end.values > u]
    edges = graph.flipped(flips)
    return AdversarialView(
        x=x.detach() + end.delta,
        edge_index=edges if loops is None else torch.cat([edges, loops], 1),
        flips=graph.pairs(flips),
        losses=tuple(step.loss for step in steps),
    )
