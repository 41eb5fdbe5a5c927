"""A condensed set as files: exact floats, and pictures that any framework opens."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cl_core.checks import OptionError, require_positive
from cl_core.errors import InputError
from cl_core.runs import Run, write_atomic
from cl_core.runs.card import Card

__all__ = ["CondensedCard", "CondensedSet", "load_condensed", "picture_pixels", "save_condensed"]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_LARGEST = 2**31  # numbers in a set


@dataclass(frozen=True, kw_only=True)
class CondensedCard(Card):
    """What the floats of a condensed set mean.

    Args:
        method: `dc`, `dsa`, `dcc` or `dsac`.
        classes: Their names, in the order of the labels.
        ipc: Images a class.
        channels: Of an image.
        height: Pixels.
        width: Pixels.
        mean: Of each channel in [0, 1]: a pixel is its number times ``std`` plus ``mean``.
        std: Of each channel.
        outer: Outer iterations done.
    """

    kind: ClassVar[str] = "condensed set"
    made_by: ClassVar[str] = "cl-vision condense"

    method: str
    classes: tuple[str, ...]
    ipc: int
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    outer: int

    def __post_init__(self) -> None:
        require_positive(ipc=self.ipc, channels=self.channels, height=self.height, width=self.width)
        if self.ipc * len(self.classes) * self.channels * self.height * self.width > _LARGEST:
            raise OptionError("the set is larger than any condensed one")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise OptionError("mean and std need a number for each channel")
        require_positive(**{f"std[{k}]": v for k, v in enumerate(self.std)})


@dataclass(frozen=True, eq=False)
class CondensedSet:
    """Images, normalised, and what they mean.

    Attributes:
        images: Grouped by class.
        start: What they were learned from.
        card: Their meaning.
    """

    images: Float[Tensor, "n c h w"]
    start: Float[Tensor, "n c h w"]
    card: CondensedCard

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Class of each image."""
        return torch.arange(len(self.card.classes)).repeat_interleave(self.card.ipc)

    def pictures(self) -> Float[Tensor, "n c h w"]:
        """The images as their 8-bit pictures give them back, normalised."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.card.mean, self.card.std))
        pixels = picture_pixels(self.images, self.card.mean, self.card.std)
        return (pixels.float() / 255 - mean) / std

    def clipped(self) -> float:
        """Share of pixel values that lie outside what a picture can show."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.card.mean, self.card.std))
        x = self.images * std + mean
        return float(((x < 0) | (x > 1)).float().mean())


def picture_pixels(
    images: Float[Tensor, "n c h w"], mean: tuple[float, ...], std: tuple[float, ...]
) -> UInt8[Tensor, "n c h w"]:
    """Undo the normalisation, clip to [0, 1], round to 8 bits."""
    m, s = (torch.tensor(v)[:, None, None] for v in (mean, std))
    return ((images.detach().cpu().float() * s + m).clamp(0, 1) * 255).round().to(torch.uint8)


def save_condensed(run: Run, found: CondensedSet) -> None:
    """Write the set into a run directory.

    ``model.safetensors`` with its card, ``condensed.npz`` (images, labels, mean, std, classes;
    opens with ``allow_pickle=False``) and ``condensed/<class>/<k>.png``, 8 bits.

    Raises:
        InputError: If the disk is full.
    """
    if not run.writes:
        return
    card = found.card
    run.save_model({"images": found.images, "start": found.start, "labels": found.labels}, card)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=found.images.cpu().numpy(),
        labels=found.labels.numpy(),
        mean=np.asarray(card.mean, dtype=np.float32),
        std=np.asarray(card.std, dtype=np.float32),
        classes=np.asarray(card.classes),
    )
    with write_atomic(run.output("condensed.npz")) as beside:
        beside.write_bytes(buffer.getvalue())
    folder = run.output("condensed")
    pixels = picture_pixels(found.images, card.mean, card.std)
    for place, names in enumerate(_folders(card.classes)):
        (folder / names).mkdir(parents=True, exist_ok=True)
        for k in range(card.ipc):
            with write_atomic(folder / names / f"{k:04d}.png") as beside:
                beside.write_bytes(png(pixels[place * card.ipc + k]))


def png(pixels: UInt8[Tensor, "c h w"]) -> bytes:
    """A picture of 1 to 4 channels as a PNG file."""
    from PIL import Image

    array = pixels.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array, _MODES[len(pixels)])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def load_condensed(path: Path, *, option: str = "--run") -> CondensedSet:
    """Read the set of a run.

    Raises:
        InputError: If there is none, or its files are damaged.
    """
    from cl_core.runs.card import load_model

    saved = load_model(path, CondensedCard, option=option)
    card = saved.card
    n = card.ipc * len(card.classes)
    shape = (n, card.channels, card.height, card.width)
    for name in ("images", "start"):
        if name not in saved.state or tuple(saved.state[name].shape) != shape:
            raise InputError(
                f"{path}: the tensor {name} is not {shape} as model.json says: condense again"
            )
    return CondensedSet(saved.state["images"].float(), saved.state["start"].float(), card)


def _folders(classes: tuple[str, ...]) -> list[str]:
    """A folder for each class: its name, with what a file system may not like escaped."""
    return [
        name if re.fullmatch(r"[\w][\w .+-]*", name) else quote(name, safe=" ") or "_"
        for name in classes
    ]
