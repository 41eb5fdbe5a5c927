"""One training loop for every method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning import LightningDataModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden

from cl_core.commands.terminal import is_quiet, say
from cl_core.config import TrainerConfig
from cl_core.errors import InputError, TrainingError
from cl_core.loader import EpochBatches
from cl_core.runs import Run
from cl_core.runs.launch import launched_rank, launched_sizes
from cl_core.seeding import seed_everything
from cl_core.training.checkpoints import (
    TRAINING_LOSS,
    AtomicCheckpointIO,
    KeepCheckpoints,
    last_good,
)
from cl_core.training.compiling import compiled
from cl_core.training.ending import StopEarly, StopInTime
from cl_core.training.epochs import EpochLoader, SeedEpochs
from cl_core.training.loggers import make_loggers
from cl_core.training.progress import show_progress
from cl_core.training.quiet import quiet
from cl_core.training.recorder import Collapse, Recorder

if TYPE_CHECKING:
    from lightning import LightningModule
    from lightning.pytorch.callbacks import Callback

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """What a training did.

    Attributes:
        history: A row per epoch, from the first one of the run even if it was resumed:
            ``epoch`` (from 1), ``seconds``, ``learning_rate``, ``train/loss``, ``collapse/...``
            and what the module logged.
        seconds: Time of all epochs together.
        epochs: How many epochs the module has been trained for.
        checkpoint: ``last.ckpt``.
        best: The best checkpoint by the monitored figure, ``None`` if that never was logged.
    """

    history: list[dict[str, float]]
    seconds: float
    epochs: int
    checkpoint: Path
    best: Path | None


def fit(
    module: LightningModule,
    loader: Iterable[Any] | LightningDataModule,
    *,
    run: Run,
    epochs: int,
    seed: int,
    trainer: TrainerConfig,
    resume: bool | None = None,
    monitor: str = TRAINING_LOSS,
    mode: Literal["min", "max"] = "min",
    val_loader: Iterable[Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train ``module`` for ``epochs`` epochs in all, and leave it with the last weights.

    A resumed run ends with the weights of the uninterrupted one (bit by bit on a CPU), given the
    same number of processes: the global generators are set to ``(seed, epoch, rank)`` when an
    epoch starts, and a run resumes from the end of an epoch. What a module keeps from one epoch
    to the next must therefore be a parameter, a *persistent* buffer or in ``on_save_checkpoint``.

    Args:
        module: Its ``training_step`` returns the loss, or ``{"loss": loss, "embedding": z}`` with
            ``z`` of shape ``(n, d)`` for the collapse gauge. Figures it logs at the end of an
            epoch (``self.log(..., on_epoch=True)``) become columns of the history.
        loader: Of :func:`~cl_core.loader.make_loader`, any other loader, or a list of batches
            (one, for a method that takes the whole graph at each step); or a Lightning data
            module, whose ``prepare_data`` the first process calls.
        run: Where everything is written.
        epochs: Of the whole run, those before it was resumed included.
        seed: The run's seed; call ``seed_everything(seed)`` before the module is built.
        trainer: Devices, precision, how often to save and report.
        resume: Continue from the run's checkpoint, if it has one. By default as the run was
            created.
        monitor: The figure of the history that tells the best checkpoint. Any but the training
            loss is saved whenever it is better.
        mode: Whether the best is its smallest or largest.
        val_loader: Given to the module's ``validation_step`` after each epoch.
        callbacks: More of Lightning's.

    Returns:
        History, time, checkpoints.

    Raises:
        TrainingError: If the loss or the weights are not finite; the last good checkpoint stays.
        InputError: If the machine lacks what ``trainer`` asks for, the checkpoint is damaged or
            the disk is full.
        KeyboardInterrupt: On the user's wish, SIGINT; SIGTERM ends in ``SystemExit(143)``. The
            checkpoint stays.
        ValueError: If ``epochs`` is not positive.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    seed_everything(seed)
    collapse = Collapse()
    recorder = Recorder(run, collapse, check_every=trainer.log_every)
    keep = KeepCheckpoints(
        run,
        every=trainer.checkpoint_every,
        latest=lambda: recorder.row,
        monitor=monitor,
        mode=mode,
        accumulated=trainer.accumulate_grad_batches,
    )
    if isinstance(loader, LightningDataModule):
        loader, val_loader = _of_data_module(loader, val_loader)
    ending: list[Callback] = []
    if trainer.early_stopping is not None:
        ending.append(
            StopEarly(
                trainer.early_stopping,
                trainer.early_stopping_mode,
                trainer.patience,
                lambda: recorder.row,
            )
        )
    if trainer.seconds is not None:
        ending.append(StopInTime(trainer.seconds))
    shown: list[Callback] = []
    if trainer.progress and not is_quiet() and launched_rank() == 0:
        shown.append(show_progress(lambda: recorder.row))
    with quiet():
        files = AtomicCheckpointIO()
        source = EpochLoader(loader, seed, lambda: files.finished)
        engine = _make_trainer(
            trainer,
            run,
            epochs=epochs,
            files=files,
            callbacks=[SeedEpochs(seed), collapse, *callbacks, recorder, *ending, keep, *shown],
            own_shards=all(
                isinstance(getattr(part, "batch_sampler", None), EpochBatches)
                for part in source.flattened
            ),
        )
        source.trainer = engine
        resume = run.resumed if resume is None else resume
        start = run.checkpoint if resume and run.checkpoint.exists() else None
        try:
            with compiled(module, trainer.compile):
                engine.fit(module, source, val_loader, ckpt_path=start)
        except SystemExit as stop:  # how Lightning passes on both signals
            if engine.is_global_zero:
                say(f"stopped in epoch {engine.current_epoch + 1}; {last_good(run)}")
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise SystemExit(143) from None
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if start is None or recorder.started or isinstance(error, TrainingError):
                raise
            raise InputError(
                f"{start} is not a checkpoint of this run ({' '.join(str(error).split())}): "
                "start the run anew with --overwrite"
            ) from error
    if trainer.precision in ("64-true", "16-true", "bf16-true"):
        module.float()  # what comes after a training takes and saves float32
    history = run.history.rows()
    return FitResult(
        history=history,
        seconds=sum(row["seconds"] for row in history),
        epochs=engine.current_epoch,
        checkpoint=run.checkpoint,
        best=keep.best_path if keep.best_path.exists() else None,
    )


def _of_data_module(
    data: LightningDataModule, val_loader: Iterable[Any] | None
) -> tuple[Iterable[Any], Iterable[Any] | None]:
    """The loaders of a data module, which the trainer itself never sees: epochs are ours."""
    if launched_rank() == 0:
        data.prepare_data()
    data.setup("fit")
    if val_loader is None and is_overridden("val_dataloader", data, LightningDataModule):
        val_loader = data.val_dataloader()
    return data.train_dataloader(), val_loader


def _make_trainer(
    config: TrainerConfig,
    run: Run,
    *,
    epochs: int,
    files: AtomicCheckpointIO,
    callbacks: list[Callback],
    own_shards: bool,
) -> Trainer:
    plugins: list[Any] = [files]
    if SLURMEnvironment.detect():  # its own requeueing would resume from the middle of an epoch
        plugins.append(SLURMEnvironment(auto_requeue=False))
    devices, num_nodes, strategy = _sizes(config)
    try:
        return Trainer(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
            precision=cast(Any, config.precision),
            max_epochs=epochs,
            gradient_clip_val=config.gradient_clip,
            log_every_n_steps=config.log_every,
            deterministic=config.deterministic,
            logger=make_loggers(config, run),
            accumulate_grad_batches=config.accumulate_grad_batches,
            callbacks=callbacks,
            plugins=plugins,
            default_root_dir=run.path,
            use_distributed_sampler=not own_shards,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(f"--trainer: {' '.join(str(error).split())}") from error


def _sizes(config: TrainerConfig) -> tuple[int | str, int, str]:
    """Devices, machines and strategy; those of a launcher, which has started the processes.

    Left to themselves, processes that a launcher started on CPUs would each train alone.

    Raises:
        InputError: If the options contradict the launcher.
    """
    launched = launched_sizes()
    if launched is None or launched == (1, 1):
        return config.devices, config.num_nodes, config.strategy
    devices, nodes = launched
    asked = config.devices
    if asked in ("auto", -1, "-1"):
        asked = devices
    elif isinstance(asked, str):
        number = len([part for part in asked.split(",") if part])
        asked = asked if number == devices else number
    if config.num_nodes not in (1, nodes) or (isinstance(asked, int) and asked != devices):
        raise InputError(
            f"the launcher started {devices} processes on each of {nodes} machines, but "
            f"--trainer.devices is {config.devices} and --trainer.num_nodes {config.num_nodes}: "
            "leave both out, or make them agree"
        )
    return asked, nodes, "ddp" if config.strategy == "auto" else config.strategy
