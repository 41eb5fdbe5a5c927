r"""DirectCLR: contrastive learning on the first channels of the representation, no projector.

Jing, Vincent, LeCun, Tian: "Understanding Dimensional Collapse in Contrastive Self-Supervised
Learning", ICLR 2022 (arXiv 2110.09348), Sec. 6. The loss sees $r_{1:d_0}$ alone. It has no gradient
beyond $d_0$, so the last residual branch never learns those channels; what they carry reaches them
through the identity path of the last residual block, which the loss does shape. Downstream all $d$
channels are used.
"""

from __future__ import annotations

import operator
import warnings

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from cl_core.trunks import is_resnet
from cl_vision.hyper import DirectCLRHyper
from cl_vision.optimisation import OptimizerHyper
from cl_vision.projectors import FirstChannels, default_rank
from cl_vision.simclr import Negatives, TwoViewModule, two_view_loss

__all__ = ["DirectCLR", "advice", "directclr_loss", "ends_in_residual_block"]

FEW = 16
"""Channels below which a slice is often all zero after a ReLU."""


def directclr_loss(
    r1: Float[Tensor, "n d"],
    r2: Float[Tensor, "n d"],
    *,
    d0: int,
    temperature: float = 0.1,
    negatives: Negatives = "cross",
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""Contrast the first ``d0`` channels of two views (Jing et al. 2022, Sec. 6).

    With $u = r_{1:d_0} / \lVert r_{1:d_0} \rVert$ (scaled *after* slicing) and
    $S = u_1 u_2^\top / \tau$,

    $$L = \frac1{2n} \sum_i \Bigl[ \log \sum_j e^{S_{ij}} + \log \sum_j e^{S_{ji}} - 2 S_{ii}
      \Bigr].$$

    These are the negatives of the released code, the other view's only. The paper speaks of
    SimCLR's loss, which is ``negatives="all"``.

    Args:
        r1: Representations of view 1; row ``i`` pairs with row ``i`` of ``r2``.
        r2: Representations of view 2.
        d0: Channels that the loss sees; the gradient with respect to all others is exactly 0.
        temperature: $\tau > 0$.
        negatives: ``cross`` or ``all``.
        gather: Contrast against the rows of all ranks, with the gradient of the joint batch.

    Returns:
        Mean over anchors and directions, in nats, in float32 or wider.

    Raises:
        ValueError: If ``d0`` is not between 1 and ``d``, the shapes differ, there is no negative,
            or an option is out of range.

    Example:
        >>> r = torch.cat([torch.eye(3), torch.ones(3, 5)], dim=1)
        >>> round(directclr_loss(r, r, d0=3, temperature=1.0).item(), 4)
        0.5514
    """
    width = r1.shape[1]
    if not 1 <= d0 <= width:
        raise ValueError(f"d0 must lie between 1 and the representation's width {width}, got {d0}")
    return two_view_loss(
        r1[:, :d0], r2[:, :d0], temperature=temperature, negatives=negatives, gather=gather
    )


class DirectCLR(TwoViewModule):
    """Train ``encoder`` without labels and without a projector.

    Args:
        encoder: Maps images to representations; it should end in a residual block.
            ``encoder.out_features`` is their width ``d``.
        hyper: Hyper-parameters.
        optimizer: Optimiser and schedule.
        seed: Unused: nothing here is random.

    Attributes:
        d0: Channels that the loss sees.
        notes: What speaks against ``d0`` or the encoder, as :func:`advice`; also warned of.

    Raises:
        ValueError: If ``hyper.d0`` is larger than the encoder's width.
    """

    def __init__(
        self,
        encoder: nn.Module,
        hyper: DirectCLRHyper,
        *,
        optimizer: OptimizerHyper,
        seed: int = 0,
    ) -> None:
        width = int(encoder.out_features)  # type: ignore[arg-type]
        d0 = default_rank(width) if hyper.d0 is None else hyper.d0
        super().__init__(
            encoder,
            FirstChannels(width, d0),
            temperature=hyper.temperature,
            negatives=hyper.negatives,
            optimizer=optimizer,
        )
        self.hyper = hyper
        self.d0 = d0
        self.notes = advice(encoder, d0, width)
        for note in self.notes:
            warnings.warn(note, stacklevel=2)


def advice(encoder: nn.Module, d0: int, width: int) -> tuple[str, ...]:
    """What speaks against training this encoder on its first ``d0`` of ``width`` channels.

    Returns:
        A sentence each; nothing if all is well, or if the encoder cannot be looked into.
    """
    notes = []
    if 2 * d0 > width:
        notes.append(
            f"d0 {d0} is more than half of the {width} channels: few are left to the residual path"
        )
    if d0 < FEW:
        notes.append(
            f"d0 {d0} is below {FEW}: the slice of an image may be all zero, and is then not learnt"
        )
    if ends_in_residual_block(encoder) is False:
        notes.append(
            f"the encoder does not end in a residual block: its channels from {d0} on stay a "
            "random map of the layer below"
        )
    return tuple(notes)


def ends_in_residual_block(encoder: nn.Module) -> bool | None:
    """Whether the last thing before pooling is the sum of a block's branch and its shortcut.

    The encoder's trunk is traced and followed back from its output: whichever comes first, a sum
    or a layer that mixes channels, decides.

    Returns:
        None if the encoder cannot be traced.
    """
    trunk = encoder.trunk if isinstance(getattr(encoder, "trunk", None), nn.Module) else encoder
    assert isinstance(trunk, nn.Module)
    if is_resnet(trunk):
        return True
    try:
        graph = fx.Tracer().trace(trunk)
    except Exception:  # whatever a foreign forward may raise on a proxy
        return None
    modules = dict(trunk.named_modules())
    node: fx.Node | None = next(n for n in graph.nodes if n.op == "output")
    while node is not None:
        if node.target in (operator.add, operator.iadd, torch.add, "add", "add_"):
            return len(node.all_input_nodes) > 1
        if node.op == "call_module" and _mixes_channels(modules[str(node.target)]):
            return False
        node = next(iter(node.all_input_nodes), None)
    return None


def _mixes_channels(layer: nn.Module) -> bool:
    return any(p.ndim > 1 for p in layer.parameters())
