"""The run directory: who may write it, what it records, and the model that lies in it.

    config.yaml            every option resolved; ``--config OUT/config.yaml`` repeats the run
    metrics.json           figures, environment, seconds, version
    history.csv            a row per epoch
    checkpoints/last.ckpt  everything to resume
    model.safetensors      the deployable weights
    model.json             how to rebuild the model around them
    report.html            pictures and tables

Files appear complete or not at all, one process at a time writes, and what a user owns is never
lost: see :meth:`Run.create`. Nothing here imports torch before a model is saved or loaded.
"""

from cl_core.runs.atomic import write_atomic
from cl_core.runs.launch import launched_rank, launched_shard
from cl_core.runs.run import Run

__all__ = ["Run", "launched_rank", "launched_shard", "write_atomic"]
