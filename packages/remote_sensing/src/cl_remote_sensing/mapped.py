"""What a trained segmentation does: it is measured, and maps rasters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cl_core.commands.outcome import Outcome, out_of, text_table
from cl_core.errors import InputError
from cl_core.runs import Run, launched_shard
from cl_core.runs.record import require_readable
from cl_remote_sensing import pages
from cl_remote_sensing.config import EvaluateConfig, PredictConfig
from cl_remote_sensing.evaluation.measure import confusion_of_map, confusion_of_tiles
from cl_remote_sensing.evaluation.metrics import Confusion, scores
from cl_remote_sensing.mapping.maps import finish_map, job_of, legend_of, map_scenes
from cl_remote_sensing.mapping.polygons import require_writer
from cl_remote_sensing.saved import SavedModel
from cl_remote_sensing.suited import check_bands, suit
from cl_remote_sensing.tiles.labelled import open_kept, open_labelled
from cl_remote_sensing.tiles.scenes import open_data

__all__ = ["evaluate", "predict"]


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
    notes: list[str] = []
    with Run.create(out_of(config, "evaluate"), config, overwrite=config.overwrite) as run:
        if config.data is None:
            data = require_readable(before, config.run)
            index, labels = open_kept(
                config.run / "tiles.csv",
                config.split,
                legend,
                bands=_recorded(before, config.run, "bands", str),
                ignore_alpha_tag=_recorded(before, config.run, "ignore_alpha_tag", bool) or False,
                class_field=_recorded(before, config.run, "class_field", str),
                network=config.allow_network,
            )
            check_bands(index.scenes, model, config.run)
            confusion = confusion_of_tiles(model, index, labels, batch_size=config.batch_size)
            what = f"{len(index)} {config.split} tiles of {data}"
        else:
            labelled = open_labelled(
                config.data,
                config.labels,
                legend,
                bands=_recorded(before, config.run, "bands", str),
                ignore_alpha_tag=_recorded(before, config.run, "ignore_alpha_tag", bool) or False,
                mosaic=run.output("mosaic.vrt") if config.mosaic else None,
                class_field=_recorded(before, config.run, "class_field", str),
                network=config.allow_network,
            )
            scenes = suit(labelled.scenes, model, config.run, any_dtype=config.any_dtype)
            job = job_of(model, overlap=config.overlap, batch_size=config.batch_size)
            results = map_scenes(run, model, scenes, job, folder="maps")
            confusion = Confusion.empty(len(legend))
            for result, marks in zip(results, labelled.labels, strict=True):
                one = confusion_of_map(result.path, marks, job.values)
                confusion.matrix += one.matrix
                confusion.ignored += one.ignored
            notes = [*(note for result in results for note in result.notes), *labelled.notes]
            what = f"{len(labelled.scenes)} scenes"
        metrics = scores(confusion, legend.names)
        rows = pages.class_rows(metrics, legend.names)
        pages.evaluation_page(run, what, model, confusion, metrics, rows)
        run.save_metrics(metrics)
    summary = "  ".join(f"{name} {metrics[name]:.3f}" for name in ("oa", "kappa", "miou"))
    return Outcome(
        out=run.path,
        metrics=metrics,
        lines=[
            *dict.fromkeys(notes),
            *_unseen(model),
            f"{what}: {int(metrics['pixels']):,} pixels",
            *text_table(rows),
            summary,
        ],
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
    if config.polygons:
        require_writer()
    with Run.create(config.out, config, resume=config.resume, overwrite=config.overwrite) as run:
        run.wait_for_first(config)
        scenes = open_data(
            config.data,
            bands=config.bands or _recorded(before, config.run, "bands", str),
            ignore_alpha_tag=config.ignore_alpha_tag
            or _recorded(before, config.run, "ignore_alpha_tag", bool)
            or False,
            mosaic=run.output("mosaic.vrt") if config.mosaic else None,
            network=config.allow_network,
        )
        scenes = suit(
            scenes,
            model,
            config.run,
            trusted=config.bands is not None,
            any_dtype=config.any_dtype,
        )
        job = job_of(
            model,
            codes=config.codes,
            tile=config.tile,
            device=config.device,
            overlap=config.overlap,
            batch_size=config.batch_size,
            block=config.block,
            probabilities=config.probabilities,
            cog=config.cog,
            compress=config.compress,
            tta=config.tta,
            skip_damaged=config.skip_damaged,
        )
        results = map_scenes(run, model, scenes, job, shard=shard)
        areas = [
            finish_map(run, job, scene, result, polygons=config.polygons)
            for scene, result in zip(scenes, results, strict=True)
        ]
        pixels = np.sum([result.counts for result in results], axis=0)
        metrics = {
            f"{name}/share": float(count / max(pixels.sum(), 1))
            for name, count in zip(legend.names, pixels, strict=True)
        } | {"maps": len(results)}
        if run.writes:
            pages.mapping_page(run, job.values, scenes, results, areas)
        run.save_metrics(metrics)
    lines = list(dict.fromkeys(note for result in results for note in result.notes))
    lines += _unseen(model)
    for result in results:
        lines.append(
            f"{result.path.name}: {result.windows:,} windows in {result.seconds['total']:.1f} s"
        )
    lines.append(", ".join(f"{name} {metrics[f'{name}/share']:.1%}" for name in legend.names))
    shown = [(result.vrt or result.path).name for result in results[:5]]
    return Outcome(out=run.path, metrics=metrics, lines=lines, files=(*shown, "report.html"))


def _unseen(model: SavedModel) -> list[str]:
    """What the model cannot know, in words."""
    names = () if model.training is None else model.training.unseen
    return [f"the model never saw a pixel of {', '.join(names)}"] if names else []


def _recorded(record: dict[str, Any], run: Path, name: str, kind: type) -> Any:
    """An option of the training.

    Raises:
        InputError: If it is not recorded as it was written.
    """
    value = record.get(name)
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{run / 'config.yaml'}: {name} is damaged; restore the file")
    return value
