"""What a user does with graphs: one function a verb, each taking its configuration.

One graph of many nodes and a collection of small graphs go the same way; what differs between
them lies in `node_task` and `graph_task`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cl_core.commands.outcome import Outcome, flat_scores, out_of, slug, text_table
from cl_core.errors import InputError
from cl_core.evaluation import effective_rank
from cl_core.report.figures import metric_table
from cl_core.runs import Run
from cl_core.runs.vectors import write_vectors
from cl_core.seeding import seed_everything
from cl_graphs import pages
from cl_graphs.config import (
    DemoConfig,
    EmbedConfig,
    EvaluateConfig,
    PretrainConfig,
    RobustnessConfig,
    SavedRunOptions,
)
from cl_graphs.data import load_poisoned
from cl_graphs.evaluation.robustness import Protocol, Strengths, measure, side_by_side
from cl_graphs.methods.threads import threads_for
from cl_graphs.node_task import NodeModel, NodeTask
from cl_graphs.progress import Progress
from cl_graphs.tasks import Model, Task, card_of_run, load_model, task_of, task_of_run

__all__ = ["demo", "embed", "evaluate", "pretrain", "robustness"]


def pretrain(config: PretrainConfig) -> Outcome:
    """Train an encoder without labels and write the run directory ``config.out``.

    Returns:
        ``train/loss`` and ``effective_rank`` of the embedding.

    Raises:
        InputError: If the data, an option or the output folder does not fit.
        TrainingError: If the loss stops being a number.
    """
    from cl_core.training import fit  # Lightning costs seconds, and only training needs it

    task = task_of(config)
    epochs = config.epochs or task.default_epochs(config)
    config = replace(config, epochs=epochs)
    seed_everything(config.seed)
    model = task.model(config)  # refused before anything is written
    with Run.create(
        config.out,
        config,
        resume=config.resume,
        overwrite=config.overwrite,
        data=task.fingerprint(),
    ) as run:
        with threads_for(task.nodes_of_step(config)):
            result = fit(
                task.method(model, config),
                task.loader(config),
                run=run,
                epochs=epochs,
                seed=config.seed,
                trainer=config.trainer,
                resume=config.resume,
            )
        run.save_model(model, model.card)
        vectors = model.embed(task.data)
        metrics = {
            "train/loss": result.history[-1]["train/loss"],
            "effective_rank": effective_rank(vectors),
        }
        if run.writes:
            pages.training_page(run, task, result, vectors, metrics)
        run.save_metrics(metrics, seconds=result.seconds)
    lines = [
        *task.summary(),
        f"{model.name}: {result.epochs} epochs in {result.seconds:.1f} s, "
        f"loss {metrics['train/loss']:.3f}, effective rank {metrics['effective_rank']:.1f}",
    ]
    return Outcome(out=run.path, metrics=metrics, lines=lines)


def evaluate(config: EvaluateConfig) -> Outcome:
    """Measure the frozen embeddings of a run, beside raw features and another run.

    Returns:
        ``accuracy``, ``macro_f1`` and their spreads; those of the others under
        ``raw_features/`` and the name of the other run's method.

    Raises:
        InputError: If there is no such run, or the data has no labels to evaluate with.
    """
    task, trained = _task_and_models(config, config.baseline)
    task.labels()  # refused before anything is written
    protocol = task.protocol(config)
    with _begun(config, "evaluate", task) as run:
        embedded = {name: model.embed(task.data) for name, (model, _) in trained.items()}
        measured = embedded | ({"raw features": task.raw()} if config.raw else {})
        told = Progress(
            "evaluate", len(measured) * task.parts_of_scores(config), shown=config.progress
        )
        scores = {name: task.scores(x, config, told) for name, x in measured.items()}
        metrics = flat_scores(scores)
        rows = metric_table([{"model": name, **figures} for name, figures in scores.items()])
        histories = {name: history for name, (_, history) in trained.items()}
        pages.comparison_page(run, task, rows, protocol, embedded, histories)
        run.save_metrics(metrics)
    return Outcome(
        out=run.path, metrics=metrics, lines=[*task.summary(), *text_table(rows), protocol]
    )


def embed(config: EmbedConfig) -> Outcome:
    """Write one vector per node, or per graph of a collection, with its id.

    Returns:
        ``rows`` and ``dimensions`` of what was written.

    Raises:
        InputError: If there is no such run, or the data does not fit its model.
    """
    task, trained = _task_and_models(config, None)
    ((model, _),) = trained.values()
    with _begun(config, "embed", task) as run:
        vectors = model.embed(task.data)
        files = write_vectors(run, vectors, {"id": task.ids}, format=config.format)
        metrics = {"rows": len(vectors), "dimensions": vectors.shape[1]}
        run.save_metrics(metrics)
    line = f"{len(vectors):,} {task.unit}s, {vectors.shape[1]} dimensions"
    return Outcome(out=run.path, metrics=metrics, lines=[*task.summary(), line], files=files)


def robustness(config: RobustnessConfig) -> Outcome:
    """Measure accuracy while the graph is perturbed and attacked, more and more.

    Returns:
        ``clean/0/accuracy`` and ``<perturbation>/<strength>/accuracy``; those of the other run
        under the name of its method.

    Raises:
        InputError: If there is no such run, it is one of a collection, or the data has no labels.
    """
    versions = {} if config.poisoned is None else load_poisoned(config.poisoned)
    task, trained = _task_and_models(config, config.baseline)
    if not isinstance(task, NodeTask):
        raise InputError(f"--run {config.run}: robustness is measured on the nodes of one graph")
    if versions:
        task = NodeTask(versions.pop(0.0))
    labels = task.labels()
    if labels.ndim == 2:
        raise InputError(f"{task.name}: robustness is measured on classes, the labels are tasks")
    strengths = Strengths(
        perturbations=config.perturbations,
        budgets=config.budgets,
        radii=config.radii,
        steps=config.attack_steps,
        attack_nodes=config.attack_nodes,
        attack_candidates=config.attack_candidates,
        seed=config.seed,
    )
    protocol = Protocol(
        splits=config.splits,
        train_fraction=config.train_fraction,
        seed=config.seed,
        solver=task.solver(config),
    )
    models = [model for model, _ in trained.values() if isinstance(model, NodeModel)]
    told = Progress(
        "robustness",
        len(models) * (1 + strengths.versions + len(versions)),
        shown=config.progress,
    )
    with _begun(config, "robustness", task) as run:
        points = list(
            measure(models, task.data, labels, strengths, protocol, poisoned=versions, tell=told)
        )
        metrics = {}
        for point in points:
            owner = "" if point.model == points[0].model else f"{slug(point.model)}/"
            place = f"{owner}{slug(point.perturbation)}/{point.strength:g}"
            metrics[f"{place}/accuracy"] = point.accuracy
            metrics[f"{place}/accuracy_std"] = point.accuracy_std
        rows = metric_table(side_by_side(points))
        pages.robustness_page(run, task, points, rows)
        run.save_metrics(metrics)
    return Outcome(out=run.path, metrics=metrics, lines=text_table(rows))


def demo(config: DemoConfig) -> Outcome:
    """Compare ARIEL, GRACE and raw features on the digits that come with scikit-learn.

    Returns:
        Figures as of `evaluate`, and those of `robustness` under ``robustness/``.
    """
    runs = {}
    for method in ("ariel", "grace"):
        runs[method] = pretrain(
            PretrainConfig(
                data="digits",
                out=config.out / method,
                method=method,
                hidden=128,
                projection=128,
                epochs=config.epochs,
                seed=config.seed,
                overwrite=config.overwrite,
                trainer=config.trainer,
            )
        ).out
    scores = evaluate(
        EvaluateConfig(
            run=runs["ariel"],
            baseline=runs["grace"],
            out=config.out / "report",
            splits=config.splits,
            overwrite=config.overwrite,
        )
    )
    attacked = robustness(
        RobustnessConfig(
            run=runs["ariel"],
            baseline=runs["grace"],
            out=config.out / "robustness",
            budgets=(0.2,),
            radii=(0.04,),
            splits=min(5, config.splits),
            overwrite=config.overwrite,
        )
    )
    return Outcome(
        out=config.out,
        metrics={
            **scores.metrics,
            **{f"robustness/{name}": value for name, value in attacked.metrics.items()},
        },
        lines=[*scores.lines, "", *attacked.lines],
        files=("report/report.html", "robustness/report.html"),
    )


class _Trained(NamedTuple):
    """A model and the rows of its run's ``history.csv``."""

    model: Model
    history: list[dict[str, float]]


