"""A collection of small graphs as the commands see it: `node_task` for whole graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.loader import make_loader
from cl_core.runs.fingerprint import Fingerprint, of_arrays
from cl_graphs.cards import GraphCard
from cl_graphs.collection import GraphCollection
from cl_graphs.config import EvaluateConfig, PretrainConfig
from cl_graphs.evaluation.embedding import embed_graphs
from cl_graphs.evaluation.scores import FOLDS, whole_graph_scores
from cl_graphs.methods.encoder import GIN, graph_head
from cl_graphs.methods.graph_batch import graph_width
from cl_graphs.own import made_encoder, name_of
from cl_graphs.progress import silent

if TYPE_CHECKING:
    from cl_graphs.methods.graph_ariel import GraphAriel

__all__ = ["GraphModel", "GraphTask"]

EMBED_BATCH = 256
"""Graphs embedded at once."""


class GraphModel(nn.Module):
    """An encoder of whole graphs with its projection head, which only losses need.

    Args:
        card: How to build it, and how it was trained.
        encoder: An encoder of a user's own; default the `GIN` of the card.
    """

    card_class = GraphCard

    def __init__(self, card: GraphCard, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.card = card
        self.encoder = (
            GIN(card.in_features, card.hidden, layers=card.layers) if encoder is None else encoder
        )
        self.head = graph_head(card.hidden * card.layers)

    @property
    def name(self) -> str:
        """The method, as reports call it."""
        return self.card.method

    def fit(self, graphs: GraphCollection) -> GraphCollection:
        """Return the graphs if their features can be those the model learnt from.

        Raises:
            InputError: If they are not as many, or of another kind.
        """
        width, kind = graphs[0].num_features, graphs.features
        if width != self.card.in_features:
            raise InputError(
                f"{graphs.name}: {width} node features, but the model was trained on "
                f"{self.card.in_features}; give graphs with the same features"
            )
        if "given" not in (kind, self.card.features) and kind != self.card.features:
            raise InputError(
                f"{graphs.name}: its features are node {kind}, but the model learnt from node "
                f"{self.card.features}; give graphs with the same features"
            )
        return graphs

    def embed(self, graphs: GraphCollection) -> Tensor:
        """Embed every graph, ``(g, layers * hidden)``.

        Raises:
            InputError: If the node features are not those the encoder learnt from.
        """
        from cl_graphs.readers.pyg import Batch

        self.fit(graphs)
        starts = range(0, len(graphs), EMBED_BATCH)
        parts = [Batch.from_data_list(list(graphs[s : s + EMBED_BATCH])) for s in starts]
        return torch.cat([embed_graphs(self.encoder, part) for part in parts])


class GraphTask:
    """A collection whose graphs are embedded.

    Args:
        data: At least two graphs.
    """

    baseline = "GraphCL"
    model_class = GraphModel
    unit = "graph"

    def __init__(self, data: GraphCollection) -> None:
        if len(data) < 2:
            raise InputError(f"{data.name}: contrast needs at least 2 graphs, got {len(data)}")
        self.name, self.data = data.name, data
        self.ids = range(len(data))
        given = [graph.y for graph in data]
        self.y = None
        if any(y is not None for y in given):
            self.y = torch.cat([torch.tensor([-1]) if y is None else y for y in given])
        count = 0 if self.y is None else int(self.y.max()) + 1
        self.classes = [str(k) for k in range(count)]

    def summary(self) -> list[str]:
        """Return the size of the collection."""
        nodes = sum(graph.num_nodes for graph in self.data)
        edges = sum(graph.num_edges for graph in self.data) // 2
        labels = f"{len(self.classes)} classes" if self.classes else "no labels"
        return [
            f"{self.name}: {len(self.data):,} graphs, {nodes:,} nodes, {edges:,} edges, "
            f"{self.data[0].num_features} node features, {labels}",
            *self.data.notes,
        ]

    def fingerprint(self) -> Fingerprint:
        """Return what tells whether a run is continued on the same graphs; labels play no part."""
        sizes = torch.tensor([graph.num_nodes for graph in self.data])
        x = torch.cat([graph.x for graph in self.data])
        edges = torch.cat([graph.edge_index for graph in self.data], 1)
        arrays = {"sizes": sizes, "x": x, "edge_index": edges}
        return of_arrays(self.summary()[0], arrays)

    def model(self, config: PretrainConfig) -> GraphModel:
        """Build the model that will be saved."""
        in_features, encoder = self.data[0].num_features, None
        width, layers = config.collection.hidden, config.collection.layers
        if config.encoder is not None:
            encoder = made_encoder(config.encoder, in_features)
            width, layers = graph_width(encoder, in_features), 1
        card = GraphCard(
            method="ARIEL" if config.method == "ariel" else self.baseline,
            in_features=in_features,
            hidden=width,
            layers=layers,
            features=self.data.features,
            vocabulary=self.data.vocabulary,
            encoder=name_of(config.encoder),
        )
        return GraphModel(card, encoder)

    def method(self, model: GraphModel, config: PretrainConfig) -> GraphAriel:
        """Build what trains the model."""
        from cl_graphs.methods.graph_ariel import GraphAriel  # Lightning costs seconds

        hyper = config.collection
        if config.method == "grace":
            hyper = replace(hyper, epsilon=0.0)
        return GraphAriel(model.encoder, model.head, hyper, seed=config.seed)

    def nodes_of_step(self, config: PretrainConfig) -> int:
        """Return about how many nodes a training step sees."""
        nodes = sum(len(graph.x) for graph in self.data)
        return min(nodes, nodes * config.batch_size // len(self.data))

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

    def default_epochs(self, config: PretrainConfig) -> int:
        """Return the passes over the collection that were published."""
        return 20

    def protocol(self, config: EvaluateConfig) -> str:
        """Return how the scores are made, in words."""
        return (
            "A support vector machine on frozen, standardised rows, in stratified ten-fold "
            "cross-validation, its cost chosen by five-fold search inside each training part; mean "
            "and spread over repetitions of the folds."
        )

    def parts_of_scores(self, config: EvaluateConfig) -> int:
        """Return how many parts `scores` tells of."""
        return max(1, config.splits // FOLDS)

    def labels(self) -> Tensor:
        """Return the class of each graph, -1 for none.

        Raises:
            InputError: If there are fewer than two, or too few members for ten folds.
        """
        if self.y is None:
            raise InputError(f"{self.name}: no graph labels, and evaluation needs them")
        classes, counts = torch.unique(self.y[self.y >= 0], return_counts=True)
        if len(counts) < 2:
            raise InputError(
                f"{self.name}: evaluation needs at least 2 classes, the labels hold {len(counts)}"
            )
        if int(counts.min()) < FOLDS:
            raise InputError(
                f"{self.name}: ten-fold evaluation needs {FOLDS} graphs of every class, "
                f"class {int(classes[counts.argmin()])} has {int(counts.min())}"
            )
        return self.y

    def raw(self) -> Tensor:
        """Return the sum of each graph's node features, what an embedding has to beat."""
        return torch.stack([graph.x.sum(0) for graph in self.data])

    def scores(
        self, x: Tensor, config: EvaluateConfig, tell: Callable[[str], None] = silent
    ) -> dict[str, float]:
        """Score one row per graph by the protocol of the literature."""
        y = self.labels()
        repeats = self.parts_of_scores(config)
        return whole_graph_scores(
            x[y >= 0], y[y >= 0], repeats=repeats, seed=config.seed, tell=tell
        )
