r"""SuperCon: supervised contrastive training in two stages, for imbalanced lesion classes.

Chen, Zhuang, Chang: "SuperCon: Supervised Contrastive Learning for Imbalanced Skin Lesion
Classification" (arXiv 2202.05685); the loss is $L_{out}$ of Khosla et al. 2020 (arXiv 2004.11362).

1. Representation training. Each image gives two views, plain and augmented. Both pass through the
   encoder $f$ and the projection head $g$ in one forward pass, $z = g(f(x))$, and the loss pulls
   the rows of one class together:

   $$L = \frac1{|I|} \sum_{i \in I} \Bigl[ \log \sum_{k \ne i} e^{z_i^\top z_k / \tau}
     - \frac1{|P(i)|} \sum_{p \in P(i)} z_i^\top z_p / \tau \Bigr].$$

   Without labels, $P(i)$ being the image's other view alone, this is SimCLR.
2. Classifier fine-tuning. $g$ is dropped; a linear classifier $c$ learns on $f(x)$.

The released code leaves $f$ in training mode in stage 2 and while testing, so that its batch norms
go on changing and a prediction depends on the rest of the batch. Here $f$ is in evaluation mode
wherever it does not learn, and its weights and buffers stay as they are, bit by bit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from cl_core.images import Sample
from cl_core.losses import sup_con
from cl_core.networks.heads import build_head
from cl_medical.lesions.hyper import OptimizerHyper, Stage1Hyper
from cl_medical.lesions.optimisation import configure

__all__ = ["Classification", "Criterion", "Representation", "collapsed_floor"]

Criterion = Callable[[Tensor, Tensor, float], Tensor]
"""Logits, classes and the share of the training that has passed: the loss."""

WATCHED = 256
"""Images of a batch whose similarities are looked at; all pairs of a large batch are too many."""

COLLAPSED = 0.99
"""Mean cosine between different rows above which the embedding is said to have collapsed."""


class Representation(L.LightningModule):
    """Stage 1: train ``encoder`` through a head that is dropped afterwards.

    A batch is a :class:`~cl_core.images.Sample` of two views or more. Every rank contrasts the
    joint batch.

    Args:
        encoder: $f$: images ``(n, c, h, w)`` to representations ``(n, d)``.
        hyper: Of the contrast and the head.
        optimizer: Of all that is trained.
        classes: Names, for the count of each in a batch.
        labels: Whether the loss sees the classes; without them it is SimCLR's.
    """

    def __init__(
        self,
        encoder: nn.Module,
        hyper: Stage1Hyper,
        *,
        optimizer: OptimizerHyper,
        classes: Sequence[str] = (),
        labels: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = build_head(
            "supcon",
            int(encoder.out_features),  # type: ignore[arg-type]
            hyper.dim,
            batch_norm=hyper.batch_norm,
        )
        self.hyper = hyper
        self.optimizer = optimizer
        self.classes = tuple(classes)
        self.labels = labels
        self._warned = False

    def training_step(self, batch: Sample, batch_idx: int) -> dict[str, Tensor]:
        x = torch.cat(list(batch.views))  # one pass: batch norms see both views
        z = self.head(self.encoder(x))
        views = torch.stack(z.chunk(len(batch.views)), dim=1)
        y = torch.as_tensor(batch.label)
        loss = sup_con(
            views,
            y if self.labels else None,
            self.hyper.temperature,
            base_temperature=self.hyper.base_temperature,
            contrast=self.hyper.contrast,
            no_positive=self.hyper.no_positive,
            gather=True,
        )
        figures = {"train/loss": loss.detach(), **self._gauges(loss.detach(), views.detach(), y)}
        self.log_dict(figures, batch_size=len(y), on_step=False, on_epoch=True)
        return {"loss": loss, "embedding": z.detach()}

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer)

    @torch.no_grad()
    def _gauges(self, loss: Tensor, views: Tensor, y: Tensor) -> dict[str, Tensor]:
        """What tells a loss that is good from one that the classes of the batch explain."""
        own = y if self.labels else torch.arange(len(y), device=y.device)
        rows = own.repeat(views.shape[1])
        batch = torch.bincount(y[y >= 0], minlength=len(self.classes)).float()
        seen = F.normalize(views[:WATCHED].float(), dim=2).transpose(0, 1).flatten(0, 1)
        cosines = seen @ seen.T
        same = own[:WATCHED].repeat(views.shape[1])
        positive = same[:, None] == same[None, :]
        positive.fill_diagonal_(False)
        pairs = len(seen) * (len(seen) - 1)
        mean = (cosines.sum() - cosines.diagonal().sum()) / max(1, pairs)
        step = self.global_step  # a network begins with all embeddings alike
        if not self._warned and step >= 200 and step % 50 == 0 and float(mean) > COLLAPSED:
            self._warned = True
            warnings.warn(
                f"all embeddings nearly coincide at step {step + 1} (mean cosine "
                f"{float(mean):.4f}): lower the learning rate, or start from pretrained weights",
                stacklevel=2,
            )
        return {
            "train/loss_above_floor": loss - collapsed_floor(rows),
            "train/alignment": (cosines * positive).sum() / positive.sum().clamp_min(1),
            "train/uniformity": _uniformity(cosines),
            "train/lone_images": (batch[y.clamp_min(0)] <= 1).float().mean(),
        } | {f"batch/{name}": batch[k] for k, name in enumerate(self.classes)}


class Classification(L.LightningModule):
    """Stage 2, and the one-stage baselines: train a classifier on the encoder's output.

    Args:
        encoder: $f$.
        classifier: $c$: representations to what ``criterion`` takes.
        criterion: The loss.
        optimizer: Of the classifier; of the encoder too unless ``encoder_learning_rate`` is given.
        finetune: ``linear`` leaves the encoder as it is, bit by bit; ``partial`` trains its last
            stage, ``full`` all of it.
        encoder_learning_rate: Of the encoder, where it learns.
    """

    def __init__(
        self,
        encoder: nn.Module,
        classifier: nn.Module,
        criterion: Criterion,
        *,
        optimizer: OptimizerHyper,
        finetune: Literal["linear", "partial", "full"] = "full",
        encoder_learning_rate: float | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier
        self.criterion = criterion
        self.optimizer = optimizer
        self.finetune = finetune
        self.encoder_learning_rate = encoder_learning_rate
        self._answers: list[tuple[Tensor, Tensor]] = []
        trained = _trained_parts(encoder, finetune)
        self._frozen = trained != [encoder]
        self._trained = trained
        for parameter in encoder.parameters():
            parameter.requires_grad_(not self._frozen)
        for part in trained:
            for parameter in part.parameters():
                parameter.requires_grad_()
        self.train()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(self._trained)):
            h = self.encoder(x)
        logits: Tensor = self.classifier(h)
        return logits

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        logits = self(torch.cat(list(batch.views)))
        y = torch.as_tensor(batch.label).repeat(len(batch.views))
        loss = self.criterion(logits, y, self.current_epoch / max(1, self.trainer.max_epochs or 1))
        self.log("train/loss", loss, batch_size=len(y), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        self._answers.append((self(batch.views[0]).argmax(dim=1), torch.as_tensor(batch.label)))

    def on_validation_epoch_end(self) -> None:
        from torchmetrics.functional.classification import multiclass_f1_score

        answers, y = (torch.cat(part) for part in zip(*self._answers, strict=True))
        self._answers.clear()
        classes = len(cast(Tensor, self.classifier.weight))
        f1 = multiclass_f1_score(answers, y, num_classes=classes, average="macro")
        self.log("val/macro_f1", f1, sync_dist=True)

    def train(self, mode: bool = True) -> Classification:
        """Set the mode of what learns; the rest of the encoder stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            self.encoder.eval()
            for part in self._trained:
                part.train(mode)
        return self

    def configure_optimizers(self) -> Any:
        parts: list[tuple[nn.Module, float | None]] = [(self.classifier, None)]
        parts += [(part, self.encoder_learning_rate) for part in self._trained]
        return configure(self, self.optimizer, parts=parts)


