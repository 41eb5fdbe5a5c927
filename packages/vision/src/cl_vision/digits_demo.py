"""The demo: DirectCLR and HCSC on the digits, each beside its baseline, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cl_core.commands.outcome import slug, text_table
from cl_core.report import Report
from cl_core.report.figures import metric_table, training_curves
from cl_core.runs import Run
from cl_vision import pages
from cl_vision.collapse.spectrum import spectra
from cl_vision.config import DemoConfig, EvaluateConfig, PretrainConfig
from cl_vision.data import open_images
from cl_vision.evaluation.measures import Measured, measure
from cl_vision.saved import Trained

__all__ = ["demo_runs", "write_demo"]

_COLLAPSE = (
    "Both train the same network on the same views; the loss of the first sees all 128 channels of "
    "the representation, that of DirectCLR the first 32. What to look at is rotation and "
    "brightness: a linear probe has to tell by which of five angles, or factors, a digit was "
    "changed (chance is 20 %). The views teach the encoder to ignore both. In longer trainings of "
    "three seeds the channels that no loss acts on kept more of brightness, 7 points, and hardly "
    "more of rotation, 1 point.",
    "What does not show at this size: a gain in class accuracy, as on ImageNet. Either method "
    "nearly solves the digits, and the order of the effective ranks turns round in longer "
    "trainings. SimCLR with a two-layer projector does as well or better, as the authors say "
    "themselves: DirectCLR explains the projector, it does not replace it.",
)

_CLUSTERS = (
    "Both train the same network with the same queue; HCSC adds prototypes of clusters on three "
    "levels and leaves out negatives that probably share the query's cluster. What to look at is "
    "ami, the agreement of k-means clusters with the classes, and the precision of the selection: "
    "how often a negative that was left out is of the query's own class, beside how often any key "
    "is. Probe and nearest neighbours are near their ceiling for both, and tell little.",
)


def demo_runs(config: DemoConfig) -> list[PretrainConfig]:
    """Give the options of the four trainings, those of the recipes for digits."""
    alone, directclr, moco, hcsc = (
        _recipe(name, config) for name in ("simclr", "directclr", "mocov2", "hcsc")
    )
    alone = replace(
        alone,
        out=config.out / "no-projector",
        simclr=replace(alone.simclr, projector="none"),
    )
    return [alone, directclr, replace(moco, out=config.out / "moco"), hcsc]


def write_demo(
    run: Run, trained: Mapping[str, Trained], *, seed: int
) -> tuple[dict[str, float], list[str]]:
    """Measure the four encoders and write the page.

    Args:
        run: Where to.
        trained: Of :func:`demo_runs`, in their order.
        seed: Of the probes.

    Returns:
        Figures under the method's name, and the tables as text.
    """
    protocol = EvaluateConfig(run=run.path, few_labels="none", nuisances=True, seed=seed)
    train, test = open_images("digits").train_and_test(protocol.test_share, seed=seed)
    measured = [measure(name, one.model, train, test, protocol) for name, one in trained.items()]
    first, second = _collapse_rows(measured[:2]), _cluster_rows(measured[2:], trained)
    page = Report("Digits without labels", "DirectCLR and HCSC beside their baselines")
    note = f"One training of each, seed {seed}: differences of a point or two mean nothing."
    page.section("DirectCLR").text("\n\n".join(_COLLAPSE)).table(first, note)
    found = [
        part
        for one in measured[:2]
        for part in spectra(one.features, trained[one.name].model.projector, name=one.name)
    ]
    pages.add_spectra(page, found)
    page.section("HCSC").text("\n\n".join(_CLUSTERS)).table(second, note)
    for one in measured:
        pages.add_plane(page, test, one.features, one.name)
    for name, saved in trained.items():
        page.section(f"Training {name}").figure(training_curves(saved.history), pages.CURVES)
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))
    metrics = {
        f"{slug(one.name)}/{figure}": value
        for one in measured
        for figure, value in one.scores.items()
    }
    metrics |= {
        f"hcsc/{name}": value
        for name, value in trained["HCSC"].history[-1].items()
        if name.startswith("selection/")
    }
    return metrics, [*text_table(first), "", *text_table(second)]


def _recipe(name: str, config: DemoConfig) -> PretrainConfig:
    return PretrainConfig.from_recipe(
        f"{name}-digits",
        out=config.out / name,
        epochs=config.epochs,
        seed=config.seed,
        overwrite=config.overwrite,
        trainer=config.trainer,
    )


def _collapse_rows(measured: Sequence[Measured]) -> list[dict[str, object]]:
    names = ("linear_accuracy", "rotation/accuracy", "brightness/accuracy", "effective_rank")
    return metric_table(
        [{"model": one.name} | {name: one.scores[name] for name in names} for one in measured]
    )


def _cluster_rows(
    measured: Sequence[Measured], trained: Mapping[str, Trained]
) -> list[dict[str, object]]:
    names = ("ami", "purity", "linear_accuracy", "knn_accuracy")
    rows: list[dict[str, object]] = []
    for one in measured:
        last = trained[one.name].history[-1]
        row: dict[str, object] = {"model": one.name}
        row |= {name: one.scores[name] for name in names}
        precision = last.get("selection/level_1/precision")
        if precision is not None:
            row["selection precision"] = (
                f"{precision:.2f}, any key {last['selection/base_rate']:.2f}"
            )
        rows.append(row)
    return metric_table(rows)
