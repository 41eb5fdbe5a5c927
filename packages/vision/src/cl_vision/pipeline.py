"""What a user does with images: one function a verb, each taking its configuration."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from cl_core.commands.outcome import Outcome, flat_scores, out_of, slug, text_table
from cl_core.errors import InputError
from cl_core.networks.export import save_encoder
from cl_core.report.figures import metric_table
from cl_core.runs import Run, write_atomic
from cl_core.runs.vectors import write_vectors
from cl_core.seeding import seed_everything
from cl_vision import pages
from cl_vision.collapse.spectrum import Spectrum, spectra, spectrum_table
from cl_vision.config import (
    DemoConfig,
    EmbedConfig,
    EvaluateConfig,
    PretrainConfig,
    SpectrumConfig,
    TheoryConfig,
)
from cl_vision.data import fingerprint_of, open_images
from cl_vision.evaluation.measures import measure, require_classes
from cl_vision.model import ImageModel, load_any_encoder
from cl_vision.saved import (
    evenly,
    free_name,
    images_of,
    load_runs,
    open_remembered,
    own_of,
)

if TYPE_CHECKING:
    from lightning import LightningModule

__all__ = ["demo", "embed", "evaluate", "pretrain", "spectrum", "theory"]

LOOK = 10_000
"""Images that a diagnostic looks at; of more, evenly spaced ones."""


def pretrain(
    config: PretrainConfig,
    *,
    encoder: nn.Module | None = None,
    method: LightningModule | None = None,
) -> Outcome:
    """Train an encoder without labels and write the run directory ``config.out``.

    Args:
        config: The options.
        encoder: One of your own, images ``(n, c, h, w)`` to ``(n, d)``, in place of
            ``config.backbone``.
        method: One of your own, in place of ``config.method``: a LightningModule whose steps take
            a :class:`~cl_core.images.Sample` and whose ``encoder`` is kept.

    Returns:
        ``train/loss``, ``effective_rank`` of the representation, ``z/effective_rank`` of the
        embedding; what was watched of the last epoch, such as ``online/knn_accuracy``.

    Raises:
        InputError: If the images, an option or the output folder does not fit.
        TrainingError: If the loss stops being a number.
    """
    from cl_core.training import fit  # Lightning costs seconds, and only training needs it
    from cl_vision.hcsc.cluster_tree import cluster_tree, write_cluster_tree
    from cl_vision.hcsc.module import HCSC
    from cl_vision.methods.training import Training, resolved

    images = open_images(
        config.data,
        root=config.root,
        labels=config.labels,
        splits=config.splits,
        channels=config.channels,
        on_error=config.on_error,
        max_pixels=config.max_pixels,
        value_range=config.value_range,
        cache=config.cache,
        threads=max(2, config.workers or 0),
    ).training()
    if method is not None and encoder is None:
        encoder = getattr(method, "encoder", None)
    config, notes = resolved(config, images, encoder=encoder)
    with Run.create(
        config.out,
        config,
        resume=config.resume,
        overwrite=config.overwrite,
        data=fingerprint_of(images),
    ) as run:
        seed_everything(config.seed)
        training = Training.of(config, images, run, encoder=encoder, method=method)
        training.notes[:0] = notes
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
        if run.writes:
            about = {"mean": model.card.mean, "std": model.card.std}
            save_encoder(run.output("encoder"), model.encoder, about, overwrite=True)
        tree = None
        if isinstance(training.module, HCSC):
            training.module.to(training.module.trainer.strategy.root_device)
            tree = cluster_tree(training.module)
            if run.writes:
                write_cluster_tree(run, tree, images.names)
        shown = evenly(images, LOOK)
        r = model.represent(shown, batch_size=config.batch_size, workers=config.workers or 0)
        found = spectra(r, model.projector)
        metrics = _training_metrics(result.history[-1], found)
        if run.writes:
            pages.training_page(
                run,
                model.name,
                images,
                result,
                r,
                found,
                metrics,
                shown=shown,
                notes=training.notes,
                tree=tree,
            )
        run.save_metrics(metrics, seconds=result.seconds)
    lines = [
        *images.summary(),
        *training.notes,
        f"{model.name}: {result.epochs} epochs in {result.seconds:.1f} s, "
        f"loss {metrics['train/loss']:.3f}, effective rank {metrics['effective_rank']:.1f}",
    ]
    return Outcome(out=run.path, metrics=metrics, lines=lines)


def evaluate(config: EvaluateConfig, *, encoder: nn.Module | None = None) -> Outcome:
    """Measure the frozen encoder of a run, beside others.

    Args:
        config: The options.
        encoder: Your own again, with any weights, if the run trained one.

    Returns:
        ``linear_accuracy``, ``knn_accuracy``, ``ami``, ``nmi``, ``ari``, ``purity``,
        ``effective_rank``, ``label_1pct/accuracy`` and so on; those of the others under the name of
        their method.

    Raises:
        InputError: If there is no such run, or the images have no labels to evaluate with.
    """
    own = own_of(config, encoder)
    trained = load_runs(config.run, *config.baselines, own=own, config=config)
    images = images_of(config, trained)
    train, test = images.train_and_test(config.test_share, seed=config.seed)
    require_classes(train, test)
    models = {name: one.model for name, one in trained.items()}
    if config.untrained:
        seed_everything(config.seed)
        models["untrained"] = ImageModel.rebuild(next(iter(models.values())).card, own)
    with Run.create(out_of(config, "evaluate"), config, overwrite=config.overwrite) as run:
        measured = [measure(name, model, train, test, config) for name, model in models.items()]
        scores = {one.name: one.scores for one in measured}
        metrics = flat_scores(scores)
        rows = metric_table([{"model": name, **figures} for name, figures in scores.items()])
        histories = {name: one.history for name, one in trained.items()}
        notes = [
            images.summary()[0],
            *train.summary()[1:],
            f"{len(train):,} images to learn from, {len(test):,} to test",
        ]
        if images.table.splits is None:
            notes.append(
                "The images had no split: the encoder was trained, without labels, on all of them."
            )
        pages.comparison_page(run, rows, measured, test, histories, notes=notes)
        pages.write_explorer(run, test, measured[0].features, title=measured[0].name)
        run.save_metrics(metrics)
    lines = [*train.summary()[1:], *text_table(rows)]
    files = ("report.html", "explorer.html")
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=files)


def embed(config: EmbedConfig, *, encoder: nn.Module | None = None) -> Outcome:
    """Write one vector per image, with its file and its class if it has one.

    Args:
        config: The options.
        encoder: Your own again, with any weights, if the run trained one.

    Returns:
        ``rows`` and ``dimensions`` of what was written.

    Raises:
        InputError: If there is no such run, or the images do not fit its model.
    """
    trained = load_runs(config.run, own=own_of(config, encoder), config=config)
    images = images_of(config, trained)
    ((model, _, _),) = trained.values()
    model.require_channels(images)
    with Run.create(out_of(config, "embed"), config, overwrite=config.overwrite) as run:
        vectors = model.represent(images, batch_size=config.batch_size, workers=config.workers)
        if config.space == "embedding":
            vectors = model.project(vectors)
        about: dict[str, Sequence[object]]
        about = {"file": images.names, "label": images.class_names}
        files = [*write_vectors(run, vectors, about, format=config.format), "explorer.html"]
        pages.write_explorer(run, images, vectors, title=model.name)
        metrics = {"rows": len(vectors), "dimensions": vectors.shape[1]}
        run.save_metrics(metrics)
    lines = [*images.summary(), f"{len(vectors):,} images, {vectors.shape[1]} dimensions"]
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=files)


def spectrum(config: SpectrumConfig, *, encoder: nn.Module | None = None) -> Outcome:
    """Draw the collapse spectra of encoders on the same images.

    Args:
        config: The options.
        encoder: Your own again, with any weights, if a run trained one.

    Returns:
        ``<encoder>/r/effective_rank``, ``<encoder>/z/effective_rank`` and, of DirectCLR,
        ``<encoder>/r_unseen/effective_rank``.

    Raises:
        InputError: If an encoder or the images are not there or do not fit.
    """
    models: dict[str, ImageModel] = {}
    for path in config.runs:
        model = load_any_encoder(
            path,
            backbone=config.backbone,
            image_size=config.image_size,
            own=own_of(config, encoder),
        )
        models[free_name(models, model.name, path)] = model
    first = config.runs[0]
    before = Run.open(first).config if (first / "config.yaml").is_file() else None
    if config.data is None and before is None:
        raise InputError("--data: name images to look at; only a run remembers those it was of")
    if config.out is None and before is None:
        raise InputError("--out: name a folder to write to; only a run has one of its own")
    channels = next(iter(models.values())).encoder.in_channels
    images = evenly(
        open_remembered(
            config.data,
            before,
            channels,
            place=first,
            root=config.root,
            splits=config.splits,
            on_error=config.on_error,
            max_pixels=config.max_pixels,
            value_range=config.value_range,
        ),
        config.images,
    )
    with Run.create(config.out or first / "spectrum", config, overwrite=config.overwrite) as run:
        found: list[Spectrum] = []
        metrics: dict[str, float] = {}
        for name, model in models.items():
            r = model.represent(images, batch_size=config.batch_size, workers=config.workers)
            projector = None if isinstance(model.projector, nn.Identity) else model.projector
            own = spectra(r, projector, name=name)
            found += own
            metrics |= {
                f"{slug(name)}/{_space(one)}/effective_rank": one.effective_rank for one in own
            }
        _write_spectra(run, found)
        pages.spectrum_page(run, images, found, relative=config.relative)
        run.save_metrics(metrics)
    lines = [*images.summary(), *text_table(spectrum_table(found))]
    files = ("report.html", "spectrum.csv")
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=files)


def theory(config: TheoryConfig) -> Outcome:
    """Repeat the toy studies of dimensional collapse.

    Returns:
        ``<study>/<noise or layers>/effective_rank`` and what else each training is judged by.
    """
    from cl_vision.collapse.theory_pages import theory_page

    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        metrics = theory_page(run, study=config.study, steps=config.steps, seed=config.seed)
        run.save_metrics(metrics)
    rows = [
        {"study": place.rpartition("/")[0], "effective rank": f"{value:.1f}"}
        for place, value in metrics.items()
        if place.endswith("/effective_rank")
    ]
    return Outcome(out=run.path, metrics=metrics, lines=text_table(rows))


def demo(config: DemoConfig) -> Outcome:
    """Compare DirectCLR and HCSC with their baselines on scikit-learn's digits; condense these.

    Returns:
        Figures as of `evaluate`, with those of ``rotation`` and ``brightness``, under the name of
        each method; as of `assess` under ``condensation``.
    """
    from cl_vision.condensation import demo as page_two
    from cl_vision.condensation.pipeline import condense
    from cl_vision.digits_demo import demo_runs, write_demo

    runs = demo_runs(config)
    for one in runs:
        pretrain(one)
    trained = load_runs(*(one.out for one in runs))
    with Run.create(config.out / "report", config, overwrite=config.overwrite) as run:
        metrics, lines = write_demo(run, trained, seed=config.seed)
        run.save_metrics(metrics)
    options, trial = page_two.demo_options(config)
    condense(options)
    with Run.create(config.out / "condensation", trial, overwrite=config.overwrite) as run:
        condensed, table = page_two.write_demo(run, options.out, trial)
        run.save_metrics(condensed)
    metrics |= {f"condensation/{name}": value for name, value in condensed.items()}
    return Outcome(
        out=config.out,
        metrics=metrics,
        lines=[*lines, "", *table],
        files=("report/report.html", "condensation/report.html"),
    )


def _training_metrics(row: Mapping[str, float], found: Sequence[Spectrum]) -> dict[str, float]:
    metrics = {"train/loss": row["train/loss"]}
    for one in found:
        place = "" if one.name == "r" else f"{_space(one)}/"
        metrics[f"{place}effective_rank"] = one.effective_rank
    watched = ("online/", "selection/", "clusters/ami")
    return metrics | {name: value for name, value in row.items() if name.startswith(watched)}


def _space(one: Spectrum) -> str:
    """``r``, ``z`` or ``r_unseen``."""
    space = one.name.rpartition(" ")[2]
    return "r_unseen" if space.startswith("r[") else space


def _write_spectra(run: Run, found: Sequence[Spectrum]) -> None:
    path = run.output("spectrum.csv")
    with write_atomic(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("encoder", "space", "rank", "singular_value"))
        for one in found:
            encoder, _, space = one.name.rpartition(" ")
            for rank, value in enumerate(one.values, start=1):
                table.writerow((encoder, space, rank, f"{value:.6g}"))
