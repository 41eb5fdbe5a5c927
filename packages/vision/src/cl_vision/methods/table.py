"""The table of methods: all that `pretrain` has to know of each, a row a method.

Standard library only: `config` asks it for what a method's authors published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

__all__ = ["METHODS", "Method", "ViewsName"]

ViewsName = Literal["simclr", "directclr", "moco"]


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        title: As reports call it.
        module: Where its LightningModule lies, as ``package.module:Class``. The class takes
            ``(encoder, hyper, optimizer=, seed=)``; its ``encoder`` and ``projector`` are kept.
            Beside it lie ``projector_card(module)`` and, where they are needed, ``prepare(config,
            images)``, which fits options to the data, and ``title(hyper)``.
        views: Whose random views it trains on.
        learning_rate: The highest one, as published.
        schedule: Whether the cosine falls with every ``step`` or ``epoch``.
        zero_init_residual: Whether a ResNet's residual branches start at zero.
    """

    title: str
    module: str
    views: ViewsName
    learning_rate: float
    schedule: Literal["step", "epoch"]
    zero_init_residual: bool

    def load(self) -> type[Any]:
        """The LightningModule."""
        room, _, name = self.module.partition(":")
        found: type[Any] = getattr(import_module(room), name)
        return found

    def part(self, name: str) -> Callable[..., Any] | None:
        """A function that lies beside the LightningModule; ``None`` if there is none."""
        return getattr(import_module(self.module.partition(":")[0]), name, None)


_TWO_VIEWS: dict[str, Any] = {
    "learning_rate": 0.1,
    "schedule": "step",
    "zero_init_residual": True,
}
_MOMENTUM: dict[str, Any] = {
    "learning_rate": 0.03,
    "schedule": "epoch",
    "zero_init_residual": False,  # it costs accuracy on small images
}

METHODS = {
    "simclr": Method("SimCLR", "cl_vision.methods.simclr:SimCLR", "simclr", **_TWO_VIEWS),
    "directclr": Method(
        "DirectCLR", "cl_vision.methods.directclr:DirectCLR", "directclr", **_TWO_VIEWS
    ),
    "moco": Method("MoCo v2", "cl_vision.methods.moco:MoCo", "moco", **_MOMENTUM),
    "hcsc": Method("HCSC", "cl_vision.hcsc.module:HCSC", "moco", **_MOMENTUM),
}
"""Every method by the value of ``--method``; its options are the group of the same name."""
