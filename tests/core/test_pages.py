"""Every kind of page in a browser: light, dark, on a phone; nothing asked for, nothing cut off."""

from __future__ import annotations

import numpy as np
import pytest
from browser import BROWSER, browser

from cl_core.commands.own import CompareConfig, Program
from cl_core.report import Report
from cl_core.report.comparison import compare
from cl_core.report.explorer import contact_sheet, explorer_page
from cl_core.report.explorer.plane import scatter_2d
from cl_core.report.figures import metric_table, new_figure, training_curves
from cl_core.runs import Run

LONG = "a very long name of a class or file that nobody would write/but_somebody_does_write.tif"


def history(rate):
    return [
        {"epoch": e, "seconds": 1.0, "train/loss": 5 / (1 + rate * e), "val/dice": rate * e / 30,
         "learning_rate": 0.1, "collapse/effective_rank": 30 + e, "collapse/feature_std": 0.1}
        for e in range(1, 13)
    ]  # fmt: skip


def report(folder):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (24, 24, 3), dtype=np.uint8) for _ in range(12)]
    figure, panels = new_figure(1, 2, height=2.5)
    for panel in panels:
        panel.bar(range(4), rng.random(4), label="accuracy")
        panel.set_ylabel("accuracy (%)")
        panel.legend()
    whole, (panel,) = new_figure()
    whole.colorbar(panel.imshow(rng.random((9, 9))), ax=panel)
    page = Report("Everything", LONG).metrics({"accuracy (%)": "84.0 ± 0.9", LONG: 3})
    page.section("Table").table(
        metric_table([{"method": LONG, **{f"figure_{k}": rng.random() for k in range(12)}}]), LONG
    )
    page.section("Curves").figure(training_curves(history(1)), "By epoch.")
    page.figure(figure, "Bars.").figure(whole, "A map.")
    plane = scatter_2d(rng.normal(size=(300, 2)), np.arange(300) % 7, None, [LONG] * 300)
    page.section("Plane").block(plane, "Embeddings.")
    page.section("Pictures").block(contact_sheet(pictures, captions=[LONG] * 12))
    page.section("Text").text(LONG * 3).configuration({"option": LONG, "trainer": {"devices": 1}})
    page.links({LONG: "elsewhere/report.html"})
    return page.save(folder / "report.html")


def explorer(folder):
    rng = np.random.default_rng(0)
    return explorer_page(
        folder / "explorer.html",
        rng.normal(size=(60, 8)),
        [rng.integers(0, 255, (24, 24, 3), dtype=np.uint8) for _ in range(60)],
        title=LONG,
        labels=np.arange(60) % 3,
        ids=[f"{LONG}{k}" for k in range(60)],
    )


def comparison(folder):
    for name, rate in (("a", 1), (LONG.replace("/", "-"), 2)):
        with Run.create(folder / name, {"rate": rate}) as run:
            for row in history(rate):
                run.history.append(row)
            run.save_metrics({"accuracy": 0.5 + rate / 10, "accuracy_std": 0.02})
    runs = [folder / "a", folder / LONG.replace("/", "-")]
    program = Program(name="cl-core", commands={}, lists={})
    compare(program, CompareConfig(runs=runs, out=folder / "both"))
    return folder / "both/report.html"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("kind", [report, explorer, comparison])
def test_a_page_is_legible_on_screens_of_every_kind(kind, tab, tmp_path):
    path = kind(tmp_path)
    for scheme in ("light", "dark"):
        for width in (1280, 390):
            tab.size(width, 800)
            tab.scheme(scheme)
            tab.visit(path)
            wide = tab.js("document.documentElement.scrollWidth")
            assert wide <= width, f"{kind.__name__} at {width} px is {wide} px wide"
            assert tab.contrasts() == [], scheme
            assert not tab.complaints()
            shade = tab.picture()[2, 2].astype(int).sum() / 3
            assert shade > 200 if scheme == "light" else shade < 60


def test_a_phone_shows_one_panel_a_row(tab, tmp_path):
    path = report(tmp_path)
    tab.size(390, 800)
    tab.visit(path)
    sizes = tab.js(
        "[...document.querySelectorAll('.panels > div')].map(e => e.getBoundingClientRect().width)"
    )
    assert len(sizes) > 5
    assert min(sizes) > 300
    tab.size(1280, 800)
    tab.visit(path)
    tops = tab.js(
        "[...document.querySelector('.panels').children].map(e => e.getBoundingClientRect().top)"
    )
    assert len(set(tops)) < len(tops)
