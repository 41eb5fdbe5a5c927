"""Volumes of any origin segmented by a model, each mask in the geometry of its file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cl_core.errors import InputError
from cl_core.runs import Run
from cl_medical.segmentation.cache import Prepared
from cl_medical.segmentation.config import PredictConfig
from cl_medical.segmentation.data import Source, central_patches
from cl_medical.segmentation.embedding import PATCHES, domain_scores
from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.manifest import Case, is_volume, volume_stem
from cl_medical.segmentation.masks import structure_ml, write_mask
from cl_medical.segmentation.nifti import write_like
from cl_medical.segmentation.overlays import Picture, picture_of
from cl_medical.segmentation.reading import read_manifest
from cl_medical.segmentation.saved import DomainCard, SavedModel
from cl_medical.segmentation.scoring import segment_case
from cl_medical.segmentation.volumes import open_case, prepare_image

__all__ = [
    "Job",
    "Predicted",
    "device_named",
    "find_domain",
    "jobs_of",
    "patches_of_case",
    "predict_one",
]


@dataclass(frozen=True)
class Job:
    """A volume to segment.

    Attributes:
        case: Its files.
        domain: Its domain, or ``None`` to find it.
        name: Of the mask, without a suffix.
    """

    case: Case
    domain: str | None
    name: str


@dataclass(frozen=True)
class Predicted:
    """What was made of a volume.

    Attributes:
        job: The volume.
        domain: Its domain.
        volumes: ml of each structure.
        picture: A slice of it.
        notes: What the user should know.
    """

    job: Job
    domain: str
    volumes: dict[str, float]
    picture: Picture
    notes: tuple[str, ...]


def jobs_of(config: PredictConfig, model: SavedModel) -> list[Job]:
    """The volumes that options name.

    Raises:
        InputError: If there are none, or their domain is neither told nor known.
    """
    path = Path(config.data).expanduser()
    if not path.exists():
        raise InputError(f"--data {path}: not found")
    plain = [path] if is_volume(path) else []
    if path.is_dir():
        plain = sorted(file for file in path.iterdir() if file.is_file() and is_volume(file))
    if not plain:
        if config.domain is not None:
            raise InputError(
                f"--domain {config.domain}: the manifest {path} names the domains itself; leave "
                "it out, or give plain volumes"
            )
        manifest = read_manifest(path)
        for domain in manifest:
            model.card.of_domain(domain.name, f"--data {path}: domain")
        return _each_once(
            Job(case, domain.name, f"{domain.name}/{case.name}")
            for domain in manifest
            for case in domain.cases
        )
    if config.domain is None:
        names = ", ".join(domain.name for domain in model.card.domains)
        raise InputError(f"--domain is needed for plain volumes: one of {names}, or auto")
    if config.domain != "auto":
        model.card.of_domain(config.domain)
    else:
        _require_centers(model)
    own = None if config.domain == "auto" else config.domain
    return _each_once(
        Job(Case(name=volume_stem(file), images=(file,)), own, volume_stem(file)) for file in plain
    )


def _require_centers(model: SavedModel) -> None:
    if any(not domain.center for domain in model.card.domains):
        raise InputError(
            "--domain auto needs one network of several domains: this run has one a domain; name "
            "the domain"
        )


def _each_once(jobs: Iterable[Job]) -> list[Job]:
    """The volumes, whose masks must not fall on one another."""
    by_name: dict[str, Job] = {}
    for job in jobs:
        twin = by_name.setdefault(job.name.casefold(), job)
        if twin is not job:
            raise InputError(
                f"{job.case.images[0]} and {twin.case.images[0]} would both be masks/{job.name}"
                ".nii.gz; rename one"
            )
    return list(by_name.values())


def find_domain(model: SavedModel, case: Case, margin: float) -> tuple[str, str]:
    """Find the domain whose centre a volume's embedding is nearest to.

    Args:
        model: One network of several domains.
        case: The volume.
        margin: By how much the best must beat the next.

    Returns:
        The name, and a note with all scores.

    Raises:
        InputError: If the best is not far enough ahead.
    """
    _require_centers(model)
    network = model.networks.of_domain(model.card.domains[0].name)
    candidates = []
    for card in model.card.domains:
        if card.channels != len(case.images):
            continue
        patches = patches_of_case(model, card, case)
        candidates.append((card.name, patches, card.center))
    if not candidates:
        raise InputError(
            f"{case.images[0]}: no domain was trained on cases of {len(case.images)} image(s)"
        )
    scores = domain_scores(network, candidates)
    ranked = sorted(scores, key=lambda name: -scores[name])
    told = ", ".join(f"{name} {scores[name]:.3f}" for name in ranked)
    if len(ranked) > 1 and scores[ranked[0]] - scores[ranked[1]] < margin:
        raise InputError(
            f"{case.images[0]}: no domain is ahead by {margin} ({told}); name it with --domain"
        )
    return ranked[0], f"{case.name}: domain {ranked[0]} ({told})"


def patches_of_case(model: SavedModel, card: DomainCard, case: Case) -> torch.Tensor:
    """Patches of a volume, prepared as for a domain.

    Raises:
        InputError: If it cannot be read.
    """
    recipe = model.card.recipe(card)
    volume = open_case(case, recipe)
    images, least = [], []
    for file in volume.files:
        image, intensity = prepare_image(file.read(), volume.geometry, recipe)
        images.append(image)
        least.append((intensity.low - intensity.mean) / intensity.deviation)
    prepared = Prepared(
        image=np.stack(images),
        label=np.zeros(volume.geometry.grid, np.uint8),
        shape=volume.files[0].shape,
        spacing=volume.files[0].spacing,
        axcodes=volume.files[0].axcodes,
        range=(0.0, 0.0),
        voxels=(),
        least=tuple(least),
    )
    channels = model.card.plan.in_channels
    return central_patches(Source(0, case.name, prepared, ()), model.card.patch, PATCHES, channels)


def predict_one(run: Run, model: SavedModel, job: Job, config: PredictConfig) -> Predicted:
    """Segment one volume and write its mask.

    Raises:
        InputError: If it cannot be read, or its domain cannot be told.
    """
    notes: list[str] = []
    name = job.domain
    if name is None:
        name, note = find_domain(model, job.case, config.margin)
        notes.append(note)
    card = model.card.of_domain(name)
    recipe = model.card.recipe(card)
    model.card.require_images(card, job.case.images)
    case = Case(name=job.case.name, images=job.case.images, volume_index=job.case.volume_index)
    volume = open_case(case, recipe)
    inference = Inference(
        patch=model.card.patch,
        overlap=config.overlap,
        tta=config.tta,
        device=device_named(config.device),
    )
    network = model.networks.of_domain(name).to(inference.device)
    made = segment_case(
        network,
        name,
        volume,
        recipe,
        inference,
        probabilities=config.probabilities,
        largest=config.largest_component,
    )
    source = volume.files[0]
    note = write_mask(run.output(f"masks/{job.name}.nii.gz"), made.result.classes, source, card)
    notes += [note] if note else []
    if made.result.probabilities is not None:
        for structure, stored in zip(card.classes[1:], made.result.probabilities, strict=True):
            path = run.output(f"probabilities/{job.name}_{_file_name(structure)}.nii.gz")
            write_like(path, stored, source, scale=1 / 255)
    return Predicted(
        job=job,
        domain=name,
        volumes=structure_ml(made.result.classes, source, card),
        picture=picture_of(made, None),
        notes=tuple(notes),
    )


def device_named(name: str) -> str:
    """The device of an option, where there is one.

    Raises:
        InputError: If there is none of that name.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: there is no such device here") from error
    return name


def _file_name(structure: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in structure)
