"""Hyper-parameters of the four methods: plain numbers, standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cl_core.checks import OptionError, require_positive
from cl_core.commands.options import Options

__all__ = [
    "DirectCLRHyper",
    "HCSCHyper",
    "MoCoHyper",
    "OptimizerHyper",
    "OptionError",
    "SimCLRHyper",
    "Switches",
]


@dataclass(frozen=True, kw_only=True)
class OptimizerHyper(Options):
    """Optimiser and schedule of a training.

    Args:
        optimizer: `sgd` with momentum, `lars` for very large batches, `adam` or `adamw`.
        learning_rate: The highest one; the one used, not scaled by the batch size.
        weight_decay: Of all parameters; `lars` spares those of one dimension.
        momentum: Of `sgd` and `lars`.
        warmup_epochs: Epochs, or a part of one, in which the learning rate rises from 0.
        final_factor: Learning rate at the end over the highest one.
        schedule: The cosine falls with every `step`, or with every `epoch`.
    """

    optimizer: Literal["sgd", "lars", "adam", "adamw"] = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 1e-4
    momentum: float = 0.9
    warmup_epochs: float = 0.0
    final_factor: float = 0.0
    schedule: Literal["step", "epoch"] = "step"

    def __post_init__(self) -> None:
        require_positive(learning_rate=self.learning_rate)
        if not self.weight_decay >= 0:
            raise OptionError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0 <= self.momentum < 1:
            raise OptionError(f"momentum must lie in [0, 1), got {self.momentum}")
        if not self.warmup_epochs >= 0:
            raise OptionError(f"warmup_epochs must be at least 0, got {self.warmup_epochs}")
        if not 0 <= self.final_factor <= 1:
            raise OptionError(f"final_factor must lie in [0, 1], got {self.final_factor}")
        if self.schedule == "epoch" and self.warmup_epochs:
            raise OptionError(
                "warmup_epochs raises the learning rate with every step: "
                "give schedule step, or warmup_epochs 0"
            )


@dataclass(frozen=True, kw_only=True)
class SimCLRHyper(Options):
    """Hyper-parameters of SimCLR, with every projector of the DirectCLR ablation.

    Args:
        temperature: Temperature of the contrast; smaller means harder negatives.
        projector: What the loss sees of the representation: `none`, a trained `linear` map, a
            fixed `orthogonal` one, a fixed `low_rank` one, a trained `diagonal` one, or a two-layer
            `mlp`.
        hidden: Width inside `mlp`.
        dim: Width of the embedding, for `linear` and `mlp`.
        rank: Rows of `low_rank`; by default 0.176 of the representation's width.
        negatives: `all` other images of the batch in both views, or those of the other view only
            (`cross`).
    """

    temperature: float = 0.1
    projector: Literal["none", "linear", "orthogonal", "low_rank", "diagonal", "mlp"] = "mlp"
    hidden: int = 2048
    dim: int = 128
    rank: int | None = None
    negatives: Literal["all", "cross"] = "all"

    def __post_init__(self) -> None:
        require_positive(
            temperature=self.temperature, hidden=self.hidden, dim=self.dim, rank=self.rank
        )


@dataclass(frozen=True, kw_only=True)
class DirectCLRHyper(Options):
    """Hyper-parameters of DirectCLR.

    Args:
        d0: Leading channels of the representation that the loss sees; by default 0.176 of them, as
            360 of ResNet-50's 2,048.
        temperature: Temperature of the contrast.
        negatives: The other images of the other view (`cross`, the released code), or of both views
            (`all`, NT-Xent).
    """

    d0: int | None = None
    temperature: float = 0.1
    negatives: Literal["cross", "all"] = "cross"

    def __post_init__(self) -> None:
        require_positive(d0=self.d0, temperature=self.temperature)


@dataclass(frozen=True, kw_only=True)
class MoCoHyper(Options):
    """Hyper-parameters of MoCo v2.

    Args:
        temperature: Temperature of the contrast.
        dim: Width of the embedding.
        queue: Keys kept as negatives; at least one batch.
        momentum: Share of the old key encoder kept at each step.
        batch_norm: How the key encoder's batch statistics are kept apart from the query's on
            several devices: keys `shuffle`d between devices, `sync`hronised, or `local`.
        mask_own_keys: Leave a query's own old keys out of its negatives; for small data.
        projector_norm: Batch normalisation in the projector; for small data.
    """

    temperature: float = 0.2
    dim: int = 128
    queue: int = 65536
    momentum: float = 0.999
    batch_norm: Literal["shuffle", "sync", "local"] = "shuffle"
    mask_own_keys: bool = False
    projector_norm: bool = False

    def __post_init__(self) -> None:
        require_positive(temperature=self.temperature, dim=self.dim, queue=self.queue)
        if not 0 <= self.momentum < 1:
            raise OptionError(f"momentum must lie in [0, 1), got {self.momentum}")


class Switches(NamedTuple):
    """The three places where HCSC's released code departs from its paper."""

    masking: Literal["exclude", "multiply"]
    proto_negatives: Literal["per_query", "official"]
    level_reduction: Literal["mean", "sum"]


