"""The reports of the commands: what each page shows, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from cl_core.evaluation.projection import project_2d
from cl_core.report import Report
from cl_core.report.explorer import explorer_page
from cl_core.report.explorer.contact_sheet import contact_sheet
from cl_core.report.explorer.plane import scatter_2d
from cl_core.report.figures import training_curves
from cl_core.runs import Run
from cl_vision.collapse.spectrum import Spectrum, spectrum_figure, spectrum_table
from cl_vision.data import Images
from cl_vision.evaluation.measures import Measured

if TYPE_CHECKING:
    from cl_core.training import FitResult
    from cl_vision.hcsc.cluster_tree import ClusterTree

__all__ = [
    "add_plane",
    "add_spectra",
    "comparison_page",
    "spectrum_page",
    "training_page",
    "write_explorer",
]

POINTS = 4000
"""Points of a scatter plot; more are a cloud, and a slow page."""

CURVES = (
    "Loss terms, and the gauges of collapse: an effective rank that falls towards 1 or a feature "
    "spread that falls towards 0 means that the representation has collapsed."
)

SPECTRUM = (
    "Natural logarithms of the singular values of the covariance of unit-length features, falling: "
    "where a line drops, the encoder leaves directions of its space unused. r is the "
    "representation, which is used; z the embedding behind the projector, which the loss sees; "
    "r[d0:] the channels that DirectCLR's loss does not see."
)

PROTOCOL = (
    "All figures are of images that the probes did not learn from. ami, nmi, ari and purity: "
    "k-means on the test images against their classes. Few labels: mean and spread over random "
    "draws of a share of each class."
)


def training_page(
    run: Run,
    name: str,
    images: Images,
    result: FitResult,
    r: Float[Tensor, "n d"],
    spectra: Sequence[Spectrum],
    metrics: Mapping[str, float],
    *,
    shown: Images,
    notes: Sequence[str],
    tree: ClusterTree | None,
) -> None:
    """Write what a training did: figures, curves, spectra, clusters, the images on a plane.

    Args:
        run: Where to.
        name: Of the method.
        images: Those trained on.
        result: Of the training.
        r: Representations of ``shown``.
        spectra: Of the representation's spaces.
        metrics: Figures.
        shown: Images of the plane.
        notes: What the user should know.
        tree: HCSC's clusters.
    """
    from cl_vision.collapse.monitor import FILE, monitor_figure, read_snapshots

    options = run.config
    page = Report(name, options["data"])
    page.metrics({**metrics, "epochs": result.epochs, "seconds": round(result.seconds, 1)})
    page.section("Data").text("\n\n".join([*images.summary(), *notes]))
    page.section("Training").figure(training_curves(result.history), CURVES)
    add_spectra(page, spectra)
    if (run.path / FILE).is_file():
        page.figure(monitor_figure(read_snapshots(run.path / FILE)), "The spectra over the epochs.")
    if tree is not None:
        _add_clusters(page, tree, images)
    add_plane(page, shown, r)
    page.section("Options").configuration(options)
    page.save(run.output("report.html"))


def comparison_page(
    run: Run,
    rows: Sequence[Mapping[str, object]],
    measured: Sequence[Measured],
    test: Images,
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    notes: Sequence[str],
    title: str = "Evaluation",
    words: str = "",
) -> None:
    """Write how good encoders are: the table of scores, then each one's plane and curves.

    Args:
        run: Where to.
        rows: The table.
        measured: Each encoder's figures and test features.
        test: The images they were taken on.
        histories: Rows of each run's ``history.csv``.
        notes: On the data.
        title: Of the page.
        words: What to make of it.
    """
    page = Report(title, test.table.source)
    scores = page.section("Scores").table(rows, PROTOCOL)
    if words:
        scores.text(words)
    page.section("Data").text("\n\n".join(notes))
    for one in measured:
        add_plane(page, test, one.features, one.name)
    for name, history in histories.items():
        if history:
            page.section(f"Training {name}").figure(training_curves(history), CURVES)
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def spectrum_page(
    run: Run, images: Images, measured: Sequence[Spectrum], *, relative: bool
) -> None:
    """Write the spectra of several encoders, in one plot and in a table."""
    page = Report("Collapse spectrum", images.table.source)
    add_spectra(page, measured, relative=relative)
    page.section("Data").text("\n\n".join(images.summary()))
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))


def add_spectra(page: Report, measured: Sequence[Spectrum], *, relative: bool = False) -> None:
    """Add a plot of spectra and its table to a page."""
    page.section("Collapse spectrum").figure(
        spectrum_figure(measured, relative=relative), SPECTRUM
    ).table(spectrum_table(measured))
    for note in filter(None, (one.note for one in measured)):
        page.text(note)


def add_plane(page: Report, images: Images, r: Float[Tensor, "n d"], name: str = "") -> None:
    """Add representations on the plane, coloured by class, to a page."""
    rows = torch.arange(len(r))
    if len(rows) > POINTS:
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:POINTS]
    y = images.labels[rows]
    labelled = bool((y >= 0).any())
    page.section(f"Representation {name}".strip()).block(
        scatter_2d(
            project_2d(r[rows]),
            y if labelled else None,
            names=list(images.table.classes),
            hover_ids=[images.table.name(row) for row in rows.tolist()],
        ),
        f"The two directions of largest variance of {len(rows):,} images"
        + (", coloured by class; training never saw the classes." if labelled else "."),
    )


def write_explorer(run: Run, images: Images, r: Float[Tensor, "n d"], *, title: str) -> None:
    """Write a page to walk about in the representations, with each one's picture.

    Of more than :data:`POINTS` images it shows that many at random.

    Args:
        run: Where to, as ``explorer.html``.
        images: Those represented.
        r: Their representations.
        title: Of the page.
    """
    if not run.writes:
        return
    rows = torch.arange(len(r))
    if len(rows) > POINTS:
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:POINTS]
    shown = images.select(rows.tolist())
    pictures: Any = shown.table
    if not shown.has_files:
        dataset: Any = shown.dataset
        pictures = [dataset[row].views[0] for row in range(len(shown))]
    labelled = bool((shown.labels >= 0).any())
    explorer_page(
        run.output("explorer.html"),
        r[rows],
        pictures,
        title=title,
        subtitle=images.summary()[0],
        labels=shown.labels if labelled else None,
        classes=shown.table.classes if labelled else None,
        ids=shown.names,
    )


def _add_clusters(page: Report, tree: ClusterTree, images: Images) -> None:
    levels = [
        {
            "level": number,
            "clusters": len(sizes),
            "smallest": int(sizes.min()),
            "largest": int(sizes.max()),
            "empty": int((sizes == 0).sum()),
            "concentration": f"{float(phi.min()):.3f} to {float(phi.max()):.3f}",
        }
        for number, (sizes, phi) in enumerate(zip(tree.sizes, tree.phi, strict=True), start=1)
    ]
    page.section("Clusters").table(levels, "Sizes in images; level 1 is the finest.")
    if not images.has_files:
        return
    top, sizes = tree.nearest[-1], tree.sizes[-1]
    largest = sizes.argsort(descending=True)[:20].tolist()
    rows = [(cluster, row) for cluster in largest for row in top[cluster].tolist()]
    page.block(
        contact_sheet(
            [images.table.files[row] for _, row in rows],
            captions=[images.table.name(row) for _, row in rows],
            groups=[cluster for cluster, _ in rows],
            size=72,
        ),
        "Images nearest to the prototypes of the coarsest level.",
    )
