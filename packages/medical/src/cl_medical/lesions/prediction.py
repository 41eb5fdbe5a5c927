"""The table of predictions, written row by row so that memory stays flat and a kill loses little.

Rows go to ``predictions.csv.part``, flushed to the disk after every batch. The same command with
``--resume`` drops a row that was cut short and goes on behind the last; when all are there the file
gets its name.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_core.errors import InputError
from cl_core.images import ImageTable, UnreadableImageError, read_images
from cl_core.runs import Run, write_atomic
from cl_medical.lesions.augment import plain_view
from cl_medical.lesions.config import PredictConfig
from cl_medical.lesions.explain import overlay
from cl_medical.lesions.operating import decisions
from cl_medical.lesions.saved import SavedRun

__all__ = ["PredictionTable", "predict_images", "prediction_columns"]


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """Name the columns: the image, a probability a class, what follows from them, and how."""
    return [
        "image",
        *(f"p_{name}" for name in classes),
        "predicted",
        "decision",
        "threshold",
        "temperature",
    ]


class PredictionTable:
    """Predictions on their way to a file.

    Args:
        path: The file that appears when all rows are there.
        classes: Names.
        positive: The class of the operating point, if there is one.
        threshold: Of that.
        temperature: Of the probabilities.
        resume: Go on behind the rows of a run that was stopped.

    Attributes:
        done: Names of the images that are there already, in their order.

    Raises:
        InputError: If the unfinished file is not of such a table, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        classes: Sequence[str],
        *,
        positive: str | None,
        threshold: float | None,
        temperature: float,
        resume: bool,
    ) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.classes = tuple(classes)
        self.positive = positive
        self.threshold = threshold
        self.temperature = temperature
        self._head = prediction_columns(classes)
        try:
            self.done = self._recover() if resume else []
            if not self.done:
                self.part.write_text(_lines([self._head]), "utf-8")
            self._file = self.part.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise InputError(f"cannot write {self.part}: {error.strerror or error}") from error

    def write(self, images: Sequence[str], p: NDArray[np.floating]) -> None:
        """Add the rows of a batch, in the order of the images."""
        decided = decisions(p, self.classes, positive=self.positive, threshold=self.threshold)
        threshold = "" if self.threshold is None else f"{self.threshold:.6g}"
        rows = [
            [
                image,
                *(f"{value:.6f}" for value in own.tolist()),
                self.classes[int(own.argmax())],
                decision,
                threshold,
                f"{self.temperature:.6g}",
            ]
            for image, own, decision in zip(images, p, decided, strict=True)
        ]
        try:
            self._file.write(_lines(rows))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.part}: {error.strerror or error}") from error

    def finish(self) -> None:
        """Give the file its name."""
        self._file.close()
        self.part.replace(self.path)

    def close(self) -> None:
        """Let go of the file, finished or not."""
        self._file.close()

    def _recover(self) -> list[str]:
        if not self.part.exists():
            return []
        text = self.part.read_text("utf-8")
        complete = text[: text.rfind("\n") + 1]
        lines = list(csv.reader(io.StringIO(complete)))
        if not lines:
            return []
        if lines[0] != self._head or any(len(line) != len(self._head) for line in lines):
            raise InputError(f"{self.part} is of another model: start anew with --overwrite")
        if len(complete) < len(text):
            self.part.write_text(complete, "utf-8")
        return [line[0] for line in lines[1:]]


def _lines(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def predict_images(
    run: Run, config: PredictConfig, saved: SavedRun, table: ImageTable
) -> tuple[dict[str, int], list[str]]:
    """Classify images batch by batch; gives the count of each decision, and notes.

    Raises:
        InputError: If an image cannot be read and `on_error` is not `skip`.
    """
    model, card = saved.model, saved.model.card
    path = run.output("predictions.csv")
    run.output(f"{path.name}.part")
    names = [table.name(row) for row in range(len(table))]
    skipped: list[str] = []
    out = PredictionTable(
        path,
        model.classes,
        positive=card.positive,
        threshold=saved.threshold,
        temperature=card.temperature,
        resume=config.resume,
    )
    run.begun()
    try:
        left = _left(names, out.done, path)
        images = _readable(left, table, config, skipped)
        for rows, views in _batches(images, saved, config.batch_size):
            p = saved.probabilities(views).numpy()
            out.write([names[row] for row in rows], p)
        out.finish()
    finally:
        out.close()
    if config.heat_maps:
        _draw_heat_maps(run, config, saved, table)
    told = [f"{len(skipped)} images that cannot be read left out, first {s}" for s in skipped[:1]]
    return _decisions_in(path), told


def _left(names: Sequence[str], done: Sequence[str], path: Path) -> list[int]:
    """The rows that are not there yet; those that are must come first and in order."""
    place = {name: row for row, name in enumerate(names)}
    rows = [place.get(name, -1) for name in done]
    if any(after <= before for before, after in pairwise([-1, *rows])):
        raise InputError(f"{path}.part is of other images: start anew with --overwrite")
    return list(range(rows[-1] + 1 if rows else 0, len(names)))


def _readable(
    rows: Sequence[int], table: ImageTable, config: PredictConfig, skipped: list[str]
) -> Iterator[tuple[int, Tensor]]:
    files = [table.files[row] for row in rows]
    decoded = read_images(files, threads=max(2, config.workers))
    for row, image in zip(rows, decoded, strict=True):
        if not isinstance(image, UnreadableImageError):
            yield row, image
        elif config.on_error == "skip":
            skipped.append(table.name(row))
        else:
            raise image


def _batches(
    images: Iterator[tuple[int, Tensor]], saved: SavedRun, batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    view = plain_view(saved.model.card.view_size, saved.model.statistics)
    while batch := list(islice(images, batch_size)):
        yield [row for row, _ in batch], torch.stack([view(image) for _, image in batch])


def _draw_heat_maps(run: Run, config: PredictConfig, saved: SavedRun, table: ImageTable) -> None:
    """Draw what raised the positive class, or the most probable one; named by both."""
    from PIL import Image

    model, size = saved.model, saved.model.card.view_size
    picture_view = plain_view(size, None)
    folder = run.output("heat_maps")
    folder.mkdir(exist_ok=True)
    count = len(table) if config.heat_maps == "all" else int(config.heat_maps)
    for row, image in _readable(range(min(count, len(table))), table, config, []):
        ((_, views),) = _batches(iter([(row, image)]), saved, 1)
        p = saved.probabilities(views)[0]
        positive = model.card.positive
        k = int(p.argmax()) if positive is None else model.classes.index(positive)
        heat = saved.heat(views, torch.tensor([k]))[0]
        plain = (255 * picture_view(image)).round().to(torch.uint8)
        stem = Path(table.files[row]).stem
        name = f"{stem}_{model.classes[k]}_{float(p[k]):.2f}.png"
        with write_atomic(folder / name.replace("/", "_")) as temporary:
            Image.fromarray(overlay(plain, heat)).save(temporary)


def _decisions_in(path: Path) -> dict[str, int]:
    counts: Counter[str] = Counter()
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            counts[line["decision"]] += 1
    return dict(sorted(counts.items()))
