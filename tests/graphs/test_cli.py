"""The program end to end, on files made here, and each mistake a user can make."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file

from cl_core.runs import Run
from cl_graphs.cli import main

SMALL = ("--hidden", "16", "--projection", "16", "--subgraph_size", "60", "--epochs", "3")
QUIET = ("--trainer.progress", "false", "--trainer.tensorboard", "false")


def write_graph(folder: Path, *, seed: int = 0) -> tuple[str, ...]:
    """Two communities of 50 nodes with features that lean towards their side; its options."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    y = np.arange(100) // 50
    lean = np.where(np.arange(12)[None] // 6 == y[:, None], 0.5, 0.1)
    x = (rng.random((100, 12)) < lean).astype(np.float32)
    near = rng.random((100, 100)) < np.where(y[:, None] == y, 0.1, 0.02)
    pairs = np.argwhere(np.triu(near, 1)).tolist()
    with (folder / "edges.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("source", "target"), *pairs])
    np.save(folder / "x.npy", x)
    np.savetxt(folder / "y.txt", y, fmt="%d")
    names = ("edges.csv", "x.npy", "y.txt")
    options = ("--data", "--features", "--labels")
    return tuple(word for o, n in zip(options, names, strict=True) for word in (o, str(folder / n)))


def write_collection(folder: Path, count: int = 40) -> str:
    """Rings (class 0) and stars (class 1) in the layout of TU Dortmund."""
    folder.mkdir()
    edges, indicator, labels = [], [], []
    for g in range(count):
        first, size = len(indicator) + 1, 6 + g % 3
        ring = [(first + i, first + (i + 1) % size) for i in range(size)]
        star = [(first, first + i) for i in range(1, size)]
        edges += star if g % 2 else ring
        indicator += [g + 1] * size
        labels.append(g % 2)
    lines = {"A": [f"{a}, {b}" for a, b in edges + [(b, a) for a, b in edges]]}
    lines |= {"graph_indicator": indicator, "graph_labels": labels}
    for name, rows in lines.items():
        (folder / f"SHAPES_{name}.txt").write_text("".join(f"{row}\n" for row in rows))
    return str(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    options = write_graph(folder / "graph")
    for method in ("ariel", "grace"):
        words = ["--method", method, "--out", str(folder / method)]
        assert main(["pretrain", *options, *SMALL, *QUIET, *words]) == 0
    return {"ariel": folder / "ariel", "grace": folder / "grace", "graph": folder / "graph"}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def history_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "history.csv").read_text().splitlines()))


def losses(run: Path) -> list[str]:
    return [row["train/loss"] for row in history_of(run)]


def metrics_of(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())["metrics"]


def test_pretrain_leaves_a_complete_run(trained):
    run = trained["ariel"]
    history = history_of(run)
    assert [int(float(row["epoch"])) for row in history] == [1, 2, 3]
    assert all(float(row["train/adversarial"]) > 0 for row in history)
    assert metrics_of(run)["train/loss"] == pytest.approx(float(history[-1]["train/loss"]))
    card = json.loads((run / "model.json").read_text())
    assert (card["kind"], card["in_features"], card["hidden"]) == ("node encoder", 12, 16)
    assert weights(run)["encoder.conv.0.weight"].shape == (12, 32)
    assert (run / "checkpoints" / "last.ckpt").is_file()
    page = (run / "report.html").read_text()
    assert "ARIEL" in page
    assert 'src="http' not in page


def test_grace_runs_no_adversary(trained):
    assert "train/adversarial" not in history_of(trained["grace"])[0]


