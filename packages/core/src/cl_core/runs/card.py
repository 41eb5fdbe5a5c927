"""A saved model: ``model.safetensors``, and ``model.json``, the card that says how to rebuild it.

One writer and one reader for all packages. A card is typed: whoever wrote the file, a value of
another type or range is refused before anything is built of it, and no card runs code or names a
place outside its folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from cl_core._version import __version__
from cl_core.commands.options import Options, lacking_fields
from cl_core.errors import InputError
from cl_core.runs.atomic import write_atomic
from cl_core.runs.record import plain
from cl_core.tables.documents import read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "CARD",
    "Card",
    "Saved",
    "card_kind",
    "load_model",
    "plain_state",
    "read_card",
    "save_model",
    "write_json",
]

WEIGHTS, CARD = "model.safetensors", "model.json"

_SERVICE = ("kind", "version", "weights_sha256")
_LARGEST_CARD = 16 * 2**20

Module = TypeVar("Module", bound="torch.nn.Module")
CardOf = TypeVar("CardOf", bound="Card")


@dataclass(frozen=True, kw_only=True)
class Card(Options):
    """How to rebuild a model and how to feed it, in plain typed values.

    A package's card is a subclass whose fields are the entries of ``model.json``; what it checks in
    ``__post_init__`` holds for files of strangers too, so sizes belong there with an upper bound.

    Attributes:
        kind: What lies in the folder, such as ``node encoder``.
        made_by: The command that writes it, such as ``cl-graphs pretrain``.
    """

    kind: ClassVar[str]
    made_by: ClassVar[str]

    def record(self) -> dict[str, Any]:
        """The entries of ``model.json``; :meth:`of_record` makes the card of them again."""
        return plain(self)

    @classmethod
    def of_record(cls: type[CardOf], record: Mapping[str, Any], source: str) -> CardOf:
        """Make a card of the entries of a file.

        Args:
            record: The entries, without those of :func:`save_model`.
            source: The file, for messages.

        Raises:
            InputError: Naming the entry that is missing, unknown, or not as it must be.
        """
        lacking = lacking_fields(cls, record)
        if lacking:
            raise InputError(
                f"{source} describes no {cls.kind}: it has no {', '.join(lacking)}; save the "
                "model again"
            )
        try:
            return cls(**record)
        except ValueError as error:
            raise InputError(f"{source} is damaged: {error}") from error


@dataclass(frozen=True)
class Saved(Generic[CardOf]):
    """A model as it lies in its folder.

    Attributes:
        path: The folder.
        card: How to rebuild it.
        state: Its weights by name, on the CPU.
        digest: SHA-256 of the weights: tells whether a model is still the same.
    """

    path: Path
    card: CardOf
    state: dict[str, Tensor]
    digest: str

    def build(self, factory: Callable[[CardOf], Module]) -> Module:
        """Rebuild the model, in eval mode.

        Args:
            factory: Makes the module of a card, with any weights.

        Raises:
            InputError: If the weights are not those of such a module.
        """
        import torch

        # Without memory first: a card may promise more than its weights hold.
        with torch.device("meta"):
            self._check(factory(self.card).state_dict())
        module = factory(self.card)
        module.load_state_dict(self.state)
        return module.eval()

    def _check(self, wanted: Mapping[str, Tensor]) -> None:
        strange = [name for name in self.state if name not in wanted]
        lacking = [name for name in wanted if name not in self.state]
        other = [
            f"{name} is {tuple(self.state[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in self.state and self.state[name].shape != tensor.shape
        ]
        told = [*(f"{name} is missing" for name in lacking), *other]
        told += [f"{name} is unknown" for name in strange]
        if told:
            raise InputError(
                f"{self.path / CARD} and its weights do not fit together ({told[0]}): "
                "train or save the model again"
            )


def save_model(folder: Path, model: nn.Module | Mapping[str, Tensor], card: Card) -> None:
    """Write a model and its card into a folder that exists; files appear whole.

    Args:
        folder: Where to.
        model: The deployable part, or its ``state_dict``.
        card: How to rebuild it.

    Raises:
        InputError: If the disk is full or the place cannot be written.
    """
    from safetensors.torch import save

    data = save(plain_state(model))
    # A kill between the two files leaves a pair that is refused by this checksum.
    record = {
        "kind": card.kind,
        **card.record(),
        "version": __version__,
        "weights_sha256": hashlib.sha256(data).hexdigest(),
    }
    with write_atomic(folder / WEIGHTS) as temporary:
        temporary.write_bytes(data)
    write_json(folder / CARD, record)


def load_model(
    folder: Path, *kinds: type[CardOf], option: str = "--run", any_kind: bool = False
) -> Saved[CardOf]:
    """Read the model in a folder: a run directory, or one that :func:`save_model` wrote.

    Args:
        folder: Where it lies.
        kinds: The cards that will do.
        option: What named the folder, for messages.
        any_kind: Let a model of another kind pass that tells what the first card needs.

    Raises:
        InputError: If there is no model, one of another kind, or its files are damaged or do not
            belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    card, digest = read_card(folder, *kinds, option=option, any_kind=any_kind)
    weights = folder / WEIGHTS
    try:
        data = weights.read_bytes()
        state = load(data)
    except OSError as error:
        raise InputError(
            f"{weights} cannot be read ({error.strerror or error}): train the model"
        ) from error
    except SafetensorError as error:
        raise InputError(f"{weights} is damaged: train or save the model again") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(
            f"{weights} is not the file that {CARD} describes: train or save the model again"
        )
    return Saved(folder, card, state, digest)


def read_card(
    folder: Path, *kinds: type[CardOf], option: str = "--run", any_kind: bool = False
) -> tuple[CardOf, str]:
    """Read the card in a folder, and the digest of the weights it describes.

    The arguments and the refusals are those of :func:`load_model`.
    """
    path = folder / CARD
    record = _entries(folder, option)
    by_kind = {kind.kind: kind for kind in kinds}
    found = record.get("kind")
    if any_kind:
        found = kinds[0].kind
    if not isinstance(found, str) or found not in by_kind:
        wanted = " or ".join(dict.fromkeys(f"{c.kind!r} of {c.made_by}" for c in kinds))
        raise InputError(f"{option} {folder} holds a model of kind {found!r}, not a {wanted}")
    digest = record.get("weights_sha256")
    if not isinstance(digest, str):
        raise InputError(f"{path} is damaged: weights_sha256 must be text; save the model again")
    entries = {name: value for name, value in record.items() if name not in _SERVICE}
    return by_kind[found].of_record(entries, str(path)), digest


def card_kind(folder: Path, *, option: str = "--run") -> str:
    """What kind of model lies in a folder, as its card says.

    Raises:
        InputError: If there is no model, or its card does not tell.
    """
    kind = _entries(folder, option).get("kind")
    if not isinstance(kind, str):
        raise InputError(f"{folder / CARD} is damaged: kind must be text; save the model again")
    return kind


def _entries(folder: Path, option: str) -> dict[str, Any]:
    path = folder / CARD
    if not path.exists():
        what = (
            "has no model yet: resume it" if (folder / "config.yaml").exists() else "has no model"
        )
        raise InputError(f"{option} {folder} {what} ({CARD} is missing)")
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path} is damaged: it is no mapping; train or save the model again")
    return record


def plain_state(model: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as safetensors takes them: on the CPU, contiguous, sharing no memory."""
    state = model if isinstance(model, Mapping) else model.state_dict()
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def write_json(path: Path, record: Mapping[str, object]) -> None:
    """Write strict JSON, whole or not at all.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    with write_atomic(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")
