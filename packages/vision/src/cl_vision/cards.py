"""What the models of this package say of themselves in ``model.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cl_core.checks import OptionError, require_positive
from cl_core.commands.options import Options
from cl_core.networks.export import EncoderCard

__all__ = ["ImageCard", "ProjectorCard"]


@dataclass(frozen=True, kw_only=True)
class ProjectorCard(Options):
    """How to rebuild a projector; ``kind`` says which of the other entries count.

    Args:
        kind: `first_channels`, `moco`, or a projector of SimCLR.
        width: Of the representation.
        d0: Channels kept by `first_channels`.
        hidden: Width inside.
        dim: Width of the embedding.
        rank: Rows of `low_rank`.
        batch_norm: Whether `moco` normalises.
    """

    kind: str
    width: int
    d0: int | None = None
    hidden: int | None = None
    dim: int | None = None
    rank: int | None = None
    batch_norm: bool | None = None

    def __post_init__(self) -> None:
        for name in ("width", "d0", "hidden", "dim", "rank"):
            require_positive(**{f"projector.{name}": getattr(self, name)})


@dataclass(frozen=True, kw_only=True)
class ImageCard(EncoderCard):
    """An image encoder with the projector it was trained through.

    Args:
        method: Of the command line.
        name: As reports call it.
        view_size: Edge in pixels of the images to encode.
        projector: How to rebuild the projector; ``None`` for an encoder that came without.
    """

    kind: ClassVar[str] = "image encoder with projector"
    made_by: ClassVar[str] = "cl-vision pretrain"

    method: str
    name: str
    view_size: int
    projector: ProjectorCard | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(view_size=self.view_size)
        if self.mean is None:
            raise OptionError("mean and std are missing")
