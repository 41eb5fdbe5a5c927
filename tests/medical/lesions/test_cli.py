"""The program end to end on drawn lesions, and every bad input: a line, and exit code 2."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lesion_files import write_images, write_table
from PIL import Image

from cl_medical.cli import main
from cl_medical.lesions import drawn

SMALL = (
    *("--recipe", "supercon-small", "--image_size", "16", "--backbone", "resnet-4-8"),
    *("--batch_size", "16", "--library", "torchvision"),
    *("--trainer.progress", "false", "--trainer.tensorboard", "false"),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """60 drawn lesions of three classes."""
    folder = tmp_path_factory.mktemp("drawn")
    counts = dict(drawn.COUNTS)
    try:
        drawn.COUNTS.update({"mole": 30, "spot": 18, "melanoma": 12})
        return drawn.draw_lesions(folder, seed=0)
    finally:
        drawn.COUNTS.update(counts)


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory) -> Path:
    """A run of SuperCon on them."""
    out = tmp_path_factory.mktemp("runs") / "supercon"
    options = ("--epochs", "5", "--stage2.epochs", "2", "--stage1.knn_every", "3")
    assert (
        main(["lesions", "train", "--data", str(table), *SMALL, *options, "--out", str(out)]) == 0
    )
    return out


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The line of a command that ends with exit code 2."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    return told


def test_a_table_becomes_a_model_figures_and_predictions(trained, table, capsys):
    record = json.loads((trained / "model.json").read_text())
    assert record["kind"] == "lesion classifier"
    assert record["positive"] == "melanoma"
    assert 0 < record["threshold"] < 1
    assert (trained / "stage1" / "history.csv").is_file()

    assert main(["lesions", "evaluate", "--run", str(trained), "--resamples", "20"]) == 0
    figures = json.loads((trained / "evaluate" / "metrics.json").read_text())["metrics"]
    for name in ("macro_f1", "balanced_accuracy", "auroc", "average_precision", "ece"):
        assert figures[f"{name}_low"] <= figures[name] + 1e-9
        assert figures[name] <= figures[f"{name}_high"] + 1e-9
    assert "melanoma/auroc" in figures
    page = (trained / "evaluate" / "report.html").read_text("utf-8")
    for words in ("no medical device", "Confusion", "Calibration", "Subgroups", "Look-alikes"):
        assert words in page

    out = trained / "predict"
    argv = ["lesions", "predict", "--run", str(trained), "--data", str(table.parent)]
    assert main([*argv, "--heat_maps", "2"]) == 0
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    total = [sum(float(row[f"p_{n}"]) for n in ("melanoma", "mole", "spot")) for row in rows]
    assert np.allclose(total, 1, atol=1e-5)
    for row in rows:
        called = float(row["p_melanoma"]) >= float(row["threshold"]) - 1e-6
        assert row["decision"] == ("melanoma" if called else "not melanoma")
    names = sorted(path.name for path in (out / "heat_maps").iterdir())
    assert len(names) == 2
    assert all("_melanoma_0." in name for name in names)
    assert "no medical device" in capsys.readouterr().out


def test_a_prediction_that_was_killed_goes_on_behind_its_last_whole_row(trained, table, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    argv = ["lesions", "predict", "--run", str(trained), "--data", str(table.parent)]
    argv += ["--batch_size", "16", "--out"]
    assert main([*argv, str(whole)]) == 0
    assert main([*argv, str(killed)]) == 0
    # As a kill leaves it: some rows, the last one cut short, no figures.
    text = (killed / "predictions.csv").read_text()
    lines = text.splitlines(keepends=True)
    (killed / "predictions.csv").unlink()
    (killed / "metrics.json").unlink()
    (killed / "predictions.csv.part").write_text("".join(lines[:21]) + lines[21][:9])
    assert main([*argv, str(killed), "--resume"]) == 0
    assert (killed / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()
    assert not (killed / "predictions.csv.part").exists()


KILLED = """
import os, signal, sys
from cl_medical.cli import main
from cl_medical.lesions.prediction import PredictionTable

write, batches = PredictionTable.write, []

def write_and_die(self, images, p):
    write(self, images, p)
    batches.append(images)
    if len(batches) == 2:
        self._file.write("cut sho")
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

