r"""Anatomical priors: masks compared by the code of an auto-encoder (arXiv 2207.13502).

One trunk is shared by the domains; each has convolutions of its own for the $C_k$ channels that go
in and out, and batch norms of its own. It learns to give back true one-hot masks; then it stays as
it is, and with $E$ its encoder and $d$ the values of a code,

$$L_{prior} = \frac{1}{n} \sum_i \frac{1}{d} \lVert E(\mathrm{softmax}(L_i)) - E(o_i) \rVert^2.$$

The gradient reaches the logits $L_i$ alone. The follow-up's own details could not be read; the
layers here are a choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_medical.segmentation.data import Batch
from cl_medical.segmentation.domain_norm import convert_batch_norm, use_domain
from cl_medical.segmentation.losses import IGNORE, cross_entropy, dice_loss, mean_over_domains
from cl_medical.segmentation.rows import rows_of

__all__ = ["MaskPrior", "PriorTraining", "one_hot"]


def one_hot(labels: Int64[Tensor, "n ..."], classes: int) -> Float[Tensor, "n k ..."]:
    """Labels as probabilities; unknown voxels are background."""
    known = labels.where(labels != IGNORE, 0)
    return F.one_hot(known, classes).movedim(-1, 1).float()


class MaskPrior(nn.Module):
    """An auto-encoder of masks.

    Args:
        classes: Number of classes of each domain by its name, in the order of their numbers.
        filters: Channels of the levels; each halves the sizes.
        spatial_dims: 2 or 3.
    """

    def __init__(
        self, classes: Mapping[str, int], filters: Sequence[int], spatial_dims: int
    ) -> None:
        super().__init__()
        convolution: Any = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        transposed: Any = nn.ConvTranspose2d if spatial_dims == 2 else nn.ConvTranspose3d
        norm: Any = nn.BatchNorm2d if spatial_dims == 2 else nn.BatchNorm3d
        self.domains = tuple(classes)
        self.multiple = 2 ** len(filters)
        self.inputs = nn.ModuleList(convolution(k, filters[0], 1) for k in classes.values())
        self.outputs = nn.ModuleList(convolution(filters[0], k, 1) for k in classes.values())
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        widths = [filters[0], *filters]
        for before, after in itertools.pairwise(widths):
            down += [convolution(before, after, 3, stride=2, padding=1), norm(after), nn.ReLU()]
            up = [transposed(after, before, 2, stride=2), norm(before), nn.ReLU(), *up]
        self.down = nn.Sequential(*down)
        self.up = nn.Sequential(*up)
        convert_batch_norm(self, self.domains)

    def encode(self, masks: Float[Tensor, "n k ..."], domain: int) -> Float[Tensor, "n c ..."]:
        """The code of one domain's masks, one-hot or probabilities."""
        with use_domain(self, domain):
            return cast(Tensor, self.down(self.inputs[domain](self._filled(masks))))

    def forward(self, masks: Float[Tensor, "n k ..."], domain: int) -> Float[Tensor, "n k ..."]:
        """Logits of the masks given back."""
        sizes = masks.shape[2:]
        with use_domain(self, domain):
            x = self.up(self.down(self.inputs[domain](self._filled(masks))))
        logits = self.outputs[domain](x)
        return cast(Tensor, logits[(..., *(slice(n) for n in sizes))])

    def penalty(
        self, logits: Mapping[int, Tensor], labels: Mapping[int, Tensor]
    ) -> Float[Tensor, ""]:
        """Mean squared distance of the codes of predictions and truth, over all samples."""
        terms = []
        for k, own in logits.items():
            with torch.no_grad():
                wanted = self.encode(one_hot(labels[k], own.shape[1]).to(own.device), k)
            code = self.encode(own.float().softmax(1), k)
            terms.append((code - wanted).square().flatten(1).mean(1))
        return torch.cat(terms).mean()

    def _filled(self, masks: Tensor) -> Tensor:
        """Fill up with background at the far ends until the levels can halve."""
        margins: list[int] = []
        for n in reversed(masks.shape[2:]):
            margins += [0, -n % self.multiple]
        if not any(margins):
            return masks
        filled = F.pad(masks, margins)
        missing = 1 - F.pad(torch.ones_like(masks[:, :1]), margins)
        return torch.cat([filled[:, :1] + missing, filled[:, 1:]], 1)

    def freeze(self) -> MaskPrior:
        """Stay as it is: eval mode, no gradient of its own."""
        self.eval()
        return self.requires_grad_(False)


class PriorTraining(L.LightningModule):
    """Train an auto-encoder to give back true masks, by cross-entropy and Dice.

    Args:
        prior: The auto-encoder.
        learning_rate: Of AdamW.
    """

    def __init__(self, prior: MaskPrior, learning_rate: float) -> None:
        super().__init__()
        self.prior = prior
        self.learning_rate = learning_rate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        rows = rows_of(batch.domain, self.prior.domains)
        terms = {}
        for k, labels in rows.split(batch.label):
            output = cast(nn.Conv2d, self.prior.outputs[k])
            logits = self.prior(one_hot(labels, output.out_channels), k)
            terms[k] = cross_entropy(logits, labels) + dice_loss(logits, labels)
        return mean_over_domains(terms)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.prior.parameters(), lr=self.learning_rate)
