from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder

from cl_vision.cli import main
from cl_vision.condensation.condensed_set import load_condensed, picture_pixels

QUIET = ["--trainer.tensorboard", "false", "--trainer.accelerator", "cpu"]
TINY = ["condense", "--data", "digits", "--method", "dsac", "--preset", "cpu-smoke", *QUIET]
TINY += ["--width", "4", "--depth", "1", "--inner_loop", "2", "--outer_loop", "3"]
TINY += ["--real_batch", "4", "--trainer.checkpoint_every", "1"]


def images(out) -> torch.Tensor:
    return load_file(out / "model.safetensors")["images"]


def metrics(out) -> dict[str, float]:
    return json.loads((out / "metrics.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("condensed") / "whole"
    assert main([*TINY, "--out", str(out)]) == 0
    return out


def test_what_a_run_leaves(whole):
    state = load_file(whole / "model.safetensors")
    assert not torch.equal(state["images"], state["start"])
    with np.load(whole / "condensed.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], state["images"].numpy())
        np.testing.assert_array_equal(arrays["labels"], np.arange(10))
        assert [str(name) for name in arrays["classes"]] == [str(k) for k in range(10)]
        mean, std = (tuple(float(v) for v in arrays[name]) for name in ("mean", "std"))
    pictures = ImageFolder(whole / "condensed")
    assert [label for _, label in pictures] == list(range(10))
    pixels = picture_pixels(state["images"], mean, std)
    for row, (path, _) in enumerate(pictures.samples):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels[row, 0].numpy())
    with (whole / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert {"train/loss", "matching/averaged"} <= set(rows[0])
    # outer_warmup is a quarter of 3, that is 1: class by class first, then all classes at once.
    assert [float(row["matching/contrastive_share"]) for row in rows] == [0, 1, 1]
    assert float(rows[2]["train/loss"]) == float(rows[2]["matching/averaged"])
    assert float(rows[0]["train/loss"]) > float(rows[0]["matching/averaged"])
    assert set(metrics(whole)) == {"train/loss", "matching/averaged", "clipped_share", "outer"}
    x = state["images"] * std[0] + mean[0]
    assert metrics(whole)["clipped_share"] == pytest.approx(((x < 0) | (x > 1)).float().mean())
    assert (whole / "grid.png").stat().st_size > 1000
    page = (whole / "report.html").read_text()
    assert "estimate:" in page
    assert "after outer iterations" in page


def test_the_estimate_comes_first_and_progress_tells_the_rest(tmp_path, capsys):
    assert main([*TINY, "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("options left open:")
    assert "network_epochs 5, outer_warmup 1, inner_warmup 2" in lines[0]
    assert "MB of memory" in lines[1]
    assert "for 3" in lines[1]
    assert lines[2].startswith("epoch 1/3")  # and the time left, where there is a second of it


def test_a_stopped_and_resumed_run_equals_the_uninterrupted_one(tmp_path, whole):
    parts = tmp_path / "parts"
    assert main([*TINY, "--out", str(parts), "--time_budget", "0.001"]) == 0
    assert metrics(parts)["outer"] == 1
    assert len(ImageFolder(parts / "condensed")) == 10  # valid results of what was done
    assert main([*TINY, "--out", str(parts), "--resume"]) == 0
    assert torch.equal(images(whole), images(parts))


def test_a_killed_run_resumed_ends_as_if_never_killed(tmp_path):
    own = [*TINY, "--outer_loop", "12", "--trainer.progress", "false"]
    killed, never = tmp_path / "killed", tmp_path / "never"
    program = [sys.executable, "-m", "cl_vision.cli", *own, "--out", str(killed)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(program, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((killed / "checkpoints").glob("last*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists()
    assert main([*own, "--out", str(killed), "--resume"]) == 0
    assert main([*own, "--out", str(never)]) == 0
    assert torch.equal(images(never), images(killed))


@pytest.mark.parametrize("method", ["dc", "dcc"])
def test_chunks_change_rounding_only(tmp_path, method):
    own = [*TINY, "--method", method, "--trainer.precision", "64-true", "--ipc", "3"]
    own += ["--outer_loop", "1", "--outer_warmup", "0", "--trainer.progress", "false"]
    one, other = tmp_path / "whole", tmp_path / "chunks"
    assert main([*own, "--out", str(one), "--real_chunk", "99", "--syn_chunk", "99"]) == 0
    assert main([*own, "--out", str(other), "--real_chunk", "3", "--syn_chunk", "2"]) == 0
    a, b = images(one), images(other)
    assert not torch.equal(a, load_file(one / "model.safetensors")["start"])
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)  # stored as float32


@pytest.mark.parametrize("initialise", ["noise", "kmeans"])
def test_other_starts_and_the_range_of_pictures(tmp_path, initialise):
    out = tmp_path / "out"
    assert main([*TINY, "--out", str(out), "--initialise", initialise, "--clamp", "true"]) == 0
    assert metrics(out)["clipped_share"] < 1e-3  # rounding of the bounds
    found = load_condensed(out)
    spread = found.start.std()
    assert (0.9 < spread < 1.1) if initialise == "noise" else found.start.unique().numel() <= 17


def test_a_condensed_folder_is_a_data_set_like_any_other(tmp_path):
    made, encoder = tmp_path / "made", tmp_path / "encoder"
    assert main([*TINY, "--out", str(made), "--ipc", "4", "--outer_loop", "1"]) == 0
    data = ["--data", str(made / "condensed")]
    assert len(ImageFolder(made / "condensed")) == 40
    again = ["condense", *data, *TINY[3:], "--out", str(tmp_path / "again"), "--ipc", "3"]
    assert main(again) == 0
    options = ["--method", "simclr", "--backbone", "resnet-4-8", "--image_size", "8", "--epochs"]
    options += ["1", "--batch_size", "8", "--channels", "1"]
    assert main(["pretrain", *data, *options, "--out", str(encoder), *QUIET]) == 0
    probe = ["--run", str(encoder), "--few_labels", "none", "--out", str(tmp_path / "measured")]
    assert main(["evaluate", *data, *probe]) == 0
    assert 0 <= metrics(tmp_path / "measured")["knn_accuracy"] <= 1


def test_assessment_tells_every_set(tmp_path, whole, capsys):
    other = tmp_path / "other"
    assert main([*TINY, "--method", "dc", "--out", str(other), "--outer_loop", "1"]) == 0
    out = tmp_path / "assessed"
    argv = ["assess", "--run", f"[{whole}, {other}]", "--out", str(out), "--epochs", "4"]
    argv += ["--augmented_epochs", "2", "--networks", "2", "--sets", "2"]
    assert main([*argv, "--architectures", "[convnet, mlp]"]) == 0
    found = metrics(out)
    sets = ("condensed", "condensed/png", "dc", "random", "herding", "kmeans", "nearest", "full")
    for name in sets:
        for figure in ("accuracy", "accuracy_std", "augmented/accuracy"):
            assert f"{name}/{figure}" in found
    assert "mlp/condensed/accuracy" in found
    assert 0 < found["clipped_share"] < 1
    assert found["full/accuracy"] > found["random/accuracy"]
    table = (out / "table.md").read_text()
    assert table.count("\n") == 2 + len(sets)
    assert "convnet augmented" in table
    assert "8-bit" in (out / "report.html").read_text()
    assert main([*argv, "--overwrite", "--augmentation", "crop_scale_rotate"]) == 0
    assert metrics(out)["random/accuracy"] == found["random/accuracy"]
    assert metrics(out)["random/augmented/accuracy"] != found["random/augmented/accuracy"]


@pytest.mark.parametrize("protocol", ["memory", "distillation"])
def test_continual_learning_tells_what_is_remembered(tmp_path, protocol):
    out = tmp_path / "out"
    argv = ["continual", "--data", "digits", "--out", str(out), "--protocol", protocol]
    argv += ["--orders", "2", "--epochs", "2", "--width", "4", "--depth", "1", "--ipc", "2"]
    assert main([*argv, "--outer_loop", "1", "--real_batch", "4", "--method", "dsac"]) == 0
    found = metrics(out)
    for name in ("random", "herding", "condensed"):
        steps = [found[f"{name}/step_{k}/accuracy"] for k in range(1, 6)]
        average = found[f"{name}/average_incremental_accuracy"]
        assert average == pytest.approx(sum(steps) / 5)
        assert {f"{name}/forgetting", f"{name}/forgetting_std"} <= set(found)
    if protocol == "distillation":  # two epochs on two digits suffice, and are then forgotten
        assert found["random/step_1/accuracy"] > 0.6
        assert found["random/forgetting"] > 0.2
    assert "accuracy of everything seen" in (out / "report.html").read_text()
