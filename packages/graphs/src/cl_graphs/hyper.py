"""Hyper-parameters of ARIEL, node and graph level: plain numbers, standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cl_core.checks import require_at_least, require_positive, require_rate
from cl_core.commands.options import Options

__all__ = ["ArielHyper", "GraphArielHyper"]


@dataclass(frozen=True, kw_only=True)
class ArielHyper(Options):
    """Hyper-parameters of node-level ARIEL; the defaults suit an unknown graph.

    Args:
        hidden: Width of the embedding; the first layer is twice as wide.
        projection: Width inside the projection head.
        activation: Follows both convolutions.
        drop_edge_1: Share of directed edges dropped in view 1.
        drop_edge_2: Share of directed edges dropped in view 2.
        drop_feature_1: Share of feature columns zeroed in view 1.
        drop_feature_2: Share of feature columns zeroed in view 2.
        undirected_drop: Drop both directions of an edge together.
        temperature: Temperature of the contrast; smaller means harder negatives.
        epsilon: Weight of the adversarial term; 0 is GRACE and runs no attack.
        epsilon_gamma: Curriculum: epsilon is multiplied by this every `epsilon_every` steps.
        epsilon_every: Steps between two such multiplications.
        information_weight: Weight of the information regulariser; 0 skips the clean view.
        information_detach: Let the regulariser push only on the agreement of views 1 and 2.
        alpha: Step of the attack on the structure; 0 leaves the edges alone.
        beta: Step of the attack on the features; 0 leaves them alone.
        attack_steps: Steps of the attack.
        attack_budget: Edges the attack may flip, as a share of the edges there are.
        attack_candidates: Random pairs that the attack may join, besides the edges it may cut; by
            default every pair, or 16,384 if the encoder is your own.
        feature_radius: Largest change of one feature value.
        learning_rate: Of Adam.
        weight_decay: Of Adam, on all parameters.
    """

    hidden: int = 256
    projection: int = 256
    activation: Literal["relu", "prelu", "rrelu"] = "prelu"
    drop_edge_1: float = 0.3
    drop_edge_2: float = 0.4
    drop_feature_1: float = 0.1
    drop_feature_2: float = 0.0
    undirected_drop: bool = False
    temperature: float = 0.4
    epsilon: float = 0.5
    epsilon_gamma: float = 1.0
    epsilon_every: int = 20
    information_weight: float = 0.0
    information_detach: bool = True
    alpha: float = 50.0
    beta: float = 0.001
    attack_steps: int = 5
    attack_budget: float = 0.2
    attack_candidates: int | None = None
    feature_radius: float = 0.04
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5

    def __post_init__(self) -> None:
        require_positive(
            hidden=self.hidden,
            projection=self.projection,
            temperature=self.temperature,
            epsilon_gamma=self.epsilon_gamma,
            epsilon_every=self.epsilon_every,
            attack_steps=self.attack_steps,
            learning_rate=self.learning_rate,
        )
        require_at_least(
            0,
            epsilon=self.epsilon,
            information_weight=self.information_weight,
            alpha=self.alpha,
            beta=self.beta,
            attack_budget=self.attack_budget,
            attack_candidates=self.attack_candidates or 0,
            feature_radius=self.feature_radius,
            weight_decay=self.weight_decay,
        )
        require_rate(
            drop_edge_1=self.drop_edge_1,
            drop_edge_2=self.drop_edge_2,
            drop_feature_1=self.drop_feature_1,
            drop_feature_2=self.drop_feature_2,
        )


@dataclass(frozen=True, kw_only=True)
class GraphArielHyper(Options):
    """Hyper-parameters of graph-level ARIEL (whole graphs, e.g. molecules).

    Args:
        hidden: Width of each GIN layer; the embedding is `layers` times as wide.
        layers: GIN layers.
        temperature: Temperature of the contrast.
        epsilon: Weight of the adversarial term; 0 is GraphCL and runs no attack.
        alpha: Step of the attack on the structure; 0 leaves the edges alone.
        beta: Step of the attack on the features; 0 leaves them alone.
        attack_steps: Steps of the attack.
        attack_budget: Edges the attack may flip, as a share of the edges there are.
        attack_candidates: Random pairs inside graphs that the attack may join, if the encoder is
            your own; by default 16,384. The package's encoder sees every pair.
        feature_radius: Largest change of one feature value.
        augmentation: What makes view 2; `random4` draws one of the other four per graph.
        learning_rate: Of Adam.
        weight_decay: Of Adam, on all parameters.
    """

    hidden: int = 32
    layers: int = 3
    temperature: float = 0.2
    epsilon: float = 1.5
    alpha: float = 200.0
    beta: float = 0.001
    attack_steps: int = 5
    attack_budget: float = 0.1
    attack_candidates: int | None = None
    feature_radius: float = 0.04
    augmentation: Literal["random4", "drop_nodes", "drop_edges", "subgraph", "mask"] = "random4"
    learning_rate: float = 0.01
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_positive(
            hidden=self.hidden,
            layers=self.layers,
            temperature=self.temperature,
            attack_steps=self.attack_steps,
            learning_rate=self.learning_rate,
        )
        require_at_least(
            0,
            epsilon=self.epsilon,
            alpha=self.alpha,
            beta=self.beta,
            attack_budget=self.attack_budget,
            attack_candidates=self.attack_candidates or 0,
            feature_radius=self.feature_radius,
            weight_decay=self.weight_decay,
        )
