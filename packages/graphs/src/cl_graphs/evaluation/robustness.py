"""Accuracy of a trained encoder while its graph is perturbed and attacked, more and more.

The classifier learns on embeddings of the clean graph; the perturbed graph is met at test time
(evasion). Gradient attacks raise the encoder's own contrastive loss between the clean and the
perturbed graph, without labels, so each model meets the attack that is worst for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from cl_core.evaluation.probe import random_splits
from cl_graphs.evaluation.perturbation import add_random_edges, dice, sign_noise
from cl_graphs.evaluation.solvers import Probe, Solver, unit_rows
from cl_graphs.graph import AttributedGraph
from cl_graphs.methods.attack import AttackConfig, pgd_attack
from cl_graphs.methods.encode import encode
from cl_graphs.methods.encoder import eval_mode
from cl_graphs.node_task import NodeModel
from cl_graphs.progress import silent

__all__ = [
    "PERTURBATIONS",
    "Measured",
    "Protocol",
    "Strengths",
    "attacked_graphs",
    "measure",
    "perturbed_graphs",
    "side_by_side",
]

PERTURBATIONS = (
    "random_edges",
    "dice",
    "feature_noise",
    "pgd_structure",
    "pgd_features",
    "pgd_both",
)
"""What can be done to a graph."""

EVERY_PAIR = 20_000
"""Nodes of a graph up to which an attack considers every pair of them."""

CANDIDATES = 1_000_000
"""Random pairs that an attack on a larger graph may join."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One point of a curve.

    Attributes:
        model: The method's name.
        perturbation: What was done to the graph.
        strength: Budget, radius or rate; 0 is the clean graph.
        accuracy: Mean over the splits, 0 to 1.
        accuracy_std: Spread over the splits.
    """

    model: str
    perturbation: str
    strength: float
    accuracy: float
    accuracy_std: float


@dataclass(frozen=True, kw_only=True)
class Strengths:
    """What is done to the graph, and how strongly.

    Args:
        perturbations: Which of `PERTURBATIONS`.
        budgets: Edges changed, as shares of the edges there are.
        radii: Largest changes of one feature value.
        steps: Gradient steps of an attack.
        attack_nodes: Nodes whose contrast an attack raises; of more, random ones.
        attack_candidates: Random pairs an attack may join, see `AttackConfig`; None for every pair
            of up to `EVERY_PAIR` nodes, else `CANDIDATES`.
        seed: Seed of all draws.
    """

    perturbations: Sequence[str] = PERTURBATIONS
    budgets: Sequence[float] = (0.05, 0.1, 0.2, 0.5, 1.0)
    radii: Sequence[float] = (0.01, 0.02, 0.04, 0.08)
    steps: int = 5
    attack_nodes: int = 10_000
    attack_candidates: int | None = None
    seed: int = 0

    @property
    def versions(self) -> int:
        """How many perturbed graphs there are."""
        sizes = {
            "feature_noise": len(self.radii),
            "pgd_features": len(self.radii),
            "pgd_both": min(len(self.budgets), len(self.radii)),
        }
        return sum(sizes.get(name, len(self.budgets)) for name in self.perturbations)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How accuracy is measured.

    Args:
        splits: Random splits.
        train_fraction: Share of the labelled nodes a classifier learns from.
        seed: Seed of the splits.
        solver: Of the probe.
    """

    splits: int
    train_fraction: float
    seed: int
    solver: Solver = "exact"


class Judge:
    """Classifiers of one model, a split each, that learnt on the clean graph.

    Args:
        model: The encoder.
        graph: The clean graph.
        y: Classes, -1 where a node is unlabelled.
        protocol: How they learn.
    """

    def __init__(
        self, model: NodeModel, graph: AttributedGraph, y: Tensor, protocol: Protocol
    ) -> None:
        self.model = model
        self.labels = y.numpy()
        clean = unit_rows(model.embed(graph))
        self.probes: list[tuple[Probe, np.ndarray]] = []
        for number, (train, test) in enumerate(
            random_splits(
                self.labels,
                splits=protocol.splits,
                train_fraction=protocol.train_fraction,
                seed=protocol.seed,
            )
        ):
            seed = protocol.seed + number
            probe = Probe.fit(clean, y, train, solver=protocol.solver, seed=seed)
            self.probes.append((probe, test))

    def __call__(self, perturbation: str, strength: float, graph: AttributedGraph) -> Measured:
        """Measure the model on a version of the graph."""
        z = unit_rows(self.model.embed(graph))
        shares = [
            float((probe.predict(z[test]) == self.labels[test]).mean())
            for probe, test in self.probes
        ]
        return Measured(
            model=self.model.name,
            perturbation=perturbation,
            strength=strength,
            accuracy=float(np.mean(shares)),
            accuracy_std=float(np.std(shares)),
        )


Version = tuple[str, float, AttributedGraph]


