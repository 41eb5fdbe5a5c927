"""What a user does with rasters: one function a verb, each taking its configuration."""

from __future__ import annotations

from collections.abc import Sequence

from cl_core.commands.outcome import Outcome, text_table
from cl_core.errors import InputError
from cl_core.report.figures import metric_table
from cl_core.runs import Run
from cl_core.seeding import RandomStream, seed_everything
from cl_remote_sensing import pages
from cl_remote_sensing.config import (
    DemoConfig,
    EvaluateConfig,
    FinetuneConfig,
    PretrainConfig,
)
from cl_remote_sensing.evaluation.measure import confusion_of_tiles
from cl_remote_sensing.evaluation.metrics import scores
from cl_remote_sensing.hyper import GLCNetHyper, options_of
from cl_remote_sensing.landscape.demo import demo_steps
from cl_remote_sensing.landscape.draw import write_landscape
from cl_remote_sensing.mapped import evaluate, predict
from cl_remote_sensing.methods.pretraining import pair_loader, pretraining_tiles, pretraining_views
from cl_remote_sensing.methods.start import new_network, start_finetuning
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.rasters.statistics import BandStatistics
from cl_remote_sensing.saved import SavedModel, Training
from cl_remote_sensing.suited import ground_pixel
from cl_remote_sensing.tiles.fingerprint import fingerprint_of
from cl_remote_sensing.tiles.labelled import open_tile_sets
from cl_remote_sensing.tiles.scenes import fit_normalization, kept_index, open_data
from cl_remote_sensing.tiles.splits import unseen_classes

__all__ = ["demo", "evaluate", "finetune", "predict", "pretrain"]


def pretrain(config: PretrainConfig) -> Outcome:
    """Train an encoder and a decoder on tiles without labels, and write ``config.out``.

    Returns:
        ``train/loss``, the share of tiles and regions found again in their other view
        (``retrieval/tile``, ``retrieval/region``, and chance), and the number of ``tiles``.

    Raises:
        InputError: If the rasters, an option or the output folder do not fit.
        TrainingError: If the loss stops being a number.
    """
    from cl_core.training import fit  # Lightning costs seconds, and only training needs it
    from cl_remote_sensing.evaluation.retrieval import view_retrieval
    from cl_remote_sensing.methods.glcnet import EMBEDDING, GLCNet

    data = fingerprint_of(config.data, network=config.allow_network)
    with Run.create(
        config.out, config, resume=config.resume, overwrite=config.overwrite, data=data
    ) as run:
        seed_everything(config.seed)
        scenes = open_data(
            config.data,
            bands=config.bands,
            ignore_alpha_tag=config.ignore_alpha_tag,
            mosaic=run.output("mosaic.vrt") if config.mosaic else None,
            network=config.allow_network,
        )
        index = kept_index(run, scenes, config)
        if len(index) < config.batch_size:
            raise InputError(
                f"--data {config.data}: {len(index)} tiles of {config.tile} pixels are fewer than "
                f"a batch of {config.batch_size}; lower --batch_size, --tile or --stride"
            )
        normalization, statistics, remarks = fit_normalization(run, index, config)
        hyper = options_of(GLCNetHyper, config)
        views = pretraining_views(config, scenes[0].colors, normalization)
        tiles = pretraining_tiles(config, index, normalization, views)
        network = new_network(config.network, bands=len(scenes[0].bands), outputs=EMBEDDING)
        method = GLCNet(network, hyper)
        result = fit(
            method,
            pair_loader(tiles, config, config.seed),
            run=run,
            epochs=config.epochs,
            seed=config.seed,
            trainer=config.trainer,
            resume=config.resume,
        )
        SavedModel(
            network=network,
            normalization=normalization,
            bands=scenes[0].names,
            colors=scenes[0].colors,
            tile=config.tile,
            training=training_of(scenes, statistics),
        ).save(run)
        metrics = {
            "train/loss": result.history[-1]["train/loss"],
            **view_retrieval(
                method,
                pair_loader(tiles, config, config.seed + 1),
                region_size=views.region_size,
            ),
            "tiles": len(index),
        }
        if run.writes:
            pages.pretraining_page(run, tiles, views, result, metrics)
        run.save_metrics(metrics, seconds=result.seconds)
    lines = [
        *_told(scenes, [*index.notes, *remarks]),
        f"{len(index):,} tiles, {result.epochs} epochs in {result.seconds:.1f} s, "
        f"loss {metrics['train/loss']:.3f}; found again in its other view: "
        f"{metrics['retrieval/tile']:.0%} of tiles (chance {metrics['retrieval/tile_chance']:.1%})"
        f", {metrics['retrieval/region']:.0%} of regions "
        f"(chance {metrics['retrieval/region_chance']:.1%})",
    ]
    return Outcome(out=run.path, metrics=metrics, lines=lines)


