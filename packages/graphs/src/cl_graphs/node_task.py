"""One graph of many nodes as the commands see it: train on it, embed it, score the embedding.

`graph_task` offers the same for a collection of small graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.runs.fingerprint import Fingerprint, of_arrays
from cl_graphs.cards import NodeCard
from cl_graphs.config import EvaluateConfig, PretrainConfig, RobustnessConfig
from cl_graphs.evaluation.embedding import embed
from cl_graphs.evaluation.scores import node_scores
from cl_graphs.evaluation.solvers import Solver, solver_for
from cl_graphs.graph import AttributedGraph, require_classes
from cl_graphs.hyper import ArielHyper
from cl_graphs.methods.encode import output_width
from cl_graphs.methods.encoder import GCN, ProjectionHead
from cl_graphs.methods.neighbors import FANOUT
from cl_graphs.methods.sampling import loader_for
from cl_graphs.own import made_encoder, name_of
from cl_graphs.progress import silent
from cl_graphs.readers.features import reordered

if TYPE_CHECKING:
    from cl_graphs.methods.ariel import Ariel

__all__ = ["NodeModel", "NodeTask"]

STEPS = 1000
"""Optimiser steps of a training by default."""

LOW_HOMOPHILY = 0.2
"""Homophily beyond chance, as a share of what is possible, below which a note is made."""


class NodeModel(nn.Module):
    """An encoder of nodes with its projection head, which only losses and attacks need.

    Args:
        card: How to build it, and how it was trained.
        encoder: An encoder of a user's own; default the `GCN` of the card.
    """

    card_class = NodeCard

    def __init__(self, card: NodeCard, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.card = card
        self.encoder = (
            GCN(card.in_features, card.hidden, activation=card.activation)
            if encoder is None
            else encoder
        )
        self.head = ProjectionHead(card.hidden, card.projection)

    @property
    def name(self) -> str:
        """The method, as reports call it."""
        return self.card.method

    def fit(self, graph: AttributedGraph) -> AttributedGraph:
        """Return a graph with its features in the order the model learnt them.

        Where both have names, a permutation is undone; ``notes`` tell it, and tell where only the
        model knows names.

        Raises:
            InputError: If the features are not as many, or are called otherwise.
        """
        names, known = graph.feature_names, self.card.feature_names
        if names and known and names != known:
            if set(names) != set(known):
                raise InputError(_other_features(graph.name, names, known))
            place = {name: k for k, name in enumerate(names)}
            order = torch.tensor([place[name] for name in known])
            told = f"features of {graph.name} reordered by name, as the model learnt them"
            return replace(
                graph,
                x=reordered(graph.x, order),
                feature_names=known,
                notes=(*graph.notes, told),
            )
        if graph.num_features != self.card.in_features:
            raise InputError(
                f"{graph.name}: {graph.num_features} features, but the model was trained on "
                f"{self.card.in_features}; give the same features in the same order"
            )
        if known and not names:
            shown = f"{', '.join(known[:4])}{', ...' if len(known) > 4 else ''}"
            told = f"features of {graph.name} have no names: taken for {shown} in this order"
            return replace(graph, feature_names=known, notes=(*graph.notes, told))
        return graph

    def embed(self, graph: AttributedGraph) -> Tensor:
        """Embed every node, ``(n, hidden)``.

        Raises:
            InputError: If the graph's features are not those the encoder learnt from.
        """
        graph = self.fit(graph)
        return embed(self.encoder, graph.x, graph.edge_index)


def _other_features(name: str, names: tuple[str, ...], known: tuple[str, ...]) -> str:
    lacking = [k for k in known if k not in names]
    strange = [k for k in names if k not in known]
    parts = [
        f"{what} {', '.join(map(repr, cases[:3]))}{', ...' if len(cases) > 3 else ''}"
        for what, cases in (("lacks", lacking), ("has instead", strange))
        if cases
    ]
    return (
        f"{name} {' and '.join(parts)}: the model learnt from other features "
        f"({len(known)} of them); give those"
    )


class NodeTask:
    """A graph whose nodes are embedded.

    Args:
        data: The graph.
    """

    baseline = "GRACE"
    model_class = NodeModel
    unit = "node"

    def __init__(self, data: AttributedGraph) -> None:
        self.data = data
        self.name, self.ids = data.name, data.ids
        self.y, self.classes = data.y, data.classes

    def summary(self) -> list[str]:
        """Return the size of the graph, and what was cleaned on the way in."""
        lines = [self.data.summary(), *self.data.notes]
        found = self.data.homophily()
        if found is not None and found[0] - found[1] < LOW_HOMOPHILY * (1 - found[1]):
            lines.append(
                f"homophily is low: {found[0]:.0%} of edges join nodes of one class "
                f"({found[1]:.0%} by chance), so neighbours may blur what features tell; compare "
                "with raw features"
            )
        return lines

    def default_epochs(self, config: PretrainConfig) -> int:
        """Return how many epochs make about 1,000 steps."""
        if config.sampler == "random":
            return STEPS
        return max(1, -(-STEPS * config.subgraph_size // self.data.num_nodes))

    def fingerprint(self) -> Fingerprint:
        """Return what tells whether a run is continued on the same graph; labels play no part."""
        x = self.data.x
        sparse = x.layout != torch.strided
        parts = (x.crow_indices(), x.col_indices(), x.values()) if sparse else (x,)
        arrays = {f"x{k}": part for k, part in enumerate(parts)}
        return of_arrays(self.data.summary(), arrays | {"edge_index": self.data.edge_index})

    def model(self, config: PretrainConfig) -> NodeModel:
        """Build the model that will be saved."""
        width, encoder = config.hidden, None
        if config.encoder is not None:
            encoder = made_encoder(config.encoder, self.data.num_features)
            width = output_width(encoder, self.data.num_features)
        card = NodeCard(
            method="ARIEL" if config.method == "ariel" else self.baseline,
            in_features=self.data.num_features,
            hidden=width,
            projection=config.projection,
            activation=config.activation,
            temperature=config.temperature,
            alpha=config.alpha,
            subgraph_size=min(config.subgraph_size, self.data.num_nodes),
            feature_names=self.data.feature_names,
            encoder=name_of(config.encoder),
        )
        return NodeModel(card, encoder)

    def method(self, model: NodeModel, config: PretrainConfig) -> Ariel:
        """Build what trains the model."""
        from cl_graphs.methods.ariel import (
            Ariel,  # Lightning costs seconds, and only training needs it
        )

        hyper = ArielHyper(**{f.name: getattr(config, f.name) for f in fields(ArielHyper)})
        if config.method == "grace":
            hyper = replace(hyper, epsilon=0.0, information_weight=0.0)
        return Ariel(model.encoder, model.head, hyper, seed=config.seed)

    def nodes_of_step(self, config: PretrainConfig) -> int:
        """Return about how many nodes a training step sees."""
        reach = 1
        if config.sampler == "neighbor":
            reach += FANOUT[0] * (1 + FANOUT[1])
        return min(config.subgraph_size * reach, self.data.num_nodes)

    def loader(self, config: PretrainConfig) -> Any:
        """Serve the training's batches: an epoch is one random subgraph, or every node once."""
        return loader_for(
            self.data,
            subgraph_size=config.subgraph_size,
            seed=config.seed,
            sampler=config.sampler,
            workers=config.workers,
        )

    def labels(self) -> Tensor:
        """Return the classes to evaluate against, -1 where a node is unlabelled.

        Raises:
            InputError: If there are fewer than two.
        """
        return require_classes(self.data)

    def raw(self) -> Tensor:
        """Return the features themselves, what an embedding has to beat."""
        return self.data.x

    def solver(self, config: EvaluateConfig | RobustnessConfig) -> Solver:
        """Return what the probe is solved by."""
        y = self.labels()
        trained = (y >= 0).reshape(len(y), -1).any(1).sum() * config.train_fraction
        if isinstance(config, EvaluateConfig) and config.published:
            trained = torch.tensor(len(self.published()["train"]))
        return solver_for(config.probe, y, int(trained))

    def published(self) -> Mapping[str, Tensor]:
        """Return the split published with the graph.

        Raises:
            InputError: If there is none.
        """
        splits = self.data.splits
        if not len(splits.get("train", ())) or not len(splits.get("test", ())):
            raise InputError(
                f"--published: {self.name} comes without a split (train_mask, test_mask); drop the "
                "option"
            )
        return splits

    def protocol(self, config: EvaluateConfig) -> str:
        """Return how the scores are made, in words."""
        where = "random splits; mean and spread over them"
        if config.published:
            where = "the split published with the graph"
        if self.solver(config) == "exact":
            held = "the validation part" if config.published else "five folds of the training share"
            return (
                "One-vs-rest logistic regression on frozen rows of unit length, its penalty chosen "
                f"on {held}, on {where}."
            )
        kind = (
            "Logistic regression of every task"
            if self.labels().ndim == 2
            else ("Softmax regression")
        )
        return (
            f"{kind} on frozen rows of unit length, solved by L-BFGS, its penalty chosen from "
            f"seven on rows held out of the training part, on {where}. It stands in for the "
            "published one-vs-rest regression, which takes days at this size."
        )

    def parts_of_scores(self, config: EvaluateConfig) -> int:
        """Return how many parts `scores` tells of."""
        return 1 if config.published else config.splits

    def scores(
        self, x: Tensor, config: EvaluateConfig, tell: Callable[[str], None] = silent
    ) -> dict[str, float]:
        """Score one row per node by the protocol of the literature."""
        return node_scores(
            x,
            self.labels(),
            splits=config.splits,
            train_fraction=config.train_fraction,
            seed=config.seed,
            selection=config.selection,
            solver=self.solver(config),
            published=self.published() if config.published else None,
            tell=tell,
        )
