"""The program end to end, on rasters made here, and each mistake a user can make."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from affine import Affine
from PIL import Image
from safetensors.torch import load_file

from cl_remote_sensing.cli import main
from cl_remote_sensing.landscape.draw import CLASSES, write_landscape

NETWORK = ("--network.encoder", "resnet18", "--network.width", "16")
QUIET = ("--trainer.progress", "false", "--trainer.tensorboard", "false")
TILES = ("--tile", "32", "--batch_size", "8", "--epochs", "2")
VIEWS = ("--view", "32", "--region_size", "8")


def metrics_of(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())["metrics"]


def history_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "history.csv").read_text().splitlines()))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def place(row: int, col: int) -> Affine:
    """Pixels of 10 m, the first one so far down and right of a corner in UTM zone 33."""
    return Affine(10, 0, 500_000 + 10 * col, 0, -10, 5_600_000 - 10 * row)


def write(path: Path, values: np.ndarray, **profile) -> Path:
    """A GeoTIFF ``(c, h, w)`` of 10 m pixels in UTM zone 33, unless told otherwise."""
    bands, height, width = values.shape
    settings = {
        "driver": "GTiff",
        "count": bands,
        "height": height,
        "width": width,
        "dtype": values.dtype.name,
        "crs": "EPSG:32633",
        "transform": place(0, 0),
    }
    with rasterio.open(path, "w", **settings | profile) as file:
        file.write(values)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, Path]:
    """A landscape, a pretraining on it, and a segmentation from that."""
    folder = tmp_path_factory.mktemp("world")
    files = write_landscape(folder / "data", size=256, seed=0)
    paths = {"scene": files.scene, "labels": files.labels, "legend": files.legend}
    paths |= {"pretrained": folder / "pretrained", "segmented": folder / "segmented"}
    words = ["--data", str(files.scene), "--out", str(paths["pretrained"])]
    assert main(["pretrain", *words, *TILES, *VIEWS, *NETWORK, *QUIET]) == 0
    assert main(["finetune", *labelled(paths), "--out", str(paths["segmented"])]) == 0
    return paths


def labelled(world: dict[str, Path]) -> list[str]:
    words = ["--data", world["scene"], "--labels", world["labels"], "--legend", world["legend"]]
    return [*map(str, words), "--run", str(world["pretrained"]), *TILES, *QUIET]


def test_pretraining_leaves_a_complete_run(world):
    run = world["pretrained"]
    assert [float(row["epoch"]) for row in history_of(run)] == [1, 2]
    assert {"train/loss", "train/global", "train/local"} <= set(history_of(run)[0])
    metrics = metrics_of(run)
    assert metrics["tiles"] == len((run / "tiles.csv").read_text().splitlines()) - 1
    assert metrics["retrieval/tile_chance"] == pytest.approx(1 / min(64, metrics["tiles"] // 8 * 8))
    card = json.loads((run / "model.json").read_text())
    assert card["kind"] == "pretrained"
    assert card["colors"][:3] == ["red", "green", "blue"]
    assert card["network"]["bands"] == 4
    assert json.loads((run / "statistics.json").read_text())["maximum"][3] > 1000
    page = (run / "report.html").read_text()
    assert "found first" in page
    assert 'src="http' not in page


def test_the_recorded_configuration_repeats_the_run(world, tmp_path):
    config = world["pretrained"] / "config.yaml"
    assert main(["pretrain", "--config", str(config), "--out", str(tmp_path / "again")]) == 0
    first, again = weights(world["pretrained"]), weights(tmp_path / "again")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_fine_tuning_starts_from_the_pretraining_and_chooses_by_validation(world):
    run = world["segmented"]
    card = json.loads((run / "model.json").read_text())
    before = json.loads((world["pretrained"] / "model.json").read_text())
    assert card["normalization"] == before["normalization"]
    assert card["legend"]["names"] == list(CLASSES)
    kappas = [float(row["val/kappa"]) for row in history_of(run)]
    assert len(kappas) == 2
    rows = list(csv.DictReader((run / "tiles.csv").read_text().splitlines()))
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert metrics_of(run)["tiles"] == sum(row["split"] == "train" for row in rows)


def test_a_start_from_nothing_shares_the_scaling_but_no_weight(world, tmp_path, capsys):
    out = tmp_path / "fresh"
    words = [*labelled(world), "--init_from", "nothing", "--out", str(out), "--epochs", "1"]
    assert main(["finetune", *words]) == 0
    assert "from scratch" in capsys.readouterr().out
    cards = [json.loads((run / "model.json").read_text()) for run in (out, world["segmented"])]
    assert cards[0]["normalization"] == cards[1]["normalization"]
    assert cards[0]["network"] == cards[1]["network"]


def test_without_a_run_the_network_and_the_scaling_are_its_own(world, tmp_path):
    words = ["--data", world["scene"], "--labels", world["labels"], "--class_weights", "inverse"]
    words = [*map(str, words), *TILES, *NETWORK, *QUIET, "--normalization", "zscore"]
    out = tmp_path / "own"
    assert main(["finetune", *words, "--epochs", "1", "--out", str(out), "--fraction", "0.5"]) == 0
    card = json.loads((out / "model.json").read_text())
    assert card["normalization"]["mode"] == "zscore"
    assert card["legend"]["names"] == ["0", "1", "2", "3", "4"]  # discovered
    assert (out / "statistics.json").is_file()


def test_a_share_of_the_labels_is_drawn_once(world, tmp_path):
    drawn = []
    for name in ("a", "b"):
        out = tmp_path / name
        words = ["--fraction", "0.2", "--epochs", "1", "--repeats", "4", "--out", str(out)]
        assert main(["finetune", *labelled(world), *words]) == 0
        drawn.append((out / "tiles.csv").read_text().count("train"))
    every = (world["segmented"] / "tiles.csv").read_text().count("train")
    assert drawn == [round(0.2 * every)] * 2


def test_evaluation_scores_the_part_that_training_never_saw(world, tmp_path, capsys):
    out = tmp_path / "scores"
    assert main(["evaluate", "--run", str(world["segmented"]), "--out", str(out)]) == 0
    metrics = metrics_of(out)
    rows = csv.DictReader((world["segmented"] / "tiles.csv").read_text().splitlines())
    tested = sum(row["split"] == "test" for row in rows)
    assert metrics["pixels"] + metrics["pixels"] * metrics["ignored"] / (
        1 - metrics["ignored"]
    ) == pytest.approx(tested * 32 * 32)
    assert {"oa", "kappa", "miou", "macro_f1", "forest/iou", "water/f1"} <= set(metrics)
    assert "forest" in capsys.readouterr().out


def test_evaluation_on_other_scenes_scores_the_maps_it_keeps(world, tmp_path):
    out = tmp_path / "scores"
    words = ["--run", world["segmented"], "--data", world["scene"], "--labels", world["labels"]]
    assert main(["evaluate", *map(str, words), "--out", str(out)]) == 0
    mapped, truth = read(out / "maps" / "landscape.tif")[0], read(world["labels"])[0]
    known = truth != 255
    assert metrics_of(out)["pixels"] == known.sum()
    assert metrics_of(out)["oa"] == pytest.approx((mapped == truth)[known].mean())


def test_prediction_writes_a_georeferenced_map_with_its_legend(world, tmp_path):
    out = tmp_path / "map"
    words = ["--run", str(world["segmented"]), "--data", str(world["scene"]), "--out", str(out)]
    assert main(["predict", *words, "--probabilities", "uint8", "--cog"]) == 0
    with rasterio.open(out / "landscape.tif") as made, rasterio.open(world["scene"]) as scene:
        assert made.crs == scene.crs
        assert made.transform == scene.transform
        assert made.shape == scene.shape
        assert made.nodata == 255
        assert made.colormap(1)[1][:3] == (30, 110, 50)
        assert json.loads(made.tags()["classes"])["1"] == "forest"
        assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(made.read(1) == 255, scene.read(1) == 0)
        classes = made.read(1)
    probability = read(out / "landscape_probability.tif")
    assert probability.shape == (5, 256, 256)
    seen = classes != 255
    # One of equals to the nearest 1/250.
    best = np.take_along_axis(probability, np.where(seen, classes, 0)[None], 0)[0]
    assert (best[seen] >= probability.max(0)[seen] - 1).all()
    areas = list(csv.DictReader((out / "landscape_areas.csv").read_text().splitlines()))
    pixels = [int(row["pixels"]) for row in areas]
    assert pixels == np.bincount(classes[seen], minlength=5).tolist()
    # On the ground: UTM shows it 0.08 % too small at its central meridian.
    assert float(areas[0]["ha"]) == pytest.approx(pixels[0] * 0.01, rel=2e-3)
    with Image.open(out / "landscape.png") as picture:
        assert picture.size[0] > 200
    metrics = metrics_of(out)
    assert metrics["forest/share"] == pytest.approx(pixels[1] / sum(pixels))


def test_a_folder_of_tiles_is_mapped_apart_or_as_one(world, tmp_path):
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    whole = read(world["scene"])
    for row in (0, 128):
        for col in (0, 128):
            corner = place(row, col)
            values = whole[:, row : row + 128, col : col + 128]
            write(tiles / f"{row}_{col}.tif", values, transform=corner, nodata=0)
    base = ["predict", "--run", str(world["segmented"]), "--data"]
    apart, together = tmp_path / "apart", tmp_path / "together"
    assert main([*base, str(tiles), "--out", str(apart)]) == 0
    assert sorted(path.name for path in apart.glob("*.tif")) == [
        "0_0.tif",
        "0_128.tif",
        "128_0.tif",
        "128_128.tif",
    ]
    assert main([*base, str(tiles), "--out", str(together), "--mosaic"]) == 0
    single = tmp_path / "single"
    assert main([*base, str(world["scene"]), "--out", str(single)]) == 0
    np.testing.assert_array_equal(read(together / "mosaic.tif"), read(single / "landscape.tif"))


def test_two_processes_share_a_map(world, tmp_path):
    scene = write(tmp_path / "tall.tif", np.tile(read(world["scene"]), (1, 5, 1)), nodata=0)
    out, alone = tmp_path / "shared", tmp_path / "alone"
    words = ["predict", "--run", str(world["segmented"]), "--data", str(scene), "--tile", "64"]
    program = [sys.executable, "-m", "cl_remote_sensing.cli", *words, "--out", str(out)]
    ranks = []
    for rank in ("1", "0"):  # the first one comes last
        ranks.append(subprocess.Popen(program, env=os.environ | {"RANK": rank, "WORLD_SIZE": "2"}))
        time.sleep(2)
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert main([*words, "--out", str(alone)]) == 0
    np.testing.assert_array_equal(read(out / "tall.vrt"), read(alone / "tall.tif"))
    assert (out / "tall_areas.csv").read_text() == (alone / "tall_areas.csv").read_text()


def windows_mapped(text: str) -> int:
    return int(re.search(r"tall.tif: ([\d,]+) windows", text)[1].replace(",", ""))


def test_a_killed_prediction_is_resumed(world, tmp_path, capsys):
    scene = write(tmp_path / "tall.tif", np.tile(read(world["scene"]), (1, 6, 1)), nodata=0)
    out, whole = tmp_path / "killed", tmp_path / "whole"
    words = ["predict", "--run", str(world["segmented"]), "--data", str(scene)]
    words += ["--tile", "32", "--batch_size", "2"]
    program = [sys.executable, "-m", "cl_remote_sensing.cli", *words, "--out", str(out)]
    child = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    partial = out / "tall.tif.partial"
    while child.poll() is None and not (partial.exists() and partial.stat().st_size > 2000):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (out / "tall.tif").exists()
    assert main([*words, "--out", str(out), "--resume"]) == 0
    resumed = windows_mapped(capsys.readouterr().out)
    assert not partial.exists()
    assert main([*words, "--out", str(whole)]) == 0
    assert 0 < resumed < windows_mapped(capsys.readouterr().out)
    np.testing.assert_array_equal(read(out / "tall.tif"), read(whole / "tall.tif"))
    assert metrics_of(out) == metrics_of(whole)


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_a_killed_training_resumed_ends_as_if_never_stopped(verb, world, tmp_path):
    if verb == "pretrain":
        words = ["--data", str(world["scene"]), *TILES, *VIEWS, *NETWORK]
    else:
        words = [*labelled(world), "--fraction", "0.3"]
    words = [verb, *words, *QUIET, "--trainer.checkpoint_every", "1", "--epochs", "6"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = [sys.executable, "-m", "cl_remote_sensing.cli", *words, "--out", str(killed)]
    child = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    while child.poll() is None and not (
        (killed / "history.csv").exists() and len(history_of(killed)) > 1
    ):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert main([*words, "--out", str(killed), "--resume"]) == 0
    assert main([*words, "--out", str(whole)]) == 0
    losses = [[row["train/loss"] for row in history_of(run)] for run in (killed, whole)]
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]
    first, again = weights(killed), weights(whole)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_png_without_georeference_is_mapped_and_that_is_told(world, tmp_path, capsys):
    rng = np.random.default_rng(0)
    values = rng.integers(1, 255, (96, 96, 4), dtype=np.uint8)
    Image.fromarray(values, "RGBA").save(tmp_path / "photo.png")
    out = tmp_path / "map"
    words = ["--run", str(world["segmented"]), "--data", str(tmp_path / "photo.png")]
    words += ["--ignore_alpha_tag", "--any_dtype"]
    assert main(["predict", *words, "--out", str(out)]) == 0
    assert "no georeference" in capsys.readouterr().out
    with Image.open(out / "photo.tif") as made:
        assert made.size == (96, 96)
        assert np.asarray(made).max() < len(CLASSES)


def test_a_scene_without_valid_pixels_gives_an_empty_map(world, tmp_path, capsys):
    scene = write(tmp_path / "empty.tif", np.zeros((4, 64, 64), np.uint16), nodata=0)
    out = tmp_path / "map"
    words = ["--run", str(world["segmented"]), "--data", str(scene), "--out", str(out)]
    assert main(["predict", *words]) == 0
    assert "no valid pixel" in capsys.readouterr().out
    assert (read(out / "empty.tif") == 255).all()


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def a_scene(folder: Path, **profile) -> Path:
    rng = np.random.default_rng(0)
    values = rng.integers(1, 4000, (4, 96, 96), dtype=np.uint16)
    return write(folder / "scene.tif", values, **profile)


def some_labels(folder: Path, high: int = 5, **profile) -> Path:
    rng = np.random.default_rng(1)
    values = rng.integers(0, high, (1, 96, 96), dtype=np.uint8)
    return write(folder / "marks.tif", values, **profile)


FAR = place(60_000, 20_000)
MISTAKES = {
    "missing file": lambda f, w: (["pretrain", "--data", f / "no.tif"], ["no.tif"]),
    "truncated": lambda f, w: (
        ["pretrain", "--data", truncate(a_scene(f))],
        ["scene.tif", "truncated"],
    ),
    "not a raster": lambda f, w: (
        ["pretrain", "--data", (f / "notes.tif", (f / "notes.tif").write_text("hello"))[0]],
        ["notes.tif"],
    ),
    "all nodata": lambda f, w: (
        ["pretrain", "--data", write(f / "e.tif", np.zeros((4, 96, 96), np.uint8), nodata=0)],
        ["e.tif", "valid"],
    ),
    "unknown band": lambda f, w: (
        ["pretrain", "--data", a_scene(f), "--bands", "1,swir"],
        ["swir", "--bands"],
    ),
    "fewer tiles than a batch": lambda f, w: (
        ["pretrain", "--data", a_scene(f), "--batch_size", "64"],
        ["9 tiles", "batch"],
    ),
    "no room for a region": lambda f, w: (
        ["pretrain", "--data", a_scene(f), "--region_size", "32"],
        ["region_size", "32"],
    ),
    "view beyond the tile": lambda f, w: (
        ["pretrain", "--data", a_scene(f), "--view", "40"],
        ["view", "40"],
    ),
    "values beyond 8 bits": lambda f, w: (
        ["pretrain", "--data", a_scene(f), "--normalization", "uint8"],
        ["uint8", "percentile"],
    ),
    "unknown encoder": lambda f, w: (
        ["pretrain", "--data", a_scene(f), "--network.encoder", "resnet19"],
        ["resnet19", "resnet18"],
    ),
    "no labels": lambda f, w: (["finetune", "--data", a_scene(f)], ["--labels"]),
    "labels elsewhere": lambda f, w: (
        ["finetune", "--data", a_scene(f), "--labels", some_labels(f, transform=FAR)],
        ["marks.tif", "scene.tif"],
    ),
    "labels without a coordinate system": lambda f, w: (
        ["finetune", "--data", a_scene(f), "--labels", some_labels(f, crs=None)],
        ["marks.tif", "coordinate system"],
    ),
    "a class outside the legend": lambda f, w: (
        [
            *("finetune", "--data", a_scene(f), "--labels", some_labels(f, 7)),
            *("--legend", w["legend"]),
        ],
        ["code 5", "marks.tif", "legend"],
    ),
    "no legend file": lambda f, w: (
        [
            *("finetune", "--data", a_scene(f), "--labels", some_labels(f)),
            *("--legend", f / "legend.yaml"),
        ],
        ["legend.yaml"],
    ),
    "too few blocks": lambda f, w: (
        ["finetune", "--data", a_scene(f), "--labels", some_labels(f), "--block", "500"],
        ["block"],
    ),
    "other bands than the pretraining": lambda f, w: (
        [
            *("finetune", "--data", a_scene(f), "--labels", some_labels(f), "--bands", "1,2,3"),
            *("--run", w["pretrained"], "--block", "32"),
        ],
        ["3 bands", "4"],
    ),
    "a segmentation for a pretraining": lambda f, w: (
        [
            *("finetune", "--data", a_scene(f), "--labels", some_labels(f)),
            *("--run", w["segmented"]),
        ],
        ["segmentation", "pretrain"],
    ),
    "a pretraining for a segmentation": lambda f, w: (
        ["predict", "--run", w["pretrained"], "--data", a_scene(f)],
        ["pretrained", "finetune"],
    ),
    "other bands than the model": lambda f, w: (
        ["predict", "--run", w["segmented"], "--data", a_scene(f), "--bands", "1,2,3"],
        ["3 bands", "4"],
    ),
    "truncated scene to map": lambda f, w: (
        ["predict", "--run", w["segmented"], "--data", truncate(a_scene(f))],
        ["scene.tif", "truncated"],
    ),
    "no such device": lambda f, w: (
        ["predict", "--run", w["segmented"], "--data", a_scene(f), "--device", "abacus"],
        ["abacus"],
    ),
    "no run": lambda f, w: (
        ["predict", "--run", f / "nothing", "--data", a_scene(f)],
        ["nothing", "--run"],
    ),
    "unknown recipe": lambda f, w: (
        ["pretrain", "--data", a_scene(f), "--recipe", "glcnet"],
        ["glcnet-pretrain"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_exit_code_two(mistake, world, tmp_path, capfd):
    words, told = MISTAKES[mistake](tmp_path, world)
    verb = words[0]
    out = tmp_path / "out"
    words = [*map(str, words), "--out", str(out)]
    if verb != "predict":
        defaults = [*TILES, *QUIET, *(VIEWS if verb == "pretrain" else ())]
        defaults += [] if "--network.encoder" in words or "--run" in words else NETWORK
        words = [verb, *defaults, *words[1:]]
    assert run_main(words) == 2
    error = capfd.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    assert all(word in error for word in told), error
    assert not (out / "config.yaml").exists()


def run_main(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as stop:  # the parser's own refusals
        return int(stop.code or 0)


def test_results_are_not_overwritten_unless_asked(world, tmp_path, capsys):
    words = ["predict", "--run", str(world["segmented"]), "--data", str(world["scene"])]
    words += ["--out", str(tmp_path / "map")]
    assert main(words) == 0
    made = (tmp_path / "map" / "landscape.tif").stat().st_mtime_ns
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "map" / "landscape.tif").stat().st_mtime_ns == made
    assert main([*words, "--overwrite"]) == 0


def test_a_full_disk_is_told_and_the_map_can_be_resumed(world, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    scene = write(tmp_path / "wide.tif", np.tile(read(world["scene"]), (1, 4, 4)), nodata=0)
    words = ["predict", "--run", str(world["segmented"]), "--data", str(scene), "--tile", "128"]
    words += ["--probabilities", "float32", "--overlap", "0", "--out", str(disk / "map")]
    script = (
        f"mount -t tmpfs -o size=2m tmpfs {disk} && "
        f'{sys.executable} -m cl_remote_sensing.cli "$@"; code=$?; ls {disk}/map; '
        f"mount -o remount,size=200m {disk} && "
        f'{sys.executable} -m cl_remote_sensing.cli "$@" --resume && exit $code'
    )
    if shutil.which("unshare") is None:
        pytest.skip("no mount namespaces")
    probe = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f"mount -t tmpfs -o size=2m tmpfs {disk}"],
        capture_output=True,
    )
    if probe.returncode:
        pytest.skip("neither root nor user namespaces: no disk can be filled")
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", *words], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "wide" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "wide.tif" in done.stdout


@pytest.mark.parametrize(
    ("verb", "recipe"),
    [(verb, f"{name}-{verb}") for verb in ("pretrain", "finetune") for name in ("glcnet", "small")],
)
def test_every_recipe_resolves(verb, recipe, capsys):
    words = ["--data", "x", "--out", "y", "--recipe", recipe, "--print_config"]
    with pytest.raises(SystemExit):
        main([verb, *words])
    options = yaml.safe_load(capsys.readouterr().out)
    assert options["recipe"] == recipe
    assert (
        options["tile"]
        == {"glcnet": 256, "small": {"pretrain": 73, "finetune": 96}[verb]}[recipe.split("-")[0]]
    )


@pytest.mark.slow
def test_the_demo_needs_nothing(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--size", "512", *QUIET]) == 0
    text = capsys.readouterr().out
    assert "pretrained" in text
    assert "from scratch" in text
    assert (out / "map" / "landscape.tif").is_file()
    assert -1 <= metrics_of(out)["pretrained/kappa"] <= 1
    page = (out / "report.html").read_text()
    assert "made-up landscape" in page
    assert "from scratch" in page
