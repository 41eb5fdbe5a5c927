"""What a user does with lesion images: one function a verb, each taking its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cl_core.commands.outcome import Outcome, out_of, text_table
from cl_core.networks.export import encoder_card
from cl_core.runs import Run
from cl_core.runs.fingerprint import of_files
from cl_core.runs.vectors import write_vectors
from cl_medical.lesions import pages
from cl_medical.lesions.config import (
    BenchmarkConfig,
    DemoConfig,
    EvaluateConfig,
    PredictConfig,
    PrepareConfig,
    TrainConfig,
)
from cl_medical.lesions.data import (
    class_table,
    fingerprint,
    open_lesions,
    refuse_leaks,
    write_lesions,
)
from cl_medical.lesions.measure import headline_row, measure
from cl_medical.lesions.model import LesionCard, LesionModel
from cl_medical.lesions.operating import choose_operating, choose_positive
from cl_medical.lesions.tables import ID

__all__ = ["benchmark", "demo", "evaluate", "predict", "prepare", "train"]


def prepare(config: PrepareConfig) -> Outcome:
    """Check a table and its images, divide them, and write ``lesions.csv`` and a report.

    Returns:
        ``images``, ``classes``, ``imbalance`` (largest class to smallest, of the training images)
        and ``overlaps``, pairs of splits that share something.

    Raises:
        InputError: Telling every fault of the table and the images, and what splits share.
    """
    lesions = open_lesions(config, files=config.files, folds=config.folds)
    if not config.allow_leaks:
        refuse_leaks(lesions)
    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        if config.files:
            write_lesions(run, lesions.table, seed=config.split_seed)
        rows = class_table(lesions.table)
        splits = np.asarray(lesions.table.splits)
        first = "0" if config.folds else "train"
        counts = np.bincount(lesions.table.labels[splits == first])
        metrics = {
            "images": len(lesions.table),
            "classes": len(lesions.classes),
            "imbalance": float(counts.max() / counts[counts > 0].min()),
            "overlaps": sum(map(bool, lesions.overlaps)),
        }
        pages.prepare_page(run, lesions, pictures=config.files)
        run.save_metrics(metrics)
    lines = [*lesions.summary(), *text_table(rows), pages.NOTICE]
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=("lesions.csv", "report.html"))


def train(config: TrainConfig) -> Outcome:
    """Train a classifier, calibrate it and choose its operating point on the validation images.

    Returns:
        Figures of the validation images under ``val/``, ``temperature`` and, where a class is
        looked for, ``threshold``.

    Raises:
        InputError: If the images, an option or the output folder does not fit.
        TrainingError: If the loss stops being a number.
    """
    from cl_medical.lesions.saved import answers_of
    from cl_medical.lesions.stages import NAMES, train_stages  # Lightning costs seconds

    lesions = open_lesions(
        config,
        cache=config.cache,
        pixels=False if config.resume and config.on_error == "stop" else None,
        threads=max(2, config.workers),
    )
    if not config.allow_leaks:
        refuse_leaks(lesions)
    positive = choose_positive(lesions.classes, config.positive)
    data = fingerprint(lesions.table)
    with Run.create(
        config.out, config, resume=config.resume, overwrite=config.overwrite, data=data
    ) as run:
        digest = write_lesions(run, lesions.table, seed=config.split_seed)
        trained = train_stages(config, lesions, run)
        about = {"mean": trained.statistics.mean, "std": trained.statistics.std}
        card = LesionCard(
            **encoder_card(trained.encoder).record() | about | {"classes": lesions.classes},
            method=config.method,
            name=NAMES[config.method],
            view_size=config.image_size,
            classifier="linear" if trained.scale == 1 else "cosine",
            scale=trained.scale,
            temperature=1.0,
            positive=None,
            threshold=None,
            operating_point="none",
            splits=digest,
        )
        model = LesionModel(trained.encoder, trained.classifier, card).eval()
        val = lesions.part("val")
        answers = answers_of(model, val, batch_size=2 * config.batch_size, workers=config.workers)
        chosen = choose_operating(
            answers.logits,
            val.labels,
            lesions.classes,
            positive=positive,
            rule=config.operating_point,
            sensitivity=config.sensitivity,
        )
        model.card = replace(
            card,
            temperature=chosen.temperature,
            positive=chosen.positive,
            threshold=chosen.threshold,
            operating_point=chosen.told,
        )
        run.save_model(model, model.card)
        measured = measure(
            val.table.labels,
            model.probabilities(answers.logits).numpy(),
            val.groups,
            lesions.classes,
            positive=chosen.positive,
            threshold=chosen.threshold,
        )
        metrics = {f"val/{name}": value for name, value in measured.metrics().items()}
        metrics["temperature"] = chosen.temperature
        if chosen.threshold is not None:
            metrics["threshold"] = chosen.threshold
        if run.writes:
            pages.training_page(run, lesions, model, trained.histories, measured, trained.notes)
        run.save_metrics(metrics, seconds=trained.seconds)
    row = {"on the validation images": model.card.name} | headline_row(measured, chosen.positive)
    lines = [*lesions.summary(), *trained.notes, *text_table([row]), pages.NOTICE]
    return Outcome(out=run.path, metrics=metrics, lines=lines)


def evaluate(config: EvaluateConfig) -> Outcome:
    """Measure a classifier on images it was neither trained nor chosen on.

    Returns:
        ``macro_f1``, ``balanced_accuracy``, ``auroc``, ``average_precision``, ``ece``,
        ``<class>/f1``, ``<class>/auroc`` and so on, with ``_low`` and ``_high`` for the intervals.

    Raises:
        InputError: If there is no such run, or the images do not fit its model.
    """
    from cl_medical.lesions.evaluation import evaluate_model
    from cl_medical.lesions.saved import images_to_test, open_run

    saved = open_run(config)
    test = images_to_test(config, saved)
    with Run.create(out_of(config, "evaluate"), config, overwrite=config.overwrite) as run:
        found = evaluate_model(config, saved, test)
        metrics = found.measured.metrics()
        about = {
            ID: test.table.column(ID),
            "label": [saved.model.classes[k] for k in test.table.labels.tolist()],
        } | {f"p_{name}": found.p[:, k].tolist() for k, name in enumerate(saved.model.classes)}
        write_vectors(run, found.answers.features, about, format="parquet")
        pages.evaluation_page(run, found, saved.model, saved.threshold)
        run.save_metrics(metrics)
    card = saved.model.card
    rows = [{"method": card.name} | headline_row(found.measured, card.positive)]
    lines = [*test.table.notes, f"{len(test.table):,} images", *text_table(rows), pages.NOTICE]
    return Outcome(
        out=run.path, metrics=metrics, lines=lines, files=("report.html", "embeddings.parquet")
    )


def predict(config: PredictConfig) -> Outcome:
    """Classify new images and write ``predictions.csv``.

    Returns:
        ``images`` classified, and ``<decision>/images``.

    Raises:
        InputError: If there is no such run, or an image cannot be read.
    """
    from cl_medical.lesions.prediction import predict_images
    from cl_medical.lesions.saved import images_to_predict, open_run

    saved = open_run(config)
    table = images_to_predict(config, saved)
    data = of_files([*table.files, saved.path / "model.safetensors"])
    with Run.create(
        out_of(config, "predict"),
        config,
        resume=config.resume,
        overwrite=config.overwrite,
        data=data,
    ) as run:
        counts, notes = predict_images(run, config, saved, table)
        metrics = {"images": sum(counts.values())} | _counted(counts)
        run.save_metrics(metrics)
    rows = [{"decision": name, "images": count} for name, count in counts.items()]
    lines = [*table.notes, *notes, *text_table(rows), pages.NOTICE]
    files = ("predictions.csv", "heat_maps")
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=files)


def benchmark(config: BenchmarkConfig) -> Outcome:
    """Train the methods over seeds and compare them on the test images.

    Returns:
        The figures of `evaluate` under each method's name: the mean over seeds, ``_std`` over
        seeds, ``_low`` and ``_high`` by resampling patients or lesions.

    Raises:
        InputError: If a method is unknown, or as `train` says.
    """
    from cl_medical.lesions.benchmark import compare, train_all

    with Run.create(config.out, config, resume=config.resume, overwrite=config.overwrite) as run:
        runs = train_all(config, run, train)
        scores, rows, notes = compare(runs, resamples=config.resamples)
        pages.benchmark_page(run, rows, notes)
        run.save_metrics(scores)
    return Outcome(out=run.path, metrics=scores, lines=[*text_table(rows), *notes, pages.NOTICE])


def demo(config: DemoConfig) -> Outcome:
    """Train SuperCon and a plain classifier on drawn lesions, compare them, and use one.

    Returns:
        The figures of `benchmark`.
    """
    from cl_medical.lesions.drawn import demo_options, draw_lesions

    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        table = draw_lesions(run.output("pictures"), seed=config.seed)
        run.begun()
        options = demo_options(config, table, run.output("benchmark"))
        found = benchmark(options)
        one = options.out / "supercon" / f"seed-{config.seed}"
        out = run.output("evaluate")
        evaluate(EvaluateConfig(run=one, out=out, resamples=options.resamples))
        out = run.output("predict")
        predict(PredictConfig(run=one, out=out, data=str(table.parent), heat_maps=6))
        run.save_metrics(found.metrics)
    return Outcome(
        out=run.path,
        metrics=found.metrics,
        lines=found.lines,
        files=(
            "benchmark/report.html",
            "evaluate/report.html",
            "predict/predictions.csv",
            "predict/heat_maps",
        ),
    )


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    return {f"{name}/images": count for name, count in counts.items()}
