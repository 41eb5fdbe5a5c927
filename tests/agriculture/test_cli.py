"""The program end to end on drawn plants, and each mistake of a user."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cl_agriculture import ClusterConfig, PretrainConfig, cluster, pretrain
from cl_agriculture.claws import CLAWS
from cl_agriculture.cli import main
from cl_agriculture.data import ClassPairs, open_plants
from cl_agriculture.drawing import SPECIES, draw_plant
from cl_agriculture.model import load_plant_model
from cl_core.errors import InputError
from cl_core.runs import Run

QUIET = ("--trainer.progress", "false", "--trainer.tensorboard", "false")
SMALL = ("--image_size", "16", "--backbone", "resnet-4-16", "--stem", "imagenet")
SMALL += ("--batch_size", "10", "--epochs", "2", "--knn_every", "0")
MIXTURE = ("--mixture.dimensions", "3", "--mixture.starts", "1", "--sheet", "2")


def draw_folder(folder: Path, *, per_class: int = 8, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for species in SPECIES:
        (folder / species).mkdir(parents=True)
        for number in range(per_class):
            pixels = draw_plant(species, rng, size=32)
            Image.fromarray(pixels).save(folder / species / f"{number}.png")
    return folder


def write_manifest(path: Path, folder: Path, *, test: int = 2, **columns) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "split", "date"])
        for place in sorted(folder.glob("*/*.png")):
            split = "test" if int(place.stem) < test else "train"
            day = f"2024-05-{1 + int(place.stem) % 2:02d}"
            table.writerow([place.relative_to(path.parent), place.parent.name, split, day])
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Images, a manifest, a training with masks and its clustering."""
    folder = tmp_path_factory.mktemp("home")
    images = draw_folder(folder / "images")
    data = write_manifest(folder / "plants.csv", images)
    words = ["--data", str(data), "--out", str(folder / "claws"), *SMALL, *QUIET]
    assert main(["pretrain", *words]) == 0
    words = ["--run", str(folder / "claws"), *MIXTURE, "--mixture.counts", "[2, 3]"]
    assert main(["cluster", *words]) == 0
    return folder


@pytest.fixture
def images(home, tmp_path) -> Path:
    """A copy of the images, to be spoilt."""
    return Path(shutil.copytree(home / "images", tmp_path / "images"))


