"""Training: one :func:`fit` on Lightning's Trainer for every method.

Importing this costs seconds (Lightning), so commands import it when they start to train.
"""

from cl_core.training.checkpoints import restore_weights
from cl_core.training.fit import FitResult, fit

__all__ = ["FitResult", "fit", "restore_weights"]
