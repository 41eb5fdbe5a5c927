"""Accuracy of a trained encoder while its graph is perturbed and attacked, more and more.

The classifier learns on embeddings of the clean graph; the perturbed graph is met at test time
(evasion). Gradient attacks raise the encoder's own contrastive loss between the clean and the
perturbed graph, without labels, so each model meets the attack that is worst for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from cl_core.evaluation.probe import LogisticModel, fit_logistic, random_splits
from cl_graphs.evaluation.perturbation import add_random_edges, dice, sign_noise
from cl_graphs.graph import AttributedGraph
from cl_graphs.methods.attack import AttackConfig, pgd_attack
from cl_graphs.methods.encode import encode
from cl_graphs.methods.encoder import eval_mode
from cl_graphs.node_task import NodeModel

__all__ = ["Measured", "attacked_graphs", "measure", "perturbed_graphs", "side_by_side"]


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


class Judge:
    """Classifiers of one model, a split each, that learnt on the clean graph.

    Args:
        model: The encoder.
        graph: The clean graph.
        y: Classes, -1 where a node is unlabelled.
        splits: Random splits.
        train_fraction: Share of the labelled nodes a classifier learns from.
        seed: Seed of the splits.
    """

    def __init__(
        self,
        model: NodeModel,
        graph: AttributedGraph,
        y: Tensor,
        *,
        splits: int,
        train_fraction: float,
        seed: int,
    ) -> None:
        self.model = model
        self.labels = y.numpy()
        clean = model.embed(graph)
        self.probes: list[tuple[LogisticModel, np.ndarray]] = [
            (fit_logistic(clean, y, train, selection="argmax"), test)
            for train, test in random_splits(
                self.labels, splits=splits, train_fraction=train_fraction, seed=seed
            )
        ]

    def __call__(self, perturbation: str, strength: float, graph: AttributedGraph) -> Measured:
        """Measure the model on a version of the graph."""
        z = self.model.embed(graph)
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


def perturbed_graphs(
    graph: AttributedGraph,
    y: Tensor,
    *,
    budgets: Sequence[float],
    radii: Sequence[float],
    seed: int,
) -> Iterator[Version]:
    """Yield the graph perturbed without gradients: the same versions for every model.

    Args:
        graph: The clean graph.
        y: Its classes, which DICE knows.
        budgets: Edges changed, as shares of the edges there are.
        radii: Changes of each feature value.
        seed: Seed of the draws.

    Yields:
        The perturbation's name, its strength, the perturbed graph.
    """
    for budget in budgets:
        edges = add_random_edges(graph.edge_index, graph.num_nodes, budget, _generator(seed))
        yield "random edges", budget, replace(graph, edge_index=edges)
    for budget in budgets:
        edges = dice(graph.edge_index, y, budget, _generator(seed))
        yield "DICE", budget, replace(graph, edge_index=edges)
    for radius in radii:
        yield (
            "feature noise",
            radius,
            replace(graph, x=sign_noise(_dense(graph), radius, _generator(seed))),
        )


def attacked_graphs(
    model: NodeModel,
    graph: AttributedGraph,
    *,
    budgets: Sequence[float],
    radii: Sequence[float],
    steps: int,
    seed: int,
) -> Iterator[Version]:
    """Yield the graph attacked by projected gradient ascent on the model's contrastive loss.

    Feature steps are a quarter of the radius, as in training (0.01 of 0.04). The structure step
    is the one of training, scaled to the whole graph: the loss is a mean over nodes, so its
    gradient shrinks with their number.

    Args:
        model: The attacked encoder.
        graph: The clean graph.
        budgets: Edges that may flip, as shares of the edges there are.
        radii: Largest changes of one feature value.
        steps: Gradient steps.
        seed: Seed of the flips.

    Yields:
        The attack's name, its strength, the attacked graph. The combined attack pairs each radius
        with the budget of the same place; its strength is the radius.
    """
    x = _dense(graph)
    with eval_mode(model.encoder, model.head):
        clean = model.head(encode(model.encoder, x, graph.edge_index))
    alpha = model.card.alpha * graph.num_nodes / model.card.subgraph_size
    settings = [
        *(("PGD structure", b, (b, alpha, 0.0, 0.0)) for b in budgets),
        *(("PGD features", r, (0.0, 0.0, r / 4, r)) for r in radii),
        *(("PGD both", r, (b, alpha, r / 4, r)) for b, r in zip(budgets, radii, strict=False)),
    ]
    for name, strength, (budget, structure_step, feature_step, radius) in settings:
        attack = AttackConfig(
            steps=steps,
            budget=budget,
            structure_step=structure_step,
            feature_step=feature_step,
            feature_radius=radius,
        )
        view = pgd_attack(
            model.encoder,
            model.head,
            x,
            graph.edge_index,
            clean,
            attack,
            temperature=model.card.temperature,
            generator=_generator(seed),
        )
        yield name, strength, replace(graph, x=view.x, edge_index=view.edge_index)


def measure(
    models: Sequence[NodeModel],
    graph: AttributedGraph,
    y: Tensor,
    *,
    budgets: Sequence[float],
    radii: Sequence[float],
    steps: int,
    splits: int,
    train_fraction: float,
    seed: int,
    poisoned: Mapping[float, AttributedGraph] = MappingProxyType({}),
) -> Iterator[Measured]:
    """Measure every model on every version of a graph.

    Args:
        models: The encoders.
        graph: The clean graph.
        y: Its classes.
        budgets: See `perturbed_graphs` and `attacked_graphs`.
        radii: Likewise.
        steps: Gradient steps of an attack.
        splits: Random splits of the classifier.
        train_fraction: Share of the labelled nodes it learns from.
        seed: Seed of splits and draws.
        poisoned: Versions somebody else attacked, by their rate.

    Yields:
        A point for each model and version, the clean graph first.
    """
    given: list[Version] = [
        ("poisoned", rate, version) for rate, version in (poisoned or {}).items()
    ]
    for model in models:
        judge = Judge(model, graph, y, splits=splits, train_fraction=train_fraction, seed=seed)
        yield judge("clean", 0.0, graph)
        versions: Iterable[Iterable[Version]] = (
            perturbed_graphs(graph, y, budgets=budgets, radii=radii, seed=seed),
            attacked_graphs(model, graph, budgets=budgets, radii=radii, steps=steps, seed=seed),
            given,
        )
        for family in versions:
            for version in family:
                yield judge(*version)


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
