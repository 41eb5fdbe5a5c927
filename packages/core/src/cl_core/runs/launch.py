"""What a launcher (torchrun, SLURM, Lightning) tells a process of its place among others."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["launched_rank", "launched_shard", "launched_sizes"]


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """This process's rank as the launcher tells it, 0 when alone.

    Under Lightning's own launcher only whether it is 0 can be told.
    """
    # The names of the world's size guard against a stray variable of another program.
    for name, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if world in environment and environment.get(name, "").isdecimal():
            return int(environment[name])
    if "WORLD_SIZE" in environment and environment.get("LOCAL_RANK", "").isdecimal():
        node = environment.get("NODE_RANK", "0")
        return int(environment["LOCAL_RANK"]) + int(node if node.isdecimal() else 0)
    return 0


def launched_shard(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process's rank and how many torchrun or SLURM started; ``(0, 1)`` when alone.

    For work that is divided without a process group.
    """
    for name, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        place, count = environment.get(name, ""), environment.get(world, "")
        if place.isdecimal() and count.isdecimal() and int(place) < int(count):
            return int(place), int(count)
    return 0, 1


def launched_sizes(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Processes on each machine and machines, as torchrun or srun tells; ``None`` when alone."""
    world = _count(environment, "WORLD_SIZE")
    local = _count(environment, "LOCAL_WORLD_SIZE")
    if world and local and "LOCAL_RANK" in environment:
        return local, max(1, world // local)
    tasks = _count(environment, "SLURM_STEP_NUM_TASKS")
    nodes = _count(environment, "SLURM_STEP_NUM_NODES")
    if tasks and nodes:
        return max(1, tasks // nodes), nodes
    return None


def _count(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else 0
