"""What a training leaves: encoder and classifier, with the operating point chosen for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.checks import OptionError, require_positive
from cl_core.evaluation.features import device_of, frozen
from cl_core.networks.backbones import Backbone
from cl_core.networks.export import EncoderCard
from cl_core.runs import Run
from cl_core.transforms import Statistics
from cl_medical.lesions.imbalance import CosineClassifier

__all__ = [
    "Answers",
    "LesionCard",
    "LesionModel",
    "build_classifier",
    "load_lesion_model",
]

ClassifierKind = Literal["linear", "cosine"]

_MOST = 10_000  # classes that a card may name


@dataclass(frozen=True, kw_only=True)
class LesionCard(EncoderCard):
    """A lesion classifier: how to rebuild it, and what its probabilities mean.

    Args:
        method: Of the command line.
        name: As reports call it.
        view_size: Edge in pixels of the images it takes.
        classifier: `linear`, or `cosine` of LDAM.
        scale: Of the classifier's outputs.
        temperature: By which logits are divided before they become probabilities.
        positive: The class of the operating point, if there is one.
        threshold: Of its probability.
        operating_point: How that was chosen.
        splits: Digest of the table of splits it was trained and chosen on.
    """

    kind: ClassVar[str] = "lesion classifier"
    made_by: ClassVar[str] = "cl-medical lesions train"

    method: str
    name: str
    view_size: int
    classifier: ClassifierKind
    scale: float
    temperature: float
    positive: str | None
    threshold: float | None
    operating_point: str
    splits: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(view_size=self.view_size, scale=self.scale, temperature=self.temperature)
        if self.mean is None or not self.classes or not 2 <= len(self.classes) <= _MOST:
            raise OptionError("mean and std, and the names of two classes or more, are needed")
        if self.positive is not None and self.positive not in self.classes:
            raise OptionError(f"positive must be one of the classes, got {self.positive!r}")
        if (self.positive is None) != (self.threshold is None):
            raise OptionError("positive and threshold belong together")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise OptionError(f"threshold must lie in [0, 1], got {self.threshold}")


class Answers(NamedTuple):
    """What a model says of some images.

    Attributes:
        logits: Before calibration ``(n, c)``.
        features: The representations ``(n, d)``.
        rows: Where the images stand in their table ``(n,)``.
    """

    logits: Float[Tensor, "n c"]
    features: Float[Tensor, "n d"]
    rows: Tensor


class LesionModel(nn.Module):
    """An encoder, a classifier on it, and their card.

    Args:
        encoder: Images to representations.
        classifier: Representations to outputs, which times ``card.scale`` are logits.
        card: How to rebuild both.
    """

    def __init__(self, encoder: Backbone, classifier: nn.Module, card: LesionCard) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier
        self.card = card

    @classmethod
    def rebuild(cls, card: LesionCard) -> LesionModel:
        """Build a model of random weights from its card.

        Raises:
            InputError: If the card tells of no such model.
        """
        encoder = card.build()
        classifier = build_classifier(
            card.classifier, encoder.out_features, len(card.classes or ())
        )
        return cls(encoder, classifier, card)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the probabilities."""
        return self.card.classes or ()

    @property
    def statistics(self) -> Statistics:
        """What normalises its images."""
        assert self.card.mean is not None
        assert self.card.std is not None
        return Statistics(self.card.mean, self.card.std)

    def classify(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Give the logits of representations, before calibration."""
        logits: Tensor = self.card.scale * self.classifier(h)
        return logits

    def probabilities(self, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Calibrate: the softmax of the logits over the temperature, in float64."""
        return torch.softmax(logits.double() / self.card.temperature, dim=1)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        return self.classify(self.encoder(images))

    def answer(self, batches: Iterable[Any]) -> Iterable[Answers]:
        """Classify batches one by one, where the model is, in evaluation mode.

        Args:
            batches: Of one view, as :class:`~cl_core.images.Sample`.

        Yields:
            The answers of each batch, on the CPU.
        """
        device = device_of(self)
        for batch in batches:
            with frozen(self):
                h = self.encoder(batch.views[0].to(device))
                logits = self.classify(h)
            yield Answers(logits.float().cpu(), h.float().cpu(), torch.as_tensor(batch.row))

    def answer_all(self, batches: Iterable[Any]) -> Answers:
        """Classify all batches and hold the answers in memory."""
        parts = list(self.answer(batches))
        return Answers(*(torch.cat(part) for part in zip(*parts, strict=True)))


def build_classifier(kind: ClassifierKind, width: int, num_classes: int) -> nn.Module:
    """Build a classifier of random weights: a linear layer, or the cosines of LDAM."""
    if kind == "linear":
        return nn.Linear(width, num_classes)
    return CosineClassifier(width, num_classes)


def load_lesion_model(run: Run) -> LesionModel:
    """Rebuild the model of a run, in evaluation mode.

    Raises:
        InputError: If the run holds no such model.
    """
    return run.load_model(LesionCard).build(LesionModel.rebuild)
