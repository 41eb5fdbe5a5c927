"""Continual learning by rehearsal: steps of classes or of domains, memories compared."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.seeding import derive_seed
from cl_vision.condensation.assessment import Recipe, train_networks
from cl_vision.condensation.config import CondenseConfig, ContinualConfig
from cl_vision.condensation.convnet import fresh
from cl_vision.condensation.loop import condense_images
from cl_vision.condensation.real_images import RealImages, require_per_class
from cl_vision.condensation.rehearsal import RehearsalMemory, distil_step, forgetting
from cl_vision.condensation.selection import Selection, select
from cl_vision.condensation.setting import complete, loop_of, network_builder, real_of

__all__ = ["Study", "Task", "study"]


@dataclass(frozen=True, eq=False)
class Task:
    """What is learned in one step.

    Attributes:
        x: Training images, normalised.
        y: Their classes, numbered over all tasks.
        x_test: Test images.
        y_test: Their classes.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


@dataclass(frozen=True)
class Study:
    """What was found.

    Attributes:
        metrics: Figures by name.
        rows: The table.
        curves: Accuracy of everything seen after each step, by memory.
        notes: How it was done.
    """

    metrics: dict[str, float]
    rows: list[dict[str, object]]
    curves: dict[str, list[float]]
    notes: list[str]


def study(config: ContinualConfig) -> Study:
    """Learn the steps in several orders from every memory.

    Raises:
        InputError: If data sets do not fit together or the classes cannot be split.
    """
    sources = [_source(config, data) for data in config.sources]
    _require_alike(config, sources)
    classes = tuple(dict.fromkeys(name for train, _, _ in sources for name in train.classes))
    first = sources[0][0]
    digits = all(is_digits for _, _, is_digits in sources)
    options = _options(config, first.size, first.channels, digits=digits)
    metrics: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    curves: dict[str, list[float]] = {}
    found: dict[str, list[tuple[list[float], float]]] = {}
    for order in range(config.orders):
        tasks = _tasks(config, sources, classes, order)
        for memory in config.memories:
            found.setdefault(memory, []).append(
                _one_order(config, options, memory, tasks, len(classes), order)
            )
    for name, results in found.items():
        averages = [statistics.mean(curve) for curve, _ in results]
        losses = [lost for _, lost in results]
        for figure, values in (("average_incremental_accuracy", averages), ("forgetting", losses)):
            metrics[f"{name}/{figure}"] = statistics.mean(values)
            metrics[f"{name}/{figure}_std"] = statistics.pstdev(values)
        curves[name] = [
            statistics.mean(step) for step in zip(*(c for c, _ in results), strict=True)
        ]
        metrics |= {f"{name}/step_{k}/accuracy": v for k, v in enumerate(curves[name], start=1)}
        rows.append(
            {
                "memory": name,
                "average incremental accuracy": _told(averages),
                "last accuracy": _told([curve[-1] for curve, _ in results]),
                "forgetting": _told(losses),
            }
        )
    notes = [
        f"protocol {config.protocol}, {config.ipc} images a class and step, {config.orders} "
        f"orders, {len(curves[config.memories[0]])} steps"
    ]
    return Study(metrics, rows, curves, notes)


def _told(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.pstdev(values):.1f}"


def _source(config: ContinualConfig, data: str) -> tuple[RealImages, RealImages, bool]:
    options = {
        "data": data,
        "channels": config.channels,
        "image_size": config.image_size,
        "test_share": config.test_share,
        "seed": config.seed,
    }
    train, test, images = real_of(options)
    return train, test, images.is_digits


def _require_alike(
    config: ContinualConfig, sources: list[tuple[RealImages, RealImages, bool]]
) -> None:
    first = sources[0][0]
    for name, (train, _, _) in zip(config.sources, sources, strict=True):
        if (train.channels, train.size) != (first.channels, first.size):
            raise InputError(
                f"--data {name}: {train.channels} channels of {train.size[0]} x {train.size[1]} "
                f"pixels, but {config.sources[0]} has {first.channels} of {first.size[0]} x "
                f"{first.size[1]}: give --channels and --image_size"
            )
        require_per_class(train, config.ipc, f"--data {name}: --ipc")
    if len(sources) == 1 and len(first.classes) < 2 * config.steps:
        raise InputError(
            f"--steps {config.steps}: {len(first.classes)} classes cannot come in that many steps "
            "of at least 2; lower it"
        )


