"""A trained run in Python: volumes in, masks out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl_core.errors import InputError
from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.manifest import Case, volume_stem
from cl_medical.segmentation.masks import raw_mask
from cl_medical.segmentation.nifti import image_like
from cl_medical.segmentation.prediction import device_named, find_domain
from cl_medical.segmentation.saved import SavedModel
from cl_medical.segmentation.scoring import segment_case
from cl_medical.segmentation.volumes import open_case

__all__ = ["Segmenter"]


class Segmenter:
    """Segments volumes by a trained run.

    Args:
        model: Of a run.
        device: Where it runs: ``auto``, ``cpu``, ``cuda``, ...

    Example:
        >>> mask = Segmenter.load("runs/joints").predict("knee.nii.gz")  # doctest: +SKIP
        >>> nibabel.save(mask, "mask.nii.gz")  # doctest: +SKIP
    """

    def __init__(self, model: SavedModel, *, device: str = "auto") -> None:
        self.model = model
        self.device = device_named(device)

    @classmethod
    def load(cls, run: Path | str, *, device: str = "auto") -> Segmenter:
        """Read the model of a run directory that `train` or `extend` wrote.

        Raises:
            InputError: If there is none.
        """
        return cls(SavedModel.load(Path(run)), device=device)

    @property
    def domains(self) -> dict[str, tuple[str, ...]]:
        """The structures of each domain, without the background."""
        return {card.name: card.classes[1:] for card in self.model.card.domains}

    def predict(
        self,
        images: Path | str | Sequence[Path | str],
        *,
        domain: str = "auto",
        margin: float = 0.02,
        volume_index: int | None = None,
        largest_component: bool = False,
        tta: bool = False,
        overlap: float = 0.5,
    ) -> Any:
        """Segment one volume.

        Args:
            images: Its file, or a file a channel.
            domain: Its domain, or ``auto`` to find it.
            margin: By how much the best domain must beat the next one, for ``auto``.
            volume_index: Which frame of a 4-D file is meant.
            largest_component: Keep the largest piece of each structure.
            tta: Average over flips within slices.
            overlap: Share by which neighbouring patches overlap, in three dimensions.

        Returns:
            The mask, raw ids in the geometry of the file, a nibabel image.

        Raises:
            InputError: If the volume cannot be read or its domain cannot be told.
        """
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must lie in [0, 1), got {overlap}")
        paths = (images,) if isinstance(images, (str, Path)) else tuple(images)
        if not paths:
            raise InputError("a volume needs a file")
        files = tuple(Path(one) for one in paths)
        case = Case(name=volume_stem(files[0]), images=files, volume_index=volume_index)
        name = find_domain(self.model, case, margin)[0] if domain == "auto" else domain
        card = self.model.card.of_domain(name)
        self.model.card.require_images(card, files)
        recipe = self.model.card.recipe(card)
        made = segment_case(
            self.model.networks.of_domain(name).to(self.device),
            name,
            open_case(case, recipe),
            recipe,
            Inference(patch=self.model.card.patch, overlap=overlap, tta=tta, device=self.device),
            largest=largest_component,
        )
        mask, _ = raw_mask(made.result.classes, card)
        return image_like(mask, made.volume.files[0])
