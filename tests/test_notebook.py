"""From Python and notebooks: an outcome shows itself, a model is loaded, a bar is drawn."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import cl_graphs
from cl_core.commands.face import Verb
from cl_core.commands.outcome import Outcome, text_table
from cl_core.config import TrainerConfig
from cl_core.errors import InputError
from cl_core.runs import Run

SMALL = {"epochs": 2, "hidden": 8, "projection": 8}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    trainer = TrainerConfig(progress=False, tensorboard=False)
    out = tmp_path_factory.mktemp("runs") / "digits"
    return cl_graphs.pretrain(
        cl_graphs.PretrainConfig(data="digits", out=out, trainer=trainer, **SMALL)
    )


def test_an_outcome_shows_tables_and_links_and_escapes_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a & b").mkdir()
    (tmp_path / "a & b/report.html").touch()
    lines = ["5 <nodes>", *text_table([{"model": "<b>", "accuracy": "84.0"}])]
    shown = Outcome(out=tmp_path / "a & b", metrics={}, lines=lines)._repr_html_()
    assert "<p>5 &lt;nodes&gt;</p>" in shown
    assert "<thead><tr><th>model</th><th>accuracy</th></tr></thead>" in shown
    assert "<tr><td>&lt;b&gt;</td><td>84.0</td></tr>" in shown
    assert 'href="a%20%26%20b/report.html"' in shown


def test_a_frame_has_a_row_a_model_and_a_column_a_figure(tmp_path):
    pytest.importorskip("pandas")
    metrics = {"accuracy": 0.8, "grace/accuracy": 0.7, "grace/auroc": None}
    frame = Outcome(out=tmp_path / "ariel", metrics=metrics).frame()
    assert frame.loc["ariel", "accuracy"] == 0.8
    assert frame.loc["grace", "accuracy"] == 0.7
    assert np.isnan(frame.loc["grace", "auroc"])
    assert np.isnan(frame.loc["ariel", "auroc"])


def test_without_pandas_a_frame_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        Outcome(out=tmp_path, metrics={}).frame()


def test_an_outcome_gives_its_model_and_load_the_same(outcome):
    graph = cl_graphs.load_graph("digits")
    vectors = outcome.model.embed(graph)
    assert vectors.shape[0] == 1797
    assert torch.equal(vectors, cl_graphs.load(str(outcome.out)).embed(graph))
    assert not outcome.model.training


def test_without_a_model_both_say_so(tmp_path, outcome):
    with Run.create(tmp_path / "run", {}) as run:
        run.save_metrics({})
    with pytest.raises(InputError, match=r"--run .* has no model yet"):
        cl_graphs.load(tmp_path / "run")
    with pytest.raises(InputError, match="has no model yet"):
        _ = Outcome(out=tmp_path / "run", metrics={}).model
    import cl_vision

    with pytest.raises(InputError, match="kind 'node encoder', not 'image encoder with proj"):
        cl_vision.load(outcome.out)


@pytest.mark.parametrize(
    "package", ["graphs", "vision", "remote_sensing", "agriculture", "medical.lesions"]
)
def test_a_verb_can_be_had_for_nothing(package):
    verb = "train" if package == "medical.lesions" else "pretrain"
    code = (
        f"import sys, cl_{package} as package; verb = package.{verb}\n"
        "print('torch' in sys.modules, verb, verb.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"False <verb cl_{package}.pipeline.{verb}> {verb}\n", done.stderr


def test_a_verb_is_the_function_of_its_pipeline():
    from cl_graphs import pipeline

    verb = cl_graphs.pretrain
    assert isinstance(verb, Verb)
    assert verb.__wrapped__ is pipeline.pretrain
    assert inspect.signature(verb) == inspect.signature(pipeline.pretrain)
    assert verb.__doc__ == pipeline.pretrain.__doc__
    assert pickle.loads(pickle.dumps(verb)).__wrapped__ is pipeline.pretrain
    assert "load" in dir(cl_graphs)
    assert "pretrain" in cl_graphs.__all__


@pytest.mark.skipif(find_spec("nbclient") is None, reason="needs the group notebook")
def test_a_notebook_draws_a_bar_and_shows_the_outcome(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    cells = [
        "import cl_graphs",
        "from cl_graphs import PretrainConfig, pretrain\n"
        f"done = pretrain(PretrainConfig(data='digits', out='run', **{SMALL!r}))\n"
        "done",
        "done.model.name",
    ]  # fmt: skip
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for output in book.cells[1].outputs]
    html = [data["text/html"] for data in shown if "text/html" in data]
    assert any('<progress value="2" max="2"></progress> epoch 2/2' in text for text in html), html
    assert any('href="run/report.html"' in text for text in html), html
    assert "'ARIEL'" in book.cells[2].outputs[0]["data"]["text/plain"]
    assert Path(tmp_path / "run/report.html").is_file()