def test_the_recorded_configuration_repeats_the_run(trained, tmp_path):
    config = trained["ariel"] / "config.yaml"
    assert main(["pretrain", "--config", str(config), "--out", str(tmp_path / "again")]) == 0
    first, again = (weights(run) for run in (trained["ariel"], tmp_path / "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_evaluate_compares_the_run_with_its_baseline_and_raw_features(trained, tmp_path, capsys):
    out = tmp_path / "scores"
    words = ["--run", str(trained["ariel"]), "--baseline", str(trained["grace"]), "--splits", "3"]
    assert main(["evaluate", *words, "--out", str(out)]) == 0
    metrics = metrics_of(out)
    for name in ("accuracy", "grace/accuracy", "raw_features/accuracy"):
        assert 0.5 < metrics[name] <= 1, name
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("ARIEL", "GRACE", "raw features", str(out)))
    assert f"{100 * metrics['accuracy']:.1f}" in shown


def test_embed_writes_a_row_per_node_with_its_id(trained, tmp_path):
    for kind in ("parquet", "npy"):
        out = str(tmp_path / kind)
        assert main(["embed", "--run", str(trained["ariel"]), "--out", out, "--format", kind]) == 0
    table = pyarrow.parquet.read_table(tmp_path / "parquet" / "embeddings.parquet")
    assert table.column_names == ["id", *(f"e{k}" for k in range(16))]
    assert table["id"].to_pylist() == list(range(100))
    array = np.load(tmp_path / "npy" / "embeddings.npy", allow_pickle=False)
    assert array.shape == (100, 16)
    np.testing.assert_array_equal(array[:, 3], table["e3"].to_numpy())
    assert (tmp_path / "npy" / "ids.txt").read_text().split() == [str(i) for i in range(100)]


def test_embed_takes_another_graph_with_the_same_features(trained, tmp_path):
    other = write_graph(tmp_path / "other", seed=1)
    out = tmp_path / "out"
    assert main(["embed", "--run", str(trained["ariel"]), *other, "--out", str(out)]) == 0
    own = tmp_path / "own"
    assert main(["embed", "--run", str(trained["ariel"]), "--out", str(own)]) == 0
    one, two = (pyarrow.parquet.read_table(p / "embeddings.parquet")["e0"] for p in (out, own))
    assert one != two


def test_robustness_measures_every_perturbation_of_both_runs(trained, tmp_path):
    out = tmp_path / "robust"
    words = ["--run", str(trained["ariel"]), "--baseline", str(trained["grace"]), "--splits", "2"]
    words += ["--budgets", "[0.1, 0.5]", "--radii", "[0.04]", "--out", str(out)]
    assert main(["robustness", *words]) == 0
    metrics = metrics_of(out)
    kinds = {"random_edges": 2, "dice": 2, "feature_noise": 1}
    kinds |= {"pgd_structure": 2, "pgd_features": 1, "pgd_both": 1, "clean": 1}
    names = [name for name in metrics if name.endswith("/accuracy")]
    for owner in ("", "grace/"):
        for kind, count in kinds.items():
            assert sum(name.startswith(f"{owner}{kind}/") for name in names) == count, (owner, kind)
    assert metrics["dice/0.5/accuracy"] < metrics["clean/0/accuracy"]
    assert "PGD features" in (out / "report.html").read_text()


def test_a_collection_goes_the_whole_way(tmp_path, capsys):
    data, run = write_collection(tmp_path / "SHAPES"), tmp_path / "run"
    options = ["--data", data, "--batch_size", "16", "--epochs", "2", *QUIET, "--out", str(run)]
    assert main(["pretrain", *options, "--collection.hidden", "8"]) == 0
    assert main(["evaluate", "--run", str(run), "--splits", "10"]) == 0
    assert metrics_of(run / "evaluate")["accuracy"] > 0.8  # degrees alone tell rings from stars
    assert main(["embed", "--run", str(run)]) == 0
    assert pyarrow.parquet.read_table(run / "embed" / "embeddings.parquet").shape == (40, 25)


@pytest.mark.slow
def test_the_demo_needs_nothing_and_can_be_repeated(tmp_path, capsys):
    for name in ("ariel", "grace", "report", "robustness"):  # of an earlier demo
        with Run.create(tmp_path / "demo" / name, {}) as run:
            run.save_metrics({})
    words = ["demo", "--out", str(tmp_path / "demo"), "--epochs", "2", "--splits", "1", *QUIET]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("ARIEL", "GRACE", "raw features", "PGD structure"))
    for page in ("report", "robustness"):
        path = tmp_path / "demo" / page / "report.html"
        assert path.is_file()
        assert str(path) in shown


