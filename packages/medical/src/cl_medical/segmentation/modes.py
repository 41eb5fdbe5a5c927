"""Runs that make up a run: a network a domain, the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cl_core.errors import InputError
from cl_core.runs import Run
from cl_medical.segmentation.cache import VolumeCache
from cl_medical.segmentation.config import TrainConfig
from cl_medical.segmentation.evaluation import score_manifest, scored_cases
from cl_medical.segmentation.folds import folds_of
from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.manifest import Manifest, write_manifest
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.planning import channels_of
from cl_medical.segmentation.preparation import deal_splits
from cl_medical.segmentation.reading import MANIFEST, fingerprint_of
from cl_medical.segmentation.records import finish_training
from cl_medical.segmentation.saved import Networks, SavedModel, SegmentationCard
from cl_medical.segmentation.scoring import CaseScores
from cl_medical.segmentation.single import Trained, examined_data, train_one

__all__ = ["train_folds", "train_members", "train_within"]


def train_within(
    config: TrainConfig, manifest: Manifest, cache: VolumeCache
) -> tuple[Run, Trained]:
    """Train into ``config.out`` on a manifest that has been read."""
    if config.cv is None:
        manifest = deal_splits(manifest, val=config.val, test=config.test, seed=config.seed)
    with Run.create(
        config.out,
        config,
        resume=config.resume,
        overwrite=config.overwrite,
        data=fingerprint_of(manifest),
    ) as run:
        if config.cv is not None:
            trained = train_folds(config, run, manifest, cache)
        elif config.mode in ("individual", "transfer"):
            trained = train_members(config, run, manifest, cache)
        else:
            trained = train_one(config, run, manifest, cache)
        finish_training(run, trained, f"Training: {config.mode}", manifest)
    return run, trained


def train_members(config: TrainConfig, run: Run, manifest: Manifest, cache: VolumeCache) -> Trained:
    """Train a network a domain: the modes `individual` and `transfer`.

    Each is a run of its own in ``members``, `shared` with one domain.
    """
    examined = examined_data(config, manifest, cache)
    if run.writes:
        write_manifest(run.output(MANIFEST), examined.manifest)
    channels = channels_of(examined, config.volumes)
    config = replace(config, volumes=replace(config.volumes, channels=channels))
    order = list(manifest.names)
    first: str | None = None
    if config.mode == "transfer":
        first = config.source or max(order, key=lambda n: len(manifest.domain(n).of_split("train")))
        if first not in order:
            raise InputError(f"--source {first}: there is no such domain in {manifest.source}")
        order.remove(first)
        order.insert(0, first)
    trained: dict[str, Trained] = {}
    for name in order:
        place = run.output(f"members/{name}")
        start = config.init_from
        if first is not None and name != first:
            start = run.path / "members" / first
        trained[name] = _member(config, place, manifest.only([name]), cache, run, start, name)
    cards = [_card(trained[name]) for name in manifest.names]
    card = replace(
        cards[0],
        mode=config.mode,
        domains=tuple(one.domains[0] for one in cards),
        members=tuple((name,) for name in manifest.names),
    )
    networks = [_network(trained[name], name) for name in manifest.names]
    model = SavedModel(card=card, networks=Networks(networks))
    if any(one.plan != card.plan for one in cards):
        raise InputError(
            "the members' networks differ (spacings of their domains lead to other strides): "
            "with --volumes.dims 3 give the domains a spacing_mm of one anisotropy"
        )
    model.save(run)
    history = _merged_history({name: trained[name].history for name in manifest.names})
    if run.writes:
        run.history.truncate(0)
        for row in history:
            run.history.append(row)
    return Trained(
        model=model,
        history=history,
        seconds=sum(one.seconds for one in trained.values()),
        scores=[score for name in manifest.names for score in trained[name].scores],
        notes=list(dict.fromkeys(note for one in trained.values() for note in one.notes)),
    )


def _card(trained: Trained) -> SegmentationCard:
    assert trained.model is not None
    return trained.model.card


def _network(trained: Trained, domain: str) -> MultiDomainNetwork:
    assert trained.model is not None
    return trained.model.networks.of_domain(domain)


def _member(
    config: TrainConfig,
    place: Path,
    manifest: Manifest,
    cache: VolumeCache,
    run: Run,
    start: Path | None,
    name: str,
) -> Trained:
    """Train the network of one domain, or go on with it."""
    own = replace(
        config,
        mode="shared",
        domains=name,
        out=place,
        init_from=start,
        source=None,
        resume=run.resumed and (place / "config.yaml").is_file(),
        overwrite=False,
    )
    with Run.create(place, own, resume=own.resume, data=fingerprint_of(manifest)) as inner:
        trained = train_one(own, inner, manifest, cache)
        finish_training(inner, trained, f"Training: {name} alone", manifest)
    return trained


def _merged_history(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
) -> list[dict[str, float]]:
    """One row an epoch, the columns of each member under its domain, means of what all have."""
    count = max(len(rows) for rows in histories.values())
    merged = []
    for epoch in range(count):
        row: dict[str, float] = {"epoch": epoch + 1}
        rows = {name: own[epoch] for name, own in histories.items() if epoch < len(own)}
        row["seconds"] = sum(own.get("seconds", 0.0) for own in rows.values())
        for figure in ("train/loss", "val/dice"):
            values = [own[figure] for own in rows.values() if figure in own]
            if values:
                row[figure] = sum(values) / len(values)
        for own in rows.values():
            row |= {
                key: value
                for key, value in own.items()
                if key.count("/") >= 2  # train/<domain>/ce, val/<domain>/dice, ...
            }
        merged.append(row)
    return merged


def train_folds(config: TrainConfig, run: Run, manifest: Manifest, cache: VolumeCache) -> Trained:
    """Cross-validate: a run a fold in ``folds``, and the scores of all held-out cases."""
    scores: list[CaseScores] = []
    seconds = 0.0
    folds = folds_of(manifest, config.cv, config.seed)
    for number, fold in enumerate(folds, 1):
        place = run.output(f"folds/{number}")
        plan = run.output(f"folds/{number}.json")
        if run.writes:
            write_manifest(plan, fold)
        own = replace(
            config,
            data=str(plan),
            domains=None,
            out=place,
            cv=None,
            resume=run.resumed and (place / "config.yaml").is_file(),
            overwrite=False,
        )
        _, trained = train_within(own, fold, cache)
        seconds += trained.seconds
        if run.writes and trained.model is not None and any(scored_cases(fold, ("test",))):
            inference = Inference(patch=trained.model.card.patch)
            found = score_manifest(trained.model, fold, ("test",), inference)
            scores += [replace(one, split=f"fold {number}") for one, _, _ in found]
    return Trained(model=None, history=[], seconds=seconds, scores=scores)
