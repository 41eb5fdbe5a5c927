"""The five modes of training, and cross-validation: one network, or runs that make up a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.runs.fingerprint import Fingerprint, of_files
from cl_core.seeding import derive_seed, seed_everything
from cl_medical.segmentation.cache import VolumeCache
from cl_medical.segmentation.config import TrainConfig
from cl_medical.segmentation.embedding import DomainPoints, domain_points
from cl_medical.segmentation.evaluation import score_manifest, scored_cases
from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.manifest import (
    Domain,
    Manifest,
    ManifestError,
    read_manifest,
    write_manifest,
)
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.preparation import Examined, examine
from cl_medical.segmentation.saved import (
    DomainCard,
    Networks,
    PlanCard,
    SavedModel,
    SegmentationCard,
)
from cl_medical.segmentation.scoring import CaseScores, summarise
from cl_medical.segmentation.training import fit_network, new_network, plan_of, sources_of

__all__ = [
    "Trained",
    "card_of",
    "domain_card",
    "examined_data",
    "fingerprint_of",
    "folds_of",
    "open_manifest",
    "require_sound",
    "train_folds",
    "train_members",
    "train_one",
]

MANIFEST = "manifest.json"
"""The data of a run with every case in its split, as `evaluate` reads them."""


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


def open_manifest(data: Any, domains: str | None) -> Manifest:
    """Read a manifest, or take one in memory, and some of its domains.

    Raises:
        InputError: If there is none, or a domain is not in it.
    """
    manifest = data if isinstance(data, Manifest) else read_manifest(Path(str(data)))
    if domains is None:
        return manifest
    names = [name.strip() for name in domains.split(",") if name.strip()]
    chosen = manifest.only(names)
    kept = [p for p in manifest.problems if p.domain in names or not p.domain]
    return replace(chosen, problems=tuple(kept))


def fingerprint_of(manifest: Manifest) -> Fingerprint:
    """Tells whether a run is resumed on its data."""
    return of_files([file for file in manifest.files() if file.is_file()])


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
    if config.init_from is not None:
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
    import torch

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
    )


def train_members(config: TrainConfig, run: Run, manifest: Manifest, cache: VolumeCache) -> Trained:
    """Train a network a domain: the modes `individual` and `transfer`.

    Each is a run of its own in ``members``, `shared` with one domain.
    """
    examined = examined_data(config, manifest, cache)
    if run.writes:
        write_manifest(run.output(MANIFEST), examined.manifest)
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
        notes=[note for one in trained.values() for note in one.notes],
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
    from cl_medical.segmentation.pipeline import finish_training

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


def folds_of(manifest: Manifest, cv: Any, seed: int) -> list[Manifest]:
    """Deal the cases that are not `test` into folds by patient.

    A held-out case is `test` in its fold, and one further patient of each domain is `val`. With
    ``leave-one-out`` fold ``j`` holds out patient ``j`` of every domain at once; a domain with
    fewer has none to hold out in later folds.

    Raises:
        InputError: If a domain has fewer than three patients.
    """
    patients: dict[str, list[str]] = {}
    for domain in manifest:
        own = sorted({case.patient for case in domain.cases if case.label and case.split != "test"})
        if len(own) < 3:
            raise InputError(
                f"--cv: {domain.name} has {len(own)} labelled patients that are not `test`; it "
                "needs three: one to hold out, one to choose by, one to train on"
            )
        rng = np.random.default_rng(derive_seed(seed, *domain.name.encode()))
        patients[domain.name] = [own[i] for i in rng.permutation(len(own))]
    count = max(map(len, patients.values())) if cv == "leave-one-out" else int(cv)
    folds = []
    for j in range(count):
        domains = []
        for domain in manifest:
            own = patients[domain.name]
            held = set(own[j : j + 1]) if cv == "leave-one-out" else set(own[j::count])
            free = [patient for patient in own if patient not in held]
            chosen = free[j % len(free)]
            domains.append(
                replace(
                    domain,
                    cases=tuple(
                        replace(
                            case,
                            split="test"
                            if case.patient in held
                            else "val"
                            if case.patient == chosen
                            else "train",
                        )
                        for case in domain.cases
                        if case.label is not None and case.split != "test"
                    ),
                )
            )
        folds.append(replace(manifest, domains=tuple(domains)))
    return folds


def train_folds(config: TrainConfig, run: Run, manifest: Manifest, cache: VolumeCache) -> Trained:
    """Cross-validate: a run a fold in ``folds``, and the scores of all held-out cases."""
    from cl_medical.segmentation.pipeline import train_within

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


def require_sound(manifest: Manifest) -> None:
    """Refuse a manifest with problems before anything is made of it.

    Raises:
        ManifestError: With everything that is wrong.
    """
    if manifest.problems:
        raise ManifestError.of(f"--data {manifest.source}", manifest.problems)