def _tasks(
    config: ContinualConfig,
    sources: list[tuple[RealImages, RealImages, bool]],
    classes: tuple[str, ...],
    order: int,
) -> list[Task]:
    generator = torch.Generator().manual_seed(derive_seed(config.seed, 7, order))
    if len(sources) > 1:
        tasks = [_task(train, test, classes) for train, test, _ in sources]
        return [tasks[k] for k in torch.randperm(len(tasks), generator=generator).tolist()]
    train, test, _ = sources[0]
    mixed = torch.randperm(len(classes), generator=generator)
    parts = torch.tensor_split(mixed, config.steps)
    chosen = []
    for part in parts:
        sides = [
            side.select(torch.isin(side.labels, part).nonzero().flatten()) for side in (train, test)
        ]
        chosen.append(_task(sides[0], sides[1], classes))
    return chosen


def _task(train: RealImages, test: RealImages, classes: tuple[str, ...]) -> Task:
    sides = []
    for side in (train, test):
        place = torch.tensor([classes.index(name) for name in side.classes])
        # Each domain is normalised by its own statistics, as each was measured.
        sides += [side.take(torch.arange(len(side))), place[side.labels]]
    return Task(*sides)


def _one_order(
    config: ContinualConfig,
    options: CondenseConfig,
    name: str,
    tasks: list[Task],
    number: int,
    order: int,
) -> tuple[list[float], float]:
    """Accuracy of everything seen after each step, and what was forgotten."""
    x = tasks[0].x
    build = network_builder(options, x.shape[1], number, (x.shape[2], x.shape[3]))
    generator = torch.Generator().manual_seed(derive_seed(config.seed, 8, order))
    fill = _filler(options, name, generator)
    memory = RehearsalMemory(config.ipc, fill)
    curve: list[float] = []
    each: list[list[float]] = []
    network = fresh(build, generator)
    seen = torch.zeros(0, dtype=torch.int64)
    for step, task in enumerate(tasks, start=1):
        known, seen = seen, torch.unique(torch.cat([seen, task.y]))
        if config.protocol == "memory":
            memory.add_task(task.x, task.y)
            recipe = Recipe(epochs=config.epochs, strategy=config.strategy)
            seeds = [derive_seed(config.seed, 9, order, step, k) for k in range(config.networks)]
            sets = [(memory.images, memory.labels)] * config.networks
            networks = train_networks(build, sets, recipe, seeds=seeds)
        else:
            before = copy.deepcopy(network).eval() if step > 1 else None
            distil_step(
                network,
                before,
                (task.x, task.y),
                memory,
                seen=seen,
                known=known,
                epochs=config.epochs,
                strategy=config.strategy,
                generator=generator,
                temperature=config.temperature,
                weight=config.distillation_weight,
            )
            memory.add_task(task.x, task.y)
            networks = [network]
        rights = [_right(networks, t, seen) for t in tasks[:step]]
        each.append([float(right.mean()) for right in rights])
        curve.append(float(torch.cat(rights).mean()))
    return curve, forgetting(each)


@torch.no_grad()
def _right(networks: list[nn.Module], task: Task, seen: Tensor) -> Tensor:
    """Of each test image the share of networks that are right, among the classes seen."""
    votes = []
    for network in networks:
        parts = [network(x)[:, seen].argmax(1) for x in torch.split(task.x_test, 512)]
        votes.append((seen[torch.cat(parts)] == task.y_test).float())
    return torch.stack(votes).mean(0)


def _filler(
    options: CondenseConfig, name: str, generator: torch.Generator
) -> Callable[[Tensor, Tensor, int], Tensor]:
    """What fills a memory of a name from the images of a task."""
    how: Selection = "herding" if name == "herding" else "random"

    def choose(x: Tensor, y: Tensor, budget: int) -> Tensor:
        return x[select(how, x.flatten(1), y, budget, generator)]

    def condense(x: Tensor, y: Tensor, budget: int) -> Tensor:
        number, size = int(y.max()) + 1, (x.shape[2], x.shape[3])
        build = network_builder(options, x.shape[1], number, size)
        loop = loop_of(options, None)
        return condense_images(x, y, choose(x, y, budget), build, loop, generator)

    return condense if name == "condensed" else choose


def _options(
    config: ContinualConfig, size: tuple[int, int], channels: int, *, digits: bool
) -> CondenseConfig:
    """The options of condensation, complete; refuses a size and a depth that do not fit."""
    options = CondenseConfig(
        data="task",
        out=Path(),
        method=config.method,
        ipc=config.ipc,
        outer_loop=config.outer_loop,
        width=config.width,
        depth=config.depth,
        real_batch=config.real_batch,
    )
    options = complete(options, size, digits=digits)
    network_builder(options, channels, 2, size)
    return options
