"""Condensed sets beside real images: the sets, the trainings, the table."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.networks.devices import best_device
from cl_core.runs import Run
from cl_core.seeding import derive_seed
from cl_vision.condensation.architectures import Architecture, builder
from cl_vision.condensation.assessment import Recipe, accuracy, train_networks
from cl_vision.condensation.condensed_set import CondensedSet, load_condensed
from cl_vision.condensation.config import AssessConfig, CondenseConfig
from cl_vision.condensation.real_images import RealImages, require_per_class
from cl_vision.condensation.selection import Selection, select
from cl_vision.condensation.setting import complete, network_builder, real_of

__all__ = ["Comparison", "compare"]

Labelled = tuple[Tensor, Tensor]

_TOGETHER = 2**22  # numbers in the first layer's output of all networks; more fill a core alone


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        metrics: Figures by name.
        rows: The table.
        notes: What the user should know.
    """

    metrics: dict[str, float]
    rows: list[dict[str, object]]
    notes: list[str]


def compare(config: AssessConfig) -> Comparison:
    """Train and measure everything `assess` tells of.

    Raises:
        InputError: If a run holds no set, or sets and images do not fit together.
    """
    found = [load_condensed(path) for path in config.runs]
    options = Run.open(config.runs[0]).config
    train, test, images = real_of(options, config.data)
    _require_fit(found, train, test, config)
    ipc = found[0].card.ipc
    require_per_class(train, ipc, "images a class of the set,")
    digits = images.is_digits
    filled = _filled(options, train.size, digits=digits)
    sets = _sets(config, found, train, ipc)
    metrics: dict[str, float] = {"clipped_share": statistics.mean(s.clipped() for s in found)}
    table: dict[str, dict[str, object]] = {}
    notes: list[str] = []
    budgets = {"": Recipe(epochs=config.epochs)}
    if config.augmented_epochs:
        siamese = config.augmentation == "siamese"
        strategy = cast(str, filled.strategy) if siamese else config.augmentation
        budgets["augmented/"] = Recipe(epochs=config.augmented_epochs, strategy=strategy)
    for place, architecture in enumerate(config.architectures):
        build = _build(architecture, filled, train)
        prefix = f"{architecture}/" if place else ""
        for budget, recipe in budgets.items():
            if place and budget:
                continue  # the other networks are compared without augmentation
            scores = {}
            for name, some in sets.items():
                scores[name] = _measure(build, some, recipe, test, config, train.size)
            if config.full and not place:
                scores["full"] = _full(build, train, test, recipe, config, len(train.classes) * ipc)
            for name, values in scores.items():
                mean, spread = statistics.mean(values), statistics.pstdev(values)
                metrics[f"{prefix}{name}/{budget}accuracy"] = mean
                metrics[f"{prefix}{name}/{budget}accuracy_std"] = spread
                column = f"{architecture} {'augmented' if budget else 'plain'}"
                table.setdefault(name, {"images": name})[column] = (
                    f"{100 * mean:.1f} ± {100 * spread:.1f}"
                )
            if statistics.mean(scores["condensed"]) < statistics.mean(scores["random"]):
                notes.append(
                    f"warning: {architecture}{' with augmentation' if budget else ''}: the "
                    "condensed set does worse than random real images"
                )
    notes.append(
        f"{100 * metrics['clipped_share']:.1f} % of the pixel values lie outside what the 8-bit "
        "pictures (condensed/png) can show."
    )
    columns = list(dict.fromkeys(name for row in table.values() for name in row))
    rows = [{name: row.get(name, "-") for name in columns} for row in table.values()]
    return Comparison(metrics, rows, notes)


def _filled(options: dict[str, Any], size: tuple[int, int], *, digits: bool) -> CondenseConfig:
    return complete(CondenseConfig(**options), size, digits=digits)


def _build(architecture: Architecture, filled: CondenseConfig, train: RealImages) -> Any:
    if architecture == "convnet":
        return network_builder(filled, train.channels, len(train.classes), train.size)
    return builder(architecture, train.channels, len(train.classes), train.size)


