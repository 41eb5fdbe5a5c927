r"""CLAWS: contrast of masked views, with weak labels deciding what is pulled together.

Herrera-Gerena, Sundareswaran, Just, Darr, Jannesari: "CLAWS: Contrastive Learning with hard
Attention and Weak Supervision", arXiv 2112.00847. The paper says that a hard attention mask goes
into the cropped input before the agreement of two views is maximised, and that weak labels serve to
study contrast within class clusters. Its equations, network and settings are not known here; the
modes below are this project's reading.

Of $2n$ rows, the two views of $n$ images with weak labels $w$ (-1: not known), let *own* be the
other view of the same image and *same* the other rows of the same known label. With
$s_{ik} = z_i^\top z_k / \tau$ between unit-length rows,

$$L = \operatorname{mean}_i \; -\frac{1}{|P(i)|} \sum_{p \in P(i)}
  \Bigl[ s_{ip} - \log \sum_{a \in A(i)} e^{s_{ia}} \Bigr],$$

===================== ============ ============================ =================================
mode                  $P(i)$       $A(i)$                       use
===================== ============ ============================ =================================
``class_all``         own + same   all other rows               supervised SimCLR; with masks CLAWS
``instance``          own          all other rows               SimCLR: no label is used
``no_false_neg``      own          all others without same      labels only spare false negatives
``within_class``      own          own + same                   spreads each class: sub-groups
``class_pair``        own          all other rows               view 2 is another image of the class
===================== ============ ============================ =================================

Rows without a partner or without a contrast do not count. A row without a label is a negative of
everything but its own other view.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from cl_agriculture.hyper import ClawsHyper
from cl_core.images import Sample
from cl_core.losses import sup_con
from cl_core.networks.heads import build_head
from cl_core.optim import cosine_with_warmup

__all__ = ["CLAWS", "Contrast", "Optimization", "claws_loss", "cosines"]

Contrast = Literal["class_all", "instance", "no_false_neg", "within_class", "class_pair"]


class _Terms(NamedTuple):
    """The sets $P$ and $A$ of a mode, as core's contrast names them."""

    positives: Literal["class", "own"]
    denominator: Literal["all", "own_class", "no_false_negatives"]


_TERMS: dict[str, _Terms] = {
    "class_all": _Terms("class", "all"),
    "instance": _Terms("own", "all"),
    "no_false_neg": _Terms("own", "no_false_negatives"),
    "within_class": _Terms("own", "own_class"),
    "class_pair": _Terms("own", "all"),
}


