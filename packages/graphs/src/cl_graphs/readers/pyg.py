"""PyG, imported without the warning that its type aliases draw from torch."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    from torch_geometric import loader, typing
    from torch_geometric.data import Batch, Data

__all__ = ["Batch", "Data", "loader", "typing"]
