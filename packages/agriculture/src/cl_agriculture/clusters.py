"""A clustering as it is saved: encoder, principal components, mixture, threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor, nn

from cl_agriculture.groups import contingency
from cl_agriculture.hyper import MixtureHyper
from cl_agriculture.mixture.gaussians import Mixture
from cl_agriculture.mixture.pca import PCA, fit_pca
from cl_agriculture.mixture.selection import Selection, select_mixture
from cl_agriculture.model import PlantCard, PlantModel
from cl_core.checks import OptionError, require_at_least, require_positive
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.runs.card import Card

__all__ = ["ClusterCard", "ClusterModel", "fit_clusters", "load_clusters", "renamed"]

DIMENSIONS = 16
"""Principal components kept by default."""
_REFERENCE = 10_000  # log-likelihoods of training images that ranks go by
_LARGEST = {"width": 65_536, "dimensions": 4096, "components": 100_000, "reference": _REFERENCE}


@dataclass(frozen=True, kw_only=True)
class ClusterCard(Card):
    """How to rebuild a clustering.

    Args:
        space: Of the encoder that is grouped; `vectors` of any origin have no encoder.
        width: Numbers of a vector.
        dimensions: Principal components.
        components: Of the mixture.
        covariance: Their shape.
        names: Number by which each group is called.
        threshold: Log-likelihood below which an image is odd, in nats.
        quantile: Share of the training images below it.
        mean_ll: Of the training images.
        std_ll: Likewise.
        reference: Log-likelihoods kept to rank by.
        classes: Weak labels of the training images.
        encoder: Card of the encoder.
    """

    kind: ClassVar[str] = "plant clusters"
    made_by: ClassVar[str] = "cl-agriculture cluster"

    space: Literal["representation", "unit", "embedding", "vectors"]
    width: int
    dimensions: int
    components: int
    covariance: Literal["full", "tied", "diag", "spherical"]
    names: tuple[int, ...]
    threshold: float
    quantile: float
    mean_ll: float
    std_ll: float
    reference: int
    classes: tuple[str, ...] = ()
    encoder: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, most in _LARGEST.items():
            value = getattr(self, name)
            require_positive(**{name: value})
            if value > most:
                raise OptionError(f"{name} must not pass {most}, got {value}")
        require_at_least(0, std_ll=self.std_ll)
        if len(self.names) != self.components or len(set(self.names)) != self.components:
            raise OptionError(f"names must be {self.components} different numbers")
        if (self.encoder is None) != (self.space == "vectors"):
            raise OptionError("an encoder belongs to a clustering of images, and to no other")

    def plant_card(self) -> PlantCard | None:
        """The card of the encoder."""
        if self.encoder is None:
            return None
        known = {name: v for name, v in self.encoder.items() if name != "more"}
        return PlantCard.of_record(known, "model.json (encoder)")


class ClusterModel(nn.Module):
    """Everything that `score` needs: nothing of it is fitted again.

    Args:
        card: Sizes and threshold.
        plant: The encoder; ``None`` for vectors.
    """

    def __init__(self, card: ClusterCard, plant: PlantModel | None = None) -> None:
        super().__init__()
        self.card = card
        self.plant = plant
        k, d, width = card.components, card.dimensions, card.width
        shapes = {
            "pca_mean": (width,),
            "pca_components": (d, width),
            "pca_scales": (d,),
            "pca_explained": (d,),
            "weights": (k,),
            "means": (k, d),
            "covariances": (k, d, d),
            "reference": (card.reference,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        table = torch.zeros(len(card.classes), k, dtype=torch.int64)
        self.register_buffer("table", table)

    @classmethod
    def rebuild(cls, card: ClusterCard) -> ClusterModel:
        """Build a model without values from its card.

        Raises:
            InputError: If the card tells of no such model.
        """
        plant = card.plant_card()
        return cls(card, None if plant is None else PlantModel.rebuild(plant))

    def fill(self, **arrays: NDArray[Any]) -> None:
        """Set the values by name."""
        with torch.no_grad():
            for name, array in arrays.items():
                self.get_buffer(name).copy_(torch.from_numpy(np.ascontiguousarray(array)))

    def array(self, name: str) -> NDArray[Any]:
        """A value as an array."""
        array: NDArray[Any] = self.get_buffer(name).cpu().numpy()
        return array

    @property
    def pca(self) -> PCA:
        """The principal components."""
        names = ("pca_mean", "pca_components", "pca_scales", "pca_explained")
        mean, components, scales, explained = (self.array(name) for name in names)
        return PCA(mean, components, scales, explained)

    @property
    def mixture(self) -> Mixture:
        """The mixture."""
        names = ("weights", "means", "covariances")
        weights, means, covariances = (self.array(name) for name in names)
        return Mixture(weights, means, covariances, self.card.covariance)

    @property
    def names(self) -> Int64[np.ndarray, " k"]:
        """Number by which each component is called."""
        return np.array(self.card.names, dtype=np.int64)

    def centres(self) -> Float64[np.ndarray, "k w"]:
        """The groups' means among the vectors."""
        return self.pca.vectors(self.array("means"))

    def rank(self, ll: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Share of the training images that are at least as odd, read like a p-value."""
        reference = self.array("reference")
        below = np.searchsorted(reference, ll, side="right")
        shares: Float64[np.ndarray, " n"] = (1 + below) / (1 + len(reference))
        return shares

    def majority(self) -> list[str | None]:
        """The most frequent weak label of each group's training images, if any has one."""
        table = self.array("table")
        if not table.size:
            return [None] * self.card.components
        return [
            self.card.classes[int(column.argmax())] if column.sum() else None for column in table.T
        ]


def fit_clusters(
    x: Float[Tensor, "n w"],
    labels: Int64[np.ndarray, " n"],
    classes: tuple[str, ...],
    hyper: MixtureHyper,
    *,
    clusters: int | None,
    space: Literal["representation", "unit", "embedding", "vectors"],
    plant: PlantModel | None,
    seed: int,
) -> tuple[ClusterModel, Selection, list[str]]:
    """Fit principal components and mixture to the training images.

    Args:
        x: Their vectors.
        labels: Their weak labels, -1 for none; they do not change the fit, but for the largest
            number of groups that is tried.
        classes: Names of the labels.
        hyper: Dimensions, candidates, EM.
        clusters: Number of groups, where it is known.
        space: What the vectors are.
        plant: The encoder that gave them.
        seed: Of the starts.

    Returns:
        The model, what was compared, and notes.

    Raises:
        InputError: If vectors are not finite, or too few for the groups or dimensions asked for.
    """
    vectors = x.numpy()
    n, width = vectors.shape
    _require_finite(vectors)
    notes: list[str] = []
    dimensions = hyper.dimensions
    most = min(n - 1, width)
    if dimensions is None:
        dimensions = max(1, min(DIMENSIONS, most, n // 10))
        if dimensions < min(DIMENSIONS, width):
            notes.append(
                f"{dimensions} principal components instead of {min(DIMENSIONS, width)}: "
                f"{n} images carry no more"
            )
    if n < 2 or dimensions > most:
        raise InputError(
            f"--mixture.dimensions {dimensions}: {n} images of {width} numbers give at most "
            f"{max(most, 0)}; lower it or give more images"
        )
    pca = fit_pca(vectors, dimensions, whiten=hyper.whiten)
    scores = pca.scores(vectors)
    kinds = len(np.unique(labels[labels >= 0]))
    selection = select_mixture(scores, hyper, clusters=clusters, classes=kinds, seed=seed)
    mixture = selection.chosen.mixture
    assert mixture is not None
    found = mixture.assign(scores)
    reference = np.quantile(found.ll, np.linspace(0, 1, min(n, _REFERENCE)))
    card = ClusterCard(
        space=space,
        width=width,
        dimensions=dimensions,
        components=len(mixture),
        covariance=mixture.covariance,
        names=tuple(range(len(mixture))),
        threshold=float(np.quantile(found.ll, hyper.quantile)),
        quantile=hyper.quantile,
        mean_ll=float(found.ll.mean()),
        std_ll=float(found.ll.std()),
        reference=len(reference),
        classes=classes,
        encoder=None if plant is None else plant.card.record(),
    )
    model = ClusterModel(card, plant)
    model.fill(
        pca_mean=pca.mean,
        pca_components=pca.components,
        pca_scales=pca.scales,
        pca_explained=pca.explained,
        weights=mixture.weights,
        means=mixture.means,
        covariances=mixture.covariances,
        reference=reference,
        table=contingency(labels, found.component, len(classes), len(mixture)),
    )
    chosen = selection.chosen
    if chosen.note:
        notes.append(f"{chosen.count} {chosen.covariance} components: {chosen.note}")
    if not chosen.converged:
        notes.append(
            f"EM did not come to rest in {hyper.iterations} steps: raise --mixture.iterations"
        )
    return model, selection, notes


def renamed(model: ClusterModel, names: Int64[np.ndarray, " k"]) -> ClusterModel:
    """The same model under other numbers."""
    other = ClusterModel(replace(model.card, names=tuple(names.tolist())), model.plant)
    other.load_state_dict(model.state_dict())
    return other


def load_clusters(run: Run) -> ClusterModel:
    """Rebuild the clustering of a run, in eval mode.

    Raises:
        InputError: If the run holds none, or its values make no mixture.
    """
    saved = run.load_model(ClusterCard)
    model = saved.build(ClusterModel.rebuild)
    values: Mapping[str, Tensor] = dict(model.named_buffers(recurse=False))
    whole = all(bool(v.isfinite().all()) for v in values.values() if v.is_floating_point())
    if whole:
        try:
            np.linalg.cholesky(model.array("covariances"))
        except np.linalg.LinAlgError:
            whole = False
    if not whole or bool((model.get_buffer("weights") <= 0).any()):
        raise InputError(f"--run {run.path}: its model is no mixture of Gaussians; cluster again")
    return model


def _require_finite(vectors: NDArray[Any]) -> None:
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first = int(bad.argmax())
        raise InputError(
            f"{int(bad.sum())} of {len(vectors)} vectors hold values that are not finite, first in "
            f"row {first + 1}: leave those rows out, or train the encoder again"
        )