def perturbed_graphs(graph: AttributedGraph, y: Tensor, strengths: Strengths) -> Iterator[Version]:
    """Yield the graph perturbed without gradients: the same versions for every model.

    Args:
        graph: The clean graph.
        y: Its classes, which DICE knows.
        strengths: What is done; attacks are left out.

    Yields:
        The perturbation's name, its strength, the perturbed graph.
    """
    wanted, seed = strengths.perturbations, strengths.seed
    for budget in strengths.budgets if "random_edges" in wanted else ():
        edges = add_random_edges(graph.edge_index, graph.num_nodes, budget, _generator(seed))
        yield "random edges", budget, replace(graph, edge_index=edges)
    for budget in strengths.budgets if "dice" in wanted else ():
        edges = dice(graph.edge_index, y, budget, _generator(seed))
        yield "DICE", budget, replace(graph, edge_index=edges)
    for radius in strengths.radii if "feature_noise" in wanted else ():
        x = sign_noise(_dense(graph), radius, _generator(seed))
        yield "feature noise", radius, replace(graph, x=x)


def attacked_graphs(
    model: NodeModel, graph: AttributedGraph, strengths: Strengths
) -> Iterator[Version]:
    """Yield the graph attacked by projected gradient ascent on the model's contrastive loss.

    Feature steps are a quarter of the radius, as in training (0.01 of 0.04). The structure step
    is the one of training, scaled to the nodes whose contrast is raised: the loss is a mean over
    them, so its gradient shrinks with their number.

    Args:
        model: The attacked encoder.
        graph: The clean graph.
        strengths: What is done; what is no attack is left out.

    Yields:
        The attack's name, its strength, the attacked graph. The combined attack pairs each radius
        with the budget of the same place; its strength is the radius.
    """
    wanted = strengths.perturbations
    if not any(name.startswith("pgd") for name in wanted):
        return
    x, n = _dense(graph), graph.num_nodes
    with eval_mode(model.encoder, model.head):
        clean = model.head(encode(model.encoder, x, graph.edge_index))
    anchors = None
    if n > strengths.attack_nodes:
        order = torch.randperm(n, generator=_generator(strengths.seed))
        anchors = order[: strengths.attack_nodes].sort().values
    candidates = strengths.attack_candidates
    if candidates is None and n > EVERY_PAIR and not model.card.encoder:
        candidates = CANDIDATES
    alpha = model.card.alpha * min(n, strengths.attack_nodes) / model.card.subgraph_size
    budgets, radii = strengths.budgets, strengths.radii
    settings = [
        *(("PGD structure", b, (b, alpha, 0.0, 0.0)) for b in budgets if "pgd_structure" in wanted),
        *(("PGD features", r, (0.0, 0.0, r / 4, r)) for r in radii if "pgd_features" in wanted),
        *(
            ("PGD both", r, (b, alpha, r / 4, r))
            for b, r in zip(budgets, radii, strict=False)
            if "pgd_both" in wanted
        ),
    ]
    for name, strength, (budget, structure_step, feature_step, radius) in settings:
        attack = AttackConfig(
            steps=strengths.steps,
            budget=budget,
            structure_step=structure_step,
            feature_step=feature_step,
            feature_radius=radius,
            candidates=candidates,
        )
        view = pgd_attack(
            model.encoder,
            model.head,
            x,
            graph.edge_index,
            clean,
            attack,
            temperature=model.card.temperature,
            generator=_generator(strengths.seed),
            anchors=anchors,
        )
        yield name, strength, replace(graph, x=view.x, edge_index=view.edge_index)


def measure(
    models: Sequence[NodeModel],
    graph: AttributedGraph,
    y: Tensor,
    strengths: Strengths,
    protocol: Protocol,
    *,
    poisoned: Mapping[float, AttributedGraph] = MappingProxyType({}),
    tell: Callable[[str], None] = silent,
) -> Iterator[Measured]:
    """Measure every model on every version of a graph.

    Args:
        models: The encoders.
        graph: The clean graph.
        y: Its classes.
        strengths: What is done to it.
        protocol: How accuracy is measured.
        poisoned: Versions somebody else attacked, by their rate.
        tell: Is called after each point.

    Yields:
        A point for each model and version, the clean graph first.
    """
    given: list[Version] = [
        ("poisoned", rate, version) for rate, version in (poisoned or {}).items()
    ]
    for model in models:
        fitted = model.fit(graph)
        judge = Judge(model, fitted, y, protocol)
        yield judge("clean", 0.0, fitted)
        tell(model.name)
        versions: Iterable[Iterable[Version]] = (
            perturbed_graphs(fitted, y, strengths),
            attacked_graphs(model, fitted, strengths),
            given,
        )
        for family in versions:
            for version in family:
                yield judge(*version)
                tell(f"{model.name}, {version[0]}")


def side_by_side(points: Sequence[Measured]) -> list[dict[str, object]]:
    """Rows of a table: a version of the graph, and each model's accuracy on it."""
    rows: dict[tuple[str, float], dict[str, object]] = {}
    for point in points:
        strength = f"{point.strength:g}" if point.strength else ""
        row = rows.setdefault(
            (point.perturbation, point.strength),
            {"perturbation": point.perturbation, "strength": strength},
        )
        row[f"{point.model}/accuracy"] = point.accuracy
        row[f"{point.model}/accuracy_std"] = point.accuracy_std
    return list(rows.values())


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _dense(graph: AttributedGraph) -> Tensor:
    return graph.x if graph.x.layout == torch.strided else graph.x.to_dense()