def test_results_are_not_overwritten_unless_asked(trained, tmp_path, capsys):
    words = ["embed", "--run", str(trained["ariel"]), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_a_killed_run_resumed_ends_as_if_never_stopped(tmp_path):
    options = write_graph(tmp_path / "graph")
    words = ["pretrain", *options, *SMALL, *QUIET, "--trainer.checkpoint_every", "1"]
    words += ["--activation", "rrelu"]  # draws noise from the global generator
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = [sys.executable, "-m", "cl_graphs.cli", *words, "--epochs", "2000"]
    draw = random.Random(0)
    step, moment = draw.randint(1, 20), draw.uniform(0, 0.1)  # which step, and when within it
    process = subprocess.Popen([*program, "--out", str(killed)], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (
        (killed / "history.csv").exists() and len(losses(killed)) >= step
    ):
        time.sleep(0.01)
    time.sleep(moment)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(losses(killed))
    assert step <= done < 2000
    words += ["--epochs", str(done + 5)]
    assert main([*words, "--out", str(killed), "--resume"]) == 0
    assert main([*words, "--out", str(whole)]) == 0
    assert losses(killed) == losses(whole)
    assert len(losses(whole)) == done + 5
    first, again = weights(killed), weights(whole)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("recipe", ["cora", "citeseer", "computers", "photo", "cs", "physics"])
def test_every_recipe_resolves(recipe, capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--data", "x", "--out", "y", "--recipe", recipe, "--print_config"])
    options = yaml.safe_load(capsys.readouterr().out)
    assert options["recipe"] == recipe
    assert options["epochs"] >= 200
    assert options["attack_budget"] == 0.2


def break_edges(folder, line):
    (folder / "edges.csv").write_text(f"source,target\n0,1\n1,2\n{line}\n")


def break_features(folder):
    x = np.load(folder / "x.npy")
    x[3, 2] = np.nan
    np.save(folder / "x.npy", x)


MISTAKES = {
    "unknown name": (None, ["--data", "Coraa"], ["Coraa", "Cora"]),
    "missing file": (None, ["--data", "nowhere/edges.csv"], ["nowhere/edges.csv"]),
    "id outside the features": (lambda f: break_edges(f, "5,100"), [], ["100", "edges.csv"]),
    "negative id": (lambda f: break_edges(f, "-1,4"), [], ["-1", "edges.csv"]),
    "NaN feature": (break_features, [], ["x.npy", "NaN"]),
    "labels of wrong length": (
        lambda f: (f / "y.txt").write_text("0\n1\n"),
        [],
        ["y.txt", "2", "100"],
    ),
    "no edges": (lambda f: (f / "edges.csv").write_text("source,target\n"), [], ["edges.csv"]),
    "unknown recipe": (None, ["--recipe", "coral"], ["coral", "cora"]),
    "unknown option": (None, ["--epoch", "3"], ["--epoch"]),
    "bad number": (None, ["--temperature", "-1"], ["temperature", "positive"]),
    "missing root": (None, ["--data", "Cora"], ["Cora", "--root"]),
    "unknown sampler": (None, ["--sampler", "neighbour"], ["sampler", "neighbor"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_exit_code_two(mistake, tmp_path, capsys):
    spoil, extra, words = MISTAKES[mistake]
    options = dict(zip(*[iter(write_graph(tmp_path / "graph"))] * 2, strict=True))
    if spoil is not None:
        spoil(tmp_path / "graph")
    if "--data" in extra:
        options = {}
    flat = [word for pair in options.items() for word in pair]
    assert main(["pretrain", *flat, *QUIET, "--out", str(tmp_path / "out"), *extra]) == 2
    err = capsys.readouterr().err
    assert err.startswith("cl-graphs: ")
    assert err.count("\n") == 1, err
    assert all(word in err for word in words), err
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_repeated_edges_and_loops_are_cleaned_and_told(tmp_path, capsys):
    options = write_graph(tmp_path / "graph")
    with (tmp_path / "graph" / "edges.csv").open("a") as file:
        file.write("0,0\n7,3\n7,3\n")
    assert main(["pretrain", *options, *SMALL, *QUIET, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "1 self loop dropped" in shown
    assert "repeated edge" in shown


def test_a_graph_with_isolated_nodes_and_two_parts_works(tmp_path):
    options = write_graph(tmp_path / "graph")
    (tmp_path / "graph" / "edges.csv").write_text("source,target\n0,1\n1,2\n60,61\n61,62\n")
    run = tmp_path / "out"
    assert main(["pretrain", *options, *SMALL, *QUIET, "--out", str(run)]) == 0
    assert main(["embed", "--run", str(run), "--format", "npy"]) == 0
    assert np.isfinite(np.load(run / "embed" / "embeddings.npy")).all()


def test_a_single_class_is_refused_where_labels_are_needed(trained, tmp_path, capsys):
    labels = tmp_path / "same.txt"
    labels.write_text("0\n" * 100)
    words = ["--run", str(trained["ariel"]), "--labels", str(labels), "--out", str(tmp_path / "o")]
    for verb in ("evaluate", "robustness"):
        assert main([verb, *words]) == 2
        assert "at least 2 classes" in capsys.readouterr().err


def test_a_folder_in_use_and_a_folder_of_others_are_refused(trained, tmp_path, capsys):
    options = write_graph(tmp_path / "graph")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not lose")
    for extra in ([], ["--overwrite"], ["--resume"]):
        words = ["pretrain", *options, *SMALL, *QUIET, "--out", str(tmp_path / "mine"), *extra]
        assert main(words) == 2
        assert str(tmp_path / "mine") in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not lose"


def test_a_run_of_another_kind_or_width_is_refused(trained, tmp_path, capsys):
    collection = write_collection(tmp_path / "SHAPES")
    assert main(["embed", "--run", str(trained["ariel"]), "--data", collection]) == 2
    assert "node encoder" in capsys.readouterr().err
    other = write_graph(tmp_path / "other")
    np.save(tmp_path / "other" / "x.npy", np.ones((100, 5), np.float32))
    assert main(["embed", "--run", str(trained["ariel"]), *other]) == 2
    assert "5 features, but the model was trained on 12" in capsys.readouterr().err
    assert main(["embed", "--run", str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err
