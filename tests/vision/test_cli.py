"""The program end to end, on PNG folders made here and on digits, and each mistake of a user."""

from __future__ import annotations

import csv
import json
import os
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
from PIL import Image
from safetensors.torch import load_file

import cl_core
from cl_core.runs import Run
from cl_vision.cli import main

METHODS = ("simclr", "directclr", "moco", "hcsc")
QUIET = ("--trainer.progress", "false", "--trainer.tensorboard", "false")
SMALL = ("--image_size", "16", "--backbone", "resnet-4-24", "--batch_size", "10", "--epochs", "2")
OWN = {
    "simclr": ("--simclr.hidden", "16", "--simclr.dim", "8"),
    "directclr": ("--directclr.d0", "16"),
    "moco": ("--moco.queue", "20", "--moco.dim", "8"),
    "hcsc": ("--hcsc.queue", "20", "--hcsc.dim", "8", "--hcsc.clusters", "[6, 3]"),
}
CLASSES = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}


def write_folder(folder: Path, *, per_class: int = 20, mode: str = "RGB", seed: int = 0) -> str:
    """Noisy images of three colours, 18 x 16 pixels, in a sub-folder each."""
    rng = np.random.default_rng(seed)
    for name, colour in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.clip(rng.normal(colour, 30, (16, 18, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number:02d}.png")
    return str(folder)


def words(method: str, data: str, out: Path, *more: str) -> list[str]:
    own = ["--method", method, *OWN[method], "--data", data, "--out", str(out)]
    return ["pretrain", *SMALL, *QUIET, *own, *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    data = write_folder(folder / "images")
    watched = ("--knn_every", "1", "--spectrum_every", "2")
    for method in METHODS:
        assert main(words(method, data, folder / method, *watched)) == 0
    return {"images": folder / "images"} | {method: folder / method for method in METHODS}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def losses(run: Path) -> list[str]:
    return [row["train/loss"] for row in rows_of(run / "history.csv")]


def metrics_of(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())["metrics"]


@pytest.mark.parametrize(
    ("method", "space", "column"),
    [
        ("simclr", 8, "z/effective_rank"),
        ("directclr", 16, "r_unseen/effective_rank"),
        ("moco", 8, "z/effective_rank"),
        ("hcsc", 8, "selection/base_rate"),
    ],
)
def test_pretrain_leaves_a_complete_run(trained, method, space, column):
    run = trained[method]
    history = rows_of(run / "history.csv")
    assert [int(float(row["epoch"])) for row in history] == [1, 2]
    assert float(history[-1][column]) > 0
    assert 0.3 < float(history[-1]["online/knn_accuracy"]) <= 1
    metrics = metrics_of(run)
    assert metrics["train/loss"] == pytest.approx(float(history[-1]["train/loss"]))
    assert 1 <= metrics["effective_rank"] <= 24
    card = json.loads((run / "model.json").read_text())
    assert (card["method"], card["architecture"]) == (method, "resnet-4-24")
    assert len(card["mean"]) == 3
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert {row["space"] for row in rows_of(run / "spectrum.csv")} >= {"r", "z"}
    page = (run / "report.html").read_text()
    assert "Collapse spectrum" in page
    assert 'src="http' not in page
    assert main(["embed", "--run", str(run), "--space", "embedding", "--format", "npy"]) == 0
    assert np.load(run / "embed" / "embeddings.npy").shape == (60, space)


@pytest.mark.parametrize("method", ["simclr", "hcsc"])
def test_the_encoder_is_read_by_core_from_the_run_and_from_its_export(trained, method):
    run = trained[method]
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, other = (cl_core.load_encoder(path) for path in (run, run / "encoder"))
    assert torch.equal(one(images), other(images))
    state = weights(run)
    stem = one.trunk.state_dict()["conv1.weight"]
    assert torch.equal(stem, state["encoder.trunk.conv1.weight"])
    assert one.card()["mean"] == other.card()["mean"]


def test_hcsc_writes_the_clusters_of_every_image(trained):
    images = rows_of(trained["hcsc"] / "clusters" / "images.csv")
    files = sorted(p.relative_to(trained["images"]) for p in trained["images"].rglob("*.png"))
    assert [row["image"] for row in images] == [file.as_posix() for file in files]
    prototypes = rows_of(trained["hcsc"] / "clusters" / "prototypes.csv")
    parents = {row["cluster"]: row["parent"] for row in prototypes if row["level"] == "1"}
    assert len(parents) == 6
    assert all(parents[row["level_1"]] == row["level_2"] for row in images)
    assert sum(int(row["images"]) for row in prototypes if row["level"] == "2") == 60


def test_the_recorded_configuration_repeats_the_run(trained, tmp_path):
    config = trained["hcsc"] / "config.yaml"
    assert main(["pretrain", "--config", str(config), "--out", str(tmp_path / "again")]) == 0
    first, again = weights(trained["hcsc"]), weights(tmp_path / "again")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_evaluate_compares_runs_with_each_other_and_with_random_weights(trained, tmp_path, capsys):
    others = f"[{trained['moco']}, {trained['directclr']}]"
    own = ["--run", str(trained["hcsc"]), "--baseline", others, "--untrained", "--nuisances"]
    own += ["--out", str(tmp_path / "scores"), "--draws", "2", "--fractions", "[0.1]"]
    assert main(["evaluate", *own]) == 0
    metrics = metrics_of(tmp_path / "scores")
    figures = ("linear_accuracy", "knn_accuracy", "ami", "nmi", "ari", "purity", "effective_rank")
    figures += ("label_10pct/accuracy", "rotation/accuracy", "brightness/accuracy")
    for owner in ("", "moco_v2/", "directclr/", "untrained/"):
        assert all(f"{owner}{name}" in metrics for name in figures), owner
    assert metrics["linear_accuracy"] > 0.9  # colours; 12 test images
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("HCSC", "MoCo v2", "DirectCLR", "untrained"))
    assert str(tmp_path / "scores" / "explorer.html") in shown
    page = (tmp_path / "scores" / "report.html").read_text()
    assert "48 images to learn from, 12 to test" in page


@pytest.mark.parametrize("probe", ["hcsc", "moco", "directclr"])
def test_evaluate_knows_the_published_probes(trained, tmp_path, probe):
    own = ["--run", str(trained["simclr"]), "--out", str(tmp_path / "out"), "--probe", probe]
    own += ["--probe_epochs", "3", "--few_labels", "none"]
    own += ["--augment"] if probe == "directclr" else []
    assert main(["evaluate", *own]) == 0
    metrics = metrics_of(tmp_path / "out")
    assert 0 <= metrics["linear_accuracy"] <= metrics["linear_accuracy_best"] <= 1
    assert "linear_accuracy_top5" in metrics
    assert "label_1pct/accuracy" not in metrics


def test_few_labels_can_train_the_whole_network(trained, tmp_path):
    own = ["--run", str(trained["simclr"]), "--out", str(tmp_path / "out"), "--draws", "1"]
    own += ["--few_labels", "finetune", "--probe_epochs", "2", "--fractions", "[0.5]"]
    assert main(["evaluate", *own]) == 0
    assert 0 <= metrics_of(tmp_path / "out")["label_50pct/accuracy"] <= 1


def test_embed_writes_a_row_per_image_with_its_file(trained, tmp_path):
    for kind in ("parquet", "npy"):
        out = str(tmp_path / kind)
        assert main(["embed", "--run", str(trained["moco"]), "--out", out, "--format", kind]) == 0
    explorer = (tmp_path / "npy/explorer.html").read_text()
    assert '"green/01.png"' in explorer
    assert "webp;base64," in explorer
    table = pyarrow.parquet.read_table(tmp_path / "parquet" / "embeddings.parquet")
    assert table.column_names == ["file", "label", *(f"e{k}" for k in range(24))]
    assert table["file"][21].as_py() == "green/01.png"
    assert table["label"][21].as_py() == "green"
    array = np.load(tmp_path / "npy" / "embeddings.npy", allow_pickle=False)
    np.testing.assert_array_equal(array[:, 3], table["e3"].to_numpy())
    assert (tmp_path / "npy" / "files.txt").read_text().splitlines() == table["file"].to_pylist()


def test_spectrum_compares_runs_encoders_and_weight_files(trained, tmp_path, capsys):
    runs = [trained["directclr"], trained["simclr"], trained["moco"] / "encoder"]
    runs += [trained["hcsc"] / "encoder" / "model.safetensors"]
    own = ["--run", f"[{', '.join(map(str, runs))}]", "--backbone", "resnet-4-24", "--images", "50"]
    own += ["--image_size", "16"]
    assert main(["spectrum", *own]) == 0
    out = trained["directclr"] / "spectrum"
    found = {(row["encoder"], row["space"]) for row in rows_of(out / "spectrum.csv")}
    assert found == {
        ("DirectCLR", "r"),
        ("DirectCLR", "z"),
        ("DirectCLR", "r[16:]"),
        ("SimCLR", "r"),
        ("SimCLR", "z"),
        ("encoder", "r"),
        ("model", "r"),
    }
    ranks = metrics_of(out)
    assert ranks["directclr/r_unseen/effective_rank"] <= 8
    assert ranks["simclr/z/effective_rank"] <= 8
    assert "DirectCLR r" in capsys.readouterr().out
    assert main(["spectrum", "--run", str(runs[2])]) == 2
    assert "--data" in capsys.readouterr().err


def test_theory_shows_both_causes_of_collapse(tmp_path):
    assert main(["theory", "--out", str(tmp_path / "out"), "--steps", "60"]) == 0
    metrics = metrics_of(tmp_path / "out")
    ranks = [metrics[f"implicit_regularization/{depth}/effective_rank"] for depth in (1, 2, 3)]
    assert ranks == sorted(ranks, reverse=True)
    assert "Strong augmentation" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_the_demo_needs_nothing_and_can_be_repeated(tmp_path, capsys):
    earlier = ("no-projector", "directclr", "moco", "hcsc", "report", "condensed", "condensation")
    for name in earlier:
        with Run.create(tmp_path / "demo" / name, {}) as run:
            run.save_metrics({})
    assert main(["demo", "--out", str(tmp_path / "demo"), "--epochs", "2", *QUIET]) == 0
    shown = capsys.readouterr().out
    names = ("SimCLR (no projector)", "DirectCLR", "MoCo v2", "HCSC", "rotation", "AMI")
    assert all(word in shown for word in names)
    page = tmp_path / "demo" / "report" / "report.html"
    assert str(page) in shown
    assert "does not show" in page.read_text()
    assert "condensed/png" in shown
    assert "Ten digits" in (tmp_path / "demo" / "condensation" / "report.html").read_text()


def test_a_killed_run_resumed_ends_as_if_never_stopped(tmp_path):
    data = write_folder(tmp_path / "images")
    own = words("hcsc", data, tmp_path, "--hcsc.warmup_epochs", "1", "--epochs", "12")
    own += ["--trainer.checkpoint_every", "1"]
    out = own.index("--out")
    del own[out : out + 2]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = [sys.executable, "-m", "cl_vision.cli", *own, "--out", str(killed)]
    process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (
        (killed / "history.csv").exists() and len(losses(killed)) > 3
    ):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 < len(losses(killed)) < 12
    assert not (killed / "model.json").exists()
    assert main([*own, "--out", str(killed), "--resume"]) == 0
    assert main([*own, "--out", str(whole)]) == 0
    assert losses(killed) == losses(whole)
    first, again = weights(killed), weights(whole)
    assert all(torch.equal(first[name], again[name]) for name in first)
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (killed, whole)
    ]
    kept = [name for name in states[0] if name.startswith(("queue.", "prototypes.", "key."))]
    assert len(kept) > 10
    assert all(torch.equal(states[0][name], states[1][name]) for name in kept)
    for name in ("images.csv", "prototypes.csv"):
        assert (killed / "clusters" / name).read_text() == (whole / "clusters" / name).read_text()


@pytest.mark.slow
def test_two_processes_share_the_batch_and_cluster_all_images(trained, tmp_path):
    own = words("hcsc", str(trained["images"]), tmp_path / "run", "--trainer.accelerator", "cpu")
    own += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "cl_vision.cli", *own]
    subprocess.run(program, check=True, capture_output=True, env=environment)
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 12  # 60 images at 10 a step of both, twice
    assert int(state["state_dict"]["queue.pointer"]) == 0  # 120 keys through a queue of 20
    clusters = rows_of(tmp_path / "run" / "clusters" / "images.csv")
    assert len(clusters) == 60
    assert all(0 <= int(row["level_1"]) < 6 for row in clusters)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--method", "moco"], "method is moco but was simclr"),
        (["--simclr.temperature", "0.2"], "simclr.temperature is 0.2 but was 0.1"),
        (["--learning_rate", "0.7"], "learning_rate is 0.7 but was 0.1"),
        (["--batch_size", "20"], "batch_size is 20 but was 10"),
    ],
)
def test_a_run_is_not_resumed_with_other_options(trained, capsys, change, told):
    before = losses(trained["simclr"])
    own = words("simclr", str(trained["images"]), trained["simclr"], *OWN["moco"])
    own += ["--knn_every", "1", "--spectrum_every", "2", *change, "--resume"]
    recorded = yaml.safe_load((trained["simclr"] / "config.yaml").read_text())["moco"]
    own += ["--moco.queue", str(recorded["queue"]), "--moco.dim", str(recorded["dim"])]
    assert main(own) == 2
    err = capsys.readouterr().err
    assert f"--resume: {told}" in err
    assert losses(trained["simclr"]) == before


