"""Contrastive losses as pure functions whose memory is linear in the batch.

Each takes embeddings of any length and precision, scales their rows to unit length (``x / max(|x|,
1e-12)``), works in float32 or wider also under autocast, and returns a scalar in nats. With
``gather=True`` each is the loss of the joint batch of all ranks. They can be differentiated once,
by ``backward`` or ``torch.func``, and compile without a graph break.
"""

from cl_core.losses._info_nce import info_nce
from cl_core.losses._nt_xent import nt_xent
from cl_core.losses._sup_con import sup_con

__all__ = ["info_nce", "nt_xent", "sup_con"]
