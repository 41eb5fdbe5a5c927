"""One thread for small operations: sharing them out costs more than it saves.

On tiny tensors torch's threads wait for each other far longer than they compute, and on a machine
that does something else besides, the wait is busy and lasts a time slice of the other program.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on the calling thread alone; the number of threads comes back."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
