"""Score the cases of a manifest by a model, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.manifest import Case, Domain, Manifest
from cl_medical.segmentation.overlays import picture_of
from cl_medical.segmentation.saved import SavedModel
from cl_medical.segmentation.scoring import (
    CaseScores,
    Segmented,
    read_truth,
    score_case,
    segment_case,
)
from cl_medical.segmentation.volumes import open_case

__all__ = ["PairedTest", "paired_tests", "score_manifest", "score_one", "scored_cases"]


def scored_cases(manifest: Manifest, splits: Sequence[str]) -> Iterator[tuple[Domain, Case]]:
    """The labelled cases of some splits."""
    for domain in manifest:
        for case in domain.of_split(*splits):
            if case.label is not None:
                yield domain, case


def score_manifest(
    model: SavedModel,
    manifest: Manifest,
    splits: Sequence[str],
    inference: Inference,
    *,
    largest: bool = False,
) -> Iterator[tuple[CaseScores, Segmented, Domain]]:
    """Segment and score labelled cases.

    Args:
        model: Knows the manifest's domains by name.
        manifest: With every case in a split.
        splits: Which of them.
        inference: Options.
        largest: Keep the largest piece of each structure.

    Yields:
        Scores with a picture, what was made of the case, and its domain.

    Raises:
        InputError: If a file cannot be read.
    """
    for domain, case in scored_cases(manifest, splits):
        scores, segmented = score_one(model, domain, case, inference, largest=largest)
        yield scores, segmented, domain


def score_one(
    model: SavedModel, domain: Domain, case: Case, inference: Inference, *, largest: bool = False
) -> tuple[CaseScores, Segmented]:
    """Segment and score one labelled case.

    Args:
        model: Knows the domain by name.
        domain: Of the case.
        case: Has a label.
        inference: Options.
        largest: Keep the largest piece of each structure.

    Returns:
        Scores with a picture, and what was made of the case.

    Raises:
        InputError: If a file cannot be read.
    """
    card = model.card.of_domain(domain.name, "--data")
    model.card.require_images(card, case.images)
    recipe = model.card.recipe(card)
    volume = open_case(case, recipe)
    segmented = segment_case(
        model.networks.of_domain(domain.name),
        domain.name,
        volume,
        recipe,
        inference,
        largest=largest,
    )
    truth = read_truth(volume, domain)
    scores = score_case(segmented, case, domain, truth)
    return replace(scores, picture=picture_of(segmented, truth)), segmented


@dataclass(frozen=True)
class PairedTest:
    """A comparison of two evaluations.

    Attributes:
        n: Cases and structures that both have.
        difference: Mean of the Dice of the first minus that of the second.
        p: Of Wilcoxon's signed-rank test, two-sided; 1 if all are equal.
    """

    n: int
    difference: float
    p: float


def paired_tests(
    first: Mapping[tuple[str, str, str], float], second: Mapping[tuple[str, str, str], float]
) -> dict[str, PairedTest]:
    """Compare Dice case by case (Wilcoxon's signed-rank test, two-sided).

    Args:
        first: Dice of each (domain, case, structure).
        second: Of another model.

    Returns:
        For ``all`` and for each domain with at least one pair.
    """
    from scipy.stats import wilcoxon

    keys = [key for key in first if key in second]
    groups = {"all": keys}
    for key in keys:
        groups.setdefault(key[0], []).append(key)
    tests = {}
    for name, own in groups.items():
        differences = [first[key] - second[key] for key in own]
        if not differences:
            continue
        moved = any(one != 0 for one in differences)
        p = float(wilcoxon(differences, zero_method="wilcox").pvalue) if moved else 1.0
        tests[name] = PairedTest(len(own), sum(differences) / len(own), p)
    return tests
