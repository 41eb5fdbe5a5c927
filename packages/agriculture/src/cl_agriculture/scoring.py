"""What a clustering says of images: their group, how sure, how odd; and how data have drifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from cl_agriculture.attention.store import MaskRecord
from cl_agriculture.clusters import ClusterModel
from cl_agriculture.groups import label_doubt
from cl_agriculture.mixture.gaussians import Assigned

__all__ = ["Drift", "Scored", "drift", "score_vectors"]

ODD_SHARE = 3.0
"""Times the training's share of odd images above which new data count as drifted."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Images and what a clustering says of them.

    Attributes:
        files: Names.
        labels: Weak labels by name, ``None`` for none.
        splits: Filed under; ``None`` without splits.
        scores: On the principal components.
        assigned: Component, confidence, entropy, log-likelihood, density, distance.
        names: Number by which each image's group is called.
        rank: Share of the training images that are at least as odd.
        flagged: Odd by the threshold.
        majority: Most frequent weak label of each image's group.
        doubt: About the weak label; NaN without one.
        masks: What is known of each mask; ``None`` without masks.
    """

    files: list[str]
    labels: list[str | None]
    splits: Sequence[str] | None
    scores: Float64[np.ndarray, "n d"]
    assigned: Assigned
    names: Int64[np.ndarray, " n"]
    rank: Float64[np.ndarray, " n"]
    flagged: Bool[np.ndarray, " n"]
    majority: list[str | None]
    doubt: Float64[np.ndarray, " n"]
    masks: list[MaskRecord] | None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fallback(self) -> Bool[np.ndarray, " n"]:
        """Images that were used whole because their mask is not to be trusted."""
        if self.masks is None:
            return np.zeros(len(self), dtype=bool)
        return np.array([bool(mask.reason) for mask in self.masks], dtype=bool)

    @property
    def fractions(self) -> Float64[np.ndarray, " n"] | None:
        """Plant cover of each image."""
        return None if self.masks is None else np.array([mask.fraction for mask in self.masks])

    def table(self) -> list[dict[str, object]]:
        """A row an image, as in ``assignments.csv``, without columns of which nothing is known."""
        a = self.assigned
        columns: dict[str, Sequence[object]] = {"file": self.files}
        labelled = any(label is not None for label in self.labels)
        if labelled:
            columns["label"] = self.labels
        if self.splits is not None:
            columns["split"] = self.splits
        columns |= {
            "cluster": self.names.tolist(),
            "confidence": a.confidence.tolist(),
            "entropy": a.entropy.tolist(),
            "ll": a.ll.tolist(),
            "rank": self.rank.tolist(),
            "mahalanobis": a.mahalanobis.tolist(),
            "flagged": self.flagged.tolist(),
        }
        if self.masks is not None:
            columns["mask_fraction"] = [mask.fraction for mask in self.masks]
            columns["fallback"] = [mask.reason for mask in self.masks]
        if any(name is not None for name in self.majority):
            columns["majority"] = self.majority
        if labelled:
            columns["doubt"] = self.doubt.tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def watch_list(self) -> list[int]:
        """Rows whose label is not their group's, the most doubtful first, ties by name."""
        rows = [
            row
            for row, (own, common) in enumerate(zip(self.labels, self.majority, strict=True))
            if own is not None and common is not None and own != common
        ]
        return sorted(rows, key=lambda row: (-self.doubt[row], self.files[row]))

    def odd(self) -> list[int]:
        """Rows below the threshold, the oddest first, without those that fell back."""
        rows = np.flatnonzero(self.flagged & ~self.fallback).tolist()
        return sorted(rows, key=lambda row: (self.assigned.ll[row], self.files[row]))

    def typical_of(self, component: int, most: int) -> list[int]:
        """Members of a group where its density is highest."""
        return self._members(component, -self.assigned.density, most)

    def odd_of(self, component: int, most: int) -> list[int]:
        """Members of a group with the lowest log-likelihood."""
        return self._members(component, self.assigned.ll, most)

    def _members(self, component: int, key: NDArray[np.float64], most: int) -> list[int]:
        rows = np.flatnonzero((self.assigned.component == component) & ~self.fallback).tolist()
        return sorted(rows, key=lambda row: (key[row], self.files[row]))[:most]


def score_vectors(
    model: ClusterModel,
    vectors: NDArray[np.floating],
    *,
    files: list[str],
    labels: list[str | None],
    splits: Sequence[str] | None = None,
    masks: list[MaskRecord] | None = None,
) -> Scored:
    """Say of each vector which group it belongs to and how odd it is.

    Args:
        model: The clustering.
        vectors: ``(n, w)``, finite.
        files: Name of each.
        labels: Weak label of each by name; those that the clustering never saw give no doubt.
        splits: Filed under.
        masks: What is known of each mask.

    Raises:
        ValueError: If the vectors have another width than those of the clustering.
    """
    scores = model.pca.scores(vectors)
    mixture = model.mixture
    assigned = mixture.assign(scores)
    majority = model.majority()
    number = {name: k for k, name in enumerate(model.card.classes)}
    known = np.array([number.get(label or "", -1) for label in labels], dtype=np.int64)
    return Scored(
        files=files,
        labels=labels,
        splits=splits,
        scores=scores,
        assigned=assigned,
        names=model.names[assigned.component],
        rank=model.rank(assigned.ll),
        flagged=assigned.ll < model.card.threshold,
        majority=[majority[k] for k in assigned.component.tolist()],
        doubt=label_doubt(known, mixture.responsibilities(scores), model.array("table")),
        masks=masks,
    )


class Drift(NamedTuple):
    """How new images differ from those of the training.

    Attributes:
        flagged: Share of odd images.
        expected: That share of the training images.
        shift: Of the mean log-likelihood, in nats; negative is odder.
        spreads: The same in standard deviations of the training images.
        drifted: Whether so many are odd that the model may not hold for these images.
    """

    flagged: float
    expected: float
    shift: float
    spreads: float
    drifted: bool

    def line(self) -> str:
        """In words."""
        told = (
            f"{self.flagged:.1%} odd (of the training images {self.expected:.1%}), mean "
            f"log-likelihood {self.shift:+.2f} nats ({self.spreads:+.2f} standard deviations)"
        )
        if self.drifted:
            told += (
                "\nwarning: far more odd images than in the training: another camera, season or "
                "crop? Look at them before trusting the groups"
            )
        return told


def drift(model: ClusterModel, scored: Scored) -> Drift:
    """Compare new images with those of the training; those that fell back do not count."""
    counted = ~scored.fallback if not scored.fallback.all() else np.ones(len(scored), dtype=bool)
    flagged = float(scored.flagged[counted].mean())
    shift = float(scored.assigned.ll[counted].mean()) - model.card.mean_ll
    expected = model.card.quantile
    # Two standard errors above, too, so that few images are no alarm by chance.
    error = float(np.sqrt(expected * (1 - expected) / counted.sum()))
    drifted = flagged > max(ODD_SHARE * expected, expected + 2 * error)
    return Drift(flagged, expected, shift, shift / max(model.card.std_ll, 1e-12), drifted)
