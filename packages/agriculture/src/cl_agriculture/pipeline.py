"""What a user does with images of plants: one function a verb, each taking its configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from cl_agriculture import ingest, pages
from cl_agriculture.clusters import ClusterModel, fit_clusters, load_clusters, renamed
from cl_agriculture.config import (
    ClusterConfig,
    DemoConfig,
    EmbedConfig,
    ExploreConfig,
    MaskConfig,
    OtherImagesOptions,
    PrepareConfig,
    PretrainConfig,
    ScoreConfig,
)
from cl_agriculture.data import MANIFEST, Plants, open_plants
from cl_agriculture.demo import demo_runs, draw_images, write_demo
from cl_agriculture.explorer import explorer_content
from cl_agriculture.groups import group_rows, label_figures, shape_figures
from cl_agriculture.growth import dates_of, growth_rows
from cl_agriculture.masking import STORE, maker_of, mask_summary, remembered_maker
from cl_agriculture.mixture.alignment import aligned_names
from cl_agriculture.model import PlantModel, load_plant_model
from cl_agriculture.rows import write_rows
from cl_agriculture.scoring import Scored, drift, score_vectors
from cl_agriculture.vectors import Vectors, read_vectors
from cl_core.commands.outcome import Outcome, out_of, text_table
from cl_core.errors import InputError
from cl_core.report.explorer import explorer_page
from cl_core.report.figures import metric_table
from cl_core.runs import Run, write_atomic
from cl_core.runs.fingerprint import of_files
from cl_core.runs.record import IN_MEMORY, require_readable
from cl_core.runs.vectors import write_vectors
from cl_core.seeding import seed_everything

__all__ = ["cluster", "demo", "embed", "explore", "mask", "prepare", "pretrain", "score"]

SCORES = "scores.npy"
ASSIGNMENTS = "assignments.csv"
IMAGES = "images.json"
_NEIGHBOURS_UP_TO = 20_000


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
        notes, metrics = everything.summary(), dict[str, float]()
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
        plants = _images_of(config, earlier, model, run)
        vectors = model.represent(
            plants, space=config.space, batch_size=config.batch_size, workers=config.workers
        )
        about: dict[str, Sequence[object]] = {"file": plants.names, "label": plants.class_names}
        files = write_vectors(run, vectors, about, format=config.format)
        metrics = {"rows": len(vectors), "dimensions": vectors.shape[1]}
        run.save_metrics(metrics)
    lines = [*plants.summary(), f"{len(vectors):,} images, {vectors.shape[1]} dimensions"]
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=files)


def cluster(config: ClusterConfig) -> Outcome:
    """Group images by a mixture of Gaussians whose number of groups BIC chooses.

    Returns:
        ``clusters``, ``bic``, ``silhouette``, ``davies_bouldin``, ``flagged``; with labels ``nmi``,
        ``ami``, ``ari``, ``purity``, ``hungarian_accuracy``, ``homogeneity``, ``completeness``.
        All but the first two are of the test images where there is a split; those of the training
        images have the prefix ``train/``.

    Raises:
        InputError: If the run, images or vectors do not fit, vectors are not finite, or there are
            too few for the groups or dimensions asked for.
    """
    plants: Plants | None = None
    model: PlantModel | None = None
    out = out_of(cast(Any, config), "cluster") if config.run is not None else config.out
    assert out is not None
    with Run.create(out, config, overwrite=config.overwrite) as run:
        if config.run is not None:
            earlier = Run.open(config.run)
            model = load_plant_model(earlier)
            plants = _images_of(config, earlier, model, run)
            given = _vectors_of(plants, model, config)
        else:
            given = read_vectors(config.vectors)
        train, test = given.split()
        fitted, selection, notes = fit_clusters(
            given.x[train],
            given.labels[train],
            given.classes,
            config.mixture,
            clusters=config.clusters,
            space="vectors" if model is None else config.space,
            plant=model,
            seed=config.seed,
        )
        if config.align_to is not None:
            fitted = _aligned(fitted, config.align_to)
        scored = _scored(fitted, given, plants)
        metrics = {"clusters": len(fitted.names), "bic": selection.chosen.bic}
        metrics |= _figures(given, scored, test if len(test) else train, seed=config.seed)
        if len(test):
            own = _figures(given, scored, train, seed=config.seed)
            metrics |= {f"train/{name}": value for name, value in own.items()}
        groups = group_rows(
            fitted.names,
            scored.assigned.component,
            scored.assigned.ll,
            scored.flagged,
            given.labels,
            given.classes,
        )
        growth = _growth(plants, scored, fitted)
        run.save_model(fitted, fitted.card)
        _write_scored(run, scored, plants)
        write_rows(run, "clusters.csv", groups)
        write_rows(run, "bic.csv", selection.table())
        write_rows(run, "growth.csv", growth)
        notes = [*given.notes, *notes]
        pages.cluster_page(
            run,
            scored,
            selection,
            _rounded(groups),
            metrics,
            plants=plants,
            growth=_rounded(growth),
            sheet=config.sheet,
            notes=notes,
        )
        run.save_metrics(metrics)
    lines = [*notes, *text_table(metric_table(_rounded(groups))), ""]
    lines += [f"{name} {value:.4g}" for name, value in metrics.items()]
    files = ("report.html", ASSIGNMENTS, "clusters.csv")
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=files)


def score(config: ScoreConfig) -> Outcome:
    """Say of new images which group each belongs to and how odd it is; nothing is refitted.

    Returns:
        ``images``, ``flagged`` (share of odd ones), ``ll_shift`` (of the mean log-likelihood, in
        nats), ``ll_shift_spreads``; with labels the figures of agreement.

    Raises:
        InputError: If the run holds no clustering, or the images or their masks do not fit it.
    """
    earlier = Run.open(config.run)
    model = load_clusters(earlier)
    if (model.plant is None) != (config.vectors is not None):
        needs = "vectors: give --vectors" if model.plant is None else "images: give --data"
        raise InputError(f"--run {config.run} is a clustering of {needs}")
    with Run.create(out_of(config, "score"), config, overwrite=config.overwrite) as run:
        plants: Plants | None = None
        if model.plant is not None:
            plants = _images_of(config, earlier, model.plant, run)
            given = _vectors_of(plants, model.plant, config, space=model.card.space)
        else:
            given = read_vectors(config.vectors)
        if given.x.shape[1] != model.card.width:
            raise InputError(
                f"--vectors: {given.x.shape[1]} numbers a row, the clustering is of "
                f"{model.card.width}: give vectors of the same origin"
            )
        given.require_finite()
        scored = _scored(model, given, plants)
        change = drift(model, scored)
        metrics = {
            "images": len(scored),
            "flagged": change.flagged,
            "ll_shift": change.shift,
            "ll_shift_spreads": change.spreads,
            **label_figures(given.labels, scored.names),
        }
        _write_scored(run, scored, plants)
        notes = [*given.notes, *change.line().split("\n")]
        pages.score_page(run, scored, metrics, plants=plants, sheet=config.sheet, notes=notes)
        run.save_metrics(metrics)
    files = ("report.html", ASSIGNMENTS)
    return Outcome(out=run.path, metrics=metrics, lines=notes, files=files)


def explore(config: ExploreConfig) -> Outcome:
    """Lay the images of a clustering on a plane, to be looked at one by one.

    Returns:
        ``points`` and ``pictures`` of the page.

    Raises:
        InputError: If the run is no clustering.
    """
    earlier = Run.open(config.run)
    content = explorer_content(earlier, config)
    n = len(content.files)
    with Run.create(out_of(config, "explore"), config, overwrite=config.overwrite) as run:
        explorer_page(
            run.output("explorer.html"),
            content.planes if n > _NEIGHBOURS_UP_TO else content.scores,
            content.pictures,
            title="Groups of plants",
            subtitle=content.subtitle,
            clusters=content.clusters,
            labels=content.labels,
            ids=content.files,
            columns=content.columns,
            neighbours=config.neighbours,
        )
        shown = 0 if content.pictures is None else sum(p is not None for p in content.pictures)
        metrics = {"points": n, "pictures": shown}
        run.save_metrics(metrics)
    return Outcome(
        out=run.path, metrics=metrics, lines=[content.subtitle], files=("explorer.html",)
    )


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


def _images_of(config: OtherImagesOptions, earlier: Run, model: PlantModel, run: Run) -> Plants:
    """The images a command names, by default those of the earlier run, with the model's masks."""
    options = earlier.config
    own = options if config.data is None else {}
    data = config.data or require_readable(options, earlier.path)
    root = config.root or (Path(own["root"]) if own.get("root") else None)
    plants = open_plants(
        data,
        root=root,
        labels=config.labels or own.get("labels") or "auto",
        on_error=config.on_error or own.get("on_error") or "stop",
        cache=Path(own["cache"]) if own.get("cache") else None,
        threads=max(2, config.workers),
    )
    rule = model.card.rule
    if rule is None:
        if config.masks is not None:
            raise InputError("--masks: the model was trained without masks: leave them out")
        return plants
    masks = config.masks
    if masks is None and config.data is None:
        masks = _recorded_masks(options)
    maker, kept = remembered_maker(rule, masks, plants.table)
    if kept is None and config.data is None and (earlier.path / STORE).is_dir():
        kept = earlier.path / STORE
    root = run.output(STORE) if kept is None else kept
    return plants.masked(maker, root, threads=max(2, config.workers))


