"""What a user does with volumes: one function a verb, each taking its configuration."""

from __future__ import annotations

from pathlib import Path

from cl_core.commands.outcome import Outcome, text_table
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_medical.segmentation import pages
from cl_medical.segmentation.cache import VolumeCache
from cl_medical.segmentation.checking import domain_rows, problem_lines, write_problems
from cl_medical.segmentation.config import (
    BenchmarkConfig,
    CheckConfig,
    DemoConfig,
    EmbedConfig,
    EvaluateConfig,
    ExtendConfig,
    PredictConfig,
    TrainConfig,
)
from cl_medical.segmentation.evaluating import evaluate_run
from cl_medical.segmentation.modes import train_within
from cl_medical.segmentation.preparation import deal_splits, examine
from cl_medical.segmentation.reading import fingerprint_of, open_manifest
from cl_medical.segmentation.records import finish_training, shown_rows
from cl_medical.segmentation.summaries import read_case_scores

__all__ = ["benchmark", "check", "demo", "embed", "evaluate", "extend", "predict", "train"]


def check(config: CheckConfig) -> Outcome:
    """Read every file of a manifest and tell all that is wrong.

    Returns:
        ``cases``, ``problems`` and ``notes``, counted. The command ends with exit code 2 if there
        are problems.

    Raises:
        InputError: If there is no manifest.
    """
    manifest = open_manifest(config.data, None)
    examined = examine(manifest, VolumeCache(None), keep=(), need=())
    for domain in manifest:
        if not any(case.label for case in domain.cases if case.split in ("train", None)):
            examined.notes.append(f"{domain.name}: no labelled case to train on")
    metrics = {
        "cases": float(sum(len(domain.cases) for domain in manifest)),
        "problems": float(len(examined.problems)),
        "notes": float(len(examined.notes)),
    }
    lines = [*text_table(domain_rows(examined)), *problem_lines(examined)]
    if not examined.problems:
        lines.append(f"{int(metrics['cases'])} cases, nothing wrong")
    out = config.out or Path()
    if config.out is not None:
        with Run.create(config.out, config, overwrite=config.overwrite) as run:
            write_problems(run.output("problems.csv"), examined)
            run.save_metrics(metrics)
    code = 2 if examined.problems else 0
    files = ("problems.csv",) if config.out is not None else ()
    return Outcome(out=out, metrics=metrics, lines=lines, files=files, code=code)


def train(config: TrainConfig) -> Outcome:
    """Train the network, or the networks, of a mode, and write ``config.out``.

    Returns:
        Of the validation cases (of the held-out ones with ``cv``), on their native grids:
        ``dice``, ``<domain>/dice`` and ``<domain>/<structure>/dice``, ``/hd95``, ``/assd``,
        ``/n``, ``/n_failed`` and others; ``domain_silhouette``; ``train/loss``.

    Raises:
        InputError: If the data, an option or the output folder do not fit.
        TrainingError: If the loss stops being a number.
    """
    manifest = open_manifest(config.data, config.domains)
    run, trained = train_within(config, manifest, VolumeCache(config.cache))
    metrics = trained.metrics()
    lines = [*trained.notes, *text_table(shown_rows(trained.scores))]
    lines.append(f"trained in {trained.seconds:.1f} s" + _told_dice(metrics))
    return Outcome(out=run.path, metrics=metrics, lines=lines)


def evaluate(config: EvaluateConfig) -> Outcome:
    """Score a run on native grids: see :func:`~cl_medical.segmentation.evaluating.evaluate_run`."""
    return evaluate_run(config)


def embed(config: EmbedConfig) -> Outcome:
    """Embed cases: see :func:`~cl_medical.segmentation.placing.embed_run`."""
    from cl_medical.segmentation.placing import embed_run

    return embed_run(config)


def predict(config: PredictConfig) -> Outcome:
    """Segment volumes; one that fails is named and the others go on.

    Returns:
        ``masks`` written and ``failed``. The command ends with exit code 1 if any failed.

    Raises:
        InputError: If there is no such run, nothing to segment, the domain is not known, or the
            disk is full.
    """
    from cl_medical.segmentation.prediction import Predicted, jobs_of, predict_one
    from cl_medical.segmentation.saved import SavedModel

    model = SavedModel.load(config.run)
    jobs = jobs_of(config, model)
    results: list[Predicted] = []
    failures: list[str] = []
    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        for job in jobs:
            try:
                results.append(predict_one(run, model, job, config))
            except InputError as error:
                if str(error).startswith("cannot write"):
                    raise  # the disk, not the volume: it will not do for the next one either
                failures.append(f"{job.name}: {error}")
        metrics = {"masks": float(len(results)), "failed": float(len(failures))}
        pages.prediction_page(run, results, failures)
        run.save_metrics(metrics)
    lines = list(dict.fromkeys(note for one in results for note in one.notes))
    lines += text_table(pages.volume_rows(results)) if len({r.domain for r in results}) == 1 else []
    lines += [f"not segmented: {failure}" for failure in failures]
    lines.append(f"{len(results)} of {len(jobs)} volumes segmented")
    return Outcome(
        out=run.path,
        metrics=metrics,
        lines=lines,
        files=("masks", "report.html"),
        code=1 if failures else 0,
    )


