"""What a training leaves: the encoder with its projector, how to rebuild them, what they give."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.evaluation.features import extract_features
from cl_core.networks.backbones import Backbone, build_backbone
from cl_core.networks.devices import best_device
from cl_core.networks.export import encoder_card, load_encoder
from cl_core.networks.heads import build_head
from cl_core.runs import Run
from cl_core.transforms import IMAGENET, Statistics
from cl_vision.cards import ImageCard, ProjectorCard
from cl_vision.data import Images, evaluation_loader, evaluation_view
from cl_vision.methods.projectors import FirstChannels, ProjectorKind, build_projector

__all__ = [
    "ImageModel",
    "Own",
    "build_saved_projector",
    "load_any_encoder",
    "load_model",
]


@dataclass(frozen=True)
class Own:
    """What rebuilds an encoder that is not of this suite.

    Attributes:
        encoder: The module again, with any weights.
        allow: Import paths that may be imported in its place.
    """

    encoder: nn.Module | None = None
    allow: tuple[str, ...] = ()


class ImageModel(nn.Module):
    """An encoder and the projector it was trained through, which only diagnostics need.

    Args:
        encoder: Images to representations.
        projector: Representations to embeddings.
        card: How to rebuild both.
    """

    def __init__(self, encoder: Backbone, projector: nn.Module, card: ImageCard) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.card = card

    @classmethod
    def of(
        cls,
        encoder: Backbone,
        projector: nn.Module,
        *,
        method: str,
        name: str,
        projector_card: ProjectorCard | None,
        image_size: int,
        statistics: Statistics,
    ) -> ImageModel:
        """Put a trained encoder and projector together, with their card.

        Args:
            encoder: Trained.
            projector: Trained.
            method: Of the command line.
            name: As reports call it.
            projector_card: What `build_saved_projector` takes.
            image_size: Edge in pixels of the images to encode.
            statistics: Normalise them.
        """
        card = ImageCard(
            **encoder_card(encoder).record() | {"mean": statistics.mean, "std": statistics.std},
            method=method,
            name=name,
            view_size=image_size,
            projector=projector_card,
        )
        return cls(encoder, projector, card)

    @classmethod
    def rebuild(cls, card: ImageCard, own: Own | None = None) -> ImageModel:
        """Build a model of random weights from its card.

        Args:
            card: The card.
            own: For an encoder that is not of this suite.

        Raises:
            InputError: If the card tells of no such model, or of an encoder that is neither given
                nor allowed.
        """
        own = own or Own()
        encoder = card.build(encoder=copy.deepcopy(own.encoder), allow=own.allow)
        return cls(encoder, build_saved_projector(card.projector), card)

    @property
    def name(self) -> str:
        """The method, as reports call it."""
        return self.card.name

    @property
    def image_size(self) -> int:
        """Edge in pixels of the images it takes."""
        return self.card.view_size

    @property
    def statistics(self) -> Statistics:
        """What normalises its images."""
        assert self.card.mean is not None
        assert self.card.std is not None
        return Statistics(self.card.mean, self.card.std)

    def require_channels(self, images: Images) -> None:
        """Refuse images of other channels than the encoder's.

        Raises:
            InputError: Naming both numbers.
        """
        if images.channels != self.encoder.in_channels:
            raise InputError(
                f"{images.table.source}: {images.channels} channels, but the model was trained on "
                f"{self.encoder.in_channels}; give images like those of the training"
            )

    def view(self, images: Images, *, normalized: bool = True) -> nn.Module:
        """Give the view under which these images are measured."""
        statistics = self.statistics if normalized else None
        return evaluation_view(self.image_size, statistics, digits=images.is_digits)

    def represent(
        self, images: Images, *, batch_size: int = 256, workers: int = 0
    ) -> Float[Tensor, "n d"]:
        """Encode every image, ``(n, d)`` on the CPU, on the best device there is.

        Raises:
            InputError: If the images do not fit, or one cannot be read.
        """
        self.require_channels(images)
        self.to(best_device())
        loader = evaluation_loader(
            images, self.view(images), batch_size=batch_size, workers=workers
        )
        features, _ = extract_features(self.encoder, loader)
        return features

    @torch.no_grad()
    def project(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Map representations to embeddings, in eval mode, on the CPU."""
        self.projector.eval()
        device = best_device()
        self.to(device)
        parts = [self.projector(rows.to(device)).cpu() for rows in torch.split(r, 4096)]
        return torch.cat(parts)


def build_saved_projector(card: ProjectorCard | None) -> nn.Module:
    """Build a projector of random weights from its card.

    Raises:
        InputError: If the card lacks what its kind needs.
    """
    if card is None:
        return nn.Identity()
    if card.kind == "first_channels":
        return FirstChannels(card.width, _entry(card, "d0"))
    dim = _entry(card, "dim")
    if card.kind == "moco":
        return build_head("moco", card.width, dim, batch_norm=bool(card.batch_norm))
    if card.kind not in get_args(ProjectorKind):
        raise InputError(f"model.json: there is no projector {card.kind!r}")
    return build_projector(
        cast(ProjectorKind, card.kind),
        card.width,
        hidden=_entry(card, "hidden"),
        dim=dim,
        rank=card.rank,
    )


def _entry(card: ProjectorCard, name: str) -> int:
    value = getattr(card, name)
    if value is None:
        raise InputError(f"model.json: the projector {card.kind} has no {name}")
    return int(value)


def load_model(run: Run, own: Own | None = None) -> ImageModel:
    """Rebuild the model of a run, in eval mode.

    Args:
        run: The run.
        own: For an encoder that is not of this suite.

    Raises:
        InputError: If the run holds no model of this package.
    """
    return run.load_model(ImageCard).build(lambda card: ImageModel.rebuild(card, own))


def load_any_encoder(
    path: Path, *, backbone: str | None, image_size: int, own: Own | None = None
) -> ImageModel:
    """Load a run of `pretrain`, a saved encoder, or a plain weight file.

    Only a run has a projector; what else is loaded gets none, and ImageNet's statistics if it does
    not tell its own.

    Args:
        path: Run directory, folder of `cl_core.save_encoder`, or weight file.
        backbone: Architecture of a plain weight file.
        image_size: For encoders that do not tell theirs.
        own: For an encoder that is not of this suite.

    Raises:
        InputError: If there is nothing of the kind at ``path``, or a weight file without backbone.
    """
    if (path / "config.yaml").is_file():
        return load_model(Run.open(path), own)
    if (path / "model.json").is_file():
        own = own or Own()
        encoder = load_encoder(path, encoder=copy.deepcopy(own.encoder), allow=own.allow)
    elif not path.exists():
        raise InputError(f"--run {path}: not found; give a run, a saved encoder or a weight file")
    elif backbone is None:
        raise InputError(
            f"--run {path}: a weight file does not tell its architecture; give it as --backbone"
        )
    else:
        encoder = build_backbone(backbone, weights=path, image_size=image_size).eval()
    card = encoder.card()
    statistics = IMAGENET
    if card.get("mean") is not None:
        statistics = Statistics(tuple(card["mean"]), tuple(card["std"]))
    elif encoder.in_channels != 3:
        raise InputError(
            f"--run {path}: it tells no mean and std of its {encoder.in_channels} channels; save "
            "the encoder with them"
        )
    return ImageModel.of(
        encoder,
        nn.Identity(),
        method="encoder",
        name=path.stem,
        projector_card=None,
        image_size=card["image_size"] or image_size,
        statistics=statistics,
    ).eval()
