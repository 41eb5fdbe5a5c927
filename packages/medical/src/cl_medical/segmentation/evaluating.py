"""The verb `evaluate`: a run scored on native grids, compared with another."""

from __future__ import annotations

from dataclasses import replace

from cl_core.commands.outcome import Outcome, out_of, text_table
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_medical.segmentation import pages
from cl_medical.segmentation.config import EvaluateConfig
from cl_medical.segmentation.evaluation import paired_tests, score_one, scored_cases
from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.manifest import SPLITS, Manifest
from cl_medical.segmentation.masks import write_mask
from cl_medical.segmentation.prediction import device_named
from cl_medical.segmentation.problems import ManifestError
from cl_medical.segmentation.reading import MANIFEST, open_manifest
from cl_medical.segmentation.records import shown_rows, write_tables
from cl_medical.segmentation.saved import SavedModel
from cl_medical.segmentation.scoring import CaseScores
from cl_medical.segmentation.summaries import read_case_scores, summarise

__all__ = ["evaluate_run"]


def evaluate_run(config: EvaluateConfig) -> Outcome:
    """Score a run on native grids.

    Returns:
        ``dice``, ``<domain>/dice`` and ``<domain>/<structure>/dice``, ``/hd95``, ``/assd``,
        ``/n``, ``/n_failed`` and others, means over cases, then structures, then domains; and
        ``failed``, the cases that could not be read, with which the command ends with exit code 1.

    Raises:
        InputError: If there is no such run, or data and model do not go together.
    """
    model = SavedModel.load(config.run)
    source = config.data if config.data is not None else str(config.run / MANIFEST)
    manifest = open_manifest(source, config.domains)
    # A file that is not there is the fault of its case alone, which is told when it is met.
    wrong = [one for one in manifest.problems if not one.path]
    if wrong:
        raise ManifestError.of(f"--data {manifest.source}", wrong)
    model.require_domains(manifest, f"--data {manifest.source}")
    splits = SPLITS if config.split == "all" else (config.split,)
    if config.split == "all" or all(c.split is None for d in manifest for c in d.cases):
        manifest = _all_in(manifest, splits[-1])
    if not any(scored_cases(manifest, splits)):
        raise InputError(
            f"--split {config.split}: {manifest.source} has no labelled case of it; choose another"
        )
    other = None if config.against is None else read_case_scores(config.against / "cases.csv")
    inference = Inference(
        patch=model.card.patch,
        overlap=config.overlap,
        tta=config.tta,
        device=device_named(config.device),
    )
    model.networks.to(inference.device)
    with Run.create(out_of(config, "evaluate"), config, overwrite=config.overwrite) as run:
        scores: list[CaseScores] = []
        failures: list[str] = []
        for domain, case in scored_cases(manifest, splits):
            try:
                one, segmented = score_one(
                    model, domain, case, inference, largest=config.largest_component
                )
            except InputError as error:
                failures.append(f"{domain.name}/{case.name}: {error}")
                continue
            scores.append(one)
            if config.masks:
                card = model.card.of_domain(domain.name)
                path = run.output(f"masks/{domain.name}/{one.case}.nii.gz")
                write_mask(path, segmented.result.classes, segmented.volume.files[0], card)
        if not scores:
            raise InputError(f"no case could be scored: {'; '.join(failures)}")
        metrics = {**summarise(scores), "failed": float(len(failures))}
        write_tables(run, scores)
        tests: list[dict[str, object]] = []
        if other is not None:
            found = paired_tests(_dice_of(scores), _dice_of(other))
            tests = [
                {"domain": name, "pairs": t.n, "difference": t.difference, "p": t.p}
                for name, t in found.items()
            ]
            metrics |= {f"against/{n}/difference": t.difference for n, t in found.items()}
            metrics |= {f"against/{n}/p": t.p for n, t in found.items()}
        what = f"{len(scores)} {config.split} cases of {manifest.source}"
        pages.evaluation_page(run, what, metrics, scores, tests, failures)
        run.save_metrics(metrics)
    lines = [what, *text_table(shown_rows(scores)), f"Dice {metrics['dice']:.3f}"]
    lines += [f"not scored: {failure}" for failure in failures]
    return Outcome(
        out=run.path,
        metrics=metrics,
        lines=lines,
        files=("cases.csv", "report.html"),
        code=1 if failures else 0,
    )


def _dice_of(scores: list[CaseScores]) -> dict[tuple[str, str, str], float]:
    return {
        (one.domain, one.case, name): figures.dice
        for one in scores
        for name, figures in one.structures.items()
    }


def _all_in(manifest: Manifest, split: str) -> Manifest:
    """The manifest with every labelled case in one split."""
    return replace(
        manifest,
        domains=tuple(
            replace(
                domain,
                cases=tuple(
                    replace(case, split=split) for case in domain.cases if case.label is not None
                ),
            )
            for domain in manifest
        ),
    )