PredictionTable.write = write_and_die
main(sys.argv[1:])
"""


def test_a_prediction_ended_by_sigkill_is_resumed_to_the_same_table(trained, table, tmp_path):
    argv = ["lesions", "predict", "--run", str(trained), "--data", str(table.parent)]
    argv += ["--batch_size", "16", "--out"]
    killed = tmp_path / "killed"
    ended = subprocess.run([sys.executable, "-c", KILLED, *argv, str(killed)], check=False)
    assert ended.returncode == -9
    assert not (killed / "predictions.csv").exists()
    assert (killed / "predictions.csv.part").read_text().count("\n") == 33
    assert main([*argv, str(killed), "--resume"]) == 0
    assert main([*argv, str(tmp_path / "whole")]) == 0
    found = (killed / "predictions.csv").read_text()
    assert found == (tmp_path / "whole" / "predictions.csv").read_text()


def test_a_run_is_not_resumed_on_other_labels(table, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(table.parent, folder)
    argv = ("lesions", "train", "--data", folder / "drawn.csv", *SMALL, "--epochs", "1")
    argv += ("--method", "cross_entropy", "--out", tmp_path / "run")
    assert main([str(word) for word in argv]) == 0
    text = (folder / "drawn.csv").read_text().replace("mole-000.png,mole", "mole-000.png,spot")
    (folder / "drawn.csv").write_text(text)
    assert "are not those that" in refused(capsys, *argv, "--resume")


def test_subgroups_and_images_that_were_trained_on_are_told(trained, table, tmp_path, capsys):
    argv = ["lesions", "evaluate", "--run", str(trained), "--data", str(table)]
    argv += ["--resamples", "5", "--subgroups", "[sex]", "--fewest", "1000"]
    assert main([*argv, "--out", str(tmp_path / "e")]) == 0
    assert "of these images are ones the model was trained or chosen on" in capsys.readouterr().out
    told = refused(capsys, *argv[:-3], "[sexe]", "--out", tmp_path / "f")
    assert "sexe" in told


def test_images_that_were_moved_are_found_again_or_missed_in_a_line(trained, table, tmp_path):
    run, moved = tmp_path / "far" / "away" / "run", tmp_path / "moved"
    shutil.copytree(trained, run)  # its table names images by paths that end nowhere now
    shutil.copytree(table.parent, moved)
    out = tmp_path / "found"
    argv = ["lesions", "evaluate", "--run", str(run), "--resamples", "5", "--out", str(out)]
    assert main(argv) == 2
    assert not out.exists()
    assert main([*argv, "--root", str(moved)]) == 0


def test_stage_2_alone_is_trained_on_a_representation_that_is_there(trained, table, tmp_path):
    out = tmp_path / "balanced"
    argv = ["lesions", "train", "--data", str(table), *SMALL, "--epochs", "5", "--out", str(out)]
    options = ["--stage2.epochs", "2", "--stage2.loss", "balanced"]
    assert main([*argv, *options, "--representation", str(trained)]) == 0
    assert not (out / "stage1").exists()
    assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize("method", ["weighted", "focal", "ldam"])
def test_what_else_could_have_been_trained_is_an_option(method, table, tmp_path):
    out = tmp_path / method
    argv = ["lesions", "train", "--data", str(table), *SMALL, "--epochs", "1", "--method", method]
    assert main([*argv, "--out", str(out)]) == 0
    scale = json.loads((out / "model.json").read_text())["scale"]
    assert scale == (30.0 if method == "ldam" else 1.0)


def test_prepare_writes_a_table_that_train_reads_and_tells_what_is_rare(table, tmp_path, capsys):
    out = tmp_path / "prepared"
    assert main(["lesions", "prepare", "--data", str(table), "--out", str(out)]) == 0
    figures = json.loads((out / "metrics.json").read_text())["metrics"]
    assert figures["images"] == 60
    assert figures["imbalance"] == pytest.approx(30 / 12, abs=0.6)
    with (out / "lesions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    text = table.read_text().splitlines(keepends=True)
    again = table.with_name("again.csv")
    again.write_text("".join([*text, text[5]]))
    argv = ["lesions", "prepare", "--data", str(again), "--out", str(tmp_path / "again")]
    assert main(argv) == 0
    assert "1 rows that repeat an image left out" in capsys.readouterr().out
    again.unlink()
    told = refused(capsys, "lesions", "prepare", "--data", table, "--out", out)
    assert "--overwrite" in told


def test_bad_options_are_told_with_what_to_do(trained, table, tmp_path, capsys):
    train = ("lesions", "train", "--data", table, "--out", tmp_path / "x")
    told = refused(capsys, *train, "--method", "focal", "--epochs", "2")
    assert "at least 3 epochs" in told
    told = refused(capsys, *train, "--epochs", "6", "--stage2.epochs", "6")
    assert "stage2.epochs must be fewer than the 6 epochs" in told
    told = refused(capsys, *train, "--positive", "melanom")
    assert "did you mean melanoma?" in told
    told = refused(capsys, "lesions", "evaluate", "--run", trained, "--threshold", "1")
    assert "threshold is a probability and must lie between 0 and 1" in told
    told = refused(capsys, "lesions", "predict", "--run", trained, "--data", tmp_path / "none")
    assert "does not exist" in told
    told = refused(
        capsys, *train, *SMALL, "--sampling", "stratified", "--batch_size", "4", "--epochs", "8"
    )
    assert "--sampling stratified" in told
    assert not (tmp_path / "x" / "config.yaml").exists()


def test_bad_tables_are_told_with_what_to_do(trained, table, tmp_path, capsys):
    names = [f"i{k}" for k in range(8)]
    write_images(tmp_path / "d", names)
    labels = ["a"] * 4 + ["b"] * 4

    def trying(columns: dict[str, list[str]], *more: str) -> str:
        path = write_table(tmp_path / "d" / "t.csv", columns)
        return refused(capsys, "lesions", "prepare", "--data", path, "--out", tmp_path / "o", *more)

    assert "holds labels" in trying({"image": names})
    assert "names the images" in trying({"who": names, "label": labels})
    assert "have no label" in trying({"image": names, "label": ["nan", *labels[1:]]})
    assert "at least 2 classes" in trying({"image": names, "label": ["a"] * 8})
    assert "are missing, first 'i99'" in trying({"image": ["i99", *names[1:]], "label": labels})
    assert "under two labels" in trying({"image": [*names, "i0"], "label": [*labels, "b"]})
    hot = {"image": names, "MEL": [1, 0, 1, 1, 0, 0, 0, 0], "NV": [0, 0, 1, 0, 1, 1, 1, 1]}
    told = trying(hot)
    assert "2 rows have not exactly one 1 among the columns of the classes" in told
    assert "'i1 (0)', 'i2 (2)'" in told
    lone = {"image": names, "label": labels, "lesion_id": ["l"] * 4 + list("mnop")}
    assert "'a' (1)" in trying(lone)
    (tmp_path / "d" / "i3.jpg").write_bytes(b"no picture")
    assert "1 images cannot be read" in trying({"image": names, "label": labels})
    Image.open(tmp_path / "d" / "i0.jpg").save(tmp_path / "d" / "i3.png")
    (tmp_path / "d" / "i3.jpg").unlink()
    splits = ["train", "train", "val", "test", "train", "train", "val", "test"]
    twins = {"image": names, "label": labels, "split": splits}
    assert "equal pixel by pixel" in trying(twins)
    shared = {**lone, "lesion_id": ["l", "k", "j", "l", *"mnop"], "split": splits}
    assert "shares with train" in trying(shared)
    told = refused(
        capsys, "lesions", "evaluate", "--run", trained, "--data", tmp_path / "d" / "t.csv"
    )
    assert "are not among the 3 classes" in told


def test_pictures_of_every_kind_are_classified(trained, tmp_path):
    generator = np.random.default_rng(0)
    colour = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    deep = generator.integers(0, 65536, (30, 40)).astype(np.uint16)
    colour.convert("L").save(tmp_path / "grey.png")
    colour.convert("CMYK").save(tmp_path / "cmyk.jpg")
    colour.convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    argv = ["lesions", "predict", "--run", str(trained), "--data", str(tmp_path)]
    assert main([*argv, "--out", str(tmp_path / "stop")]) == 2
    assert main([*argv, "--out", str(tmp_path / "skip"), "--on_error", "skip"]) == 0
    with (tmp_path / "skip" / "predictions.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [
            *("alpha.png", "cmyk.jpg", "deep.png", "grey.png")
        ]