def _sets(
    config: AssessConfig, found: list[CondensedSet], train: RealImages, ipc: int
) -> dict[str, list[Labelled]]:
    sets: dict[str, list[Labelled]] = {}
    names = [one.card.method for one in found]
    for one, method in zip(found, names, strict=True):
        name = "condensed" if method == names[0] else method
        sets.setdefault(name, []).append((one.images, one.labels))
    sets["condensed/png"] = [
        (one.pictures(), one.labels)
        for one, method in zip(found, names, strict=True)
        if method == names[0]
    ]
    features = train.take(torch.arange(len(train))).flatten(1)
    draws = config.sets or max(3, len(found))
    labels = torch.arange(len(train.classes)).repeat_interleave(ipc)
    ways: tuple[Selection, ...] = ("random", "herding", "kmeans", "nearest")
    for how in ways:
        sets[how] = []
        for draw in range(draws if how in ("random", "kmeans") else 1):
            generator = torch.Generator().manual_seed(derive_seed(config.seed, 2, draw))
            rows = select(how, features, train.labels, ipc, generator)
            sets[how].append((train.take(rows), labels))
    return sets


def _measure(
    build: Any,
    sets: list[Labelled],
    recipe: Recipe,
    test: RealImages,
    config: AssessConfig,
    size: tuple[int, int],
) -> list[float]:
    each = [(place, one) for place, one in enumerate(sets) for _ in range(config.networks)]
    seeds = [
        derive_seed(config.seed, 3, place, number)
        for place in range(len(sets))
        for number in range(config.networks)
    ]
    batch = min(recipe.batch, len(sets[0][1]))
    width = 64 if not isinstance(build, partial) else int(build.keywords.get("width", 64))
    together = len(each) * batch * width * size[0] * size[1] <= _TOGETHER
    networks = train_networks(
        build,
        [one for _, one in each],
        recipe,
        seeds=seeds,
        together=together,
        device=best_device(),
    )
    return [accuracy(network, test) for network in networks]


def _full(
    build: Any,
    train: RealImages,
    test: RealImages,
    recipe: Recipe,
    config: AssessConfig,
    small: int,
) -> list[float]:
    """All real images, for as many steps as the small sets were given."""
    steps = (recipe.epochs + 1) * -(-small // recipe.batch)
    epochs = max(1, steps // -(-len(train) // recipe.batch))
    everything = (train.take(torch.arange(len(train))), train.labels)
    seeds = [derive_seed(config.seed, 4, number) for number in range(config.networks)]
    networks: list[nn.Module] = train_networks(
        build,
        [everything] * config.networks,
        replace(recipe, epochs=epochs),
        seeds=seeds,
        together=False,
        device=best_device(),
    )
    return [accuracy(network, test) for network in networks]


def _require_fit(
    found: list[CondensedSet], train: RealImages, test: RealImages, config: AssessConfig
) -> None:
    first = found[0].card
    for one, path in zip(found, config.runs, strict=True):
        card = one.card
        if (card.classes, card.ipc, card.channels, card.height, card.width) != (
            first.classes,
            first.ipc,
            first.channels,
            first.height,
            first.width,
        ):
            raise InputError(
                f"--run {path}: its set differs from that of {config.runs[0]} in classes, images a "
                "class, channels or size: give runs of one kind"
            )
    told = config.data or "the run's data"
    if train.channels != first.channels:
        raise InputError(
            f"--data {told}: images of {train.channels} channels, but the set has "
            f"{first.channels}; give images like those of the run"
        )
    if train.size != (first.height, first.width):
        raise InputError(
            f"--data {told}: images of {train.size[0]} x {train.size[1]} pixels, but the set has "
            f"{first.height} x {first.width}; give images like those of the run"
        )
    if train.classes != first.classes or test.classes != first.classes:
        raise InputError(
            f"--data {told}: its classes are not those of the set ({', '.join(first.classes[:5])}"
            "...); give images like those of the run"
        )
