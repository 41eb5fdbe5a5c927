"""Damaged files: bytes changed, left out and put in, by seed."""

from collections.abc import Iterator

import numpy as np

__all__ = ["mutants"]


def mutants(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``count`` damaged versions of a file, each with one to five changes."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mutant = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            kind = rng.integers(3)
            place = int(rng.integers(len(mutant))) if mutant else 0
            if kind == 0 and mutant:
                mutant[place] = rng.integers(256)
            elif kind == 1:
                del mutant[place : place + int(rng.integers(1, 20))]
            else:
                mutant[place:place] = rng.integers(0, 256, rng.integers(1, 8), np.uint8).tobytes()
        yield bytes(mutant)
