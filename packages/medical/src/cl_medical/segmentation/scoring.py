"""Cases segmented and scored on their native grids, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_medical.segmentation.inference import Inference, Segmentation
from cl_medical.segmentation.inference import segment_volume as segment
from cl_medical.segmentation.manifest import IGNORE, Case, Domain
from cl_medical.segmentation.native import largest_components
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.scores import MaskScores, score_mask
from cl_medical.segmentation.volumes import Intensity, Recipe, Volume, map_labels

__all__ = [
    "CaseScores",
    "Segmented",
    "read_truth",
    "score_case",
    "segment_case",
]


@dataclass(frozen=True)
class Segmented:
    """A case with the mask that was made of it.

    Attributes:
        volume: Its files and their way to the network.
        result: The mask.
        image: The first image, for pictures.
    """

    volume: Volume
    result: Segmentation
    image: NDArray[np.float32]


@dataclass(frozen=True)
class CaseScores:
    """How one case was segmented.

    Attributes:
        domain: Of the case.
        case: Its name.
        split: Of the case.
        spacing: mm of the file's axes.
        structures: Scores by structure.
        picture: What a report shows of it.
    """

    domain: str
    case: str
    split: str
    spacing: tuple[float, ...]
    structures: Mapping[str, MaskScores]
    picture: Any = field(default=None, compare=False)

    @property
    def dice(self) -> float:
        """Mean over the structures."""
        return sum(one.dice for one in self.structures.values()) / len(self.structures)


def segment_case(
    network: MultiDomainNetwork,
    domain: str,
    volume: Volume,
    recipe: Recipe,
    inference: Inference,
    *,
    probabilities: bool = False,
    largest: bool = False,
) -> Segmented:
    """Read a case and segment it.

    Args:
        network: In eval mode.
        domain: Whose norms and head are used.
        volume: The case.
        recipe: Of the domain.
        inference: Options.
        probabilities: Keep them.
        largest: Keep the largest piece of each structure.

    Raises:
        InputError: If a file cannot be read.
    """
    images = [file.read() for file in volume.files]
    intensities = [Intensity.of(image, recipe) for image in images]
    result = segment(
        network,
        domain,
        images,
        intensities,
        volume.geometry,
        inference,
        probabilities=probabilities,
    )
    if largest:
        count = network.heads.classes(network.domains.index(domain))
        kept = largest_components(result.classes, count)
        result = Segmentation(kept, result.probabilities)
    return Segmented(volume, result, images[0])


def score_case(
    segmented: Segmented, case: Case, domain: Domain, truth: NDArray[np.uint8]
) -> CaseScores:
    """Score a mask structure by structure; voxels without a known label count for nothing.

    Args:
        segmented: The mask.
        case: Of it.
        domain: Its classes.
        truth: The true classes on the file's grid.
    """
    predicted = segmented.result.classes
    if (truth == IGNORE).any():
        predicted = np.where(truth == IGNORE, 0, predicted)
    spacing = segmented.volume.files[0].spacing
    return CaseScores(
        domain=domain.name,
        case=case.name,
        split=case.split or "",
        spacing=spacing,
        structures={
            name: score_mask(predicted == k, truth == k, spacing)
            for k, name in enumerate(domain.classes)
            if k > 0
        },
    )


def read_truth(volume: Volume, domain: Domain) -> NDArray[np.uint8]:
    """The true classes of a case that has a label, on the file's grid.

    Raises:
        InputError: If the label cannot be used.
    """
    assert volume.label is not None
    return map_labels(volume.label.read_label(), domain)
