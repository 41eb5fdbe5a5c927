r"""The training step of all modes (Boutillon et al. 2021, arXiv 2105.10310).

With $K$ the domains of a batch,

$$L = \frac{1}{|K|} \sum_{k \in K} (L_{CE,k} + L_{Dice,k}) + \lambda L_{con}
  + \mu L_{prior}.$$

A mode is which batch norms the network has and whether $\lambda$ is 0; the step is one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from cl_core.distributed import world_size
from cl_core.optim import parameter_groups
from cl_medical.segmentation.contrast import (
    alignment_and_separation,
    multi_level_contrast,
    pooled,
)
from cl_medical.segmentation.data import Batch, Source
from cl_medical.segmentation.hyper import ContrastHyper, LossHyper
from cl_medical.segmentation.inference import Inference, segment_grid
from cl_medical.segmentation.losses import (
    cross_entropy,
    dice_loss,
    mean_over_domains,
)
from cl_medical.segmentation.manifest import IGNORE
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.priors import MaskPrior

__all__ = ["MultiDomainSegmenter", "polynomial_decay"]

_POWER = 0.9


class MultiDomainSegmenter(L.LightningModule):
    """Train a network on batches that mix domains.

    A batch is a :class:`~cl_medical.segmentation.data.Batch`; a validation batch the number of a
    case, which is segmented whole. Each validation logs ``val/dice``, the mean over domains of the
    mean over structures of the mean over cases, and ``val/<domain>/dice`` and
    ``val/<domain>/<structure>/dice``.

    Args:
        network: Of the domains in the batches.
        classes: Names of each domain's classes, in the network's order.
        loss: Weights and optimisation.
        contrast: The regularisation; ``None`` or a weight of 0 trains without.
        class_weights: Of the cross-entropy, for each domain in the network's order.
        inference: How validation cases are segmented.
        cases: The validation cases, which a validation batch numbers.
        prior: A trained auto-encoder of masks, and the weight of its penalty.
        trained: The parameters that are trained; by default all.
        gather: Whether several devices compute the loss of their joint batch.
    """

    def __init__(
        self,
        network: MultiDomainNetwork,
        classes: Mapping[str, Sequence[str]],
        loss: LossHyper,
        contrast: ContrastHyper | None,
        *,
        inference: Inference,
        cases: Sequence[Source] = (),
        class_weights: Sequence[Tensor] | None = None,
        prior: tuple[MaskPrior, float] | None = None,
        trained: Sequence[nn.Parameter] | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = {name: tuple(names) for name, names in classes.items()}
        self.loss = loss
        self.contrast = contrast if contrast is not None and contrast.weight > 0 else None
        self.class_weights = class_weights
        self.inference = inference
        self.cases = tuple(cases)
        self.gather = gather
        # Outside the module's children: its weights are neither trained nor kept with it.
        self._prior = prior
        if trained is not None:
            chosen = {id(parameter) for parameter in trained}
            for parameter in network.parameters():
                parameter.requires_grad_(id(parameter) in chosen)
        self._dice: dict[str, list[list[float]]] = {}
        self._never: set[tuple[str, str]] | None = None

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels whose maps a step needs, the bottleneck first."""
        if self.contrast is None or self.contrast.levels == "bottleneck":
            return (-1,)
        count = len(self.network.backbone.levels)
        if self.contrast.levels == "all":
            return (-1, *range(count))
        return (-1, *self.contrast.levels)

    def on_train_epoch_start(self) -> None:
        self.train()  # whatever mode the network came in

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        loss, embedding, logged = self.objective(batch)
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch.image))
        return {"loss": loss, "embedding": embedding.detach()}

    def objective(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch, of all ranks if ``gather`` says so.

        Returns:
            The loss, the pooled map of the bottleneck ``(n, d)``, and the terms by name.
        """
        out = self.network(batch.image, batch.domain, levels=self.levels)
        labels = dict(out.rows.split(batch.label))
        terms: dict[int, Tensor] = {}
        logged: dict[str, Tensor] = {}
        for k, logits in out.logits.items():
            weights = None if self.class_weights is None else self.class_weights[k]
            ce = cross_entropy(logits, labels[k], class_weights=weights, gather=self.gather)
            dice = dice_loss(
                logits,
                labels[k],
                skip_absent_classes=self.loss.skip_absent_classes,
                gather=self.gather,
            )
            terms[k] = ce + dice
            name = self.network.domains[k]
            logged |= {f"train/{name}/ce": ce.detach(), f"train/{name}/dice_loss": dice.detach()}
        loss = mean_over_domains(terms)
        embedding = pooled(out.maps[0])
        if self.contrast is not None:
            maps = out.maps if self.contrast.levels == "bottleneck" else out.maps[1:]
            con = multi_level_contrast(
                maps,
                batch.domain,
                self.contrast.temperature,
                singles=self.contrast.singles,
                gather=self.gather and world_size() > 1,
            )
            loss = loss + self.contrast.weight * self._warmth() * con
            logged["train/contrast"] = con.detach()
        if self._prior is not None:
            prior, weight = self._prior
            penalty = prior.to(self.device).penalty(out.logits, labels)
            loss = loss + weight * penalty
            logged["train/prior"] = penalty.detach()
        if len(out.rows.domains) > 1:
            together, apart = alignment_and_separation(embedding, batch.domain)
            gauges = {"train/alignment": together, "train/separation": apart}
            logged |= {k: torch.tensor(v) for k, v in gauges.items() if not math.isnan(v)}
        return loss, embedding, logged

    def _warmth(self) -> float:
        """The share of the contrast's weight that counts at this step."""
        assert self.contrast is not None
        if self.contrast.warmup == 0:
            return 1.0
        steps = self.contrast.warmup * self._steps()
        return min(1.0, self.global_step / steps) if steps >= 1 else 1.0

    def _steps(self) -> int:
        return int(self.trainer.estimated_stepping_batches)

    def on_validation_epoch_start(self) -> None:
        self._dice = {name: [] for name in self.network.domains}

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        source = self.cases[int(batch)]
        name = self.network.domains[source.domain]
        prepared = source.prepared
        image = torch.from_numpy(prepared.image.copy())
        inference = replace(self.inference, device=str(self.device))
        slabs = [
            p.argmax(1)
            for _, p in segment_grid(
                self.network, name, image, torch.tensor(prepared.least), inference
            )
        ]
        predicted = torch.cat(slabs)
        truth = torch.from_numpy(prepared.label.copy()).long()
        known = truth != IGNORE
        self._dice[name].append(
            [_dice(predicted == k, truth == k, known) for k in range(1, len(self.classes[name]))]
        )

    def on_validation_epoch_end(self) -> None:
        means: dict[str, float] = {}
        domains = []
        for name, rows in self._dice.items():
            if not rows:
                continue
            structures = torch.tensor(rows).mean(0).tolist()
            for structure, value in zip(self.classes[name][1:], structures, strict=True):
                means[f"val/{name}/{structure}/dice"] = value
            domains.append(sum(structures) / len(structures))
            means[f"val/{name}/dice"] = domains[-1]
        if domains:
            means["val/dice"] = sum(domains) / len(domains)
            self.log_dict(means)
            self._watch(means)

    def _watch(self, means: Mapping[str, float]) -> None:
        """Warn once of structures that have stayed at 0 for the first half of the training."""
        zero = {
            (name, structure)
            for name, names in self.classes.items()
            for structure in names[1:]
            if means.get(f"val/{name}/{structure}/dice", 1.0) == 0
        }
        self._never = zero if self._never is None else self._never & zero
        half = (self.trainer.max_epochs or 1) // 2
        if self._never and self.current_epoch + 1 == max(3, half):
            told = ", ".join(f"{name}/{structure}" for name, structure in sorted(self._never))
            warnings.warn(
                f"the Dice of {told} has stayed at 0 so far: try --loss.class_weights inverse, a "
                "lower --loss.learning_rate, or look at the labels",
                stacklevel=2,
            )

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            parameter_groups(self.network, self.loss.weight_decay), lr=self.loss.learning_rate
        )
        decay = polynomial_decay(optimizer, self._steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}


def polynomial_decay(
    optimizer: torch.optim.Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    r"""Lower the learning rate as $(1 - t/T)^{0.9}$ over the steps (Isensee et al. 2021)."""

    def factor(step: int) -> float:
        return float((1 - min(step, total_steps) / max(total_steps, 1)) ** _POWER)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _dice(predicted: Tensor, truth: Tensor, known: Tensor) -> float:
    """Of one structure of one case; 1 if it is in neither."""
    both = int((predicted & truth & known).sum())
    total = int((predicted & known).sum()) + int((truth & known).sum())
    return 2 * both / total if total else 1.0
