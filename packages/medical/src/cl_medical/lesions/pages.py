"""The reports of the commands: what each page shows, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from cl_core.evaluation.projection import project_2d
from cl_core.images import ImageTable
from cl_core.report import Report
from cl_core.report.explorer.contact_sheet import contact_sheet
from cl_core.report.explorer.plane import scatter_2d
from cl_core.report.figures import training_curves
from cl_core.runs import Run
from cl_medical.lesions.data import Lesions, class_table
from cl_medical.lesions.figures import confusion_figure, curves_figure, reliability_figure
from cl_medical.lesions.measure import Measured, headline_row
from cl_medical.lesions.model import LesionModel
from cl_medical.lesions.sampling import lone_batch_probabilities
from cl_medical.lesions.subgroups import default_subgroups, label_agreement
from cl_medical.lesions.tables import ID

if TYPE_CHECKING:
    from cl_medical.lesions.evaluation import Evaluation

__all__ = ["NOTICE", "benchmark_page", "evaluation_page", "prepare_page", "training_page"]

NOTICE = (
    "This is research software and no medical device: nothing here is a diagnosis, and no decision "
    "about a patient may rest on it."
)

POINTS = 4000
"""Points of a scatter plot."""

TELLING = 0.1
"""Adjusted mutual information from which a column is said to predict the label."""


def prepare_page(run: Run, lesions: Lesions, *, pictures: bool, batch_size: int = 128) -> None:
    """Write what was found on a table: classes, splits, what they share, a sample sheet."""
    table = lesions.table
    page = _page("Lesion images", table.source)
    page.section("Data").text("\n\n".join(lesions.summary())).table(class_table(table))
    page.text("\n\n".join([*_rare(table, batch_size), *_telling(table)]) or "No class is rare.")
    shared = [
        {
            "split": one.other,
            "compared with": one.one,
            "images in both": one.images,
            "patients or lesions in both": one.groups,
            "equal pixels": one.twins,
        }
        for one in lesions.overlaps
    ]
    if shared:
        page.section("What the splits share").table(shared)
    if pictures:
        page.section("Sample").block(contact_sheet(table, per_group=8, seed=0))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def training_page(
    run: Run,
    lesions: Lesions,
    model: LesionModel,
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    measured: Measured,
    notes: Sequence[str],
) -> None:
    """Write what a training did: data, curves, what was chosen on the validation images."""
    page = _page(model.card.name, lesions.table.source)
    page.section("On the validation images").table(
        [headline_row(measured, model.card.positive)],
        "Epochs, temperature and threshold were chosen on these images, so the figures flatter: "
        "`evaluate` tells those of the test images.",
    ).text("\n\n".join([*notes, f"Operating point: {model.card.operating_point}."]))
    page.section("Data").text("\n\n".join(lesions.summary())).table(class_table(lesions.table))
    for name, rows in histories.items():
        shown = [{k: v for k, v in row.items() if not k.startswith("batch/")} for row in rows]
        if shown:
            page.section(f"Curves of {name}").figure(training_curves(shown))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def evaluation_page(
    run: Run, found: Evaluation, model: LesionModel, threshold: float | None
) -> None:
    """Write how good a classifier is, and where it is wrong."""
    table, card, classes = found.table, model.card, model.classes
    page = _page(f"Evaluation of {card.name}", table.source)
    page.section("Figures").table(
        [headline_row(found.measured, card.positive)],
        f"{len(table):,} images; 95 % intervals by resampling patients or lesions. "
        f"{'; '.join(table.notes)}",
    ).table(_class_rows(found))
    page.section("Operating point").text(_operating_words(card.positive, threshold)).figure(
        curves_figure(table.labels, found.p, classes, positive=card.positive, threshold=threshold),
        "One class against the rest each; the dot is the threshold.",
    )
    if card.positive is not None:
        page.table(_rate_rows(found.measured, card.positive))
    page.section("Confusion").figure(
        confusion_figure(found.counts, classes), "Images, and their share of the true class."
    )
    page.section("Calibration").figure(
        reliability_figure(found.reliability),
        "Bins of the largest probability; the number is that of the images.",
    )
    if found.subgroups:
        page.section("Subgroups").table(
            found.subgroups, "Small subgroups show no interval: it would look surer than it is."
        )
    _add_mistakes(page, found, classes)
    _add_plane(page, found, classes)
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def benchmark_page(run: Run, rows: Sequence[Mapping[str, object]], notes: Sequence[str]) -> None:
    """Write the table of a benchmark."""
    page = _page("Methods side by side", str(run.config.get("data", "")))
    page.section("Test images").table(
        rows,
        "Mean and standard deviation over seeds, and 95 % intervals by resampling patients or "
        "lesions. Differences inside the intervals mean nothing.",
    ).text("\n\n".join(notes))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def _page(title: str, subtitle: str) -> Report:
    page = Report(title, subtitle)
    page.section("Not for diagnosis").text(NOTICE)
    return page


def _rare(table: ImageTable, batch_size: int) -> list[str]:
    splits = np.asarray(table.splits if table.splits is not None else ("train",) * len(table))
    own = table.labels[splits == "train"]
    if not len(own):
        return []
    counts = np.bincount(own, minlength=len(table.classes))
    rarest = int(counts.argmin())
    none, one = lone_batch_probabilities(float(counts[rarest] / counts.sum()), batch_size)
    return [
        f"The rarest class in training is {table.classes[rarest]} with {counts[rarest]:,} images, "
        f"one to {counts.max() / max(1, counts[rarest]):.1f} of the largest. Of shuffled batches "
        f"of {batch_size}, {100 * none:.0f} % hold none of it and {100 * one:.0f} % at most one: "
        "see --sampling."
    ]


def _telling(table: ImageTable) -> list[str]:
    found = []
    for column in default_subgroups(table):
        agreement = label_agreement(table, column)
        if agreement > TELLING and column.lower() in ("source", "dataset"):
            found.append(
                f"The column {column} tells much of the label (adjusted mutual information "
                f"{agreement:.2f}): a classifier may read where an image comes from instead of the "
                "lesion."
            )
    return found


def _class_rows(found: Evaluation) -> list[dict[str, object]]:
    from cl_medical.lesions.measure import spelled

    support = found.counts.sum(axis=1)
    return [
        {
            "class": name,
            "images": int(support[k]),
            "precision (%)": spelled(found.measured, f"{name}/precision", interval=False),
            "recall (%)": spelled(found.measured, f"{name}/recall"),
            "F1 (%)": spelled(found.measured, f"{name}/f1"),
            "AUROC (%)": spelled(found.measured, f"{name}/auroc"),
            "average precision (%)": spelled(found.measured, f"{name}/average_precision"),
        }
        for k, name in enumerate(found.table.classes)
    ]


def _rate_rows(measured: Measured, positive: str) -> list[dict[str, object]]:
    from cl_medical.lesions.measure import spelled

    rows = []
    for place, words in (("at_threshold", "chosen threshold"), ("at_0.5", "0.5")):
        row: dict[str, object] = {f"{positive}, threshold": words}
        for name in ("sensitivity", "specificity", "precision", "f1"):
            row[f"{name} (%)"] = spelled(measured, f"{positive}/{place}/{name}")
        rows.append(row)
    return rows


def _operating_words(positive: str | None, threshold: float | None) -> str:
    if positive is None or threshold is None:
        return "No class is looked for in particular: each image is given its most probable class."
    return f"An image is called {positive} if its probability is {threshold:.3f} or more."


def _add_mistakes(page: Report, found: Evaluation, classes: Sequence[str]) -> None:
    table, p = found.table, found.p
    ids = table.column(ID)

    def caption(row: int) -> str:
        best = int(p[row].argmax())
        true = int(table.labels[row])
        return f"{ids[row]}: is {classes[true]}, said {classes[best]} {p[row, best]:.2f}"

    for title, rows in (
        ("Wrong and most certain", found.mistakes.surest),
        ("Wrong and the truth least expected", found.mistakes.unlikeliest),
        ("Missed at the threshold", found.mistakes.missed),
    ):
        if rows:
            page.section(title).block(
                contact_sheet([table.files[row] for row in rows], [caption(row) for row in rows])
            )
    if found.alike and found.bank is not None:
        bank = found.bank
        files, captions, groups = [], [], []
        for row, near in found.alike.items():
            files.append(table.files[row])
            captions.append(caption(row))
            groups.append(ids[row])
            for other, cosine in near:
                files.append(bank.files[other])
                captions.append(f"{bank.classes[int(bank.labels[other])]}, cosine {cosine:.2f}")
                groups.append(ids[row])
        page.section("Look-alikes among the training images").block(
            contact_sheet(files, captions, groups), "The image first, then what it resembles most."
        )


def _add_plane(page: Report, found: Evaluation, classes: Sequence[str]) -> None:
    h = found.answers.features
    if len(h) < 3:
        return
    rows = torch.randperm(len(h), generator=torch.Generator().manual_seed(0))[:POINTS]
    ids = found.table.column(ID)
    page.section("Representation").block(
        scatter_2d(
            project_2d(h[rows]),
            torch.from_numpy(found.table.labels)[rows],
            names=list(classes),
            hover_ids=[ids[row] for row in rows.tolist()],
        ),
        "The two directions of largest variance, coloured by class.",
    )
