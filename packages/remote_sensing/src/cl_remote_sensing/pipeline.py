"""What a user does with rasters: one function a verb, each taking its configuration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cl_core.commands.outcome import Outcome, text_table
from cl_core.errors import InputError
from cl_core.report.figures import metric_table
from cl_core.runs import Run, launched_shard
from cl_core.seeding import RandomStream, seed_everything
from cl_remote_sensing import pages
from cl_remote_sensing.config import (
    DemoConfig,
    EvaluateConfig,
    FinetuneConfig,
    PredictConfig,
    PretrainConfig,
)
from cl_remote_sensing.evaluation.measure import confusion_of_map, confusion_of_tiles
from cl_remote_sensing.evaluation.metrics import Confusion, scores
from cl_remote_sensing.hyper import GLCNetHyper, options_of
from cl_remote_sensing.landscape.demo import demo_steps
from cl_remote_sensing.landscape.draw import write_landscape
from cl_remote_sensing.mapping.maps import finish_map, legend_of, map_scenes
from cl_remote_sensing.methods.pretraining import pair_loader, pretraining_tiles, pretraining_views
from cl_remote_sensing.methods.start import new_network, start_finetuning
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.saved import SavedModel, check_bands
from cl_remote_sensing.tiles.labelled import open_kept, open_labelled, open_tile_sets
from cl_remote_sensing.tiles.scenes import fit_normalization, kept_index, open_data

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

    with Run.create(config.out, config, resume=config.resume, overwrite=config.overwrite) as run:
        seed_everything(config.seed)
        scenes = open_data(
            config.data,
            bands=config.bands,
            ignore_alpha_tag=config.ignore_alpha_tag,
            mosaic=run.output("mosaic.vrt") if config.mosaic else None,
        )
        index = kept_index(run, scenes, config)
        if len(index) < config.batch_size:
            raise InputError(
                f"--data {config.data}: {len(index)} tiles of {config.tile} pixels are fewer than "
                f"a batch of {config.batch_size}; lower --batch_size, --tile or --stride"
            )
        normalization, remarks = fit_normalization(run, index, config)
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
    from cl_core.training import fit, load_weights
    from cl_remote_sensing.methods.finetuning import LabelledFeed, build_segmenter
    from cl_remote_sensing.methods.segmentation import reestimate_batch_norm

    before = None if config.run is None else SavedModel.load(config.run, "pretrained")
    with Run.create(config.out, config, resume=config.resume, overwrite=config.overwrite) as run:
        seed_everything(config.seed)
        sets = open_tile_sets(config, run)
        train, val = sets.index.select("train"), sets.part("val")
        scenes, labels, legend = sets.scenes.scenes, sets.scenes.labels, sets.legend
        if run.writes:
            sets.index.save(run.output("tiles.csv"), labels=[one.path for one in labels])
        start = start_finetuning(config, before, scenes, legend)
        normalization, remarks = (
            (start.normalization, ())
            if start.normalization
            else fit_normalization(run, train, config)
        )
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
            load_weights(method, result.best)
        with RandomStream(config.seed).running():
            reestimate_batch_norm(start.network, feed.training(train), keep=method.frozen_parts)
        model = SavedModel(
            network=start.network.eval(),
            normalization=normalization,
            bands=scenes[0].names,
            colors=scenes[0].colors,
            tile=config.tile,
            legend=legend,
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
        f"{len(train)} labelled tiles, {result.epochs} epochs in {result.seconds:.1f} s, "
        + (f"{len(start.loaded)} weights loaded" if start.loaded else "from scratch")
        + (f"; validation kappa {metrics['val/kappa']:.3f}" if val is not None else ""),
    ]
    return Outcome(out=run.path, metrics=metrics, lines=lines)


def evaluate(config: EvaluateConfig) -> Outcome:
    """Score a fine-tuned run on labelled scenes, or on a part of those it was made with.

    Other scenes are mapped as `predict` would map them, and the maps kept.

    Returns:
        ``oa``, ``kappa``, ``miou``, ``macro_f1``, and ``<class>/f1``, ``<class>/iou`` and others.

    Raises:
        InputError: If there is no such run, or data, labels and model do not go together.
    """
    model = SavedModel.load(config.run, "segmentation")
    legend = legend_of(model)
    before = Run.open(config.run).config
    out = config.run / "evaluate" if config.out is None else config.out
    with Run.create(out, config, overwrite=config.overwrite) as run:
        if config.data is None:
            index, labels = open_kept(
                config.run / "tiles.csv",
                config.split,
                legend,
                bands=before["bands"],
                ignore_alpha_tag=before["ignore_alpha_tag"],
                class_field=before["class_field"],
            )
            confusion = confusion_of_tiles(model, index, labels, batch_size=config.batch_size)
            what = f"{len(index)} {config.split} tiles of {before['data']}"
        else:
            labelled = open_labelled(
                config.data,
                config.labels,
                legend,
                bands=before["bands"],
                ignore_alpha_tag=before["ignore_alpha_tag"],
                mosaic=run.output("mosaic.vrt") if config.mosaic else None,
                class_field=before["class_field"],
            )
            check_bands(labelled.scenes, model, config.run)
            results = map_scenes(
                run,
                model,
                labelled.scenes,
                folder="maps",
                overlap=config.overlap,
                batch_size=config.batch_size,
            )
            confusion = Confusion.empty(len(legend))
            for result, marks in zip(results, labelled.labels, strict=True):
                one = confusion_of_map(result.path, marks)
                confusion.matrix += one.matrix
                confusion.ignored += one.ignored
            what = f"{len(labelled.scenes)} scenes of {config.data}"
        metrics = scores(confusion, legend.names)
        rows = pages.class_rows(metrics, legend.names)
        pages.evaluation_page(run, what, model, confusion, metrics, rows)
        run.save_metrics(metrics)
    summary = "  ".join(f"{name} {metrics[name]:.3f}" for name in ("oa", "kappa", "miou"))
    return Outcome(
        out=run.path,
        metrics=metrics,
        lines=[f"{what}: {int(metrics['pixels']):,} pixels", *text_table(rows), summary],
    )


def predict(config: PredictConfig) -> Outcome:
    """Map rasters of any size: one georeferenced class map for each.

    Started by torchrun or SLURM in several processes, each writes its rows of every map, and a
    ``.vrt`` shows them as one.

    Returns:
        Share of each class over all maps (``<class>/share``), and the number of ``maps``.

    Raises:
        InputError: If there is no such run, the rasters do not fit its model, one of them is
            damaged, or the disk is full.
    """
    model = SavedModel.load(config.run, "segmentation")
    legend = legend_of(model)
    before = Run.open(config.run).config
    shard = launched_shard()
    if shard[1] > 1 and config.overwrite:
        raise InputError("--overwrite works in one process; give several a new --out")
    with Run.create(config.out, config, resume=config.resume, overwrite=config.overwrite) as run:
        run.wait_for_first(config)
        scenes = open_data(
            config.data,
            bands=config.bands or before["bands"],
            ignore_alpha_tag=config.ignore_alpha_tag or before["ignore_alpha_tag"],
            mosaic=run.output("mosaic.vrt") if config.mosaic else None,
        )
        check_bands(scenes, model, config.run)
        results = map_scenes(
            run,
            model,
            scenes,
            tile=config.tile,
            device=config.device,
            shard=shard,
            overlap=config.overlap,
            batch_size=config.batch_size,
            block=config.block,
            probabilities=config.probabilities,
            cog=config.cog,
            compress=config.compress,
            tta=config.tta,
            skip_damaged=config.skip_damaged,
        )
        areas = [
            finish_map(run, model, scene, result)
            for scene, result in zip(scenes, results, strict=True)
        ]
        pixels = np.sum([result.counts for result in results], axis=0)
        metrics = {
            f"{name}/share": float(count / max(pixels.sum(), 1))
            for name, count in zip(legend.names, pixels, strict=True)
        } | {"maps": len(results)}
        if run.writes:
            pages.mapping_page(run, model, scenes, results, areas)
        run.save_metrics(metrics)
    lines = list(dict.fromkeys(note for result in results for note in result.notes))
    for result in results:
        lines.append(
            f"{result.path.name}: {result.windows:,} windows in {result.seconds['total']:.1f} s"
        )
    lines.append(", ".join(f"{name} {metrics[f'{name}/share']:.1%}" for name in legend.names))
    shown = [(result.vrt or result.path).name for result in results[:5]]
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=(*shown, "report.html"))


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
