"""The reports on groups: what each page shows, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cl_agriculture.data import Plants
from cl_agriculture.figures import TILE, bic_figure, contingency_figure, pictures, some_rows
from cl_agriculture.groups import contingency
from cl_agriculture.mixture.selection import Selection
from cl_agriculture.scoring import Scored
from cl_core.report import Report
from cl_core.report.explorer.contact_sheet import contact_sheet
from cl_core.report.explorer.plane import scatter_2d
from cl_core.runs import Run

__all__ = ["cluster_page", "score_page"]

WATCHED = 200
"""Labels to look at again that the page lists; the file lists all."""

FITTED = (
    "Principal components and mixture were fitted to the training images alone; figures without a "
    "prefix are of the test images where there is a split. Labels never enter the fit. nmi divides "
    "by the arithmetic mean of the entropies; purity rises with the number of groups, so read it "
    "beside that number."
)

BIC = (
    "BIC weighs fit against the number of free parameters; smaller is better. Differences below 10 "
    "are no evidence, so the smallest number of groups within 10 of the minimum is taken (circle)."
)

WATCH = (
    "Images whose weak label is not the most frequent one of their group. The doubt says how "
    "little the groups an image belongs to speak for its label: these are the first to check."
)


def cluster_page(
    run: Run,
    scored: Scored,
    selection: Selection,
    rows: Sequence[Mapping[str, object]],
    metrics: Mapping[str, float],
    *,
    plants: Plants | None,
    growth: Sequence[Mapping[str, object]],
    sheet: int,
    notes: Sequence[str],
) -> None:
    """Write which groups there are, what is typical, what is odd, and which labels to check.

    Args:
        run: Where to.
        scored: All images.
        selection: What was compared.
        rows: The table of groups.
        metrics: Figures.
        plants: To show the images; ``None`` for vectors.
        growth: The table of dates.
        sheet: Images of each group shown as typical, and as odd.
        notes: In words.
    """
    page = Report("Groups", f"{len(scored):,} images")
    shown = ("clusters", "bic", "nmi", "purity", "silhouette")
    page.metrics({name: metrics[name] for name in shown if name in metrics})
    page.section("Groups").text("\n\n".join([*notes, FITTED])).table(rows)
    page.table([{"figure": name, "value": value} for name, value in metrics.items()])
    page.section("How many groups").figure(bic_figure(selection), BIC).table(selection.table())
    _add_plane(page, scored)
    _add_contingency(page, scored)
    _add_watch_list(page, scored)
    if growth:
        page.section("Growth").table(growth, "Plant cover and centre of each group by date.")
    if plants is not None:
        for k, name in enumerate(_component_names(scored)):
            if name is not None:
                _add_sheets(page, plants, scored, k, name, sheet)
        _add_fallbacks(page, plants, scored)
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def score_page(
    run: Run,
    scored: Scored,
    metrics: Mapping[str, float],
    *,
    plants: Plants | None,
    sheet: int,
    notes: Sequence[str],
) -> None:
    """Write what a clustering says of new images: drift, groups, odd ones, labels to check."""
    page = Report("New images", f"{len(scored):,} images")
    page.metrics(metrics)
    page.section("Drift").text("\n\n".join(notes))
    _add_plane(page, scored)
    _add_contingency(page, scored)
    _add_watch_list(page, scored)
    odd = scored.odd()[:sheet]
    if plants is not None and odd:
        page.section("Odd images").block(
            contact_sheet(
                pictures(plants, odd),
                captions=_captions(scored, odd),
                size=TILE,
                columns=5,
                per_group=sheet,
            ),
            "Below the threshold, the oddest first.",
        )
    if plants is not None:
        _add_fallbacks(page, plants, scored)
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def _add_plane(page: Report, scored: Scored) -> None:
    if scored.scores.shape[1] < 2:
        return
    rows = some_rows(len(scored)).numpy()
    points = scored.scores[rows, :2]
    ids = [scored.files[row] for row in rows.tolist()]
    words = f"The first two principal components of {len(rows):,} images, coloured by "
    page.section("On a plane").block(
        scatter_2d(points, scored.names[rows], hover_ids=ids), words + "group."
    )
    classes = sorted({label for label in scored.labels if label is not None})
    if classes:
        number = {name: k for k, name in enumerate(classes)}
        y = np.array([number.get(scored.labels[row] or "", -1) for row in rows.tolist()])
        page.block(scatter_2d(points, y, names=classes, hover_ids=ids), words + "weak label.")


def _add_contingency(page: Report, scored: Scored) -> None:
    classes = sorted({label for label in scored.labels if label is not None})
    if not classes:
        return
    number = {name: k for k, name in enumerate(classes)}
    y = np.array([number.get(label or "", -1) for label in scored.labels], dtype=np.int64)
    names = np.unique(scored.names)
    table = contingency(y, np.searchsorted(names, scored.names), len(classes), len(names))
    page.section("Labels and groups").figure(
        contingency_figure(table, classes, names.tolist()),
        "Images of each weak label in each group, all images.",
    )


def _add_watch_list(page: Report, scored: Scored) -> None:
    rows = scored.watch_list()
    if not rows:
        return
    table = [
        {
            "file": scored.files[row],
            "label": scored.labels[row],
            "cluster": int(scored.names[row]),
            "its label": scored.majority[row],
            "doubt": f"{scored.doubt[row]:.3f}",
            "confidence": f"{scored.assigned.confidence[row]:.3f}",
        }
        for row in rows[:WATCHED]
    ]
    more = f" The first {WATCHED} of {len(rows):,}." if len(rows) > WATCHED else ""
    page.section("Labels to check").table(table, WATCH + more)


def _add_sheets(
    page: Report, plants: Plants, scored: Scored, component: int, name: int, most: int
) -> None:
    typical = scored.typical_of(component, most)
    odd = scored.odd_of(component, most)
    if not typical:
        return
    page.section(f"Cluster {name}")
    for rows, words in ((typical, "Typical: where the group is densest."), (odd, "Odd in it.")):
        page.block(
            contact_sheet(
                pictures(plants, rows),
                captions=_captions(scored, rows),
                size=TILE,
                columns=5,
                per_group=most,
            ),
            words,
        )


def _add_fallbacks(page: Report, plants: Plants, scored: Scored) -> None:
    rows = np.flatnonzero(scored.fallback).tolist()
    if rows:
        page.section("Without a mask").block(
            contact_sheet(
                pictures(plants, rows[:24]),
                captions=_captions(scored, rows[:24]),
                size=TILE,
                columns=5,
            ),
            f"{len(rows):,} images that were used whole, so that their group means little.",
        )


def _captions(scored: Scored, rows: Sequence[int]) -> list[str]:
    captions = []
    for row in rows:
        parts = [scored.files[row].rpartition("/")[2], scored.labels[row] or ""]
        parts.append(f"ll {scored.assigned.ll[row]:.1f}")
        captions.append(", ".join(filter(None, parts)))
    return captions


def _component_names(scored: Scored) -> list[int | None]:
    """The number of each component that has an image."""
    components = scored.assigned.component
    names: list[int | None] = [None] * (int(components.max()) + 1)
    for component, name in zip(components.tolist(), scored.names.tolist(), strict=True):
        names[component] = name
    return names
