"""What a training leaves: the encoder with its head, how to rebuild them, what they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_agriculture.data import Plants, evaluation_loader
from cl_agriculture.hyper import ViewHyper
from cl_agriculture.options import Mode
from cl_agriculture.views.plant_views import WholeView
from cl_core.checks import OptionError, require_positive
from cl_core.errors import InputError
from cl_core.evaluation.features import extract_features
from cl_core.networks.backbones import Backbone
from cl_core.networks.devices import best_device
from cl_core.networks.export import EncoderCard, encoder_card
from cl_core.networks.heads import Head, build_head
from cl_core.runs import Run
from cl_core.transforms import IMAGENET

__all__ = ["PlantCard", "PlantModel", "Space", "load_plant_model"]

Space = Literal["representation", "unit", "embedding"]

_LARGEST_VIEW = 4096
_LARGEST_HEAD = 65_536


@dataclass(frozen=True, kw_only=True)
class PlantCard(EncoderCard):
    """An image encoder, the head it was trained through, and the masks it was trained with.

    Args:
        mode: Of the command line.
        name: As reports call it.
        view_size: Edge in pixels of the images to encode.
        dim: Width of the embedding behind the head.
        attention: What became of the background.
        fill: What stood for it.
        sigma: Of `soft`.
        rule: How the masks were made; ``None`` without masks.
    """

    kind: ClassVar[str] = "plant encoder"
    made_by: ClassVar[str] = "cl-agriculture pretrain"

    mode: Mode
    name: str
    view_size: int
    dim: int
    attention: Literal["hard", "soft", "off"]
    fill: Literal["zero", "mean"] = "zero"
    sigma: float = 1.0
    rule: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(view_size=self.view_size, dim=self.dim, sigma=self.sigma)
        if self.view_size > _LARGEST_VIEW or self.dim > _LARGEST_HEAD:
            raise OptionError(
                f"view_size and dim must not pass {_LARGEST_VIEW} and {_LARGEST_HEAD}, got "
                f"{self.view_size} and {self.dim}"
            )
        if (self.rule is None) != (self.attention == "off"):
            raise OptionError("a mask rule belongs to a model with attention, and to no other")
        if self.rule is not None:
            _check_rule(self.rule)


class PlantModel(nn.Module):
    """An encoder and the head it was trained through.

    Args:
        encoder: Images to representations.
        head: Representations to embeddings.
        card: How to rebuild both.
    """

    def __init__(self, encoder: Backbone, head: Head, card: PlantCard) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.card = card

    @classmethod
    def of(cls, encoder: Backbone, head: Head, **about: Any) -> PlantModel:
        """Put a trained encoder and head together, with their card.

        Args:
            encoder: Trained.
            head: Trained.
            about: The entries of :class:`PlantCard` beyond the encoder's.
        """
        own = encoder_card(encoder).record() | {"mean": IMAGENET.mean, "std": IMAGENET.std}
        return cls(encoder, head, PlantCard(**own, dim=head.out_features, **about))

    @classmethod
    def rebuild(cls, card: PlantCard) -> PlantModel:
        """Build a model of random weights from its card.

        Raises:
            InputError: If the card tells of no such model.
        """
        encoder = card.build()
        head = build_head("mlp", encoder.out_features, card.dim, batch_norm=True)
        return cls(encoder, head, card)

    def view(self) -> WholeView:
        """The view under which images are encoded."""
        hyper = ViewHyper(fill=self.card.fill, sigma=self.card.sigma)
        return WholeView(self.card.view_size, hyper, self.card.attention)

    def require_masks(self, plants: Plants) -> None:
        """Refuse images whose background would be new to the model.

        Raises:
            InputError: If the model was trained with masks and these images have none, or masks
                made by another rule.
        """
        rule = self.card.rule
        if rule is None:
            return
        if plants.maker is None or plants.store is None:
            raise InputError(
                f"{plants.table.source}: the model was trained on masked images, and these have no "
                "masks: an unmasked background is another kind of input to it; make masks by its "
                "rule"
            )
        if plants.maker.rule() != dict(rule):
            raise InputError(
                f"{plants.table.source}: these masks are made by another rule than the model's: "
                f"{plants.maker.rule()}, not {dict(rule)}"
            )

    def represent(
        self,
        plants: Plants,
        *,
        space: Space = "representation",
        batch_size: int = 256,
        workers: int = 0,
    ) -> Float[Tensor, "n d"]:
        """Encode every image whole, ``(n, d)`` on the CPU, on the best device there is.

        Args:
            plants: With masks, if the model was trained with masks.
            space: The representation, the same at unit length, or the embedding behind the head,
                which is of unit length as the loss sees it.
            batch_size: Images encoded at once.
            workers: Processes.

        Raises:
            InputError: If the images have no masks or others than the model's, or one cannot be
                read.
        """
        self.require_masks(plants)
        self.to(best_device())
        loader = evaluation_loader(plants, self.view(), batch_size=batch_size, workers=workers)
        h, _ = extract_features(self.encoder, loader)
        if space == "representation":
            return h
        return nn.functional.normalize(self.project(h) if space == "embedding" else h, dim=1)

    @torch.no_grad()
    def project(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Map representations to embeddings, in eval mode, on the CPU."""
        self.head.eval()
        device = best_device()
        self.to(device)
        return torch.cat([self.head(rows.to(device)).cpu() for rows in torch.split(h, 4096)])


def load_plant_model(run: Run) -> PlantModel:
    """Rebuild the model of a run, in eval mode.

    Raises:
        InputError: If the run holds no model of this package.
    """
    return run.load_model(PlantCard).build(PlantModel.rebuild)


_RULES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "files": {},
    "function": {"function": str},
    "excess_green": {
        "variant": str,
        "least_threshold": (int, float),
        "most_threshold": (int, float),
        "min_component": (int, float),
        "clean": bool,
    },
}


def _check_rule(rule: Mapping[str, Any]) -> None:
    """Refuse a rule that no masks could be made by."""
    source = rule.get("source")
    if not isinstance(source, str) or source not in _RULES:
        raise OptionError(f"rule.source must be one of {', '.join(_RULES)}, got {source!r}")
    number = (int, float)
    wanted = {**_RULES[source], "least_fraction": number, "most_fraction": number}
    for name, kind in wanted.items():
        value = rule.get(name)
        if not isinstance(value, kind) or (kind is number and isinstance(value, bool)):
            raise OptionError(f"rule.{name} is missing or of another type, got {value!r}")