def metrics_of(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())["metrics"]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def refused(capsys, *words: object) -> str:
    """What the program says; it must be one line, and end with 2."""
    assert main([str(word) for word in words]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("cl-agriculture: ")
    assert "\n" not in told
    return told


def test_pretrain_leaves_a_model_its_masks_and_a_page(home):
    run = home / "claws"
    metrics = metrics_of(run)
    assert 0 <= metrics["knn_accuracy"] <= 1
    assert metrics["mask_fallback"] == 0
    assert 0.02 < metrics["mask_fraction"] < 0.5
    card = json.loads((run / "model.json").read_text())
    assert (card["kind"], card["mode"], card["attention"]) == ("plant encoder", "claws", "hard")
    assert card["rule"]["source"] == "excess_green"
    assert len(list((run / "masks").rglob("*.png"))) == 32
    page = (run / "report.html").read_text()
    assert 'src="http' not in page


def test_cluster_writes_figures_assignments_groups_and_growth(home):
    run = home / "claws" / "cluster"
    metrics = metrics_of(run)
    wanted = {"nmi", "ami", "ari", "purity", "hungarian_accuracy", "clusters", "bic"}
    assert wanted <= set(metrics)
    assert "train/silhouette" in metrics
    assert metrics["clusters"] in (2, 3)
    rows = rows_of(run / "assignments.csv")
    assert len(rows) == 32
    assert {"file", "label", "cluster", "confidence", "entropy", "ll", "mahalanobis"} <= set(
        rows[0]
    )
    assert {"flagged", "mask_fraction", "fallback", "rank", "doubt"} <= set(rows[0])
    assert sum(int(row["images"]) for row in rows_of(run / "clusters.csv")) == 32
    growth = rows_of(run / "growth.csv")
    assert sum(int(row["images"]) for row in growth) == 32
    assert {row["date"] for row in growth} == {"2024-05-01", "2024-05-02"}
    assert len(rows_of(run / "bic.csv")) == 2


def test_explore_lays_out_the_images_and_score_takes_new_ones(home, tmp_path):
    run = home / "claws" / "cluster"
    assert main(["explore", "--run", str(run), "--out", str(tmp_path / "page")]) == 0
    assert metrics_of(tmp_path / "page") == {"points": 32, "pictures": 32}
    assert "images/clover/0.png" in (tmp_path / "page" / "explorer.html").read_text()
    words = ["--run", str(run), "--pictures", "5", "--out", str(tmp_path / "few")]
    assert main(["explore", *words]) == 0
    assert metrics_of(tmp_path / "few") == {"points": 32, "pictures": 5}
    new = draw_folder(tmp_path / "new", per_class=3, seed=9)
    out = tmp_path / "score"
    assert main(["score", "--run", str(run), "--data", str(new), "--out", str(out)]) == 0
    metrics = metrics_of(out)
    assert metrics["images"] == 12
    assert 0 <= metrics["flagged"] <= 1
    assert "nmi" in metrics
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (new / "clover").glob("*.png"):
        shutil.copy(path, flat)
    assert (
        main(["score", "--run", str(run), "--data", str(flat), "--out", str(tmp_path / "s2")]) == 0
    )
    assert "nmi" not in metrics_of(tmp_path / "s2")


def test_scoring_the_training_images_gives_their_assignments(home, tmp_path):
    run, out = home / "claws" / "cluster", tmp_path / "again"
    data = str(home / "plants.csv")
    assert main(["score", "--run", str(run), "--data", data, "--out", str(out)]) == 0
    before, now = (rows_of(place / "assignments.csv") for place in (run, out))
    assert [row["cluster"] for row in now] == [row["cluster"] for row in before]
    assert [row["ll"] for row in now] == [row["ll"] for row in before]


def test_background_outside_the_mask_leaves_the_embedding_bit_identical(home, tmp_path):
    model = load_plant_model(Run.open(home / "claws"))
    folder, masks = tmp_path / "pair", tmp_path / "masks"
    folder.mkdir()
    masks.mkdir()
    rng = np.random.default_rng(0)
    pixels = draw_plant("clover", rng, size=16)  # the view's size: no pixel is mixed
    mask = np.zeros((16, 16), dtype=bool)
    mask[4:12, 4:12] = True
    other = np.where(mask[..., None], pixels, rng.integers(0, 255, pixels.shape, dtype=np.uint8))
    for name, image in (("a", pixels), ("b", other)):
        Image.fromarray(image).save(folder / f"{name}.png")
        Image.fromarray(mask).save(masks / f"{name}.png")
    from cl_agriculture.attention.maker import MaskMaker
    from cl_agriculture.hyper import MaskHyper

    plants = open_plants(str(folder))
    maker = MaskMaker.of_folder(masks, plants.table, MaskHyper())
    masked = plants.masked(maker, tmp_path / "store")
    object.__setattr__(model.card, "rule", maker.rule())  # the same weights, masks of files
    first, second = model.represent(masked)
    assert first.equal(second)


def test_a_model_trained_with_masks_refuses_images_without(home):
    model = load_plant_model(Run.open(home / "claws"))
    with pytest.raises(InputError, match="was trained on masked images, and these have no masks"):
        model.represent(open_plants(str(home / "images")))


def test_embed_writes_vectors_with_files_and_labels(home, tmp_path):
    import pyarrow.parquet

    out = tmp_path / "vectors"
    words = ["--run", str(home / "claws"), "--space", "unit", "--out", str(out)]
    assert main(["embed", *words]) == 0
    table = pyarrow.parquet.read_table(out / "embeddings.parquet")
    assert table.column_names[:3] == ["file", "label", "e0"]
    vectors = np.stack([table[f"e{k}"].to_numpy() for k in range(16)], axis=1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    words = ["--vectors", str(out / "embeddings.parquet"), "--out", str(tmp_path / "groups")]
    assert main(["cluster", *words, *MIXTURE, "--clusters", "3"]) == 0
    assert metrics_of(tmp_path / "groups")["clusters"] == 3
    assert "nmi" in metrics_of(tmp_path / "groups")


def test_groups_keep_their_numbers_when_aligned(home, tmp_path):
    run = home / "claws"
    words = ["--run", str(run), *MIXTURE, "--clusters", "3", "--seed", "5"]
    first, second = tmp_path / "a", tmp_path / "b"
    assert main(["cluster", *words, "--out", str(first)]) == 0
    names = np.array([7, 3, 11])
    card = json.loads((first / "model.json").read_text())
    (first / "model.json").write_text(json.dumps({**card, "names": names.tolist()}))
    words += ["--align_to", str(first), "--out", str(second)]
    assert main(["cluster", *words]) == 0
    assert sorted(json.loads((second / "model.json").read_text())["names"]) == [3, 7, 11]


def test_every_step_works_without_labels(images, tmp_path):
    flat, look, out = tmp_path / "flat", tmp_path / "look", tmp_path / "run"
    flat.mkdir()
    for path in images.glob("*/*.png"):
        shutil.move(path, flat / f"{path.parent.name}-{path.name}")
    (groups,) = (out / "cluster",)
    for words in (
        ["prepare", "--data", str(flat), "--out", str(look)],
        ["mask", "--data", str(look), "--out", str(tmp_path / "masks")],
        ["pretrain", "--data", str(look), "--masks", str(tmp_path / "masks"), "--out", str(out)],
        ["embed", "--run", str(out)],
        ["cluster", "--run", str(out), *MIXTURE, "--clusters", "2"],
        ["explore", "--run", str(groups)],
        ["score", "--run", str(groups), "--data", str(flat)],
    ):
        assert main([*words, *((*SMALL, *QUIET) if words[0] == "pretrain" else ())]) == 0, words
    assert metrics_of(look) | {"images": 32, "labels": 0, "unlabelled": 32} == metrics_of(look)
    assert "knn_accuracy" not in metrics_of(out)
    assert "silhouette" in metrics_of(groups)
    for run in (groups, groups / "score"):
        assert not {"nmi", "ami", "ari", "purity", "hungarian_accuracy"} & set(metrics_of(run))
        assert not {"label", "doubt", "majority"} & set(rows_of(run / "assignments.csv")[0])
        assert "weak label" not in (run / "report.html").read_text()
        assert not (run / "labels_to_check.csv").exists()
    assert not {"purity", "majority label"} & set(rows_of(groups / "clusters.csv")[0])


@pytest.mark.parametrize("mode", ["supervised", "class_pair", "within_class", "no_false_neg"])
def test_other_modes_train(home, tmp_path, mode):
    words = ["--data", str(home / "plants.csv"), "--mode", mode, "--out", str(tmp_path / mode)]
    assert main(["pretrain", *words, *SMALL, "--epochs", "1", *QUIET]) == 0
    card = json.loads((tmp_path / mode / "model.json").read_text())
    assert (card["attention"], "rule" in card) == (
        ("off", False) if mode == "supervised" else ("hard", True)
    )


def test_a_resumed_run_ends_as_if_it_never_had_been_stopped(home, tmp_path, monkeypatch):
    def stop(self):
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    words = ["pretrain", "--data", str(home / "plants.csv"), "--out", str(tmp_path), *SMALL, *QUIET]
    with monkeypatch.context() as patched:
        patched.setattr(CLAWS, "on_train_epoch_start", stop, raising=False)
        assert main(words) == 130
    assert not (tmp_path / "model.safetensors").exists()
    assert main([*words, "--resume"]) == 0
    ends = [(run / "model.safetensors").read_bytes() for run in (tmp_path, home / "claws")]
    assert ends[0] == ends[1]


def test_the_functions_are_the_commands(home, tmp_path):
    config = PretrainConfig(
        data=str(home / "images"),
        masks=lambda rgb: rgb[..., 1] > rgb[..., 0],
        out=tmp_path / "run",
        image_size=16,
        backbone="resnet-4-16",
        stem="imagenet",
        batch_size=10,
        epochs=1,
        trainer={"progress": False, "tensorboard": False},
    )
    assert "knn_accuracy" in pretrain(config).metrics
    with pytest.raises(InputError, match=r"trained with masks \(function\).*give the function"):
        cluster(ClusterConfig(run=tmp_path / "run", clusters=2))


def test_class_pairs_draw_another_image_of_the_label(home):
    plants = open_plants(str(home / "images"))
    pairs = ClassPairs(plants.dataset)
    labels = plants.table.labels
    drawn = {pairs.partner(3) for _ in range(200)}
    assert drawn == set(np.flatnonzero(labels == labels[3]).tolist()) - {3}
    alone = plants.select([0, 8, 16])
    assert ClassPairs(alone.dataset).partner(1) == 1


# what a user gets wrong


def test_prepare_tells_spellings_lone_labels_duplicates_and_broken_files(images, tmp_path, capsys):
    (images / "Clover ").mkdir()
    shutil.move(images / "clover" / "7.png", images / "Clover " / "7.png")
    (images / "oat").mkdir()
    shutil.copy(images / "grass" / "0.png", images / "oat" / "0.png")  # another label
    shutil.copy(images / "spurge" / "0.png", images / "spurge" / "copy.png")
    (images / "spurge" / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "look"
    words = ["prepare", "--data", str(images), "--out", str(out)]
    assert main([*words, "--test_share", "0.25"]) == 0
    told = capsys.readouterr().out
    assert "differ in spelling alone" in told
    assert "1 images cannot be read" in told
    assert "1 sets of such files have different labels: left without a label" in told
    metrics = metrics_of(out)
    assert (metrics["duplicates"], metrics["conflicts"], metrics["unreadable"]) == (2, 1, 1)
    assert metrics["unlabelled"] == 1
    manifest = rows_of(out / "manifest.csv")
    assert {row["split"] for row in manifest} == {"train", "test"}
    assert len(rows_of(out / "duplicates.csv")) == 4
    assert main([*words, "--spellings", "merge", "--overwrite"]) == 0
    assert "merged into 'clover'" in capsys.readouterr().out
    told = refused(capsys, *words, "--conflicts", "stop", "--overwrite")
    assert "have different labels, first grass/0.png and oat/0.png" in told
    told = refused(capsys, *words, "--on_error", "stop", "--overwrite")
    assert "broken.png" in told


def test_masks_of_another_size_or_missing_are_refused(images, tmp_path, capsys):
    masks = tmp_path / "masks"
    for path in images.glob("*/*.png"):
        (masks / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (32, 32), 255).save(masks / path.parent.name / path.name)
    words = ["mask", "--data", images, "--masks", masks, "--out", tmp_path / "run"]
    told = refused(capsys, *words)  # every mask is full
    assert "not one of 32 masks can be used (32 full); are they inverted" in told
    Image.new("L", (30, 32), 255).save(masks / "clover" / "0.png")
    assert "clover/0.png" in refused(capsys, *words)
    (masks / "clover" / "0.png").unlink()
    told = refused(capsys, *words)
    assert "1 of 32 images have no mask, first clover/0.png" in told
    assert "--mask.missing full" in told


def test_a_manifest_names_the_mask_of_each_image(images, tmp_path, capsys):
    data, rows = tmp_path / "plants.csv", []
    for path in sorted(images.glob("*/*.png")):
        mask = tmp_path / "by-hand" / f"{len(rows)}.png"  # not found by its name
        mask.parent.mkdir(exist_ok=True)
        Image.fromarray(np.eye(32, dtype=bool)).save(mask)
        rows.append([str(path.relative_to(tmp_path)), str(mask.relative_to(tmp_path))])
    write = lambda: data.write_text("image,mask\n" + "".join(f"{a},{b}\n" for a, b in rows))  # noqa: E731
    write()
    words = ["--data", str(data), "--out", str(tmp_path / "run")]
    assert main(["pretrain", *words, *SMALL, "--epochs", "1", *QUIET]) == 0
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["rule"]["source"] == "files"
    assert metrics_of(tmp_path / "run")["mask_fraction"] == pytest.approx(1 / 32)
    words = ["--run", str(tmp_path / "run"), *MIXTURE, "--clusters", "2"]
    assert main(["cluster", *words]) == 0
    capsys.readouterr()
    told = refused(capsys, "score", "--run", tmp_path / "run" / "cluster", "--data", images)
    assert "images without masks are another kind of input to it: give the folder" in told
    words = ["--data", str(data), "--masks", "excess_green", "--out", str(tmp_path / "green")]
    assert main(["mask", *words]) == 0
    assert metrics_of(tmp_path / "green")["mask_fraction"] > 1 / 32
    rows[3][1] = ""
    write()
    capsys.readouterr()
    told = refused(capsys, "mask", "--data", data, "--out", tmp_path / "gap")
    assert "1 of 32 images have no mask in column 'mask', first images/clover/3.png" in told
    rows[3][1] = "by-hand/nowhere.png"
    write()
    assert "nowhere.png" in refused(capsys, "mask", "--data", data, "--out", tmp_path / "gap")


def test_a_mask_that_is_not_turned_like_its_photograph_is_refused(images, tmp_path, capsys):
    masks = tmp_path / "masks"
    for path in sorted(images.glob("*/*.png")):
        (masks / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(32, dtype=bool)).save(masks / path.parent.name / path.name)
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph = images / "clover" / "0.png"
    Image.open(photograph).resize((32, 24)).save(photograph.with_suffix(".jpg"), exif=exif)
    photograph.unlink()
    Image.fromarray(np.eye(24, 32, dtype=bool)).save(masks / "clover" / "0.png")
    words = ["mask", "--data", images, "--masks", masks, "--out", tmp_path / "run"]
    told = refused(capsys, *words)
    assert "turned upright by its EXIF orientation" in told
    assert main([str(word) for word in (*words, "--mask.turn", "image")]) == 0


def test_pretrain_tells_spellings_and_lone_labels(images, tmp_path, capsys):
    for name in ("Clover ", "oat"):
        (images / name).mkdir()
        shutil.move(images / "clover" / f"{len(name)}.png", images / name)
    words = ["--data", str(images), "--out", str(tmp_path / "run"), *SMALL, "--epochs", "1"]
    assert main(["pretrain", *words, "--mode", "within_class", *QUIET]) == 0
    told = capsys.readouterr().out
    assert "'Clover' (1), 'clover' (6) differ in spelling alone: merge them by" in told
    assert "2 labels have a single image: 'Clover', 'oat'" in told


def test_an_empty_mask_is_counted_with_its_reason(images, tmp_path, capsys):
    masks = tmp_path / "masks"
    for number, path in enumerate(sorted(images.glob("*/*.png"))):
        (masks / path.parent.name).mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((32, 32), dtype=np.uint8)
        pixels[8:20, 8:20] = number > 0
        Image.fromarray(pixels).save(masks / path.parent.name / path.name)
    words = ["--data", str(images), "--masks", str(masks), "--out", str(tmp_path / "run")]
    assert main(["mask", *words]) == 0
    assert "whole image instead of its mask: 1 (1 empty)" in capsys.readouterr().out
    assert metrics_of(tmp_path / "run")["mask_fallback/empty"] == pytest.approx(1 / 32)


def test_grey_images_have_no_excess_green(images, tmp_path, capsys):
    for path in images.glob("*/*.png"):
        Image.open(path).convert("L").save(path)
    told = refused(capsys, "mask", "--data", images, "--out", tmp_path / "run")
    assert "not one of 32 masks can be used (32 constant)" in told
    assert "excess green needs colour" in told


def test_many_fallbacks_are_warned_of(images, tmp_path, capsys):
    for path in sorted(images.glob("*/*.png"))[:12]:
        Image.open(path).convert("L").save(path)
    assert main(["mask", "--data", str(images), "--out", str(tmp_path / "run")]) == 0
    assert "warning: 38% of the masks cannot be used" in capsys.readouterr().out


def test_deep_and_four_colour_images_are_masked_too(images, tmp_path):
    for path in sorted((images / "clover").glob("*.png"))[:2]:
        Image.open(path).convert("CMYK").save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    deep = np.full((32, 32), 30000, dtype=np.uint16)
    Image.fromarray(deep).save(images / "grass" / "0.png")
    assert main(["mask", "--data", str(images), "--out", str(tmp_path / "run")]) == 0
    rows = {row["file"]: row["reason"] for row in rows_of(tmp_path / "run" / "masks.csv")}
    assert rows["grass/0.png"] == "constant"
    assert rows["clover/0.jpg"] == ""


def test_masks_for_a_mode_without_are_refused(home, tmp_path, capsys):
    words = ["--data", home / "images", "--mode", "simclr", "--masks", home / "claws"]
    told = refused(capsys, "pretrain", *words, "--out", tmp_path / "run")
    assert "masks are not used by mode simclr" in told


def test_score_with_masks_of_other_settings_is_refused(home, tmp_path, capsys):
    words = ["--data", str(home / "images"), "--mask.variant", "raw", "--out"]
    assert main(["mask", *words, str(tmp_path / "raw")]) == 0
    capsys.readouterr()
    words = ["--run", home / "claws" / "cluster", "--data", home / "images"]
    told = refused(capsys, "score", *words, "--masks", tmp_path / "raw", "--out", tmp_path / "out")
    assert "variant is raw, the model's chromatic" in told


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--clusters", "50"), "--clusters 50: more groups than the 24 images"),
        (("--mixture.dimensions", "30"), "give at most 16"),
        (("--mixture.dimensions", "12"), "lower --mixture.dimensions, or give --clusters"),
        (("--mixture.counts", "[2, 40]"), "--mixture.counts 40: more groups than the 24"),
        (("--align_to", "nowhere"), "nowhere: not found"),
        (("--masks", "x", "--vectors", "x.npy"), "give --run or --vectors, one of them"),
    ],
)
def test_clusterings_that_cannot_be_are_refused(home, tmp_path, capsys, words, wanted):
    told = refused(capsys, "cluster", "--run", home / "claws", "--out", tmp_path / "out", *words)
    assert wanted in told


def test_vectors_that_are_not_finite_or_none_are_refused(home, tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    x[7, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    words = ["cluster", "--vectors", tmp_path / "x.npy", "--out", tmp_path / "out"]
    assert "1 of 40 vectors hold values that are not finite, first in row 8" in refused(
        capsys, *words
    )
    np.save(tmp_path / "x.npy", x[:, 0])
    assert "need numbers of shape (rows, columns)" in refused(capsys, *words)
    words = ["score", "--run", home / "claws" / "cluster", "--vectors", tmp_path / "x.npy"]
    assert "is a clustering of images: give --data" in refused(capsys, *words)


def test_fewer_rows_than_numbers_are_reduced_or_refused(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(30, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    words = ["cluster", "--vectors", tmp_path / "x.npy", "--out", tmp_path / "out"]
    assert main([str(word) for word in (*words, "--mixture.starts", 1)]) == 0
    assert (
        "3 principal components instead of 16: 30 images carry no more" in capsys.readouterr().out
    )
    told = refused(capsys, *words, "--overwrite", "--mixture.dimensions", 40)
    assert "30 images of 64 numbers give at most 29" in told
    np.save(tmp_path / "x.npy", x[:8])
    told = refused(capsys, *words, "--overwrite")
    assert "8 images are too few to choose a number of groups in 1 dimensions" in told


def test_runs_of_another_kind_are_refused(home, tmp_path, capsys):
    claws, groups = home / "claws", home / "claws" / "cluster"
    told = refused(capsys, "cluster", "--run", groups, "--out", tmp_path / "out")
    assert "'plant clusters', not a 'plant encoder' of cl-agriculture pretrain" in told
    told = refused(capsys, "score", "--run", claws, "--data", home / "images")
    assert "not a 'plant clusters'" in told
    assert "holds no assignments" in refused(capsys, "explore", "--run", claws)


def test_a_damaged_card_or_mixture_is_refused(home, tmp_path, capsys):
    copy = Path(shutil.copytree(home / "claws" / "cluster", tmp_path / "copy"))
    card = json.loads((copy / "model.json").read_text())
    words = ["score", "--run", copy, "--data", home / "images", "--out", tmp_path / "out"]
    for change in ({"components": 10**9}, {"names": [0, 0]}, {"encoder": {"mode": "claws"}}):
        (copy / "model.json").write_text(json.dumps({**card, **change}))
        refused(capsys, *words)


def test_a_bad_date_is_named(home, tmp_path, capsys):
    data = tmp_path / "plants.csv"
    text = (home / "plants.csv").read_text().replace("2024-05-01", "1.5.24", 1)
    data.write_text(text)
    words = ["--run", home / "claws", "--data", data, "--root", home]
    told = refused(
        capsys, "cluster", *words, *MIXTURE, "--clusters", "2", "--out", tmp_path / "out"
    )
    assert "'1.5.24'; write dates as 2024-05-31" in told


def test_too_few_images_for_a_batch_are_refused(home, tmp_path, capsys):
    words = ["--data", home / "images", "--out", tmp_path / "run", *SMALL, "--batch_size", "99"]
    assert "batch_size 99 is larger than the 32 images" in refused(capsys, "pretrain", *words)


def test_recipes_fit_their_commands():
    for path in (
        Path(__file__).parents[2].glob("packages/agriculture/src/cl_agriculture/recipes/*.yaml")
    ):
        verb = yaml.safe_load(path.read_text())["verb"]
        if verb == "pretrain":
            PretrainConfig.from_recipe(path.stem, data="x", out="y")
        else:
            ClusterConfig.from_recipe(path.stem, run="x")
