"""The methods side by side: trained over seeds, compared on the same test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cl_core.checks import near
from cl_core.errors import InputError
from cl_core.evaluation.bootstrap import bootstrap_intervals
from cl_core.runs import Run
from cl_medical.lesions.config import (
    BENCHMARKED,
    BenchmarkConfig,
    Method,
    TrainConfig,
)
from cl_medical.lesions.measure import Measured, headline_row, measure
from cl_medical.lesions.options import SavedRunOptions, TrainingOptions
from cl_medical.lesions.saved import SavedRun, answers_of, open_run

__all__ = ["compare", "jobs", "train_all"]

_BALANCED = "_balanced"
_METHODS = (*BENCHMARKED, "simclr_balanced")


def jobs(config: BenchmarkConfig) -> dict[tuple[str, int], TrainConfig]:
    """Give the options of each training, by method and seed; stage 1 is trained once a seed.

    Raises:
        InputError: If a method is unknown.
    """
    given = {
        field.name: getattr(config, field.name)
        for field in fields(TrainingOptions)
        if field.name != "recipe"
    }
    groups = {name: getattr(config, name) for name in ("stage1", "stage2", "focal", "ldam")}
    found: dict[tuple[str, int], TrainConfig] = {}
    for name in config.methods:
        if name not in _METHODS:
            raise InputError(
                f"--methods: there is no {name!r}; {near(name, _METHODS)}there are "
                f"{', '.join(_METHODS)}"
            )
        plain = name.removesuffix(_BALANCED)
        own = dict(groups)
        if name != plain:
            own["stage2"] = replace(config.stage2, loss="balanced")
        for seed in config.seeds:
            first = config.out / plain / f"seed-{seed}"
            found[name, seed] = TrainConfig(
                **given,
                **own,
                out=config.out / name / f"seed-{seed}",
                method=cast(Method, plain),
                representation=first if name != plain and plain in config.methods else None,
                seed=seed,
                trainer=config.trainer,
            )
    # A representation is there before it is taken over.
    return dict(sorted(found.items(), key=lambda item: item[1].representation is not None))


def train_all(
    config: BenchmarkConfig, run: Run, train: Callable[[TrainConfig], object]
) -> dict[tuple[str, int], Path]:
    """Train what is not trained yet; gives the runs by method and seed."""
    runs: dict[tuple[str, int], Path] = {}
    for (name, seed), options in jobs(config).items():
        run.output(name)
        if not (options.out / "metrics.json").is_file():
            train(replace(options, resume=(options.out / "config.yaml").is_file()))
            run.begun()
        runs[name, seed] = options.out
    return {key: runs[key] for key in ((n, s) for n in config.methods for s in config.seeds)}


def compare(
    runs: Mapping[tuple[str, int], Path], *, resamples: int, batch_size: int = 256
) -> tuple[dict[str, float], list[dict[str, object]], list[str]]:
    """Measure finished runs on their test images.

    Args:
        runs: Folders by method and seed, all of the same splits.
        resamples: Of whole groups; the figures of all seeds are taken on the same ones.
        batch_size: Images classified at once.

    Returns:
        Figures under each method's name, rows of a table, and notes.

    Raises:
        InputError: If runs differ in their images.
    """
    scores: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    saved = {key: open_run(SavedRunOptions(run=path)) for key, path in runs.items()}
    digests = {one.model.card.splits for one in saved.values()}
    if len(digests) > 1:
        raise InputError("the runs were trained on different splits: they cannot be compared")
    positive = next(iter(saved.values())).model.card.positive
    for name in dict.fromkeys(method for method, _ in runs):
        own = [one for (method, _), one in saved.items() if method == name]
        mean, spread = _over_seeds(own, resamples=resamples, batch_size=batch_size)
        for figure, value in mean.metrics().items():
            scores[f"{name}/{figure}"] = value
        scores |= {f"{name}/{figure}_std": value for figure, value in spread.items()}
        rows.append({"method": name, "seeds": len(own)} | headline_row(mean, positive))
    first = next(iter(saved.values()))
    notes = [
        f"{len(first.images('test').table):,} test images of {first.path}; epochs, temperature "
        "and threshold were chosen on the validation images of each run.",
    ]
    return scores, rows, notes


def _over_seeds(
    runs: Sequence[SavedRun], *, resamples: int, batch_size: int
) -> tuple[Measured, dict[str, float]]:
    test = runs[0].images("test")
    y, groups, classes = test.table.labels, test.groups, runs[0].model.classes
    answers = [
        one.model.probabilities(answers_of(one.model, test, batch_size=batch_size).logits).numpy()
        for one in runs
    ]

    def of(one: SavedRun, p: NDArray[np.floating], rows: NDArray[np.int64] | None) -> Measured:
        kept = slice(None) if rows is None else rows
        return measure(
            y[kept],
            p[kept],
            groups,
            classes,
            positive=one.model.card.positive,
            threshold=one.threshold,
        )

    def averaged(rows: NDArray[np.int64] | None) -> dict[str, float]:
        figures = [of(one, p, rows).figures for one, p in zip(runs, answers, strict=True)]
        return {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}

    single = [of(one, p, None).figures for one, p in zip(runs, answers, strict=True)]
    spread = {
        name: float(np.std([one[name] for one in single], ddof=1)) if len(single) > 1 else 0.0
        for name in single[0]
    }
    intervals = bootstrap_intervals(averaged, groups, resamples=resamples)
    return Measured(averaged(None), intervals), spread
