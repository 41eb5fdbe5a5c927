"""Lightning's remarks that tell a user of this suite nothing, named one by one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

_WARNINGS = (
    r".*does not have many workers which may be a bottleneck.*",  # `workers` is the user's choice
    r".*is smaller than the logging interval.*",  # the history has every epoch all the same
    r".*module\(s\) in eval mode at the start of training.*",  # a frozen teacher is meant
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning's own use of torch
    r".*Consider setting `persistent_workers=True`.*",
    r".*Trying to infer the `batch_size` from an ambiguous collection.*",  # graphs
)
_REMARKS = (
    "GPU available:",
    "TPU available:",
    "HPU available:",
    "LOCAL_RANK:",
    "Tip:",
    "litlogger",
    "litmodels",
    "`Trainer.fit` stopped:",
    "Restoring states from the checkpoint path",
    "Restored all states from the checkpoint",
    "Detected KeyboardInterrupt",
    "Received SIGTERM",
    "Using default `ModelCheckpoint`",
    "Initializing distributed:",
    "distributed_backend=",
    "You are using a CUDA device",
    "`weights_only` was not set",
    "Loading `train_dataloader` to estimate",
)


class _Named(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(remark in message for remark in _REMARKS)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the remarks listed above; others, and every other library's, pass."""
    named = _Named()
    loggers = [
        logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.startswith("lightning")
    ]
    for logger in loggers:
        logger.addFilter(named)
    try:
        with warnings.catch_warnings():
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(named)
