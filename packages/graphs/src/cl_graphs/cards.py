"""What the models of this package say of themselves in ``model.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from cl_core.checks import OptionError, require_positive
from cl_core.runs.card import Card

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

    def __post_init__(self) -> None:
        require_positive(
            in_features=self.in_features,
            hidden=self.hidden,
            projection=self.projection,
            temperature=self.temperature,
            subgraph_size=self.subgraph_size,
        )
        _require_below(_WIDEST, hidden=self.hidden, projection=self.projection)


@dataclass(frozen=True, kw_only=True)
class GraphCard(Card):
    """An encoder of whole graphs with its projection head.

    Args:
        method: As reports call it.
        in_features: Features of a node.
        hidden: Width of each layer.
        layers: GIN layers.
    """

    kind: ClassVar[str] = "graph encoder"
    made_by: ClassVar[str] = "cl-graphs pretrain"

    method: str
    in_features: int
    hidden: int
    layers: int

    def __post_init__(self) -> None:
        require_positive(in_features=self.in_features, hidden=self.hidden, layers=self.layers)
        _require_below(_WIDEST, hidden=self.hidden)
        _require_below(_MOST_LAYERS, layers=self.layers)


def _require_below(bound: int, **values: int) -> None:
    for name, value in values.items():
        if value > bound:
            raise OptionError(f"{name} must be at most {bound:,}, got {value:,}")
