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
from torch import fx, nn

from cl_core.networks.own import representation_width
from cl_core.networks.trunks import is_resnet
from cl_vision.cards import ProjectorCard
from cl_vision.hyper import DirectCLRHyper
from cl_vision.methods.contrast import directclr_loss
from cl_vision.methods.optimisation import OptimizerHyper
from cl_vision.methods.projectors import FirstChannels, default_rank
from cl_vision.methods.simclr import TwoViewModule

__all__ = ["DirectCLR", "advice", "directclr_loss", "ends_in_residual_block", "projector_card"]

FEW = 16
"""Channels below which a slice is often all zero after a ReLU."""


class DirectCLR(TwoViewModule):
    """Train ``encoder`` without labels and without a projector.

    Args:
        encoder: Maps images to representations; it should end in a residual block;
            their width is ``d``.
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
        width = representation_width(encoder)
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


def projector_card(module: DirectCLR) -> ProjectorCard:
    """How to rebuild a module's projector."""
    width = representation_width(module.encoder)
    return ProjectorCard(kind="first_channels", width=width, d0=module.d0)


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
