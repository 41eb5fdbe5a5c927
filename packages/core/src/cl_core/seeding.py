"""The one place that seeds the global random generators of Python, numpy and torch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["RandomStream", "derive_seed", "seed_everything"]


def derive_seed(*keys: int) -> int:
    """Mix numbers that name a place in a run, as in ``(seed, epoch, rank)``, into one seed.

    Neighbouring keys give unrelated seeds, which adding them up would not.

    Args:
        keys: Non-negative numbers.

    Returns:
        A seed in ``[0, 2**63)``.
    """
    words = np.random.SeedSequence(keys).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def seed_everything(*keys: int) -> int:
    """Set the global generators to the place that ``keys`` name.

    Args:
        keys: As for :func:`derive_seed`; usually the run's seed alone, before a model is built.

    Returns:
        The seed that was set.
    """
    seed = derive_seed(*keys)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # the same without the note that torch keeps, slowly, for a GPU that may appear later
        torch.default_generator.manual_seed(seed)
    return seed


class RandomStream:
    """A second life of the global generators on the CPU, lived in turns with the first.

    Inside :meth:`running` the generators continue where the stream stopped last; outside they are
    as if it did not exist. What a data set draws thus never shifts what the model draws.

    Args:
        keys: Where the stream starts, as for :func:`derive_seed`.
    """

    def __init__(self, *keys: int) -> None:
        outside = _states()
        seed = derive_seed(*keys)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        self._inside = _states()
        _restore(outside)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the global generators be this stream's for a while."""
        outside = _states()
        _restore(self._inside)
        try:
            yield
        finally:
            self._inside = _states()
            _restore(outside)


def _states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _restore(states: tuple[Any, ...]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
