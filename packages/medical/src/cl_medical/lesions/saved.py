"""Finished runs, the images they were trained on, and the images they are used on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl_core.errors import InputError
from cl_core.evaluation.features import device_of
from cl_core.images import ImageTable
from cl_core.networks.devices import best_device
from cl_core.runs import Run
from cl_medical.lesions.config import EvaluateConfig, PredictConfig
from cl_medical.lesions.data import Lesions, plain_loader
from cl_medical.lesions.explain import heat_maps
from cl_medical.lesions.model import Answers, LesionModel, load_lesion_model
from cl_medical.lesions.options import SavedRunOptions
from cl_medical.lesions.tables import ID, Naming, read_lesions

__all__ = ["SavedRun", "answers_of", "images_to_predict", "images_to_test", "open_run"]


@dataclass(frozen=True)
class SavedRun:
    """A finished training.

    Attributes:
        path: Its folder.
        model: On the best device, in evaluation mode.
        options: Those it was trained with.
        threshold: Of the positive class: the model's own, or the one that was asked for.
        roots: Folders where its images lie now, if they were moved.
    """

    path: Path
    model: LesionModel
    options: Mapping[str, Any]
    threshold: float | None
    roots: tuple[Path, ...] = ()

    def images(self, split: str, *, on_error: Literal["stop", "skip"] = "skip") -> Lesions:
        """The images of a split of the training's own table.

        Args:
            split: Its name.
            on_error: At an image that is gone stop, or leave it out and note it.

        Raises:
            InputError: If the table is gone or has no such split.
        """
        table = read_lesions(
            self.path / "lesions.csv",
            roots=(self.path, *self.roots),
            naming=Naming(convention="prepared"),
            on_error=on_error,
        )
        return Lesions(table.with_classes(self.model.classes).of_split(split), ())

    def seen(self, table: ImageTable) -> list[str]:
        """Tell which images the model was trained or chosen on: their figures flatter.

        By id, and by patient or lesion where both tables know it.
        """
        path = self.path / "lesions.csv"
        if not path.is_file():
            return []
        own = read_lesions(path, naming=Naming(convention="prepared"), files=False)
        known = [row for row, name in enumerate(own.splits or ()) if name in ("train", "val")]
        ids = {own.column(ID)[row] for row in known}
        groups = {own.groups[row] for row in known} - {""} if own.groups is not None else set()
        images = sum(name in ids for name in table.column(ID))
        related = sum(group in groups for group in table.groups or ())
        told = []
        if images:
            told.append(f"{images:,} of these images are ones the model was trained or chosen on")
        if related:
            told.append(
                f"{related:,} are of patients or lesions that the model was trained or chosen on"
            )
        return told

    @torch.no_grad()
    def probabilities(self, views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Calibrated probabilities of images in their plain view, on the CPU."""
        return self.model.probabilities(self.model(views.to(device_of(self.model))).cpu())

    def heat(
        self, views: Float[Tensor, "n 3 h w"], classes: Int[Tensor, " n"]
    ) -> Float[Tensor, "n h w"]:
        """Heat maps of a class of each image, on the CPU.

        Raises:
            InputError: If the encoder has no maps to look at.
        """
        device = device_of(self.model)
        try:
            maps = heat_maps(
                self.model.encoder.forward_features,
                self.model.classify,
                views.to(device),
                classes.to(device),
            )
        except ValueError as error:
            raise InputError(f"--heat_maps: {self.model.encoder.name}: {error}") from error
        return maps.cpu()


def open_run(config: SavedRunOptions) -> SavedRun:
    """Load the run that a command names.

    Raises:
        InputError: If there is no such run, or it holds no lesion classifier.
    """
    run = Run.open(config.run)
    model = load_lesion_model(run).to(best_device())
    threshold = model.card.threshold if config.threshold is None else config.threshold
    return SavedRun(run.path, model, run.config, threshold, _several(config.root))


def images_to_test(config: EvaluateConfig, saved: SavedRun) -> Lesions:
    """Give the images that `evaluate` measures on.

    Raises:
        InputError: If they cannot be read, or have a label that the model does not know.
    """
    if config.data is None:
        return saved.images(config.split, on_error=config.on_error or "stop")
    options = saved.options
    table = read_lesions(
        config.data,
        roots=_several(config.root),
        metadata=_several(config.metadata),
        naming=Naming(
            image=config.image or options.get("image"),
            label=config.label or options.get("label"),
            group=config.group or options.get("group"),
            mapping=options.get("mapping") if config.mapping is None else config.mapping,
        ),
        conflicts=config.conflicts,
        on_error=config.on_error or options.get("on_error", "stop"),
    )
    table = table.with_classes(saved.model.classes)
    return Lesions(table.noting(saved.seen(table)), ())


def images_to_predict(config: PredictConfig, saved: SavedRun) -> ImageTable:
    """Give the images that `predict` classifies; a label they may have is not looked at.

    Raises:
        InputError: If there are none.
    """
    from cl_core.images import list_images

    if Path(config.data).is_dir():
        return list_images(config.data, labels="none")
    return read_lesions(
        config.data,
        roots=_several(config.root),
        naming=Naming(image=config.image or saved.options.get("image")),
        conflicts="drop",
        on_error=config.on_error or "stop",
        labelled=False,
    )


def answers_of(
    model: LesionModel, lesions: Lesions, *, batch_size: int, workers: int = 0
) -> Answers:
    """Classify images in their plain view, on the best device, and hold the answers in memory."""
    loader = plain_loader(
        lesions,
        model.card.view_size,
        model.statistics,
        batch_size=batch_size,
        workers=workers,
    )
    return model.to(best_device()).answer_all(loader)


def _several(paths: tuple[Path, ...] | Path | None) -> tuple[Path, ...]:
    if paths is None:
        return ()
    return (paths,) if isinstance(paths, Path) else paths
