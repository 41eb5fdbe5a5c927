"""What a user does with images of plants: one function a verb, each taking its configuration.

Groups are found in :mod:`cl_agriculture.grouping`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cl_agriculture import ingest, pages
from cl_agriculture.config import (
    DemoConfig,
    EmbedConfig,
    MaskConfig,
    PrepareConfig,
    PretrainConfig,
)
from cl_agriculture.data import MANIFEST, Plants, open_plants
from cl_agriculture.demo import demo_runs, draw_images, write_demo
from cl_agriculture.earlier import images_of
from cl_agriculture.grouping import cluster
from cl_agriculture.masking import STORE, maker_of, mask_summary
from cl_agriculture.model import load_plant_model
from cl_agriculture.rows import write_rows
from cl_core.commands.outcome import Outcome, out_of, text_table
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.runs.fingerprint import of_files
from cl_core.runs.vectors import write_vectors
from cl_core.seeding import seed_everything

__all__ = ["demo", "embed", "mask", "prepare", "pretrain"]


def prepare(config: PrepareConfig) -> Outcome:
    """Look through the images, and write the manifest that the other commands take.

    Returns:
        ``images``, ``labels``, ``unlabelled``, ``unreadable``, ``duplicates``, ``conflicts``.

    Raises:
        InputError: If there is nothing to read, a file cannot be read and should stop, or the same
            pixels have two labels and should stop.
    """
    plants = open_plants(config.data, root=config.root, labels=config.labels)
    threads = max(2, config.workers)
    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        table, notes = ingest.unify_spellings(plants.table, config.spellings)
        twins, unreadable = ingest.find_twins(table, threads=threads)
        if unreadable and config.on_error == "stop":
            name, reason = unreadable[0]
            raise InputError(
                f"{table.source}: {len(unreadable)} images cannot be read, first {name} "
                f"({reason}): replace or remove them, or say --on_error skip"
            )
        bad = {name for name, _ in unreadable}
        settled, told = ingest.settle_twins(
            table, twins, duplicates=config.duplicates, conflicts=config.conflicts
        )
        if len(bad) == len(table):
            raise InputError(f"{table.source}: none of its {len(table)} images can be read")
        settled = settled.select(row for row in range(len(settled)) if settled.name(row) not in bad)
        if bad:
            told.append(f"{len(bad)} images cannot be read and are left out: unreadable.csv")
        settled, split = ingest.split_table(settled, config.test_share, seed=config.seed)
        notes = [*notes, *told, *ingest.lone_classes(settled), *split]
        counts = ingest.label_counts(settled)
        ingest.write_manifest(run, MANIFEST, settled)
        write_rows(run, "unreadable.csv", [{"file": f, "reason": r} for f, r in unreadable])
        write_rows(
            run,
            "duplicates.csv",
            [
                {"set": number, "file": table.name(row), "labels": " | ".join(one.labels)}
                for number, one in enumerate(twins, start=1)
                for row in one.rows
            ],
        )
        metrics = {
            "images": len(settled),
            "labels": len(np.unique(settled.labels[settled.labels >= 0])),
            "unlabelled": int((settled.labels < 0).sum()),
            "unreadable": len(unreadable),
            "duplicates": sum(len(one.rows) - 1 for one in twins),
            "conflicts": sum(one.conflict for one in twins),
        }
        notes = [f"{table.source}: {len(table):,} images found, {len(settled):,} kept", *notes]
        pages.prepare_page(run, settled, counts, [*notes, *table.notes])
        run.save_metrics(metrics)
    lines = [*notes, *table.notes, *text_table(counts)]
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=("report.html", MANIFEST))


def mask(config: MaskConfig) -> Outcome:
    """Make or check masks, and show them on the images.

    Returns:
        ``masks``, ``mask_fraction`` (median cover), ``mask_fallback`` (share used whole) and
        ``mask_fallback/REASON``.

    Raises:
        InputError: If an image or a mask cannot be read, they do not fit together, or no mask can
            be used.
    """
    plants = _open(config)
    threads = max(2, config.workers)
    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        maker, _ = maker_of(config.masks, config.mask, plants.table)
        plants = plants.masked(maker, run.output(STORE), threads=threads)
        summary = mask_summary(plants)
        store = plants.store
        assert store is not None
        records = [store.record(file) for file in plants.table.files]
        write_rows(
            run,
            "masks.csv",
            [
                {"file": name, **record._asdict()}
                for name, record in zip(plants.names, records, strict=True)
            ],
        )
        shown = np.unique(np.linspace(0, len(plants) - 1, config.sheet).astype(int)).tolist()
        notes = [*plants.summary(), *summary.lines]
        pages.mask_page(run, plants, shown, notes, summary.metrics)
        run.save_metrics(summary.metrics)
    return Outcome(
        out=run.path, metrics=summary.metrics, lines=notes, files=("report.html", "masks.csv")
    )


def pretrain(config: PretrainConfig) -> Outcome:
    """Train an encoder and write the run directory ``config.out``.

    Returns:
        ``train/loss``; with labels ``knn_accuracy`` (of the test images where there is a split,
        else of the training images, each labelled by the others); with masks the figures of `mask`.

    Raises:
        InputError: If the images, an option or the output folder does not fit.
        TrainingError: If the loss stops being a number.
    """
    from cl_agriculture.training import NEIGHBOURS, Training
    from cl_core.evaluation.knn import knn_accuracy
    from cl_core.training import fit  # Lightning costs seconds, and only training needs it

    everything = _open(config)
    fingerprint = of_files(everything.table.files, root=everything.table.root)
    with Run.create(
        config.out, config, resume=config.resume, overwrite=config.overwrite, data=fingerprint
    ) as run:
        _, spelled = ingest.unify_spellings(everything.table, "tell")
        notes = [*everything.summary(), *spelled, *ingest.lone_classes(everything.table)]
        metrics: dict[str, float] = {}
        if config.attention != "off":
            maker, kept = maker_of(config.masks, config.mask, everything.table)
            root = run.output(STORE) if kept is None else kept
            everything = everything.masked(maker, root, threads=max(2, config.workers))
            summary = mask_summary(everything)
            notes, metrics = [*notes, *summary.lines], summary.metrics
        plants = everything.training()
        seed_everything(config.seed)
        training = Training.of(config, plants)
        notes += training.notes
        result = fit(
            training.module,
            training.loader,
            run=run,
            epochs=config.epochs,
            seed=config.seed,
            trainer=config.trainer,
            resume=config.resume,
            callbacks=training.callbacks,
        )
        model = training.model()
        run.save_model(model, model.card)
        options: dict[str, Any] = {"batch_size": config.batch_size, "workers": config.workers}
        h = model.represent(plants, **options)
        metrics = {"train/loss": result.history[-1]["train/loss"], **metrics}
        test = everything.testing()
        if bool((plants.labels >= 0).any()):
            if len(test) and bool((test.labels >= 0).any()):
                queries = model.represent(test, **options)
                accuracy = knn_accuracy(queries, test.labels, h, plants.labels, k=NEIGHBOURS)
            else:
                accuracy = knn_accuracy(h, plants.labels, k=NEIGHBOURS)
            metrics["knn_accuracy"] = accuracy
        if run.writes:
            pages.training_page(run, training.name, plants, result, h, metrics, notes=notes)
        run.save_metrics(metrics, seconds=result.seconds)
    told = f"{training.name}: {result.epochs} epochs in {result.seconds:.1f} s, loss "
    told += f"{metrics['train/loss']:.3f}"
    if "knn_accuracy" in metrics:
        told += f", kNN {metrics['knn_accuracy']:.1%} of the weak labels"
    return Outcome(out=run.path, metrics=metrics, lines=[*notes, told])


def embed(config: EmbedConfig) -> Outcome:
    """Write one vector per image, with its file and its weak label if it has one.

    Returns:
        ``rows`` and ``dimensions`` of what was written.

    Raises:
        InputError: If there is no such run, or the images or their masks do not fit its model.
    """
    earlier = Run.open(config.run)
    model = load_plant_model(earlier)
    with Run.create(out_of(config, "embed"), config, overwrite=config.overwrite) as run:
        plants = images_of(config, earlier, model, run)
        vectors = model.represent(
            plants, space=config.space, batch_size=config.batch_size, workers=config.workers
        )
        about: dict[str, Sequence[object]] = {"file": plants.names, "label": plants.class_names}
        files = write_vectors(run, vectors, about, format=config.format)
        metrics = {"rows": len(vectors), "dimensions": vectors.shape[1]}
        run.save_metrics(metrics)
    lines = [*plants.summary(), f"{len(vectors):,} images, {vectors.shape[1]} dimensions"]
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=files)


def demo(config: DemoConfig) -> Outcome:
    """Group drawn plants with a mask and without it.

    Returns:
        Figures as of `cluster` under ``claws/`` and ``supervised/``.
    """
    with Run.create(config.out / "report", config, overwrite=config.overwrite) as run:
        data = run.output("images")
        draw_images(data, seed=config.seed)
        scores: dict[str, dict[str, float]] = {}
        for name, (options, groups) in demo_runs(config, data).items():
            trained = pretrain(options)
            accuracy = trained.metrics["knn_accuracy"]
            scores[name] = {**cluster(groups).metrics, "knn_accuracy": accuracy}
        lines = write_demo(run, data, scores, seed=config.seed)
        metrics = {
            f"{mode}/{figure}": value
            for mode, own in zip(("claws", "supervised"), scores.values(), strict=True)
            for figure, value in own.items()
        }
        run.save_metrics(metrics)
    files = ("report/report.html", "claws/cluster/report.html")
    return Outcome(out=config.out, metrics=metrics, lines=lines, files=files)


def _open(config: MaskConfig | PretrainConfig) -> Plants:
    return open_plants(
        config.data,
        root=config.root,
        labels=config.labels,
        on_error=config.on_error,
        cache=config.cache,
        threads=max(2, config.workers),
    )