def _task_and_models(
    config: SavedRunOptions, baseline: Path | None
) -> tuple[Task, dict[str, _Trained]]:
    """The data, and the models to use on it under names that differ."""
    runs = [Run.open(path) for path in ((config.run, baseline) if baseline else (config.run,))]
    cards = [card_of_run(run) for run in runs]
    if config.encoder is not None and not any(card.encoder for card in cards):
        raise InputError(f"--encoder: {config.run} has the package's own encoder; drop the option")
    kinds = {type(card) for card in cards}
    if len(kinds) > 1:
        raise InputError(
            f"--baseline {baseline} holds a {cards[1].kind}, --run {config.run} a {cards[0].kind}; "
            "compare runs of one kind"
        )
    task = task_of_run(runs[0], cards[0], config)
    trained: dict[str, _Trained] = {}
    for run, card in zip(runs, cards, strict=True):
        model = load_model(run, card, config.encoder)
        name = f"{model.name} ({run.path.name})" if model.name in trained else model.name
        trained[name] = _Trained(model, run.history.rows())
        fitted = model.fit(task.data)
        if run is runs[0] and isinstance(task, NodeTask):
            task = NodeTask(fitted)
    return task, trained


def _begun(config: EvaluateConfig | EmbedConfig | RobustnessConfig, verb: str, task: Task) -> Run:
    return Run.create(
        out_of(config, verb), config, overwrite=config.overwrite, data=task.fingerprint()
    )
