"""What the models of this package say of themselves in ``model.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from cl_core.checks import OptionError, require_positive
from cl_core.runs.card import Card
from cl_graphs.collection import FeatureKind

__all__ = ["GraphCard", "NodeCard"]

_WIDEST = 1_000_000
_MOST_LAYERS = 1000


@dataclass(frozen=True, kw_only=True)
class NodeCard(Card):
    """An encoder of nodes with its projection head.

    Args:
        method: As reports call it.
        in_features: Features of a node.
        hidden: Width of the embedding.
        projection: Width inside the projection head.
        activation: Follows both convolutions.
        temperature: Of the training's contrast; robustness attacks by the same.
        alpha: Step of the training's attack on the structure.
        subgraph_size: Nodes of a step of the training.
        feature_names: What the features are called, where the data said.
        encoder: For an encoder of a user's own its ``module:maker``, or that it was in memory;
            empty for the package's.
    """

    kind: ClassVar[str] = "node encoder"
    made_by: ClassVar[str] = "cl-graphs pretrain"

    method: str
    in_features: int
    hidden: int
    projection: int
    activation: Literal["relu", "prelu", "rrelu"]
    temperature: float
    alpha: float
    subgraph_size: int
    feature_names: tuple[str, ...] = ()
    encoder: str = ""

    def __post_init__(self) -> None:
        require_positive(
            in_features=self.in_features,
            hidden=self.hidden,
            projection=self.projection,
            temperature=self.temperature,
            subgraph_size=self.subgraph_size,
        )
        _require_below(_WIDEST, hidden=self.hidden, projection=self.projection)
        named = len(self.feature_names)
        if named and (named != self.in_features or len(set(self.feature_names)) != named):
            raise OptionError(
                f"feature_names must be {self.in_features} different names, or none, got {named}"
            )


@dataclass(frozen=True, kw_only=True)
class GraphCard(Card):
    """An encoder of whole graphs with its projection head.

    Args:
        method: As reports call it.
        in_features: Features of a node.
        hidden: Width of each layer.
        layers: GIN layers.
        features: What the node features are.
        vocabulary: For one-hot node labels the labels of the columns, a tuple for each column of
            the file.
        encoder: For an encoder of a user's own its ``module:maker``, or that it was in memory;
            empty for the package's. Then ``hidden`` is the width of its output, and ``layers`` 1.
    """

    kind: ClassVar[str] = "graph encoder"
    made_by: ClassVar[str] = "cl-graphs pretrain"

    method: str
    in_features: int
    hidden: int
    layers: int
    features: FeatureKind = "given"
    vocabulary: tuple[tuple[int, ...], ...] = ()
    encoder: str = ""

    def __post_init__(self) -> None:
        require_positive(in_features=self.in_features, hidden=self.hidden, layers=self.layers)
        _require_below(_WIDEST, hidden=self.hidden)
        _require_below(_MOST_LAYERS, layers=self.layers)
        width = sum(map(len, self.vocabulary))
        if self.features == "labels" and width != self.in_features:
            raise OptionError(
                f"vocabulary must hold {self.in_features} node labels, one a feature, got {width}"
            )
        if any(len(set(column)) != len(column) for column in self.vocabulary):
            raise OptionError("vocabulary must hold different node labels in a column")


def _require_below(bound: int, **values: int) -> None:
    for name, value in values.items():
        if value > bound:
            raise OptionError(f"{name} must be at most {bound:,}, got {value:,}")
