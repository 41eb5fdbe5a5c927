"""One network for all domains of a manifest: the modes `shared`, `domain_norm`, `contrast`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_medical.segmentation.cache import VolumeCache
from cl_medical.segmentation.config import TrainConfig
from cl_medical.segmentation.embedding import DomainPoints, domain_points
from cl_medical.segmentation.evaluation import score_manifest
from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.manifest import Domain, Manifest, write_manifest
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.planning import new_network, plan_of, sources_of
from cl_medical.segmentation.preparation import Examined, examine
from cl_medical.segmentation.reading import MANIFEST
from cl_medical.segmentation.saved import (
    DomainCard,
    Networks,
    PlanCard,
    SavedModel,
    SegmentationCard,
)
from cl_medical.segmentation.scoring import CaseScores
from cl_medical.segmentation.summaries import summarise
from cl_medical.segmentation.training import fit_network, young_statistics

__all__ = ["Trained", "card_of", "domain_card", "examined_data", "start_from", "train_one"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training hands on.

    Attributes:
        model: What was trained; ``None`` after a cross-validation.
        history: A row an epoch.
        seconds: Of all epochs.
        scores: Of the validation cases, or of the held-out ones, on native grids.
        points: Embeddings by domain, where the domains share a network.
        notes: What the user should know.
    """

    model: SavedModel | None
    history: list[dict[str, float]]
    seconds: float
    scores: list[CaseScores]
    points: DomainPoints | None = None
    notes: Sequence[str] = ()

    def metrics(self) -> dict[str, float]:
        """The figures of ``metrics.json``."""
        figures = summarise(self.scores) if self.scores else {}
        silhouette = float("nan") if self.points is None else self.points.silhouette()
        last = {"train/loss": self.history[-1]["train/loss"]} if self.history else {}
        return {**figures, "domain_silhouette": silhouette, **last}


def examined_data(config: Any, manifest: Manifest, cache: VolumeCache, **options: Any) -> Examined:
    """Read and prepare all cases as a training's options say.

    Raises:
        ManifestError: With everything that is wrong.
    """
    volumes = config.volumes
    return examine(
        manifest,
        cache,
        in_plane=volumes.dims == 2,
        percentiles=volumes.percentiles,
        nonzero_only=volumes.nonzero_only,
        **options,
    ).require_sound()


def train_one(config: TrainConfig, run: Run, manifest: Manifest, cache: VolumeCache) -> Trained:
    """Train one network for all domains: the modes `shared`, `domain_norm` and `contrast`."""
    examined = examined_data(config, manifest, cache)
    if run.writes:
        write_manifest(run.output(MANIFEST), examined.manifest)
    seed_everything(config.seed)
    domains = examined.manifest.domains
    plan = plan_of(config.network, config.volumes, sources_of(examined, "train"), examined)
    network = new_network(
        plan,
        domains,
        domain_norm=config.mode != "shared",
        synchronized=config.network.synchronized,
    )
    notes = list(examined.notes)
    if config.mode == "contrast" and config.sampling == "alternate":
        notes.append("--sampling alternate: a step has one domain, so the contrast is always 0")
    if config.init_from is None:
        notes += young_statistics(config)
    else:
        notes.append(start_from(network, SavedModel.load(config.init_from), config.init_from))
    result = fit_network(
        run,
        network,
        examined,
        config,
        loss=config.loss,
        contrast=config.contrast if config.mode == "contrast" else None,
        prior=config.prior,
    )
    card = card_of(config, PlanCard(**vars(plan)), examined, network)
    model = SavedModel(card=card, networks=Networks([network]))
    model.save(run)
    scores, points = _looked_at(model, examined, run)
    return Trained(
        model=model,
        history=result.history,
        seconds=result.seconds,
        scores=scores,
        points=points,
        notes=notes,
    )


def _looked_at(
    model: SavedModel, examined: Examined, run: Run
) -> tuple[list[CaseScores], DomainPoints | None]:
    """Scores and embeddings of the validation cases; of none on ranks that do not write."""
    if not run.writes:
        return [], None
    inference = Inference(patch=model.card.patch)
    scores = [one for one, _, _ in score_manifest(model, examined.manifest, ("val",), inference)]
    if len(model.networks.members) > 1:
        return scores, None
    names = [domain.name for domain in model.card.domains]
    sources = sources_of(examined, "val", domains=names)
    if len({source.domain for source in sources}) < len(names):
        sources = sources_of(examined, "train", "val", domains=names)
    network = model.networks.of_domain(names[0])
    return scores, domain_points(network, sources, model.card.patch)


def start_from(network: MultiDomainNetwork, model: SavedModel, path: Path) -> str:
    """Take over from a run's network what fits: filters, and norms and heads of one domain.

    Norm sets of domains that both know go to these; else every domain starts with the norms of the
    run's first one.

    Returns:
        A note that tells how much was taken.

    Raises:
        InputError: If nothing fits.
    """
    first = model.networks.of_domain(model.card.domains[0].name)
    given = dict(first.state_dict())
    taken = 0
    own = network.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            source = given.get(_counterpart(name, network, first))
            if source is not None and source.shape == value.shape:
                value.copy_(source)
                taken += 1
    if taken == 0:
        raise InputError(
            f"--init_from {path}: none of its weights fits; give a run of the same "
            "--network.architecture and --network.filters"
        )
    return f"{taken} of {len(own)} weights start as those of {path}"


def _counterpart(name: str, network: MultiDomainNetwork, source: MultiDomainNetwork) -> str:
    """The name a weight of one network has in another with other domains."""
    parts = name.split(".")
    if parts[0] == "heads":
        domain = network.domains[int(parts[2])]
        if domain not in source.domains:
            return ""
        return ".".join([*parts[:2], str(source.domains.index(domain)), *parts[3:]])
    if "sets" in parts:
        place = parts.index("sets")
        domain = network.domains[int(parts[place + 1])]
        number = source.domains.index(domain) if domain in source.domains else 0
        if source.domain_norm:
            return ".".join([*parts[: place + 1], str(number), *parts[place + 2 :]])
        return ".".join([*parts[:place], *parts[place + 2 :]])
    if source.domain_norm:
        head, _, last = name.rpartition(".")
        return name if name in source.state_dict() else f"{head}.sets.0.{last}"
    return name


def card_of(
    config: Any,
    plan: PlanCard,
    examined: Examined,
    network: MultiDomainNetwork,
    *,
    mode: Any = None,
) -> SegmentationCard:
    """Describe one network of all its domains, with where their cases lie in its embedding."""
    names = network.domains
    patch = config.volumes.size
    points = domain_points(network, sources_of(examined, "train", domains=names), patch)
    centers = points.centers(len(names)) if len(names) > 1 else [()] * len(names)
    return SegmentationCard(
        mode=mode or config.mode,
        plan=plan,
        domains=tuple(
            domain_card(examined.manifest.domain(name), examined, center)
            for name, center in zip(names, centers, strict=True)
        ),
        members=(tuple(names),),
        domain_norm=network.domain_norm,
        patch=patch,
        percentiles=config.volumes.percentiles,
        nonzero_only=config.volumes.nonzero_only,
    )


def domain_card(domain: Domain, examined: Examined, center: Sequence[float]) -> DomainCard:
    """Describe a domain as it was prepared for training."""
    recipe = examined.recipes[domain.name]
    return DomainCard(
        name=domain.name,
        classes=domain.classes,
        label_map=tuple(sorted(domain.label_map.items())),
        slice_axis=recipe.slice_axis,
        spacing=recipe.spacing,
        center=tuple(center),
        channels=domain.channels,
    )
