"""What a condensation will need, told before it starts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cl_core.errors import InputError
from cl_vision.condensation.chunks import forward_numbers, match, real_gradient
from cl_vision.condensation.convnet import fresh
from cl_vision.condensation.loop import Loop
from cl_vision.condensation.real_images import RealImages

__all__ = ["Estimate", "estimate", "require_space"]

# Numbers alive per number of one forward pass, measured on ConvNets of 16 to 64 pixels.
_FIRST_ORDER, _SECOND_ORDER = 1.3, 2.4


@dataclass(frozen=True)
class Estimate:
    """Before the start.

    Attributes:
        megabytes: Of memory beyond the program, data included.
        seconds: An outer iteration.
        outer: Outer iterations.
    """

    megabytes: float
    seconds: float
    outer: int

    def __str__(self) -> str:
        total = self.seconds * self.outer
        told = f"{total:.0f} s" if total < 120 else f"{total / 60:.0f} min"
        if total > 7200:
            told = f"{total / 3600:.1f} h"
        return (
            f"estimate: {self.megabytes:,.0f} MB of memory, {self.seconds:.2g} s an outer "
            f"iteration, {told} for {self.outer:,}"
        )


def estimate(
    real: RealImages, build: Callable[[], nn.Module], loop: Loop, ipc: int, device: torch.device
) -> Estimate:
    """Time a few images of each kind of gradient, and count what a forward pass keeps.

    Args:
        real: The real images.
        build: Makes the network.
        loop: The numbers.
        ipc: Images a class.
        device: Where it will run.
    """
    number = len(real.classes)
    generator = torch.Generator().manual_seed(0)
    network = fresh(build, generator, device)
    network.train()
    few = min(len(real), 16)
    x = real.take(torch.arange(few)).to(device)
    y = real.labels[:few].to(device)
    weights = torch.full((few,), 1 / few, device=device)
    target = real_gradient(network, x, y, weights)
    first = _seconds(lambda: real_gradient(network, x, y, weights)) / few
    own = min(few, ipc if not loop.contrast else ipc * number)
    second = _seconds(lambda: match(network, x[:own], y[:own], weights[:own], target)) / own
    counts = torch.bincount(real.labels, minlength=number).clamp(max=loop.real_batch)
    images = ipc * number
    between = (loop.inner_loop - 1) * loop.network_epochs * images
    seconds = loop.inner_loop * (int(counts.sum()) * first + images * second) + between * first
    numbers = forward_numbers(network, x[:1])
    real_at_once = min(loop.real_chunk or loop.real_batch, loop.real_batch)
    syn = images if loop.contrast else ipc
    syn_at_once = min(loop.syn_chunk or syn, syn)
    parameters = sum(p.numel() for p in network.parameters())
    peak = max(
        _FIRST_ORDER * real_at_once,
        _SECOND_ORDER * syn_at_once,
        _FIRST_ORDER * min(images, loop.train_batch),
    )
    pixels = real.pixels[0].numel()
    batch = 4 * pixels * (int(counts.sum()) + 4 * images)
    memory = real.pixels.nbytes + 4 * (numbers * peak + 8 * parameters) + batch
    return Estimate(memory / 2**20, seconds, loop.outer_loop)


def require_space(out: Path, real: RealImages, ipc: int) -> None:
    """Refuse to start where the disk has no room for the results.

    Raises:
        InputError: Naming both sizes.
    """
    place = out.expanduser().absolute()
    while not place.exists():
        place = place.parent
    # The set as floats in three files and checkpoints, its start, snapshots and pictures.
    need = 16 * 4 * ipc * len(real.classes) * real.pixels[0].numel() + 2**20
    free = shutil.disk_usage(place).free
    if free < need:
        raise InputError(
            f"--out {out}: the set needs {need / 2**20:,.0f} MB there and {free / 2**20:,.0f} MB "
            "are free: make room, or name another place"
        )


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
