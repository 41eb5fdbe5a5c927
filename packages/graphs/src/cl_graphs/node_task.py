"""One graph of many nodes as the commands see it: train on it, embed it, score the embedding.

`graph_task` offers the same for a collection of small graphs.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cl_core.errors import InputError
from cl_graphs.cards import NodeCard
from cl_graphs.config import EvaluateConfig, PretrainConfig
from cl_graphs.evaluation.embedding import embed
from cl_graphs.evaluation.scores import node_scores
from cl_graphs.graph import AttributedGraph, require_classes
from cl_graphs.hyper import ArielHyper
from cl_graphs.methods.encoder import GCN, ProjectionHead
from cl_graphs.methods.sampling import loader_for

if TYPE_CHECKING:
    from cl_graphs.methods.ariel import Ariel

__all__ = ["NodeModel", "NodeTask"]


class NodeModel(nn.Module):
    """An encoder of nodes with its projection head, which only losses and attacks need.

    Args:
        card: How to build it, and how it was trained.
    """

    card_class = NodeCard

    def __init__(self, card: NodeCard) -> None:
        super().__init__()
        self.card = card
        self.encoder = GCN(card.in_features, card.hidden, activation=card.activation)
        self.head = ProjectionHead(card.hidden, card.projection)

    @property
    def name(self) -> str:
        """The method, as reports call it."""
        return self.card.method

    def embed(self, graph: AttributedGraph) -> Tensor:
        """Embed every node, ``(n, hidden)``.

        Raises:
            InputError: If the graph's features are not as many as the encoder's.
        """
        if graph.num_features != self.card.in_features:
            raise InputError(
                f"{graph.name}: {graph.num_features} features, but the model was trained on "
                f"{self.card.in_features}; give the same features in the same order"
            )
        return embed(self.encoder, graph.x, graph.edge_index)


class NodeTask:
    """A graph whose nodes are embedded.

    Args:
        data: The graph.
    """

    baseline = "GRACE"
    model_class = NodeModel
    default_epochs = 1000
    unit = "node"
    protocol = (
        "One-vs-rest logistic regression on frozen rows of unit length, its penalty chosen by "
        "five-fold search on the training share; mean and spread over random splits."
    )

    def __init__(self, data: AttributedGraph) -> None:
        self.data = data
        self.name, self.ids = data.name, data.ids
        self.y, self.classes = data.y, data.classes

    def summary(self) -> list[str]:
        """Return the size of the graph, and what was cleaned on the way in."""
        return [self.data.summary(), *self.data.notes]

    def model(self, config: PretrainConfig) -> NodeModel:
        """Build the model that will be saved."""
        return NodeModel(
            NodeCard(
                method="ARIEL" if config.method == "ariel" else self.baseline,
                in_features=self.data.num_features,
                hidden=config.hidden,
                projection=config.projection,
                activation=config.activation,
                temperature=config.temperature,
                alpha=config.alpha,
                subgraph_size=min(config.subgraph_size, self.data.num_nodes),
            )
        )

    def method(self, model: NodeModel, config: PretrainConfig) -> Ariel:
        """Build what trains the model."""
        from cl_graphs.methods.ariel import (
            Ariel,  # Lightning costs seconds, and only training needs it
        )

        hyper = ArielHyper(**{f.name: getattr(config, f.name) for f in fields(ArielHyper)})
        if config.method == "grace":
            hyper = replace(hyper, epsilon=0.0, information_weight=0.0)
        return Ariel(model.encoder, model.head, hyper, seed=config.seed)

    def loader(self, config: PretrainConfig) -> Any:
        """Serve the training's batches: an epoch is one random subgraph."""
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

    def scores(self, x: Tensor, config: EvaluateConfig) -> dict[str, float]:
        """Score one row per node by the protocol of the literature."""
        return node_scores(
            x,
            self.labels(),
            splits=config.splits,
            train_fraction=config.train_fraction,
            seed=config.seed,
            selection=config.selection,
        )
