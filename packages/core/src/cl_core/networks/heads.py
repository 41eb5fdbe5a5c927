"""Projection heads: what a contrastive loss sees instead of the representation."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Head", "HeadKind", "build_head"]

HeadKind = Literal["none", "linear", "mlp", "simclr", "moco", "supcon"]


class Head(nn.Module):
    """Layers from representations ``(n, in_features)`` to embeddings ``(n, out_features)``.

    Attributes:
        layers: What is applied in turn.
        in_features: Width of the representation.
        out_features: Width of the embedding.
    """

    def __init__(self, *layers: nn.Module, in_features: int, out_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        embeddings: Tensor = self.layers(representations)
        return embeddings


def build_head(
    kind: HeadKind,
    in_features: int,
    out_features: int = 128,
    *,
    hidden: int | None = None,
    layers: int = 2,
    batch_norm: bool = False,
    last_batch_norm: bool = False,
    bias: bool = True,
) -> Head:
    """Build a projection head.

    =========== =====================================================================
    kind        layers
    =========== =====================================================================
    ``none``    nothing: the embedding is the representation
    ``linear``  Linear
    ``mlp``     Linear, [BN,] ReLU, ..., Linear [, BN], as the options say
    ``moco``    Linear, ReLU, Linear (MoCo v2, Chen et al. 2020b; HCSC, Guo et al. 2022)
    ``supcon``  the same (Khosla et al. 2020; SuperCon, Chen et al. 2022)
    ``simclr``  Linear, BN, ReLU, Linear, BN without biases (Chen et al. 2020a, official
                code; Jing et al. 2022)
    =========== =====================================================================

    The last three are names for settings of ``mlp`` and take its other options. Embeddings are
    not scaled to unit length: the losses do that. Initialisation is torch's, as in the papers'
    PyTorch code.

    Args:
        kind: See the table.
        in_features: Width of the representation.
        out_features: Width of the embedding; for ``none`` it is ``in_features``.
        hidden: Width between; by default ``in_features``, as in the papers.
        layers: Number of linear layers of an MLP, at least 2.
        batch_norm: Whether batch norm follows every linear layer but the last.
        last_batch_norm: Whether batch norm follows the last one.
        bias: Whether linear layers have biases. One before a batch norm never has: the norm's own
            shift would cancel it.

    Raises:
        ValueError: If the kind is unknown or a size is not positive.
    """
    if kind not in get_args(HeadKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(HeadKind))}, got {kind!r}")
    hidden = in_features if hidden is None else hidden
    if min(in_features, out_features, hidden) < 1:
        raise ValueError(
            f"widths must be positive, got {in_features} -> {hidden} -> {out_features}"
        )
    if kind == "none":
        return Head(in_features=in_features, out_features=in_features)
    if kind == "linear":
        layers = 1
    elif layers < 2:
        raise ValueError(f"an mlp has at least 2 layers, got {layers}: use kind='linear'")
    if kind == "simclr":
        batch_norm = last_batch_norm = True
        bias = False
    widths = [in_features, *[hidden] * (layers - 1), out_features]
    modules: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths), start=1):
        last = i == layers
        norm = last_batch_norm if last else batch_norm
        modules.append(nn.Linear(before, after, bias=bias and not norm))
        if norm:
            modules.append(nn.BatchNorm1d(after))
        if not last:
            modules.append(nn.ReLU(inplace=True))
    return Head(*modules, in_features=in_features, out_features=out_features)
