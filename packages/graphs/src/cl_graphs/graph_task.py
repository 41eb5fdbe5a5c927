"""A collection of small graphs as the commands see it: `node_task` for whole graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.loader import make_loader
from cl_graphs.cards import GraphCard
from cl_graphs.config import EvaluateConfig, PretrainConfig
from cl_graphs.evaluation.embedding import embed_graphs
from cl_graphs.evaluation.scores import FOLDS, whole_graph_scores
from cl_graphs.methods.encoder import GIN, graph_head

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from cl_graphs.methods.graph_ariel import GraphAriel

__all__ = ["GraphModel", "GraphTask"]

EMBED_BATCH = 256
"""Graphs embedded at once."""


class GraphModel(nn.Module):
    """An encoder of whole graphs with its projection head, which only losses need.

    Args:
        card: How to build it, and how it was trained.
    """

    card_class = GraphCard

    def __init__(self, card: GraphCard) -> None:
        super().__init__()
        self.card = card
        self.encoder = GIN(card.in_features, card.hidden, layers=card.layers)
        self.head = graph_head(self.encoder.out_features)

    @property
    def name(self) -> str:
        """The method, as reports call it."""
        return self.card.method

    def embed(self, graphs: Sequence[Data]) -> Tensor:
        """Embed every graph, ``(g, layers * hidden)``.

        Raises:
            InputError: If the node features are not as many as the encoder's.
        """
        from cl_graphs.readers.pyg import Batch

        width = graphs[0].num_features
        if width != self.card.in_features:
            raise InputError(
                f"--data: {width} node features, but the model was trained on "
                f"{self.card.in_features}; give graphs with the same features"
            )
        starts = range(0, len(graphs), EMBED_BATCH)
        parts = [Batch.from_data_list(list(graphs[s : s + EMBED_BATCH])) for s in starts]
        return torch.cat([embed_graphs(self.encoder, part) for part in parts])


class GraphTask:
    """A collection whose graphs are embedded.

    Args:
        name: What messages call it.
        graphs: At least two.
    """

    baseline = "GraphCL"
    model_class = GraphModel
    default_epochs = 20
    unit = "graph"
    protocol = (
        "A support vector machine on frozen, standardised rows, in stratified ten-fold "
        "cross-validation, its cost chosen by five-fold search inside each training part; mean "
        "and spread over repetitions of the folds."
    )

    def __init__(self, name: str, graphs: Sequence[Data]) -> None:
        if len(graphs) < 2:
            raise InputError(f"{name}: contrast needs at least 2 graphs, got {len(graphs)}")
        self.name = name
        self.data = graphs
        self.ids = range(len(graphs))
        given = [graph.y for graph in graphs]
        self.y = None if given[0] is None else torch.cat(given)
        self.classes = [] if self.y is None else [str(k) for k in range(int(self.y.max()) + 1)]

    def summary(self) -> list[str]:
        """Return the size of the collection."""
        nodes = sum(graph.num_nodes for graph in self.data)
        edges = sum(graph.num_edges for graph in self.data) // 2
        labels = f"{len(self.classes)} classes" if self.classes else "no labels"
        return [
            f"{self.name}: {len(self.data):,} graphs, {nodes:,} nodes, {edges:,} edges, "
            f"{self.data[0].num_features} node features, {labels}"
        ]

    def model(self, config: PretrainConfig) -> GraphModel:
        """Build the model that will be saved."""
        return GraphModel(
            GraphCard(
                method="ARIEL" if config.method == "ariel" else self.baseline,
                in_features=self.data[0].num_features,
                hidden=config.collection.hidden,
                layers=config.collection.layers,
            )
        )

    def method(self, model: GraphModel, config: PretrainConfig) -> GraphAriel:
        """Build what trains the model."""
        from cl_graphs.methods.graph_ariel import GraphAriel  # Lightning costs seconds

        hyper = config.collection
        if config.method == "grace":
            hyper = replace(hyper, epsilon=0.0)
        return GraphAriel(model.encoder, model.head, hyper, seed=config.seed)

    def loader(self, config: PretrainConfig) -> Any:
        """Serve the training's batches: an epoch is one pass over the collection."""
        from cl_graphs.readers.pyg import Batch

        return make_loader(
            self.data,
            batch_size=config.batch_size,
            shuffle=True,
            workers=config.workers,
            seed=config.seed,
            collate=Batch.from_data_list,
        )

    def labels(self) -> Tensor:
        """Return the class of each graph.

        Raises:
            InputError: If there are fewer than two, or too few members for ten folds.
        """
        if self.y is None:
            raise InputError(f"{self.name}: no graph labels, and evaluation needs them")
        counts = torch.bincount(self.y)
        if len(counts) < 2:
            raise InputError(f"{self.name}: evaluation needs at least 2 classes, all graphs are 1")
        if int(counts.min()) < FOLDS:
            raise InputError(
                f"{self.name}: ten-fold evaluation needs {FOLDS} graphs of every class, "
                f"class {int(counts.argmin())} has {int(counts.min())}"
            )
        return self.y

    def raw(self) -> Tensor:
        """Return the sum of each graph's node features, what an embedding has to beat."""
        return torch.stack([graph.x.sum(0) for graph in self.data])

    def scores(self, x: Tensor, config: EvaluateConfig) -> dict[str, float]:
        """Score one row per graph by the protocol of the literature."""
        repeats = max(1, config.splits // FOLDS)
        return whole_graph_scores(x, self.labels(), repeats=repeats, seed=config.seed)