def _recorded_masks(options: Mapping[str, Any]) -> str | None:
    """Where a training took its masks from, if it can be read again."""
    masks = options.get("masks")
    return masks if isinstance(masks, str) and not masks.startswith(IN_MEMORY) else None


def _vectors_of(plants: Plants, model: PlantModel, config: Any, *, space: Any = None) -> Vectors:
    x = model.represent(
        plants,
        space=space or config.space,
        batch_size=config.batch_size,
        workers=config.workers,
    )
    table = plants.table
    return Vectors(x, plants.names, table.labels, table.classes, table.splits, plants.summary())


def _scored(model: ClusterModel, given: Vectors, plants: Plants | None) -> Scored:
    masks = None
    if plants is not None and plants.store is not None:
        masks = [plants.store.record(file) for file in plants.table.files]
    return score_vectors(
        model,
        given.x.numpy(),
        files=given.names,
        labels=given.class_names,
        splits=given.splits,
        masks=masks,
    )


def _figures(given: Vectors, scored: Scored, rows: Any, *, seed: int) -> dict[str, float]:
    return {
        **label_figures(given.labels[rows], scored.names[rows]),
        **shape_figures(scored.scores[rows], scored.names[rows], seed=seed),
        "flagged": float(scored.flagged[rows].mean()),
    }


