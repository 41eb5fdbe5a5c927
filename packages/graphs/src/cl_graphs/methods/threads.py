"""How many threads an operation is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["FEW_NODES", "threads_for"]

FEW_NODES = 1000
"""Nodes of a step up to which a second thread gains next to nothing, even on an idle machine."""


@contextmanager
def threads_for(num_nodes: int) -> Iterator[None]:
    """Use one thread for a while if a graph is small.

    Thousands of operations of less than a millisecond each wait for the slower of their threads: on
    a machine whose cores are busy that costs a multiple.
    """
    before = torch.get_num_threads()
    if num_nodes > FEW_NODES or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