def test_results_are_not_overwritten_unless_asked(trained, tmp_path, capsys):
    own = ["embed", "--run", str(trained["simclr"]), "--out", str(tmp_path / "out")]
    assert main(own) == 0
    assert main(own) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*own, "--overwrite"]) == 0


def test_digits_are_built_in(tmp_path):
    out = tmp_path / "digits"
    own = ["--recipe", "directclr-digits", "--epochs", "1", "--out", str(out), *QUIET]
    own += ["--backbone", "resnet-4-40"]  # wider than the recipe's 32 channels
    assert main(["pretrain", *own]) == 0
    assert main(["evaluate", "--run", str(out), "--few_labels", "none"]) == 0
    assert metrics_of(out / "evaluate")["linear_accuracy"] > 0.4
    assert main(["embed", "--run", str(out)]) == 0
    assert pyarrow.parquet.read_table(out / "embed" / "embeddings.parquet").shape == (1797, 42)


def test_a_manifest_with_splits_trains_on_its_training_images(tmp_path):
    write_folder(tmp_path / "images", per_class=12, mode="L")
    lines = ["image,kind,split"]
    for name in CLASSES:
        for number in range(12):
            split = "test" if number >= 8 else "train"
            lines.append(f"images/{name}/{number:02d}.png,{name},{split}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    run = tmp_path / "run"
    own = ["--channels", "1", "--labels", "kind", "--cache", str(tmp_path / "cache")]
    assert main(words("simclr", str(tmp_path / "list.csv"), run, *own)) == 0
    assert "24 images, 3 classes" in (run / "report.html").read_text()
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert main(["evaluate", "--run", str(run), "--draws", "1"]) == 0
    assert "24 images to learn from, 12 to test" in (run / "evaluate/report.html").read_text()
    other = write_folder(tmp_path / "colour", per_class=2)
    assert main(["embed", "--run", str(run), "--data", other]) == 0  # read as grey, as trained


def test_training_starts_from_weights_and_takes_any_channels(trained, tmp_path):
    data = write_folder(tmp_path / "images", per_class=4)
    shade = Image.radial_gradient("L").resize((18, 16))
    for file in (tmp_path / "images").rglob("*.png"):
        image = Image.open(file)
        image.putalpha(shade)
        image.save(file)
    own = ["--channels", "keep", "--weights", str(trained["simclr"]), "--learning_rate", "1e-12"]
    own += ["--weight_decay", "0"]
    assert main(words("simclr", data, tmp_path / "run", *own)) == 0
    first, now = (
        weights(run)["encoder.trunk.layer2.0.conv1.weight"]
        for run in (trained["simclr"], tmp_path / "run")
    )
    torch.testing.assert_close(first, now, atol=1e-7, rtol=0)
    assert weights(tmp_path / "run")["encoder.trunk.conv1.weight"].shape[1] == 4


def test_a_corrupt_image_stops_the_run_or_is_left_out_and_told(tmp_path, capsys):
    data = write_folder(tmp_path / "images", per_class=21)
    (tmp_path / "images" / "green" / "05.png").write_bytes(b"no picture")
    own = words("hcsc", data, tmp_path / "run")
    assert main(own) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "green/05.png" in err
    assert "on-error" in err or "on_error" in err
    assert not (tmp_path / "run" / "model.json").exists()
    assert main([*own, "--on_error", "skip"]) == 0
    shown = capsys.readouterr().out
    assert "1 unreadable images left out" in shown
    assert "62 images" in shown
    clusters = rows_of(tmp_path / "run" / "clusters" / "images.csv")
    assert len(clusters) == 62
    assert "green/05.png" not in [row["image"] for row in clusters]
    assert main(["embed", "--run", str(tmp_path / "run")]) == 0  # as the run read them
    table = pyarrow.parquet.read_table(tmp_path / "run" / "embed" / "embeddings.parquet")
    assert len(table) == 62
    stop = ["--on_error", "stop", "--out", str(tmp_path / "other")]
    assert main(["embed", "--run", str(tmp_path / "run"), *stop]) == 2


def empty(folder: Path) -> None:
    for file in folder.rglob("*.png"):
        file.unlink()


def keep_one(folder: Path) -> None:
    for file in sorted(folder.rglob("*.png"))[1:]:
        file.unlink()


MISTAKES = {
    "d0 larger than the width": ("directclr", None, ["--directclr.d0", "25"], ["d0", "24", "25"]),
    "rank larger than the width": (
        "simclr",
        None,
        ["--simclr.projector", "low_rank", "--simclr.rank", "30"],
        ["rank", "24", "30"],
    ),
    "more clusters than images": (
        "hcsc",
        None,
        ["--hcsc.clusters", "[61, 3]"],
        ["clusters", "61", "60"],
    ),
    "levels not decreasing": (
        "hcsc",
        None,
        ["--hcsc.clusters", "[3, 6]"],
        ["clusters", "fine to coarse", "[3, 6]"],
    ),
    "queue smaller than the batch": ("moco", None, ["--moco.queue", "5"], ["queue 5", "10"]),
    "queue no multiple of the batch": ("hcsc", None, ["--hcsc.queue", "25"], ["queue 25", "10"]),
    "warm-up as long as the training": (
        "hcsc",
        None,
        ["--hcsc.warmup_epochs", "2"],
        ["warmup_epochs 2", "2 epochs"],
    ),
    "one image": ("simclr", keep_one, [], ["1 image", "at least 2"]),
    "batch larger than the images": ("moco", None, ["--batch_size", "100"], ["batch_size", "60"]),
    "empty folder": ("simclr", empty, [], ["no image"]),
    "missing folder": ("simclr", None, ["--data", "nowhere"], ["nowhere"]),
    "unknown method": ("simclr", None, ["--method", "simclear"], ["--method", "simclear"]),
    "unknown backbone": ("simclr", None, ["--backbone", "resnet19"], ["resnet19", "resnet18"]),
    "unknown recipe": ("simclr", None, ["--recipe", "hcsc-imagnet"], ["hcsc-imagenet"]),
    "unknown option": ("simclr", None, ["--epoch", "3"], ["--epoch"]),
    "bad number": ("simclr", None, ["--simclr.temperature", "-1"], ["temperature", "positive"]),
    "warm-up longer than the training": (
        "simclr",
        None,
        ["--warmup_epochs", "3"],
        ["warmup_epochs", "2"],
    ),
    "missing weights": ("simclr", None, ["--weights", "nowhere.pt"], ["nowhere.pt"]),
    "ImageNet's statistics of grey": (
        "simclr",
        None,
        ["--channels", "1", "--statistics", "imagenet"],
        ["--statistics", "3 channels"],
    ),
    "labels by a column of a folder": ("simclr", None, ["--labels", "kind"], ["--labels kind"]),
    "online kNN without labels": (
        "simclr",
        None,
        ["--labels", "none", "--knn_every", "1"],
        ["--knn_every"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_exit_code_two(mistake, tmp_path, capsys):
    method, spoil, extra, told = MISTAKES[mistake]
    data = write_folder(tmp_path / "images")
    if spoil is not None:
        spoil(tmp_path / "images")
    assert main(words(method, data, tmp_path / "out", *extra)) == 2
    err = capsys.readouterr().err
    assert err.startswith("cl-vision: ")
    assert err.count("\n") == 1, err
    assert all(word in err for word in told), err
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_run_without_a_model_and_what_is_no_run_are_refused(trained, tmp_path, capsys):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text((trained["moco"] / "config.yaml").read_text())
    for verb in ("evaluate", "embed", "spectrum"):
        assert main([verb, "--run", str(tmp_path / "begun")]) == 2
        assert "model.json" in capsys.readouterr().err
        assert main([verb, "--run", str(tmp_path / "absent")]) == 2
        assert "absent" in capsys.readouterr().err


def test_measuring_needs_labels_and_images_like_the_training(trained, tmp_path, capsys):
    own = ["evaluate", "--run", str(trained["moco"]), "--out", str(tmp_path / "out")]
    assert main([*own, "--labels", "none"]) == 2
    assert "at least 2 classes" in capsys.readouterr().err
    assert main([*own, "--data", "digits"]) == 2
    assert "1 channels, but the model was trained on 3" in capsys.readouterr().err
    assert main([*own, "--clusters", "13"]) == 2
    assert "--clusters 13" in capsys.readouterr().err
