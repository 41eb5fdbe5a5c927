"""All cases of a manifest read, checked and prepared; what is wrong is told together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from cl_core.errors import InputError
from cl_core.seeding import derive_seed
from cl_medical.segmentation.cache import Prepared, VolumeCache, case_key
from cl_medical.segmentation.manifest import (
    IGNORE,
    Axis,
    Case,
    Domain,
    Manifest,
)
from cl_medical.segmentation.nifti import VolumeFile, open_volume
from cl_medical.segmentation.problems import ManifestError, Problem
from cl_medical.segmentation.volumes import (
    Recipe,
    geometry_of,
    map_labels,
    open_case,
    prepare_image,
    prepare_label,
)

__all__ = ["Examined", "Facts", "deal_splits", "examine", "plan_recipe"]

_RAS = "RAS"


@dataclass(frozen=True)
class Facts:
    """What is worth telling about a case.

    Attributes:
        case: The case.
        prepared: Its arrays and facts.
    """

    case: Case
    prepared: Prepared


@dataclass
class Examined:
    """A manifest whose every file has been read.

    Attributes:
        manifest: With every case in a split.
        recipes: How each domain's volumes are prepared.
        cases: Facts of each domain's cases, in order, as far as they could be read.
        problems: What is wrong.
        notes: What is odd but can be used.
    """

    manifest: Manifest
    recipes: dict[str, Recipe]
    cases: dict[str, list[Facts]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def require_sound(self) -> Examined:
        """Refuse to go on with data that are not sound.

        Raises:
            ManifestError: With everything that is wrong.
        """
        if self.problems:
            raise ManifestError.of(f"--data {self.manifest.source}", self.problems)
        return self


def deal_splits(manifest: Manifest, *, val: float, test: float, seed: int) -> Manifest:
    """Put the cases without a split into one, by patient.

    A domain gets the parts that it has not got yet: where some cases are `test` already, the
    others become `train` and `val`. Of three patients or more each part asked for gets one at
    least. Cases without a label are `test`.

    Args:
        manifest: Any.
        val: Share for choosing the best epoch.
        test: Share that training never sees.
        seed: Of the run.
    """
    return replace(
        manifest,
        domains=tuple(_dealt(domain, val, test, seed) for domain in manifest),
    )


def _dealt(domain: Domain, val: float, test: float, seed: int) -> Domain:
    open_cases = [case for case in domain.cases if case.split is None and case.label is not None]
    patients = sorted({case.patient for case in open_cases})
    present = {case.split for case in domain.cases if case.label is not None}
    # By name: a domain is dealt the same with others and alone.
    rng = np.random.default_rng(derive_seed(seed, *domain.name.encode()))
    order = [patients[i] for i in rng.permutation(len(patients))]
    part: dict[str, str] = {}
    for name, share in (("test", test), ("val", val)):
        if name in present or share == 0 or len(patients) < 3:
            continue
        for _ in range(max(1, round(share * len(patients)))):
            if len(order) > 1:
                part[order.pop()] = name
    return replace(
        domain,
        cases=tuple(
            case
            if case.split is not None
            else replace(case, split="test")
            if case.label is None
            else replace(case, split=part.get(case.patient, "train"))
            for case in domain.cases
        ),
    )


def plan_recipe(
    domain: Domain,
    files: Sequence[VolumeFile],
    *,
    in_plane: bool,
    percentiles: tuple[float, float],
    nonzero_only: bool,
) -> Recipe:
    """Decide how a domain is prepared: what the manifest leaves open, its median volume says.

    Args:
        domain: The domain.
        files: Images of its training cases.
        in_plane: For slices.
        percentiles: Where intensities are clipped.
        nonzero_only: Measure intensities on voxels that are not 0.
    """
    spacings: dict[str, list[float]] = {axis: [] for axis in _RAS}
    for file in files:
        geometry = geometry_of(file, Recipe(slice_axis="R", spacing=(None,) * 3, in_plane=False))
        for axis, mm in zip(_RAS, geometry.spacing, strict=True):
            spacings[axis].append(mm)
    median = {axis: statistics.median(values) for axis, values in spacings.items() if values}
    coarsest: list[Axis] = sorted(get_args(Axis), key=lambda one: -median.get(one, 0.0))
    r, a, s = domain.spacing or (median.get("R"), median.get("A"), median.get("S"))
    return Recipe(
        slice_axis=domain.slice_axis or coarsest[0],
        spacing=(r, a, s),
        in_plane=in_plane,
        percentiles=percentiles,
        nonzero_only=nonzero_only,
    )


def examine(
    manifest: Manifest,
    cache: VolumeCache,
    *,
    in_plane: bool = True,
    percentiles: tuple[float, float] = (0.5, 99.5),
    nonzero_only: bool = False,
    recipes: dict[str, Recipe] | None = None,
    keep: Sequence[str] = ("train", "val"),
    need: Sequence[str] = ("train",),
) -> Examined:
    """Read every file of a manifest, check it, and prepare what will be used.

    Args:
        manifest: With every case in a split.
        cache: Where prepared cases are kept.
        in_plane: Resample within slices only.
        percentiles: Where intensities are clipped, per cent.
        nonzero_only: Measure intensities on voxels that are not 0.
        recipes: Of a model; by default planned.
        keep: Splits whose arrays stay in memory.
        need: Splits every domain must have labelled cases of.

    Returns:
        Everything found; nothing is raised for what is wrong with the data.
    """
    found = Examined(manifest, dict(recipes or {}), problems=list(manifest.problems))
    for domain in manifest:
        for split in need:
            if not any(case.label for case in domain.of_split(split)):
                found.problems.append(
                    Problem(f"there is no labelled case of {split}; it needs one", domain.name)
                )
        if domain.name not in found.recipes:
            found.recipes[domain.name] = plan_recipe(
                domain,
                _readable(domain),
                in_plane=in_plane,
                percentiles=percentiles,
                nonzero_only=nonzero_only,
            )
        facts = found.cases.setdefault(domain.name, [])
        for case in domain.cases:
            prepared = _prepared(case, domain, found, cache, kept=case.split in keep)
            if prepared is not None:
                facts.append(Facts(case, prepared))
    return found


def _readable(domain: Domain) -> list[VolumeFile]:
    """First images of the training cases (of all, if there are none) whose headers can be read."""
    files = []
    for case in domain.of_split("train") or domain.cases:
        try:
            files.append(open_volume(case.images[0], case.volume_index))
        except InputError:
            continue  # told when the case itself is read
    return files


def _prepared(
    case: Case, domain: Domain, found: Examined, cache: VolumeCache, *, kept: bool
) -> Prepared | None:
    """The case, or ``None`` and its problems told."""
    recipe = found.recipes[domain.name]
    missing = [path for path in (*case.images, case.label) if path and not path.is_file()]
    if missing:
        return None  # told with the manifest
    key = case_key(case, domain, recipe)
    try:
        prepared = cache.get(key, lambda: prepare_case(case, domain, recipe), keep=kept)
    except ManifestError as error:
        found.problems += error.problems
        return None
    if case.label is not None and not any(prepared.voxels[1:]):
        found.notes.append(f"{domain.name}/{case.name}: the label holds no structure")
    return prepared


def prepare_case(case: Case, domain: Domain, recipe: Recipe) -> Prepared:
    """Read one case and take it to the network's grid.

    Raises:
        ManifestError: With everything that is wrong with the case.
    """
    problems: list[str] = []
    images = []
    label = None
    try:
        volume = open_case(case, recipe)
    except InputError as error:
        raise _of_case([str(error)], case, domain) from error
    lows, highs, leasts = [], [], []
    for file in volume.files:
        try:
            voxels = file.read()
        except InputError as error:
            problems.append(str(error))
            continue
        lows.append(float(voxels.min()))
        highs.append(float(voxels.max()))
        image, intensity = prepare_image(voxels, volume.geometry, recipe)
        images.append(image)
        leasts.append((intensity.low - intensity.mean) / intensity.deviation)
    counts = np.zeros(IGNORE + 1, np.int64)
    if volume.label is not None:
        try:
            classes = map_labels(volume.label.read_label(), domain)
        except InputError as error:
            told = str(error)
            path = str(volume.label.path)
            problems.append(told if path in told else f"{path}: {told}")
        else:
            counts = np.bincount(classes.ravel(order="K"), minlength=IGNORE + 1)
            label = prepare_label(classes, volume.geometry)
    if problems:
        raise _of_case(problems, case, domain)
    file = volume.files[0]
    return Prepared(
        image=np.stack(images),
        label=np.zeros(volume.geometry.grid, np.uint8) if label is None else label,
        shape=file.shape,
        spacing=file.spacing,
        axcodes=file.axcodes,
        range=(lows[0], highs[0]),
        voxels=tuple(int(n) for n in counts[: domain.count]),
        least=tuple(leasts),
    )


def _of_case(problems: Sequence[str], case: Case, domain: Domain) -> ManifestError:
    return ManifestError(
        "; ".join(problems), [Problem(told, domain.name, case.name) for told in problems]
    )
