"""Which cases a network learns from, and how it is built for them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cl_core.checks import OptionError
from cl_core.errors import InputError
from cl_medical.segmentation.backbones import Plan, build_backbone, plan_levels
from cl_medical.segmentation.data import Source
from cl_medical.segmentation.hyper import NetworkHyper, VolumeHyper
from cl_medical.segmentation.manifest import Domain
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.preparation import Examined

__all__ = ["channels_of", "new_network", "plan_of", "require_patch", "sources_of"]


def sources_of(examined: Examined, *splits: str, domains: Sequence[str] = ()) -> list[Source]:
    """The labelled cases of some splits, those of a domain together, numbered in its order.

    Args:
        examined: All cases.
        splits: Which of them.
        domains: The order that numbers the domains; by default the manifest's.
    """
    names = list(domains or examined.manifest.names)
    return [
        Source.of(k, facts.case.name, facts.prepared, examined.manifest.domain(name).count)
        for k, name in enumerate(names)
        if name in examined.manifest.names
        for facts in examined.cases[name]
        if facts.case.split in splits and facts.case.label is not None
    ]


def channels_of(examined: Examined, volumes: VolumeHyper) -> int:
    """Channels of the network's input.

    Raises:
        InputError: If cases have more images than the options say, or the options say nothing and
            domains differ.
    """
    counts = {domain.name: domain.channels for domain in examined.manifest}
    most = max(counts.values())
    if volumes.channels is None:
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise InputError(
                f"--data {examined.manifest.source}: domains differ in the images of a case "
                f"({told}); say --volumes.channels {most} to fill up the others with zeros"
            )
        return most
    if volumes.channels < most:
        raise InputError(f"--volumes.channels {volumes.channels}: there are cases of {most} images")
    return volumes.channels


def plan_of(
    network: NetworkHyper, volumes: VolumeHyper, sources: Sequence[Source], examined: Examined
) -> Plan:
    """Plan the backbone: an axis that is coarse in the middle of the domains is pooled late."""
    dims = volumes.dims
    levels = len(network.filters)
    mm = [1.0] * dims
    if dims == 3:
        ratios = []
        for source in sources:
            spacing = _grid_spacing(source, examined)
            ratios.append(spacing[0] / (spacing[1] * spacing[2]) ** 0.5)
        mm = [statistics.median(ratios), 1.0, 1.0]
    strides, kernels = plan_levels(levels, volumes.size, mm)
    plan = Plan(
        architecture=network.architecture,
        spatial_dims=dims,
        in_channels=channels_of(examined, volumes),
        filters=network.filters,
        strides=strides,
        kernels=kernels,
    )
    require_patch(plan, volumes.size)
    return plan


def _grid_spacing(source: Source, examined: Examined) -> list[float]:
    """Of the prepared axes of a case, mm, slice axis first."""
    recipe = examined.recipes[examined.manifest.names[source.domain]]
    own = dict(zip(source.prepared.ras_axes, source.prepared.spacing, strict=True))
    wanted = dict(zip("RAS", recipe.spacing, strict=True))
    axes = [recipe.slice_axis, *(axis for axis in "RAS" if axis != recipe.slice_axis)]
    return [wanted[axis] or own[axis] for axis in axes]


def require_patch(plan: Plan, patch: Sequence[int]) -> None:
    """Refuse a patch that the levels do not divide, or whose bottleneck is a single cell.

    Raises:
        OptionError: Naming the sizes that would do.
    """
    for n, m in zip(patch, plan.multiple, strict=True):
        if n % m:
            raise OptionError(
                f"volumes.patch {list(patch)} must be divisible by {list(plan.multiple)}, which "
                f"{len(plan.filters)} levels halve it by"
            )
    if all(n == m for n, m in zip(patch, plan.multiple, strict=True)):
        raise OptionError(
            f"volumes.patch {list(patch)} leaves one cell at the bottleneck, which has no batch "
            "statistics: enlarge it"
        )


def new_network(
    plan: Plan, domains: Sequence[Domain], *, domain_norm: bool, synchronized: bool
) -> MultiDomainNetwork:
    """Build the network of a training, with fresh weights."""
    try:
        backbone = build_backbone(plan)
    except ValueError as error:
        raise OptionError(f"network: {error}") from error
    return MultiDomainNetwork(
        backbone,
        {domain.name: domain.count for domain in domains},
        domain_norm=domain_norm,
        synchronized=synchronized,
    )