def extend(config: ExtendConfig) -> Outcome:
    """Teach a run a new domain.

    Returns:
        Figures of the new domain's validation cases as of `train`, ``trained_parameters`` and
        ``trained_share``.

    Raises:
        InputError: If the run cannot be extended, or the data do not fit.
        TrainingError: If the loss stops being a number.
    """
    from cl_medical.segmentation.extension import extend_model, new_domain
    from cl_medical.segmentation.saved import SavedModel

    model = SavedModel.load(config.run)
    manifest = open_manifest(config.data, config.domains)
    new_domain(manifest, model)
    manifest = deal_splits(manifest, val=config.val, test=config.test, seed=config.seed)
    with Run.create(
        config.out,
        config,
        resume=config.resume,
        overwrite=config.overwrite,
        data=fingerprint_of(manifest),
    ) as run:
        trained, figures = extend_model(config, run, model, manifest, VolumeCache(config.cache))
        metrics = {**trained.metrics(), **figures}
        finish_training(run, trained, f"A new domain: {manifest.names[0]}", manifest)
        run.save_metrics(metrics, seconds=trained.seconds)
    lines = [*trained.notes, *text_table(shown_rows(trained.scores))]
    lines.append(f"trained in {trained.seconds:.1f} s" + _told_dice(metrics))
    return Outcome(out=run.path, metrics=metrics, lines=lines)


def benchmark(config: BenchmarkConfig) -> Outcome:
    """Train and score all modes with several seeds.

    Returns:
        ``<mode>/dice``, ``<mode>/<domain>/dice`` and their ``_std`` over seeds,
        ``<mode>/domain_silhouette``, and ``<mode>/p`` of the test against the reference.

    Raises:
        InputError: If the data, an option or the output folder do not fit.
    """
    from cl_medical.segmentation.benchmarking import benchmark_tables, train_and_score

    with Run.create(config.out, config, resume=config.resume, overwrite=config.overwrite) as run:
        found = train_and_score(config, run)
        metrics, rows, tests = benchmark_tables(found, config.reference)
        pages.benchmark_page(run, rows, tests)
        run.save_metrics(metrics)
    return Outcome(out=run.path, metrics=metrics, lines=[*text_table(rows), *text_table(tests)])


def demo(config: DemoConfig) -> Outcome:
    """Segment phantoms of three joints, then teach the network a fourth.

    Returns:
        Figures of `evaluate` on the three under ``three/``, on the fourth under ``fourth/``, and
        ``old_unchanged``, 1 if the masks of the three are the same afterwards to the last voxel.
    """
    from cl_medical.segmentation.demonstration import demo_steps, same_masks
    from cl_medical.segmentation.phantoms import write_phantoms

    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        joints = write_phantoms(run.output("data"), cases=config.cases, seed=config.seed)
        steps = demo_steps(config, run, joints)
        run.begun()  # what follows are runs of their own
        train(steps.train)
        three = evaluate(EvaluateConfig(run=steps.train.out, masks=True))
        extend(steps.extend)
        fourth = evaluate(EvaluateConfig(run=steps.extend.out, data=str(joints.fourth)))
        again = evaluate(
            EvaluateConfig(
                run=steps.extend.out,
                data=str(joints.three),
                masks=True,
                out=run.output("again"),
            )
        )
        predict(steps.predict)
        metrics = {f"three/{name}": value for name, value in three.metrics.items()}
        metrics |= {f"fourth/{name}": value for name, value in fourth.metrics.items()}
        metrics["old_unchanged"] = float(same_masks(three.out / "masks", again.out / "masks"))
        scores = [
            *read_case_scores(three.out / "cases.csv"),
            *read_case_scores(fourth.out / "cases.csv"),
        ]
        rows = pages.score_rows(scores)
        pages.demo_page(run, scores, rows)
        run.save_metrics(metrics)
    told = "the same to the last voxel" if metrics["old_unchanged"] else "NOT the same"
    lines = [*text_table(rows), f"masks of the first three after the extension: {told}"]
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=("masks", "report.html"))


def _told_dice(metrics: dict[str, float]) -> str:
    return f", Dice {metrics['dice']:.3f}" if "dice" in metrics else ""