def _aligned(model: ClusterModel, path: Path) -> ClusterModel:
    earlier = load_clusters(Run.open(path))
    if earlier.card.width != model.card.width or earlier.card.space != model.card.space:
        raise InputError(
            f"--align_to {path}: its groups lie among other vectors ({earlier.card.space} of "
            f"{earlier.card.width} numbers, not {model.card.space} of {model.card.width})"
        )
    return renamed(model, aligned_names(model.centres(), earlier.centres(), earlier.names))


def _growth(plants: Plants | None, scored: Scored, model: ClusterModel) -> list[dict[str, object]]:
    if plants is None:
        return []
    dates = dates_of(plants.table)
    if dates is None:
        return []
    trusted = ~scored.fallback
    fractions = scored.fractions
    component = scored.assigned.component
    return growth_rows(dates, component, model.names, scored.scores, fractions, trusted)


def _write_scored(run: Run, scored: Scored, plants: Plants | None) -> None:
    """Assignments, scores for `explore`, the labels to check, and where the images lie."""
    table = scored.table()
    write_rows(run, ASSIGNMENTS, table)
    write_rows(run, "labels_to_check.csv", [table[row] for row in scored.watch_list()])
    with write_atomic(run.output(SCORES)) as beside, beside.open("wb") as file:
        np.save(file, scored.scores.astype(np.float32), allow_pickle=False)
    if plants is not None:
        root = str(Path(plants.table.root).resolve())
        with write_atomic(run.output(IMAGES)) as beside:
            beside.write_text(json.dumps({"root": root}) + "\n", "utf-8")


def _rounded(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    return [
        {name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()}
        for row in rows
    ]
