"""Runs side by side: the verb ``compare``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cl_core.commands.own import CompareConfig, Program
from cl_core.errors import InputError
from cl_core.report.comparison import compare
from cl_core.report.figures import MISSING, figure_rows, overlaid_curves
from cl_core.runs import Run

PROGRAM = Program(name="cl-core", commands={}, lists={})


def make(place: Path, metrics: dict[str, float], losses: list[float], **options) -> Path:
    with Run.create(place, {"temperature": 0.5, "epochs": 3, **options}) as run:
        for epoch, loss in enumerate(losses, start=1):
            run.history.append({"epoch": epoch, "seconds": 1.0, "train/loss": loss})
        run.save_metrics(metrics)
        run.output("report.html").write_text("<p>page</p>")
    return place


@pytest.fixture
def runs(tmp_path):
    first = make(
        tmp_path / "a/run", {"accuracy": 0.84, "accuracy_std": 0.01, "loss": 1.5}, [3, 2, 1]
    )
    second = make(
        tmp_path / "b/run", {"accuracy": 0.8, "accuracy_low": 0.7, "accuracy_high": 0.9}, [4, 3],
        temperature=0.1, evil="<script>",
    )  # fmt: skip
    return first, second


def test_figures_stand_side_by_side_with_their_spread(runs, tmp_path):
    outcome = compare(PROGRAM, CompareConfig(runs=runs, out=tmp_path / "both"))
    assert outcome.metrics["a/run/accuracy"] == 0.84
    assert outcome.metrics["b/run/accuracy_low"] == 0.7
    assert outcome.lines == [
        "figure             a/run                b/run",
        "accuracy (%)  84.0 ± 1.0  80.0 (70.0 to 90.0)",
        f"loss               1.500                    {MISSING}",
    ]
    page = (tmp_path / "both/report.html").read_text()
    assert '<a href="../a/run/report.html">' in page
    assert page.count("<figure") == 2
    assert "&lt;script&gt;" in page
    options = re.findall(r"<tr><td[^>]*>(\w+)</td>", page)
    assert "temperature" in options
    assert "evil" in options
    assert "epochs" not in options  # the same in both


def test_curves_lie_over_each_other():
    histories = {
        "one": [{"epoch": 1, "train/loss": 2.0}, {"epoch": 2, "train/loss": 1.0}],
        "two": [{"epoch": 1, "train/loss": 3.0, "val/dice": 0.5}],
    }
    panels = {panel.get_ylabel(): panel for panel in overlaid_curves(histories).axes}
    loss = panels["train/loss"]
    assert [line.get_label() for line in loss.lines] == ["one", "two"]
    assert [list(line.get_ydata()) for line in loss.lines] == [[2.0, 1.0], [3.0]]
    assert [line.get_label() for line in panels["val/dice"].lines] == ["two"]
    with pytest.raises(ValueError, match="no number"):
        overlaid_curves({"one": []})


def test_a_figure_that_one_run_lacks_is_a_dash():
    rows = figure_rows({"a": {"auroc": 0.5}, "b": {"auroc": None}})
    assert rows == [{"figure": "AUROC", "a": "0.500", "b": MISSING}]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a/run", "a/run/../run"], "the same run is given twice"),
        (["a/run", "nowhere"], "not found"),
        (["empty", "empty2"], "no run has got as far as a figure"),
    ],
)
def test_what_cannot_be_compared_is_told(runs, tmp_path, names, told):
    for name in ("empty", "empty2"):
        with Run.create(tmp_path / name, {}):
            pass
    with pytest.raises(InputError, match=told):
        compare(PROGRAM, CompareConfig(runs=[tmp_path / n for n in names], out=tmp_path / "both"))
    assert not (tmp_path / "both").exists()


def test_every_program_compares(runs, tmp_path):
    program = Path(sys.prefix) / "bin" / "cl-vision"
    words = ["compare", *map(str, runs), "--out", str(tmp_path / "both")]
    done = subprocess.run([program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "84.0 ± 1.0" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "both/report.html")
    again = subprocess.run([program, *words], capture_output=True, text=True)
    assert again.returncode == 2
    assert "holds a run" in again.stderr
