"""Loggers of other projects, none of which needs a network: all they write lies in the run."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

from lightning.pytorch.loggers import Logger

from cl_core.config import TrainerConfig
from cl_core.errors import InputError
from cl_core.runs import Run

__all__ = ["make_loggers"]


def make_loggers(config: TrainerConfig, run: Run) -> list[Logger]:
    """The loggers that a training asks for.

    Raises:
        InputError: If one is asked for whose library is not installed.
    """
    loggers = [_tensorboard(run)] if config.tensorboard and find_spec("tensorboard") else []
    for name in dict.fromkeys(config.loggers):
        if find_spec(name) is None:
            raise InputError(
                f"--trainer.loggers: {name} is not installed: pip install 'cl-core[{name}]'"
            )
        loggers.append(_MAKERS[name](run))
    return loggers


def _tensorboard(run: Run) -> Logger:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(save_dir=run.path, name="", version="tensorboard")


def _wandb(run: Run) -> Logger:
    """Weights & Biases without a network; ``wandb sync OUT/wandb/offline-*`` uploads later."""
    from lightning.pytorch.loggers import WandbLogger

    os.environ.setdefault("WANDB_SILENT", "true")
    run.output("wandb").mkdir(exist_ok=True)
    return WandbLogger(name=run.path.name, save_dir=run.path, project="cl-suite", offline=True)


def _mlflow(run: Run) -> Logger:
    """MLflow into a folder; ``mlflow ui --backend-store-uri OUT/mlruns`` shows it."""
    from lightning.pytorch.loggers import MLFlowLogger

    # MLflow wants to be told that a folder, not a database, is meant.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    place = run.output("mlruns").resolve()
    return MLFlowLogger(experiment_name=run.path.name, tracking_uri=place.as_uri())


_MAKERS: dict[str, Callable[[Run], Logger]] = {"wandb": _wandb, "mlflow": _mlflow}
