"""The commands on patches of volumes: thin, anisotropic, turned, and extended by a domain."""

import json

import nibabel as nib
import numpy as np
import pytest
from volume_files import domain, manifest, volume

from cl_medical.cli import main

DEEP = [
    "--network.filters", "[4,8,16]", "--volumes.dims", "3", "--volumes.patch", "[4,16,16]",
    "--batch_size", "4", "--steps", "2", "--epochs", "2", "--trainer.accelerator", "cpu",
    "--trainer.tensorboard", "false", "--trainer.progress", "false",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deep")
    knee = domain(folder, "knee", axes="RAS", raw=(1, 2), classes=("femur", "tibia"), bright=100)
    hand = domain(folder, "hand", axes="LPS", raw=(7,), classes=("bone",), bright=4e5)
    hip = domain(folder, "hip", axes="RPS", raw=(3,), classes=("femur",), bright=9)
    data, new = manifest(folder, knee=knee, hand=hand), manifest(folder, "new.yaml", hip=hip)
    words = ["--data", str(data), "--out", str(folder / "run"), "--mode", "domain_norm"]
    assert main(["segment", "train", *words, *DEEP]) == 0
    return {"folder": folder, "run": folder / "run", "data": data, "new": new}


def test_a_coarse_axis_is_pooled_last_and_the_model_says_so(made):
    plan = json.loads((made["run"] / "model.json").read_text())["plan"]
    assert plan["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]  # slices 3 mm, pixels 1 mm


def test_extending_a_network_of_volumes_leaves_old_masks_and_probabilities_bit_identical(made):
    folder, out = made["folder"], made["folder"] / "extended"
    words = ["--run", made["run"], "--data", made["new"], "--out", out, "--batch_size", 2]
    steps = ["--steps", 2, "--epochs", 1, *DEEP[-6:]]
    assert main(["segment", "extend", *map(str, [*words, *steps])]) == 0
    for run, name in ((made["run"], "before"), (out, "after")):
        options = ["--data", folder / "hand", "--domain", "hand", "--out", folder / name]
        words = ["--run", run, *options, "--probabilities"]
        assert main(["segment", "predict", *map(str, words)]) == 0
    written = sorted((folder / "before").rglob("*.nii.gz"))
    assert len(written) == 16  # images and masks of four cases are volumes alike
    for file in written:
        twin = folder / "after" / file.relative_to(folder / "before")
        first, second = (
            np.asanyarray(nib.load(one).dataobj.get_unscaled()) for one in (file, twin)
        )
        assert np.array_equal(first, second)


def test_volumes_thinner_than_the_patch_are_segmented(made, tmp_path):
    rng = np.random.default_rng(0)
    for depth in (1, 3):
        volume(tmp_path / f"{depth}.nii", rng.normal(100, 5, (depth, 9, 21)).astype(np.float32))
    words = ["--run", made["run"], "--data", tmp_path, "--domain", "knee", "--out", tmp_path / "o"]
    assert main(["segment", "predict", *map(str, words)]) == 0
    for depth in (1, 3):
        assert nib.load(tmp_path / "o" / "masks" / f"{depth}.nii.gz").shape == (depth, 9, 21)
