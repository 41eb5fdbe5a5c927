"""What a user does with condensation: condense a data set, assess the result, learn continually."""

from __future__ import annotations

from dataclasses import replace

import torch

from cl_core.commands.outcome import Outcome, text_table
from cl_core.errors import InputError
from cl_core.networks.devices import best_device
from cl_core.runs import Run
from cl_core.runs.fingerprint import of_arrays
from cl_core.seeding import derive_seed
from cl_vision.condensation.chunks import default_chunk
from cl_vision.condensation.config import AssessConfig, CondenseConfig, ContinualConfig
from cl_vision.condensation.convnet import fresh
from cl_vision.condensation.real_images import load_real, require_per_class
from cl_vision.condensation.setting import (
    complete,
    left_open,
    loop_of,
    network_builder,
    open_labelled,
    start_images,
)

__all__ = ["assess", "condense", "continual"]


def condense(config: CondenseConfig) -> Outcome:
    """Learn a few images a class and write the run directory ``config.out``.

    Returns:
        ``train/loss``, ``matching/averaged``, ``clipped_share``, ``outer``.

    Raises:
        InputError: If the images, an option or the output folder does not fit.
        TrainingError: If the loss stops being a number.
    """
    from cl_core.commands.terminal import tell
    from cl_core.training import fit  # Lightning costs seconds, and only training needs it
    from cl_vision.condensation import pages
    from cl_vision.condensation.condense import Condensation
    from cl_vision.condensation.condensed_set import CondensedCard, CondensedSet, save_condensed
    from cl_vision.condensation.estimate import estimate, require_space

    images = open_labelled(config)
    real = load_real(
        images.train_and_test(config.test_share, seed=config.seed)[0], size=config.size
    )
    require_per_class(real, config.ipc, "--ipc")
    given, config = config, complete(config, real.size, digits=images.is_digits)
    build = network_builder(config, real.channels, len(real.classes), real.size)
    device = best_device() if config.trainer.accelerator in ("auto", "gpu") else torch.device("cpu")
    chunk = None
    if device.type == "cpu":
        generator = torch.Generator().manual_seed(0)
        chunk = default_chunk(fresh(build, generator), real.take(torch.arange(1)))
    loop = loop_of(config, chunk)
    require_space(config.out, real, config.ipc)
    data = of_arrays(images.table.source, {"pixels": real.pixels, "labels": real.labels})
    with Run.create(
        config.out, config, resume=config.resume, overwrite=config.overwrite, data=data
    ) as run:
        plan = estimate(real, build, loop, config.ipc, device)
        if config.trainer.progress:
            tell(left_open(given, config))
            tell(str(plan))
        generator = torch.Generator().manual_seed(derive_seed(config.seed, 1))
        start = start_images(real, config.ipc, config.initialise, generator)
        module = Condensation(
            real, start, build, loop, seed=config.seed, time_budget=config.time_budget
        )
        result = fit(
            module,
            [torch.zeros(1)],  # one empty batch: an outer iteration draws its own images
            run=run,
            epochs=loop.outer_loop,
            seed=config.seed,
            trainer=replace(config.trainer, devices=1),
            resume=config.resume,
        )
        card = CondensedCard(
            method=config.method,
            classes=real.classes,
            ipc=config.ipc,
            channels=real.channels,
            height=real.size[0],
            width=real.size[1],
            mean=real.mean,
            std=real.std,
            outer=result.epochs,
        )
        found = CondensedSet(module.images.detach().float().cpu(), module.start.float().cpu(), card)
        save_condensed(run, found)
        last = result.history[-1]
        metrics = {name: last[name] for name in ("train/loss", "matching/averaged")}
        metrics |= {"clipped_share": found.clipped(), "outer": float(result.epochs)}
        pages.condense_page(run, found, result, metrics, module.snapshots, str(plan), images)
        run.save_metrics(metrics, seconds=result.seconds)
    lines = [
        *images.summary(),
        f"{config.method}: {config.ipc} of {len(real) / len(real.classes):.0f} images a class, "
        f"{result.epochs} of {loop.outer_loop} outer iterations in {result.seconds:.1f} s, "
        f"loss {metrics['train/loss']:.3f}",
    ]
    if result.epochs < loop.outer_loop:
        lines.append("The time budget ended it: --resume goes on.")
    return Outcome(
        out=run.path, metrics=metrics, lines=lines, files=("report.html", "grid.png", "condensed")
    )


def assess(config: AssessConfig) -> Outcome:
    """Train fresh networks on a condensed set and on as many real images.

    Returns:
        ``condensed/accuracy``, ``condensed/png/accuracy``, ``random/accuracy``, ... with their
        ``_std``; with siamese augmentation under ``condensed/augmented/accuracy`` and so on.

    Raises:
        InputError: If a run holds no condensed set, or the images do not fit it.
    """
    from cl_vision.condensation.comparison import compare
    from cl_vision.condensation.pages import assess_page

    with _assess_run(config) as run:
        found = compare(config)
        assess_page(run, found)
        run.save_metrics(found.metrics)
    return Outcome(
        out=run.path,
        metrics=found.metrics,
        lines=[*text_table(found.rows), *found.notes],
        files=("report.html",),
    )


def continual(config: ContinualConfig) -> Outcome:
    """Learn steps one after another from a memory, and tell what is forgotten.

    Returns:
        ``condensed/average_incremental_accuracy``, ``condensed/forgetting``,
        ``condensed/step_1/accuracy`` and so on of each memory, with their ``_std`` over orders.

    Raises:
        InputError: If the data do not fit together or cannot be split.
    """
    from cl_vision.condensation.continual_study import study
    from cl_vision.condensation.pages import continual_page

    with Run.create(config.out, config, overwrite=config.overwrite) as run:
        found = study(config)
        continual_page(run, found)
        run.save_metrics(found.metrics)
    return Outcome(out=run.path, metrics=found.metrics, lines=text_table(found.rows))


def _assess_run(config: AssessConfig) -> Run:
    first = config.runs[0]
    if not (first / "config.yaml").is_file():
        Run.open(first)  # refuses with its own words
    out = config.out or first / "assess"
    if config.out is None and out.is_symlink():
        raise InputError(f"{out} is a link: remove it or give --out")
    return Run.create(out, config, overwrite=config.overwrite)