_SWITCHES = {
    "paper": Switches("exclude", "per_query", "mean"),
    "official": Switches("multiply", "official", "sum"),
}


@dataclass(frozen=True, kw_only=True)
class HCSCHyper(MoCoHyper):
    """Hyper-parameters of HCSC: MoCo v2 with hierarchical prototypes and selected negatives.

    Args:
        queue: Keys kept as negatives; at least one batch.
        clusters: Prototypes of each level from fine to coarse, such as `[3000, 2000, 1000]`; by
            default chosen from the number of images.
        warmup_epochs: Epochs of plain MoCo before the first clustering; by default a tenth of all.
        instance_selection: Drop negatives that probably share the query's cluster.
        prototype_selection: Drop prototypes that probably share the query's parent.
        multi_crop: Add four small crops of each image as further queries.
        selection_on_local: Select the negatives of the small crops too.
        compat: `paper`, or `official` for what the released code does in the next three.
        masking: A dropped negative is left out (`exclude`), or keeps a logit of 0 (`multiply`).
        proto_negatives: All prototypes but a query's own (`per_query`), or the `official` set,
            which leaves out those of the whole batch.
        level_reduction: `mean` over the levels, or `sum` of the instance terms.
        kmeans_iterations: Lloyd passes of each clustering.
        kmeans_restarts: Clusterings of which the best is kept.
    """

    queue: int = 16384
    clusters: tuple[int, ...] = ()
    warmup_epochs: int | None = None
    instance_selection: bool = True
    prototype_selection: bool = True
    multi_crop: bool = False
    selection_on_local: bool = True
    compat: Literal["paper", "official"] = "paper"
    masking: Literal["exclude", "multiply"] | None = None
    proto_negatives: Literal["per_query", "official"] | None = None
    level_reduction: Literal["mean", "sum"] | None = None
    kmeans_iterations: int = 20
    kmeans_restarts: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters and min(self.clusters) < 2:
            raise OptionError(f"clusters must be at least 2 on every level, got {self.clusters}")
        if any(
            upper < lower for upper, lower in zip(self.clusters, self.clusters[1:], strict=False)
        ):
            raise OptionError(
                "clusters must fall from level to level (fine to coarse, as [3000, 2000, 1000]), "
                f"got {list(self.clusters)}"
            )
        if self.warmup_epochs is not None and self.warmup_epochs < 0:
            raise OptionError(f"warmup_epochs must be at least 0, got {self.warmup_epochs}")
        require_positive(
            kmeans_iterations=self.kmeans_iterations, kmeans_restarts=self.kmeans_restarts
        )

    @property
    def switches(self) -> Switches:
        """The three switches: each as it was given, else as ``compat`` sets it."""
        preset = _SWITCHES[self.compat]
        return Switches(
            self.masking or preset.masking,
            self.proto_negatives or preset.proto_negatives,
            self.level_reduction or preset.level_reduction,
        )