def collapsed_floor(labels: Integer[Tensor, " n"]) -> Float[Tensor, ""]:
    r"""Give the least loss a batch of these classes can have: $\frac1{|I|} \sum_i \log |P(i)|$.

    It is reached where every class is one point far from all others, so it, and with it the loss,
    is not comparable between batch sizes and mixes of classes; what the loss lies above it is.

    Args:
        labels: Of all rows, views included.

    Returns:
        The mean over rows with a partner; 0 if there is none.
    """
    _, label, size = torch.unique(labels, return_inverse=True, return_counts=True)
    positives = size[label] - 1
    counted = positives[positives > 0].to(torch.float32)
    return cast(Tensor, counted.log().mean() if len(counted) else counted.sum())


def _uniformity(cosines: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    r"""Log of the mean of $e^{-2 \lVert z_i - z_k \rVert^2}$ over pairs (Wang & Isola 2020)."""
    n = len(cosines)
    if n < 2:
        return cosines.new_zeros(())
    potential = -2 * (2 - 2 * cosines)
    potential.fill_diagonal_(-torch.inf)
    return potential.flatten().logsumexp(0) - math.log(n * (n - 1))


def _trained_parts(encoder: nn.Module, finetune: str) -> list[nn.Module]:
    if finetune == "full":
        return [encoder]
    if finetune == "linear":
        return []
    trunk: Any = getattr(encoder, "trunk", encoder)
    stages = getattr(trunk, "stages", None)
    names = stages if isinstance(stages, list) else ["layer4"]
    if not hasattr(trunk, names[-1]):
        raise ValueError("finetune partial is for ResNets: say linear or full")
    return [trunk.get_submodule(names[-1])]