def finetune(config: FinetuneConfig) -> Outcome:
    """Train a segmentation on labelled tiles, from a pretrained run or from scratch.

    Returns:
        ``train/loss``; ``val/kappa``, ``val/oa``, ``val/miou``, ... of the epoch chosen, if there
        are tiles to choose by; the number of ``tiles`` trained on.

    Raises:
        InputError: If rasters, labels, an option or the output folder do not fit.
        TrainingError: If the loss stops being a number.
    """
    from cl_core.training import fit, restore_weights
    from cl_remote_sensing.methods.finetuning import LabelledFeed, build_segmenter
    from cl_remote_sensing.methods.segmentation import reestimate_batch_norm

    before = None if config.run is None else SavedModel.load(config.run, "pretrained")
    data = fingerprint_of(
        *(config.data, config.labels, config.val_data, config.val_labels),
        network=config.allow_network,
    )
    with Run.create(
        config.out, config, resume=config.resume, overwrite=config.overwrite, data=data
    ) as run:
        seed_everything(config.seed)
        sets = open_tile_sets(config, run, before)
        train, val = sets.index.select("train"), sets.part("val")
        scenes, labels, legend = sets.scenes.scenes, sets.scenes.labels, sets.legend
        if run.writes:
            sets.index.save(run.output("tiles.csv"), labels=[one.path for one in labels])
        start = start_finetuning(config, before, scenes, legend)
        unseen = unseen_classes(train, labels)
        if start.normalization is None or before is None:
            normalization, statistics, remarks = fit_normalization(run, train, config)
            training = training_of(scenes, statistics, unseen)
        else:
            normalization, remarks = start.normalization, ()
            training = training_of(scenes, before.training, unseen)
        method = build_segmenter(config, start, sets)
        feed = LabelledFeed.of(config, sets, normalization)
        result = fit(
            method,
            feed.training(train),
            run=run,
            epochs=config.epochs,
            seed=config.seed,
            trainer=config.trainer,
            resume=config.resume,
            monitor="train/loss" if val is None else "val/kappa",
            mode="min" if val is None else "max",
            val_loader=None if val is None else feed.plain(val),
        )
        if val is not None and result.best is not None:
            restore_weights(method, result.best)
        with RandomStream(config.seed).running():
            reestimate_batch_norm(start.network, feed.training(train), keep=method.frozen_parts)
        model = SavedModel(
            network=start.network.eval(),
            normalization=normalization,
            bands=scenes[0].names,
            colors=scenes[0].colors,
            tile=config.tile,
            legend=legend,
            training=training,
        )
        model.save(run)
        metrics = {"train/loss": result.history[-1]["train/loss"], "tiles": len(train)}
        confusion = None
        if val is not None:
            confusion = confusion_of_tiles(model, val, labels, batch_size=config.batch_size)
            figures = scores(confusion, legend.names)
            metrics |= {f"val/{name}": value for name, value in figures.items()}
        if run.writes:
            pages.finetuning_page(run, sets, model, result, metrics, confusion)
        run.save_metrics(metrics, seconds=result.seconds)
    lines = [
        *_told(scenes, [*sets.scenes.notes, *sets.notes, *remarks]),
        *([f"no tile trained on has a pixel of {', '.join(unseen)}"] if unseen else []),
        f"{len(train)} labelled tiles, {result.epochs} epochs in {result.seconds:.1f} s, "
        + (f"{len(start.loaded)} weights loaded" if start.loaded else "from scratch")
        + (f"; validation kappa {metrics['val/kappa']:.3f}" if val is not None else ""),
    ]
    return Outcome(out=run.path, metrics=metrics, lines=lines)


def demo(config: DemoConfig) -> Outcome:
    """Map a made-up landscape from 1 % of its labels, with and without pretraining.

    Returns:
        Figures as of `evaluate` for both, under ``pretrained/`` and ``from_scratch/``, and those
        of the pretraining under ``pretrain/``.
    """
    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        files = write_landscape(run.output("data"), size=config.size, seed=config.seed)
        steps = demo_steps(config, run, files)
        run.begun()  # what follows are runs of their own
        learnt = pretrain(steps.pretrain)
        figures = {}
        for options in steps.finetune:
            finetune(options)
            figures[options.out.name] = evaluate(
                EvaluateConfig(run=options.out, batch_size=64)
            ).metrics
        mapped = predict(steps.predict)
        metrics = {f"pretrain/{name}": value for name, value in learnt.metrics.items()} | {
            f"{name}/{figure}": value
            for name, own in figures.items()
            for figure, value in own.items()
        }
        table = metric_table(
            [
                {"start": name.replace("_", " "), **{f: own[f] for f in ("oa", "kappa", "miou")}}
                for name, own in figures.items()
            ]
        )
        pages.demo_page(run, files, steps.predict.out / "landscape.tif", table)
        run.save_metrics(metrics)
    return Outcome(
        out=run.path,
        metrics=metrics,
        lines=[*learnt.lines[-1:], *text_table(table), *mapped.lines[-1:]],
        files=("map/landscape.tif", "report.html"),
    )


def _told(scenes: Sequence[Scene], notes: Sequence[str]) -> list[str]:
    """What the user should know, each thing once."""
    return list(dict.fromkeys([*(note for scene in scenes for note in scene.notes), *notes]))


def training_of(
    scenes: Sequence[Scene],
    measured: BandStatistics | Training | None,
    unseen: tuple[str, ...] = (),
) -> Training | None:
    """What is kept of a training's rasters, to compare others with.

    Args:
        scenes: The rasters.
        measured: What the scaling was fitted to, here or in an earlier training.
        unseen: Classes without a pixel.
    """
    if measured is None:
        return None
    first = scenes[0]
    return Training(
        dtype=first.dtype,
        minimum=measured.minimum,
        maximum=measured.maximum,
        scales=first.scales,
        offsets=first.offsets,
        pixel=ground_pixel(scenes),
        unseen=unseen,
    )
