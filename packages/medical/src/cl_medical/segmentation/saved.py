"""What a run holds: its networks, how volumes are prepared for them, what their outputs mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

from torch import nn

from cl_core.checks import OptionError, near
from cl_core.commands.options import Options
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.runs.card import Card
from cl_medical.segmentation.backbones import Architecture, Plan, build_backbone
from cl_medical.segmentation.hyper import LARGEST_FILTERS, LARGEST_PATCH, Mode
from cl_medical.segmentation.manifest import Axis, Domain, Manifest
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.volumes import Recipe

__all__ = ["DomainCard", "Networks", "SavedModel", "SegmentationCard", "build_networks"]

_MOST_DOMAINS = 1000


@dataclass(frozen=True, kw_only=True)
class DomainCard(Options):
    """What is fixed about a domain at training.

    Args:
        name: Of the domain.
        classes: Names, background first.
        label_map: Pairs of raw id and class.
        slice_axis: R, A or S.
        spacing: mm along R, A, S; null leaves an axis as it is.
        center: Mean unit embedding of its training cases, where the networks have one in common.
        channels: Images of a case.
    """

    name: str
    classes: tuple[str, ...]
    label_map: tuple[tuple[int, int], ...]
    slice_axis: Axis
    spacing: tuple[float | None, ...]
    center: tuple[float, ...] = ()
    channels: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= 1000:
            raise OptionError(f"domains: {self.name} must have 1 to 1000 images a case")
        if not 2 <= len(self.classes) <= 255:
            raise OptionError(f"domains: {self.name} must have 2 to 255 classes")
        if len(self.spacing) != 3 or any(
            mm is not None and not 0 < mm < 1e3 for mm in self.spacing
        ):
            raise OptionError(f"domains: {self.name} must have three spacings below 1000 mm")

    def domain(self) -> Domain:
        """The domain without cases."""
        return Domain(
            name=self.name, classes=self.classes, label_map=dict(self.label_map), cases=()
        )


@dataclass(frozen=True, kw_only=True)
class PlanCard(Options):
    """The arguments of :class:`~cl_medical.segmentation.backbones.Plan`."""

    architecture: Architecture
    spatial_dims: Literal[2, 3]
    in_channels: int
    filters: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        levels = len(self.filters)
        if not 3 <= levels <= 8 or not all(1 <= n <= LARGEST_FILTERS for n in self.filters):
            raise OptionError("plan.filters must be 3 to 8 numbers of channels")
        if not 1 <= self.in_channels <= 1000:
            raise OptionError(f"plan.in_channels must lie in 1 to 1000, got {self.in_channels}")
        for name, rows in (("strides", self.strides), ("kernels", self.kernels)):
            if len(rows) != levels or any(
                len(row) != self.spatial_dims or not all(1 <= n <= 7 for n in row) for row in rows
            ):
                raise OptionError(f"plan.{name} must hold a small number an axis for each level")

    def plan(self) -> Plan:
        """The plan itself."""
        return Plan(
            architecture=self.architecture,
            spatial_dims=self.spatial_dims,
            in_channels=self.in_channels,
            filters=self.filters,
            strides=self.strides,
            kernels=self.kernels,
        )


@dataclass(frozen=True, kw_only=True)
class SegmentationCard(Card):
    """Networks that segment volumes of several domains.

    Args:
        mode: How they were trained.
        plan: How their backbones are built.
        domains: In the order of their numbers.
        members: The names of the domains of each network.
        domain_norm: Whether each domain has batch norms of its own.
        patch: Size of a training sample.
        percentiles: Where intensities are clipped, per cent.
        nonzero_only: Whether intensities are measured on voxels that are not 0.
    """

    kind: ClassVar[str] = "volume segmentation"
    made_by: ClassVar[str] = "cl-medical segment train"

    mode: Mode
    plan: PlanCard
    domains: tuple[DomainCard, ...]
    members: tuple[tuple[str, ...], ...]
    domain_norm: bool
    patch: tuple[int, ...]
    percentiles: tuple[float, float]
    nonzero_only: bool

    def __post_init__(self) -> None:
        names = [domain.name for domain in self.domains]
        if not 1 <= len(names) <= _MOST_DOMAINS or len(set(names)) < len(names):
            raise OptionError(f"domains must be 1 to {_MOST_DOMAINS} with names of their own")
        if sorted(name for member in self.members for name in member) != sorted(names):
            raise OptionError("members must name every domain once")
        if len(self.patch) != self.plan.spatial_dims or not all(
            1 <= n <= LARGEST_PATCH for n in self.patch
        ):
            raise OptionError(f"patch must hold {self.plan.spatial_dims} sizes")

    def of_domain(self, name: str, option: str = "--domain") -> DomainCard:
        """The card of a domain.

        Raises:
            InputError: If the model has none of that name.
        """
        names = [domain.name for domain in self.domains]
        if name not in names:
            raise InputError(
                f"{option} {name}: the model knows no such domain: {near(name, names)}there are "
                f"{', '.join(names)}"
            )
        return self.domains[names.index(name)]

    def require_images(self, domain: DomainCard, images: Sequence[Path]) -> None:
        """Refuse a case of more or fewer images than a domain was trained on.

        Raises:
            InputError: Naming the first image.
        """
        if len(images) != domain.channels:
            raise InputError(
                f"{images[0]}: a case of {len(images)} image(s), but {domain.name} was trained on "
                f"{domain.channels}; list as many, in their order, in a manifest"
            )

    def recipe(self, domain: DomainCard) -> Recipe:
        """How volumes of a domain are prepared."""
        r, a, s = domain.spacing
        return Recipe(
            slice_axis=domain.slice_axis,
            spacing=(r, a, s),
            in_plane=self.plan.spatial_dims == 2,
            percentiles=self.percentiles,
            nonzero_only=self.nonzero_only,
        )


class Networks(nn.Module):
    """The networks of a run: one for all domains, or one a domain.

    Attributes:
        members: The networks; each knows the names of its domains.
    """

    def __init__(self, members: list[MultiDomainNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def of_domain(self, name: str) -> MultiDomainNetwork:
        """The network of a domain."""
        for member in self.members:
            network = cast(MultiDomainNetwork, member)
            if name in network.domains:
                return network
        raise ValueError(f"no network knows the domain {name!r}")


def build_networks(card: SegmentationCard) -> Networks:
    """Build the networks of a card, with fresh weights."""
    classes = {domain.name: len(domain.classes) for domain in card.domains}
    return Networks(
        [
            MultiDomainNetwork(
                build_backbone(card.plan.plan()),
                {name: classes[name] for name in member},
                domain_norm=card.domain_norm,
            )
            for member in card.members
        ]
    )


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A trained model with its card.

    Attributes:
        card: What is fixed about it.
        networks: In eval mode when they were loaded.
        digest: Of the weights, where they were loaded.
    """

    card: SegmentationCard
    networks: Networks
    digest: str = ""

    def save(self, run: Run) -> None:
        """Write the model into a run."""
        run.save_model(self.networks, self.card)

    @classmethod
    def load(cls, path: Path | Run) -> SavedModel:
        """Read the model of a run.

        Raises:
            InputError: If there is none, or one of another kind.
        """
        saved = Run.open(path).load_model(SegmentationCard)
        return cls(
            card=saved.card, networks=saved.build(build_networks).eval(), digest=saved.digest
        )

    def require_domains(self, manifest: Manifest, source: str) -> None:
        """Refuse a manifest whose domains are not the model's, matched by name.

        Their order may be another; classes must have the model's names in the model's order.

        Raises:
            InputError: If a domain is unknown, or its classes differ.
        """
        for domain in manifest:
            own = self.card.of_domain(domain.name, source)
            if own.classes != domain.classes:
                raise InputError(
                    f"{source}: the classes of {domain.name} are {', '.join(domain.classes)}, but "
                    f"the model was trained on {', '.join(own.classes)}; rename them in the "
                    "manifest, or map its labels to these"
                )

    def recipes(self) -> Mapping[str, Recipe]:
        """How each domain's volumes are prepared."""
        return {domain.name: self.card.recipe(domain) for domain in self.card.domains}
