"""Masks kept as 1-bit PNG, so that each is made once for each setting and state of its file."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from cl_agriculture.attention.maker import MaskMaker
from cl_agriculture.attention.plant_mask import PlantMask, Reason
from cl_core.errors import InputError
from cl_core.images import ImageTable, UnreadableImageError
from cl_core.images.opening import open_image
from cl_core.runs import write_atomic

__all__ = ["MaskRecord", "MaskStore"]

INDEX = "masks.json"
_HELD_BYTES = 64 * 2**20  # of unpacked masks that a process keeps: all of a small data set
_SAVE_EVERY = 4096  # masks between two writings of the index: what a kill costs


class MaskRecord(NamedTuple):
    """What is known of a mask besides its pixels; see :class:`PlantMask`.

    Attributes:
        png: Its file in the store.
        fraction: Share of the image found to be plant.
        reason: Why the whole image is used instead; empty if the mask is.
        threshold: Of the excess green; NaN for other sources.
        separability: Likewise.
    """

    png: str
    fraction: float
    reason: Reason
    threshold: float
    separability: float


class MaskStore:
    """The masks of a table's images, in a folder.

    The folder holds one sub-folder for each rule, with the PNG files and ``masks.json``: the rule,
    and for every image its size and time of change, and what was found. The index is written after
    the files it names, so that what a kill leaves half done is done again.

    Args:
        folder: Of one rule.
        records: By image file.
    """

    def __init__(self, folder: Path, records: dict[str, MaskRecord]) -> None:
        self.folder = folder
        self.records = records
        self._held: dict[str, tuple[tuple[int, int], np.ndarray]] = {}
        self._bytes = 0

    @classmethod
    def of(cls, root: Path, table: ImageTable, maker: MaskMaker, *, threads: int = 2) -> MaskStore:
        """Make the masks that are not there, or whose image or mask file has changed.

        Args:
            root: Holds a sub-folder for each rule.
            table: The images.
            maker: The rule.
            threads: Masks made at a time.

        Raises:
            InputError: If an image or a mask cannot be read or they do not fit together.
        """
        key = {**maker.rule(), "files": _meaning(maker)}
        text = json.dumps(key, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        folder = root / f"{maker.source}-{digest}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror or error})") from error
        # A function may have changed under the same name.
        known = {} if maker.function is not None else _read(folder / INDEX, key)
        stamps = {os.path.abspath(file): _stamps(file, maker) for file in table.files}  # noqa: PTH100
        todo = [file for file, stamp in stamps.items() if known.get(file, [None])[0] != stamp]
        for place, (file, made) in enumerate(_made(todo, table, maker, threads), start=1):
            known[file] = [stamps[file], *_keep(folder, file, made)]
            if place % _SAVE_EVERY == 0:
                _write(folder / INDEX, key, known)
        if todo:
            _write(folder / INDEX, key, known)
        return cls(folder, {file: MaskRecord(*_record(known[file])) for file in stamps})

    def get(self, file: str) -> Bool[Tensor, "h w"]:
        """The mask of an image; all true where it is not to be trusted.

        Raises:
            InputError: If the store lost its file.
        """
        path = os.path.abspath(file)  # noqa: PTH100
        held = self._held.get(path)
        if held is None:
            mask = self._load(path)
            if self._bytes < _HELD_BYTES:
                packed = np.packbits(mask)
                self._held[path] = (mask.shape, packed)
                self._bytes += packed.nbytes
            return torch.from_numpy(mask)
        (height, width), packed = held
        bits = np.unpackbits(packed, count=height * width)
        return torch.from_numpy(bits.view(bool).reshape(height, width))

    def record(self, file: str) -> MaskRecord:
        """What is known of an image's mask."""
        return self.records[os.path.abspath(file)]  # noqa: PTH100

    def _load(self, path: str) -> np.ndarray:
        png = self.folder / self.records[path].png
        try:
            with open_image(png) as image:
                return np.array(image.convert("1"))
        except UnreadableImageError as error:
            raise InputError(f"{png}: {error.reason}; delete {self.folder / INDEX}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}, "_bytes": 0}


def _meaning(maker: MaskMaker) -> dict[str, Any]:
    """How mask files are read, which changes the stored masks but not what a model may be given."""
    hyper = maker.hyper
    if maker.files is None:
        return {}
    values = list(hyper.plant_values)
    return {"invert": hyper.invert, "plant_values": values, "turn": hyper.turn}


def _stamps(file: str, maker: MaskMaker) -> list[Any]:
    parts: list[Any] = [*_stamp(file)]
    if maker.files is not None:
        own = maker.files.get(file)
        parts += [""] if own is None else [str(own.resolve()), *_stamp(own)]
    return parts


def _stamp(file: str | Path) -> tuple[int, int]:
    try:
        status = os.stat(file)  # noqa: PTH116 - a million of them
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


def _made(
    todo: Sequence[str], table: ImageTable, maker: MaskMaker, threads: int
) -> Iterator[tuple[str, PlantMask]]:
    """Masks in order, a few hundred held at a time."""
    given = {os.path.abspath(file): file for file in table.files}  # noqa: PTH100
    block = 64 * threads
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(todo), block):
            files = todo[start : start + block]
            yield from zip(files, pool.map(maker.make, [given[f] for f in files]), strict=True)


def _keep(folder: Path, file: str, made: PlantMask) -> list[Any]:
    digest = hashlib.blake2b(file.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    png = f"{digest[:2]}/{digest}.png"
    path = folder / png
    try:
        path.parent.mkdir(exist_ok=True)
        # No flush to disk for each: the index, which is flushed, is written afterwards.
        Image.fromarray(made.mask).save(path, compress_level=1)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return [png, made.fraction, made.reason, _or_none(made.threshold), _or_none(made.separability)]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _record(entry: Sequence[Any]) -> tuple[Any, ...]:
    _, png, fraction, reason, threshold, separability = entry
    unknown = float("nan")
    return (
        png,
        fraction,
        reason,
        unknown if threshold is None else threshold,
        unknown if separability is None else separability,
    )


def _read(path: Path, key: dict[str, Any]) -> dict[str, list[Any]]:
    """The index; empty if there is none or it cannot be used."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["rule"] != json.loads(json.dumps(key)):
            return {}
        masks: dict[str, list[Any]] = content["masks"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    whole = isinstance(masks, dict) and all(
        isinstance(entry, list) and len(entry) == 6 for entry in masks.values()
    )
    return masks if whole else {}


def _write(path: Path, key: dict[str, Any], known: dict[str, list[Any]]) -> None:
    with write_atomic(path) as beside:
        beside.write_text(json.dumps({"rule": key, "masks": known}) + "\n", "utf-8")
