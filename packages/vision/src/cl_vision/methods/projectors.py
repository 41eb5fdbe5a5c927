r"""What a contrastive loss sees of the representation: the projectors of the DirectCLR ablation.

A projector maps representations $r \in \mathbb R^d$ to embeddings $z$. Jing et al. (2022, Sec. 6,
Table 2) take them apart by two questions: is it trained, and is its rank below $d$?

============== ================================= ======= ========
kind           $z$                               trained rank
============== ================================= ======= ========
``none``       $r$                               no      $d$
``orthogonal`` $Q r$, $Q$ a random rotation      no      $d$
``diagonal``   $w \circ r$, $w = 1$ at the start yes     $d$
``linear``     $W r$                             yes     ``dim``
``low_rank``   $P r$, random orthonormal rows    no      ``rank``
``mlp``        $BN(W_2 ReLU(BN(W_1 r)))$         yes     ``dim``
============== ================================= ======= ========

The sixth case of their table, a fixed low-rank *diagonal* matrix, is DirectCLR itself:
:class:`FirstChannels`. Lengths do not matter, because the losses scale rows to unit length, so a
rotation changes nothing.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.networks.heads import build_head

__all__ = [
    "D0_SHARE",
    "FirstChannels",
    "Projector",
    "ProjectorKind",
    "build_projector",
    "default_rank",
]

ProjectorKind = Literal["none", "linear", "orthogonal", "low_rank", "diagonal", "mlp"]

D0_SHARE = 0.176
"""Share of the channels that the loss sees by default: the paper's 360 of 2,048."""


def default_rank(width: int) -> int:
    """Rank of a low-rank projector where none is given: 0.176 of the width, at least 1."""
    return max(1, round(D0_SHARE * width))


class Projector(nn.Module):
    """Maps representations to embeddings; without ``layers`` the embedding is the representation.

    Args:
        in_features: Width of the representation.
        out_features: Width of the embedding.
        layers: What is applied.
    """

    def __init__(
        self, in_features: int, out_features: int, layers: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.layers = nn.Identity() if layers is None else layers

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        z: Tensor = self.layers(r)
        return z


class FirstChannels(Projector):
    """DirectCLR's projector: the first ``d0`` channels, nothing learnt (Jing et al. 2022, Sec. 6).

    Args:
        in_features: Width of the representation.
        d0: Channels kept.

    Raises:
        ValueError: If ``d0`` is not between 1 and ``in_features``.
    """

    def __init__(self, in_features: int, d0: int) -> None:
        if not 1 <= d0 <= in_features:
            raise ValueError(
                f"d0 must lie between 1 and the representation's width {in_features}, got {d0}"
            )
        super().__init__(in_features, d0)

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        return r[:, : self.out_features]


class _Fixed(nn.Module):
    """A linear map that is not trained but saved with the model."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", weight)

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        return nn.functional.linear(r, self.weight)


class _Diagonal(nn.Module):
    """A trained weight a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return r * self.weight


def build_projector(
    kind: ProjectorKind,
    width: int,
    *,
    hidden: int | None = None,
    dim: int = 128,
    rank: int | None = None,
    seed: int = 0,
) -> Projector:
    """Build a projector of the module docstring's table.

    Args:
        kind: See the table.
        width: $d$, of the representation.
        hidden: Width between the layers of ``mlp``; by default ``width``.
        dim: Width of the embedding, of ``linear`` and ``mlp``.
        rank: Rows of ``low_rank``; by default 0.176 of the width.
        seed: Of the fixed matrices. Trained layers draw from torch's global generator, as the
            encoder's do.

    Raises:
        ValueError: If the kind is unknown or a size does not fit.

    Example:
        >>> projector = build_projector("low_rank", 16, rank=4)
        >>> projector(torch.ones(2, 16)).shape, len(list(projector.parameters()))
        (torch.Size([2, 4]), 0)
    """
    if kind not in get_args(ProjectorKind):
        known = ", ".join(get_args(ProjectorKind))
        raise ValueError(f"projector must be one of {known}, got {kind!r}")
    if width < 1 or dim < 1:
        raise ValueError(f"widths must be positive, got {width} -> {dim}")
    if kind == "none":
        return Projector(width, width)
    if kind == "diagonal":
        return Projector(width, width, _Diagonal(width))
    if kind == "linear":
        return Projector(width, dim, nn.Linear(width, dim, bias=False))
    if kind == "mlp":
        return Projector(width, dim, build_head("simclr", width, dim, hidden=hidden))
    rows = width if kind == "orthogonal" else default_rank(width) if rank is None else rank
    if not 1 <= rows <= width:
        raise ValueError(
            f"rank must lie between 1 and the representation's width {width}, got {rows}"
        )
    return Projector(width, rows, _Fixed(_orthonormal_rows(rows, width, seed)))


def _orthonormal_rows(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(width, rows, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    # QR with signs fixed is uniform over all such matrices, and the same in every library.
    rotation: Tensor = (q * r.diagonal().sign()).T
    return rotation.contiguous().float()
