"""A new domain for a trained network: one norm set and one head, the rest as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_medical.segmentation.cache import VolumeCache
from cl_medical.segmentation.config import ExtendConfig
from cl_medical.segmentation.data import Source, central_patches
from cl_medical.segmentation.embedding import domain_points, domain_scores
from cl_medical.segmentation.evaluation import score_manifest
from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.manifest import Domain, Manifest, write_manifest
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.planning import sources_of
from cl_medical.segmentation.preparation import Examined, deal_splits
from cl_medical.segmentation.reading import MANIFEST, open_manifest
from cl_medical.segmentation.saved import Networks, SavedModel
from cl_medical.segmentation.single import Trained, domain_card, examined_data
from cl_medical.segmentation.training import fit_network, young_statistics

__all__ = ["extend_model", "new_domain"]


def new_domain(manifest: Manifest, model: SavedModel) -> Domain:
    """The one domain that a manifest adds to a model.

    Raises:
        InputError: If the model cannot be extended, the name is taken, or it is not one domain.
    """
    card = model.card
    if not card.domain_norm or len(card.members) != 1:
        raise InputError(
            f"--run: a run of the mode {card.mode} has no batch norms of its own for each domain; "
            "give one of train --mode domain_norm or contrast"
        )
    if len(manifest.domains) != 1:
        raise InputError(
            f"--data {manifest.source}: extend adds one domain at a time, got "
            f"{', '.join(manifest.names)}; choose with --domains"
        )
    (domain,) = manifest.domains
    if domain.name in [own.name for own in card.domains]:
        raise InputError(
            f"--data {manifest.source}: the model has a domain {domain.name} already; give the new "
            "one another name"
        )
    if domain.channels > card.plan.in_channels:
        raise InputError(
            f"--data {manifest.source}: cases of {domain.name} have {domain.channels} images, but "
            f"the model takes {card.plan.in_channels}"
        )
    return domain


def extend_model(
    config: ExtendConfig, run: Run, model: SavedModel, manifest: Manifest, cache: VolumeCache
) -> tuple[Trained, dict[str, float]]:
    """Add a domain to a model and train it.

    Returns:
        What was trained, and the figures ``trained_parameters`` and ``trained_share``.
    """
    config = replace(config, volumes=_volumes(config, model))
    domain = new_domain(manifest, model)
    network = model.networks.of_domain(model.card.domains[0].name)
    recipes = dict(model.recipes())
    data = manifest
    if config.unfreeze == "all":
        data = replace(manifest, domains=(*_old(config, model).domains, *manifest.domains))
    examined = examined_data(config, data, cache, recipes=recipes)
    if run.writes:
        write_manifest(run.output(MANIFEST), examined.manifest)
    seed_everything(config.seed)
    start = _start(config, network, model, examined, domain)
    added = network.add_domain(domain.name, domain.count, copy_of=start)
    total = sum(p.numel() for p in network.parameters())
    count = sum(p.numel() for p in added) if config.unfreeze == "none" else total
    result = fit_network(
        run,
        network,
        examined,
        config,
        loss=config.loss,
        contrast=None,
        trained=added if config.unfreeze == "none" else None,
    )
    own_examined = _only(examined, domain.name)
    inner = replace(
        own_examined, manifest=replace(data, domains=(examined.manifest.domain(domain.name),))
    )
    points = domain_points(
        network, sources_of(inner, "train", domains=network.domains), model.card.patch
    )
    center = points.centers(len(network.domains))[-1]
    fresh = domain_card(inner.manifest.domain(domain.name), inner, center)
    card = replace(
        model.card,
        domains=(*model.card.domains, fresh),
        members=((*model.card.members[0], domain.name),),
    )
    extended = SavedModel(card=card, networks=Networks([network]))
    extended.save(run)
    scores = []
    if run.writes:
        inference = Inference(patch=card.patch)
        scores = [
            one for one, _, _ in score_manifest(extended, examined.manifest, ("val",), inference)
        ]
    trained = Trained(
        model=extended,
        history=result.history,
        seconds=result.seconds,
        scores=scores,
        notes=(
            *examined.notes,
            *(young_statistics(config) if start is None else ()),
            f"{domain.name} starts as {start or 'fresh'}; {count:,} of {total:,} parameters "
            "trained",
        ),
    )
    return trained, {"trained_parameters": count, "trained_share": count / total}


def _volumes(config: ExtendConfig, model: SavedModel) -> Any:
    """The model's own preparation: what was fixed at training cannot change now."""
    card = model.card
    return replace(
        config.volumes,
        dims=card.plan.spatial_dims,
        patch=card.patch,
        percentiles=card.percentiles,
        nonzero_only=card.nonzero_only,
        channels=card.plan.in_channels,
    )


def _old(config: ExtendConfig, model: SavedModel) -> Manifest:
    """The data of the old domains, for rehearsal."""
    data = config.rehearse if config.rehearse is not None else str(config.run / MANIFEST)
    manifest = open_manifest(data, None)
    manifest = manifest.only([domain.name for domain in model.card.domains])
    return deal_splits(manifest, val=config.val, test=config.test, seed=config.seed)


def _only(examined: Examined, name: str) -> Examined:
    return replace(examined, cases={name: examined.cases[name]})


def _start(
    config: ExtendConfig,
    network: MultiDomainNetwork,
    model: SavedModel,
    examined: Examined,
    domain: Domain,
) -> str | None:
    """The domain whose norms the new ones start as."""
    if config.start == "fresh":
        return None
    if config.start != "nearest":
        model.card.of_domain(config.start, "--start")
        return config.start
    old = [card for card in model.card.domains if card.center]
    if not old:
        return model.card.domains[0].name
    network.eval()
    sources = _of(examined, domain.name)
    patches = torch.cat(
        [central_patches(one, model.card.patch, 4, network.backbone.in_channels) for one in sources]
    )
    scores = domain_scores(network, [(card.name, patches, card.center) for card in old])
    return max(scores, key=lambda name: scores[name])


def _of(examined: Examined, name: str) -> Sequence[Source]:
    return [
        Source.of(0, facts.case.name, facts.prepared, examined.manifest.domain(name).count)
        for facts in examined.cases[name]
        if facts.case.split == "train" and facts.case.label is not None
    ]