def claws_loss(
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    weak: Int[Tensor, " n"],
    *,
    contrast: Contrast = "class_all",
    temperature: float = 0.1,
    spare_class: bool = False,
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""The contrast of CLAWS in one of its five modes; see the table of the module.

    Args:
        z1: Embeddings of view 1, any length; row ``i`` pairs with row ``i`` of ``z2``.
        z2: Embeddings of view 2; for ``class_pair`` of another image of the same weak label.
        weak: Weak label of each image, -1 for none.
        contrast: The mode.
        temperature: $\tau > 0$.
        spare_class: Let ``class_pair`` leave rows of the same label out of the denominator.
        gather: Contrast against the rows of all ranks, with the gradient of the joint batch.

    Returns:
        Mean over the rows that count, in nats, in float32 or wider; 0 with a zero gradient if none
        does. Nothing is detached.

    Raises:
        ValueError: If the mode is unknown, the shapes differ, or the temperature is not positive.

    Example:
        >>> z = torch.eye(3)
        >>> round(claws_loss(z, z, torch.tensor([0, 0, -1]), temperature=1.0).item(), 4)
        1.3493
    """
    if contrast not in _TERMS:
        raise ValueError(f"contrast must be one of {', '.join(_TERMS)}, got {contrast!r}")
    if z1.shape != z2.shape or len(weak) != len(z1):
        raise ValueError(
            f"need two views and a label an image, got {tuple(z1.shape)}, {tuple(z2.shape)} and "
            f"{len(weak)} labels"
        )
    positives, denominator = _TERMS[contrast]
    if contrast == "class_pair" and spare_class:
        denominator = "no_false_negatives"
    return sup_con(
        torch.stack([z1, z2], dim=1),
        weak,
        temperature,
        positives=positives,
        denominator=denominator,
        gather=gather,
    )


class Optimization(NamedTuple):
    """SGD and its schedule.

    Attributes:
        learning_rate: The highest one, and the one used.
        weight_decay: Of all parameters.
        momentum: Of SGD.
        warmup: Share of the steps in which the rate rises from 0; it then falls along a cosine.
    """

    learning_rate: float
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup: float = 0.1


class CLAWS(L.LightningModule):
    """Train ``encoder`` on two views of each image; evaluation uses its output, not the head's.

    A batch is a :class:`~cl_core.images.Sample` of two views. Both go through the network in one
    pass, so that batch norm sees them together.

    Args:
        encoder: Maps images to representations; ``encoder.out_features`` is their width.
        hyper: Temperature, width of the embedding, weight of the second term.
        contrast: Which rows are pulled together and pushed apart.
        temperature: Of the contrast.
        optimization: Optimiser and schedule.
    """

    def __init__(
        self,
        encoder: nn.Module,
        hyper: ClawsHyper,
        *,
        contrast: Contrast,
        temperature: float,
        optimization: Optimization,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        width = int(encoder.out_features)  # type: ignore[arg-type]
        self.head = build_head("mlp", width, hyper.dim, batch_norm=True)
        self.hyper = hyper
        self.contrast: Contrast = contrast
        self.temperature = temperature
        self.optimization = optimization

    def training_step(self, batch: Sample, batch_idx: int) -> dict[str, Tensor]:
        h = self.encoder(torch.cat(list(batch.views)))
        z1, z2 = self.head(h).chunk(2)
        weak = torch.as_tensor(batch.label)
        options: dict[str, Any] = {"temperature": self.temperature, "gather": True}
        spare = self.hyper.spare_class
        loss = claws_loss(z1, z2, weak, contrast=self.contrast, spare_class=spare, **options)
        if self.hyper.within:
            within = claws_loss(z1, z2, weak, contrast="within_class", **options)
            self.log("train/within_class", within, batch_size=len(weak))
            loss = loss + self.hyper.within * within
        own, others = cosines(z1.detach(), z2.detach())
        self.log("train/loss", loss, batch_size=len(weak), prog_bar=True)
        self.log("train/positive_similarity", own, batch_size=len(weak))
        self.log("train/other_similarity", others, batch_size=len(weak))
        return {"loss": loss, "embedding": h.detach()}

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1 and self.trainer.strategy.root_device.type == "cuda":
            for name in ("encoder", "head"):
                part = nn.SyncBatchNorm.convert_sync_batchnorm(getattr(self, name))  # type: ignore[no-untyped-call]
                setattr(self, name, part)

    def configure_optimizers(self) -> Any:
        rate, decay, momentum, warmup = self.optimization
        optimizer = torch.optim.SGD(
            self.parameters(), lr=rate, momentum=momentum, weight_decay=decay
        )
        total = int(self.trainer.estimated_stepping_batches)
        steps = min(round(warmup * total), total - 1)
        schedule = cosine_with_warmup(optimizer, warmup_steps=steps, total_steps=total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def cosines(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean cosine of the two views of an image, and of the views of different images.

    Near 1 in the second means that all images have become one point.
    """
    a, b = (F.normalize(z.float(), dim=1) for z in (z1, z2))
    n = len(a)
    own = (a * b).sum(1).mean()
    # The sum over all pairs is the product of the sums.
    others = (a.sum(0) @ b.sum(0) - n * own) / max(n * (n - 1), 1)
    return own, others
