"""What a user does with condensation: condense a data set, assess the result, learn continually."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cl_core.checks import OptionError
from cl_core.commands.outcome import Outcome, text_table
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.runs.fingerprint import of_arrays
from cl_core.seeding import derive_seed
from cl_vision.condensation.config import AssessConfig, CondenseConfig, ContinualConfig
from cl_vision.condensation.convnet import ConvNet
from cl_vision.condensation.real_images import RealImages, load_real, require_per_class
from cl_vision.condensation.selection import select
from cl_vision.data import Images, open_images
from cl_vision.model import best_device

__all__ = ["assess", "condense", "continual", "real_of", "start_images"]


def condense(config: CondenseConfig) -> Outcome:
    """Learn a few images a class and write the run directory ``config.out``.

    Returns:
        ``train/loss``, ``matching/averaged``, ``clipped_share``, ``outer``.

    Raises:
        InputError: If the images, an option or the output folder does not fit.
        TrainingError: If the loss stops being a number.
    """
    from cl_core.training import fit  # Lightning costs seconds, and only training needs it
    from cl_core.training.progress import tell
    from cl_vision.condensation import pages
    from cl_vision.condensation.condense import Condensation, Loop
    from cl_vision.condensation.condensed_set import CondensedCard, CondensedSet, save_condensed
    from cl_vision.condensation.estimate import estimate, require_space
    from cl_vision.condensation.siamese import parse_strategy

    images = _open(config)
    real = load_real(
        images.train_and_test(config.test_share, seed=config.seed)[0], size=config.size
    )
    require_per_class(real, config.ipc, "--ipc")
    config = config.filled(real.size, digits=images.is_digits)
    if config.strategy:
        try:
            parse_strategy(config.strategy)
        except ValueError as error:
            raise OptionError(f"--{error}") from error
    build = network_builder(config, real.channels, len(real.classes), real.size)
    device = best_device() if config.trainer.accelerator in ("auto", "gpu") else torch.device("cpu")
    real_batch = cast(int, config.real_batch)
    default = 32 if device.type == "cpu" else real_batch
    loop = Loop(
        outer_loop=cast(int, config.outer_loop),
        inner_loop=cast(int, config.inner_loop),
        network_epochs=cast(int, config.network_epochs),
        contrast=config.method in ("dcc", "dsac"),
        outer_warmup=cast(int, config.outer_warmup),
        inner_warmup=cast(int, config.inner_warmup),
        strategy=cast(str, config.strategy) if config.method in ("dsa", "dsac") else "",
        metric=config.metric,
        image_lr=config.image_lr,
        image_momentum=config.image_momentum,
        network_lr=config.network_lr,
        real_batch=real_batch,
        train_batch=config.train_batch,
        real_chunk=config.real_chunk or default,
        syn_chunk=config.syn_chunk,
        clamp=config.clamp,
    )
    require_space(config.out, real, config.ipc)
    data = of_arrays(images.table.source, {"pixels": real.pixels, "labels": real.labels})
    with Run.create(
        config.out, config, resume=config.resume, overwrite=config.overwrite, data=data
    ) as run:
        plan = estimate(real, build, loop, config.ipc, device)
        if config.trainer.progress:
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


def network_builder(
    config: CondenseConfig, channels: int, number: int, size: tuple[int, int]
) -> Callable[[], nn.Module]:
    """Give what builds the network of a filled configuration.

    Raises:
        OptionError: If the size and the depth, or the width and the norm, do not fit.
    """
    build = partial(
        ConvNet,
        channels,
        number,
        size,
        width=cast(int, config.width),
        depth=cast(int, config.depth),
        norm=config.norm,
        activation=config.activation,
        pooling=config.pooling,
    )
    try:
        with torch.device("meta"):
            build()
    except ValueError as error:
        raise OptionError(f"--depth, --image_size, --width: {error}") from error
    return build


def start_images(real: RealImages, ipc: int, initialise: str, generator: torch.Generator) -> Tensor:
    """Where the synthetic images start, grouped by class.

    Args:
        real: The real images.
        ipc: Images a class.
        initialise: ``real``, ``noise`` or ``kmeans``.
        generator: On the CPU.
    """
    n = ipc * len(real.classes)
    if initialise == "noise":
        return torch.randn(n, real.channels, *real.size, generator=generator)
    everything = real.take(torch.arange(len(real))).flatten(1) if initialise == "kmeans" else None
    features = torch.zeros(len(real), 1) if everything is None else everything
    how: Any = "kmeans" if initialise == "kmeans" else "random"
    return real.take(select(how, features, real.labels, ipc, generator))


def real_of(
    options: dict[str, Any], data: str | None = None
) -> tuple[RealImages, RealImages, Images]:
    """The training and test images of a run of `condense`, read as it read them.

    Args:
        options: Of its ``config.yaml``.
        data: Other images.

    Raises:
        InputError: If they are not there or cannot be read.
    """
    kept = {name: value for name, value in options.items() if name in _DATA}
    if data is not None:
        kept |= {"data": data, "root": None}
    config = CondenseConfig(out=Path("unused"), **kept)
    images = _open(config)
    train, test = images.train_and_test(config.test_share, seed=config.seed)
    return load_real(train, size=config.size), load_real(test, size=config.size), images


_DATA = (
    "data",
    "root",
    "labels",
    "channels",
    "image_size",
    "on_error",
    "test_share",
    "seed",
)


def _open(config: CondenseConfig) -> Images:
    return open_images(
        config.data,
        root=config.root,
        labels=config.labels,
        channels=config.channels,
        on_error=config.on_error,
    )


def _assess_run(config: AssessConfig) -> Run:
    first = config.runs[0]
    if not (first / "config.yaml").is_file():
        Run.open(first)  # refuses with its own words
    out = config.out or first / "assess"
    if config.out is None and out.is_symlink():
        raise InputError(f"{out} is a link: remove it or give --out")
    return Run.create(out, config, overwrite=config.overwrite)
