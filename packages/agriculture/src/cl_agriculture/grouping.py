"""What a user does with a trained encoder: find groups, look at them, score new images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from cl_agriculture import group_pages
from cl_agriculture.clusters import ClusterModel, fit_clusters, load_clusters, renamed
from cl_agriculture.config import ClusterConfig, ExploreConfig, ScoreConfig
from cl_agriculture.data import Plants
from cl_agriculture.earlier import images_of
from cl_agriculture.explorer import explorer_content
from cl_agriculture.groups import group_rows, label_figures, shape_figures
from cl_agriculture.growth import dates_of, growth_rows
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

__all__ = ["cluster", "explore", "score"]

SCORES = "scores.npy"
ASSIGNMENTS = "assignments.csv"
IMAGES = "images.json"
_NEIGHBOURS_UP_TO = 20_000


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
            plants = images_of(config, earlier, model, run)
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
        group_pages.cluster_page(
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
            plants = images_of(config, earlier, model.plant, run)
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
        group_pages.score_page(run, scored, metrics, plants=plants, sheet=config.sheet, notes=notes)
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
